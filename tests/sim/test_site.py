"""A simulated site: the copy of the specs that leads to it, its ways to break, its truth and its audit."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from vcrecon.errors import Refused
from vcrecon.sim.control import ControlServer, SiteClient
from vcrecon.sim.site import Site
from vcrecon.sim.timing import Timing
from vcrecon.spec.load import load

SPECS = Path(__file__).parents[2] / "specs" / "small"
VG = "vg0"
DOMAIN = """<domain type='kvm'><name>{guest}</name><uuid>00000000-0000-4000-8000-0000000000{n:02d}</uuid>
<memory unit='MiB'>256</memory><vcpu>1</vcpu><os><type>hvm</type></os><devices>
<disk type='block' device='disk'><source dev='/dev/vg0/{guest}'/><target dev='vda'/></disk>
<interface type='bridge'><mac address='52:54:00:00:00:{n:02d}'/><source bridge='br101'/></interface>
</devices></domain>"""


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site(load(SPECS, require_placement=False).spec, timing=Timing.instant()) as site:
        yield site


async def run(site: Site, host: str, script: str, stdin: str = "", *, status: int = 0) -> str:
    """Run a script over SSH as the site's own client would, and check how it ends."""
    server = site.hosts[host].server
    async with asyncssh.connect(
        "127.0.0.1",
        server.port,
        username="root",
        client_keys=[site.client_key],
        known_hosts=asyncssh.import_known_hosts(server.known_host()),
        config=None,
    ) as connection:
        answer = await connection.run(script, input=stdin)
    assert answer.exit_status == status, answer.stderr
    return str(answer.stdout)


async def start_guest(site: Site, host: str, guest: str = "a-head", n: int = 1) -> None:
    """What it takes to have a guest on a host, in stock commands."""
    pool = site.spec.containers[host].pool
    trunk = site.spec.containers[host].trunk
    await run(
        site,
        host,
        f"set -eu\nip link add name br101 type bridge\nip link set dev br101 up\n"
        f"ip link add link {trunk} name {trunk}.101 type vlan id 101\n"
        f"ip link set dev {trunk}.101 master br101\n"
        f"lvcreate -y --thin -V 400m -n {guest} --addtag vc.guest={guest} --addtag vc.epoch=1 {VG}/{pool}\n"
        f"mkfs.xfs -q /dev/{VG}/{guest}\n"
        f"cat >/root/domain.xml\nvirsh define /root/domain.xml\nvirsh start {guest}\n",
        DOMAIN.format(guest=guest, n=n),
    )


async def test_the_bound_specs_load_and_lead_to_the_hosts(site: Site, tmp_path: Path) -> None:
    site.materialize(SPECS, tmp_path / "bound")
    bound = load(tmp_path / "bound", require_placement=False).spec
    assert bound.guests == {
        name: guest for name, guest in bound.guests.items() if guest.interfaces == site.spec.guests[name].interfaces
    }
    assert (bound.site.ssh.key.stat().st_mode & 0o777) == 0o600
    for name, container in bound.containers.items():
        assert container.hypervisor == site.spec.containers[name].hypervisor
        assert container.memory_bytes == site.spec.containers[name].memory_bytes
        async with asyncssh.connect(
            container.address,
            container.port,
            username=bound.site.ssh.user,
            client_keys=[str(bound.site.ssh.key)],
            known_hosts=str(bound.site.ssh.known_hosts),
            config=None,
        ) as connection:
            answer = await connection.run("hostname && cat /etc/vcrecon/release")
        assert answer.stdout == f"{name}\ngeneration={container.generation}\nhypervisor={container.hypervisor}\n"


async def test_binding_keeps_the_comments_of_the_specs(site: Site, tmp_path: Path) -> None:
    site.materialize(SPECS, tmp_path)
    assert "# The guest images." in (tmp_path / "images.yaml").read_text()
    assert "# The containers" in (tmp_path / "containers.yaml").read_text()


async def test_an_image_arrives_whole_on_a_host_and_unpacks(site: Site, tmp_path: Path) -> None:
    site.materialize(SPECS, tmp_path)
    root = load(tmp_path, require_placement=False).spec.images["debian-12"].root
    script = (
        f"set -eu; mkdir -p /var/tmp/x; curl -fsS -o /var/tmp/i {root.url}; echo '{root.sha256}  /var/tmp/i' "
        "| sha256sum -c --quiet; tar -x --zstd -f /var/tmp/i -C /var/tmp/x; cat /var/tmp/x/etc/hostname"
    )
    assert await run(site, "c01", script) == "localhost\n"


@pytest.mark.parametrize(("fault", "status"), [("corrupt_image", 1), ("truncate_image", 18)])
async def test_a_broken_image_is_noticed(site: Site, tmp_path: Path, fault: str, status: int) -> None:
    site.materialize(SPECS, tmp_path)
    root = load(tmp_path, require_placement=False).spec.images["debian-12"].root
    await getattr(site, fault)("debian-12")
    check = f"echo '{root.sha256}  /var/tmp/i' | sha256sum -c --status"
    script = f"curl -fsS -o /var/tmp/i {root.url} || exit $?; {check}"
    await run(site, "c01", script, status=status)


async def test_images_are_the_same_at_every_site(site: Site) -> None:
    async with Site(site.spec, timing=Timing.instant()) as other:
        digests = {path: hashlib.sha256(offered.data).hexdigest() for path, offered in site.images.files.items()}
        assert digests == {path: offered.sha256 for path, offered in other.images.files.items()}


async def test_the_world_shows_a_running_guest_and_its_death(site: Site) -> None:
    await start_guest(site, "c01")
    world = await site.world()
    assert world["guests"]["a-head"] == {"hosts": ["c01"], "boots": 1, "disks": ["c01:vg0/a-head"]}
    assert world["hosts"]["c01"]["bridges"] == ["br101"]
    await site.kill_guest("a-head")
    assert (await site.world())["running"] == 0
    assert "crashed" in await run(site, "c01", "virsh domstate --reason a-head")


async def test_two_live_copies_are_a_violation_even_on_a_cut_host(site: Site) -> None:
    await start_guest(site, "c01")
    await site.cut("c01")
    assert (await site.audit())["violations"] == []
    await start_guest(site, "c02")
    assert [entry["kind"] for entry in (await site.audit())["violations"]] == ["two live copies"]


@pytest.mark.parametrize("command", ["lvremove -y vg0/a-head", "mkfs.xfs -q -f /dev/vg0/a-head"])
async def test_losing_a_booted_disk_is_a_violation_unless_there_is_consent(site: Site, command: str) -> None:
    await start_guest(site, "c01")
    await run(site, "c01", f"virsh destroy a-head && {command}")
    assert [entry["guest"] for entry in (await site.audit())["violations"]] == ["a-head"]
    await start_guest(site, "c02", n=2)
    await site.consent("a-head")
    await run(site, "c02", f"virsh destroy a-head && {command}")
    assert len((await site.audit())["violations"]) == 1


async def test_a_new_context_on_a_booted_disk_is_allowed_but_a_whole_image_is_not(site: Site, tmp_path: Path) -> None:
    site.materialize(SPECS, tmp_path)
    url = load(tmp_path, require_placement=False).spec.images["debian-12"].root.url
    await start_guest(site, "c01")
    await run(site, "c01", "virsh destroy a-head && mount /dev/vg0/a-head /mnt && mkdir -p /mnt/etc")
    await run(site, "c01", "cd /mnt && echo a-head >etc/hostname && tar -c -f /root/t etc && tar -x -f /root/t")
    assert (await site.audit())["violations"] == []
    await run(site, "c01", f"curl -fsS -o /root/i {url} && tar -x --zstd -C /mnt -f /root/i")
    assert [entry["kind"] for entry in (await site.audit())["violations"]] == ["write of a booted volume"]


async def test_a_students_file_survives_a_crash_and_can_be_read_back(site: Site) -> None:
    await start_guest(site, "c01")
    await site.write_guest_file("a-head", "/home/student/thesis", "precious")
    await site.kill_guest("a-head")
    assert await site.read_guest_file("a-head", "/home/student/thesis") == "precious"
    assert (await site.audit())["violations"] == []


async def test_network_and_rules_can_be_destroyed(site: Site) -> None:
    await start_guest(site, "c01")
    await run(site, "c01", "nft -f -", "table inet x { }\n")
    await site.delete_vlan("c01", 101)
    await site.wipe_bridge("c01", 101)
    await site.flush_rules("c01")
    assert (await site.world())["hosts"]["c01"]["bridges"] == []
    assert await run(site, "c01", "nft list ruleset") == ""


async def test_volumes_tags_and_groups_can_be_destroyed(site: Site) -> None:
    await start_guest(site, "c01")
    await site.remove_tag("c01", "a-head", "vc.epoch")
    assert (await site.world())["hosts"]["c01"]["volumes"]["vg0/a-head"]["tags"] == ["vc.guest=a-head"]
    await site.remove_volume("c01", "a-head")
    assert "vg0/a-head" not in (await site.world())["hosts"]["c01"]["volumes"]
    await site.remove_volume_group("c01")
    assert await run(site, "c01", "vgs --noheadings") == ""


async def test_a_full_pool_refuses_new_data(site: Site) -> None:
    await start_guest(site, "c01")
    await site.fill_pool("c01", 100.0)
    await run(site, "c01", "virsh destroy a-head && mount /dev/vg0/a-head /mnt")
    await run(site, "c01", "seq 2000000 >/mnt/x", status=1)


async def test_a_command_fails_as_often_as_it_was_told_to(site: Site) -> None:
    await site.fail_command("c01", "^lvs", times=2, status=5, stderr="simulated")
    assert await run(site, "c01", "for i in 1 2 3; do lvs >/dev/null 2>&1; echo $?; done") == "5\n5\n0\n"


async def test_a_hanging_command_hangs_until_the_power_goes(site: Site) -> None:
    await site.hang_command("c01", "^lvs")
    hanging = asyncio.ensure_future(run(site, "c01", "lvs"))
    done, _ = await asyncio.wait([hanging], timeout=0.2)
    assert not done
    await site.power_off("c01")
    with pytest.raises((asyncssh.Error, OSError, AssertionError)):
        await asyncio.wait_for(hanging, 10)


async def test_a_rebooted_host_has_lost_guests_and_run_but_not_its_disks(site: Site) -> None:
    await start_guest(site, "c01")
    await run(site, "c01", ": >/run/gone; : >/etc/kept")
    await site.reboot("c01")
    assert await run(site, "c01", "ls /run/gone 2>/dev/null; ls /etc/kept; lvs --noheadings -o lv_name vg0") != ""
    world = await site.world()
    assert world["guests"]["a-head"]["hosts"] == []
    assert "vg0/a-head" in world["hosts"]["c01"]["volumes"]


async def test_the_reboot_command_brings_the_host_back_by_itself(site: Site) -> None:
    before = (await site.world())["hosts"]["c01"]["boot_id"]
    with pytest.raises((asyncssh.Error, OSError, AssertionError)):
        await run(site, "c01", "reboot; sleep 1000")
    while site.hosts["c01"].machine.boot_id == before or not site.hosts["c01"].machine.up:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await site.power_on("c01")
    assert (await run(site, "c01", "cat /proc/sys/kernel/random/boot_id")).strip() != before


async def test_commands_are_logged_without_what_went_to_their_input(site: Site) -> None:
    await run(site, "c01", "cat >/dev/null; hostname", "a secret")
    commands = await site.commands("c01")
    assert commands["log"] == ["cat", "hostname"]
    assert commands["counts"] == {"cat": 1, "hostname": 1}


async def test_an_unknown_name_is_answered_with_those_there_are(site: Site) -> None:
    with pytest.raises(LookupError, match="no host 'c99'; there are c01"):
        await site.cut("c99")


async def test_the_socket_offers_the_same_calls(site: Site, tmp_path: Path) -> None:
    server = ControlServer(site, tmp_path / "s")
    await server.start()
    try:
        async with SiteClient(tmp_path / "s") as client:
            await client.cut("c01")
            assert (await client.world())["hosts"]["c01"]["state"] == "cut"
            await client.call("mend", host="c01")
            assert (await client.audit())["violations"] == []
            with pytest.raises(Refused, match="runs on no host"):
                await client.kill_guest("a-head")
    finally:
        await server.close()


async def test_a_client_without_a_site_says_so(tmp_path: Path) -> None:
    async with SiteClient(tmp_path / "nothing") as client:
        with pytest.raises(Refused, match="no simulated site answers"):
            await client.world()
