"""Containers and images that are not as they must be: each stops itself alone, and says what to type."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from harness import Playground, playground

from vcrecon.sim.images import Offered
from vcrecon.sim.shell import run_script
from vcrecon.sim.streams import BytesReader, BytesWriter

GUESTS_OF = {"c01": ("a-head", "b-n2"), "c02": ("b-head", "a-n2"), "c03": ("a-n1", "b-n1")}
FOREIGN_DOMAIN = """<domain type='kvm'><name>a-n2</name><uuid>11111111-2222-4333-8444-555555555555</uuid>{title}
<memory unit='MiB'>64</memory><vcpu>1</vcpu><os><type arch='x86_64'>hvm</type></os></domain>"""
FOREIGN_XEN = 'name = "a-n1"\nuuid = "11111111-2222-4333-8444-555555555555"\nmemory = 64\n'


async def on(play: Playground, container: str, script: str, stdin: str = "") -> str:
    """What an administrator types on a container; it must succeed."""
    host = play.site.hosts[container]
    output, errors = BytesWriter(), BytesWriter()
    status = await run_script(host.machine, script, BytesReader(stdin.encode()), output, errors, host.programs)
    assert status == 0, errors.data
    return output.data.decode()


async def told(play: Playground, name: str, reason: str, *words: str) -> None:
    """The object is blocked for this reason, and status, events and the metric say so, with these words."""
    await play.blocked(name, reason)
    subject = name if "/" in name else f"guest/{name}"
    block = play.controller.ledger.block(subject)
    assert block is not None
    for word in words:
        assert word in block.message, block.message
    assert f'vcrecon_blocked{{object="{subject}",reason="{reason}"}} 1.0' in play.metrics.render().decode()
    events = play.events(subject)
    assert [e for e in events if e["reason"] == reason or e.get("data", {}).get("error") == reason], events
    kind, _, short = subject.partition("/")
    if kind in ("guest", "container"):
        (item,) = [i for i in play.controls.status()[f"{kind}s"] if i["name"] == short]
        assert reason in str(item["blocked"])


async def all_run_but(play: Playground, *broken: str) -> None:
    """The guests of the other containers are brought up."""
    for container, guests in GUESTS_OF.items():
        for guest in guests:
            if container not in broken and guest not in broken:
                await play.runs_on(guest, container)


@pytest.mark.parametrize(
    ("container", "package", "reason", "words"),
    [
        ("c02", "lvm2", "no-lvm", ("c02 has no lvm: `apt-get install lvm2",)),
        ("c02", "libvirt-clients", "no-hypervisor", ("c02 has no virsh", "'hypervisor' in containers.yaml")),
        ("c03", "xen-utils-common", "no-hypervisor", ("c03 has no xl", "'hypervisor' in containers.yaml")),
        ("c02", "nftables", "no-nftables", ("c02 has no nft: `apt-get install nftables`",)),
        ("c02", "iproute2", "missing-program", ("c02 has no ip: `apt-get install iproute2`",)),
    ],
)
async def test_a_container_without_a_package_is_told_which_to_install(
    tmp_path: Path, container: str, package: str, reason: str, words: tuple[str, ...]
) -> None:
    async with playground(tmp_path, converge=False) as play:
        await play.site.remove_package(container, package)
        await told(play, f"container/{container}", reason, *words)
        await all_run_but(play, container)
        await play.site.install_package(container, package)
        await play.converged()


async def test_a_container_whose_kernel_knows_no_vlans_is_told_which_module(tmp_path: Path) -> None:
    async with playground(tmp_path, converge=False) as play:
        await play.site.forget_device_type("c02", "vlan")
        await told(play, "container/c02", "no-vlan", "Unknown device type", "modprobe -a 8021q bridge")
        await all_run_but(play, "c02")
        await play.site.learn_device_type("c02", "vlan")
        await play.converged()


async def test_a_container_without_its_trunk_is_told_where_to_name_it(tmp_path: Path) -> None:
    async with playground(tmp_path, converge=False) as play:
        await play.site.remove_trunk("c02")
        await told(play, "container/c02", "no-trunk", "has no network interface", "'trunk' in containers.yaml")
        await all_run_but(play, "c02")


@pytest.mark.parametrize("title", ["", "<title>vcrecon site=elsewhere def=0123</title>", "<title>mine</title>"])
async def test_a_machine_of_the_same_name_that_is_not_ours_is_left_alone(tmp_path: Path, title: str) -> None:
    async with playground(tmp_path, converge=False) as play:
        domain = FOREIGN_DOMAIN.format(title=title)
        await on(play, "c02", "virsh -q define /dev/stdin && virsh -q start a-n2", domain)
        before = await on(play, "c02", "virsh dumpxml a-n2")
        await told(play, "a-n2", "name-taken", "c02 has a virtual machine a-n2", "virsh domrename a-n2 NEW-NAME")
        await all_run_but(play, "a-n2")
        assert await on(play, "c02", "virsh dumpxml a-n2") == before
        assert ("c02", "vcg-a-n2") not in play.volumes("a-n2"), "nothing was made for it"
        await on(play, "c02", "virsh -q destroy a-n2; virsh -q undefine a-n2")
        await play.converged()


async def test_a_xen_guest_of_the_same_name_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    async with playground(tmp_path, converge=False) as play:
        await on(play, "c03", "cat > /root/a-n1.cfg; xl create /root/a-n1.cfg", FOREIGN_XEN)
        await told(play, "a-n1", "name-taken", "c03 has a virtual machine a-n1", "xl rename a-n1 NEW-NAME")
        await all_run_but(play, "a-n1")
        assert "a-n1" in await on(play, "c03", "xl list")
        await on(play, "c03", "xl destroy a-n1")
        await play.converged()


async def test_a_guest_does_not_leave_for_a_container_where_its_name_is_taken(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await on(play, "c01", "virsh -q define /dev/stdin", FOREIGN_DOMAIN.format(title=""))
        await play.relisted("c01")
        play.files.move("a-n2", "c01")
        play.reload()
        await play.until(
            lambda: any(
                p["reason"] == "destination-not-ready" and "domrename" in p["message"] for p in play.controls.plans()
            ),
            "c02 keeps it, and says why",
        )
        await play.relisted("c02", times=2)
        assert play.hosts_of("a-n2") == ["c02"]
        assert play.boots("a-n2") == 1


@pytest.mark.parametrize("tag", ["", "--addtag vcrecon --addtag vc.site=elsewhere --addtag vc.guest=a-n2"])
async def test_a_volume_of_our_name_without_our_tag_is_left_alone(tmp_path: Path, tag: str) -> None:
    async with playground(tmp_path, converge=False) as play:
        group = play.controller.spec.containers["c02"].volume_group
        await on(play, "c02", f"lvcreate -y -L 64M -n vcg-a-n2 {tag} {group}")
        await told(play, "a-n2", "volume-taken", f"{group}/vcg-a-n2", f"lvrename {group} vcg-a-n2 NEW-NAME")
        await all_run_but(play, "a-n2")
        assert "64.00m" in await on(play, "c02", f"lvs {group}/vcg-a-n2")
        await on(play, "c02", f"lvrename {group} vcg-a-n2 theirs")
        await play.converged()


async def test_a_golden_volume_of_another_site_is_left_alone(tmp_path: Path) -> None:
    async with playground(tmp_path, converge=False) as play:
        spec = play.controller.spec
        group, golden = spec.containers["c02"].volume_group, f"vcimg-{spec.images['debian-12'].root.sha256[:16]}"
        await on(play, "c02", f"lvcreate -y -L 64M -n {golden} --addtag vcrecon --addtag vc.site=elsewhere {group}")
        await told(play, "image/c02/debian-12", "volume-taken", f"lvrename {group} {golden} NEW-NAME")
        await all_run_but(play, "c02")
        assert "64.00m" in await on(play, "c02", f"lvs {group}/{golden}")


async def test_a_full_root_stops_the_download_and_says_so_of_the_guests_that_wait(tmp_path: Path) -> None:
    async with playground(tmp_path, converge=False) as play:
        await play.site.fill_root("c02")
        await told(play, "image/c02/debian-12", "no-space", "df -h /var/lib/vcrecon", "curl: (23)")
        await told(play, "a-n2", "no-space", "waiting for image debian-12 on c02", "df -h /var/lib/vcrecon")
        await all_run_but(play, "c02")
        assert play.controller.world.current["c02"].network.bridges, "its network is ready"  # type: ignore[union-attr]
        await play.site.fill_root("c02", full=False)
        await play.converged()


def a_tar(*paths: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in paths:
            info = tarfile.TarInfo(path)
            info.type = tarfile.REGTYPE if path[-1] != "/" else tarfile.DIRTYPE
            archive.addfile(info)
    return buffer.getvalue()


async def serve_instead(play: Playground, data: bytes) -> None:
    """The site's image is these bytes from now on, and images.yaml has their digest."""
    with play.files.editing("images") as document:
        image = document["images"]["debian-12"]
        path = "/" + image["root"]["url"].split("/", 3)[3]
        play.site.images.files[path] = Offered(data)
        image["root"]["sha256"] = hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        (b"this is no archive\n" * 400, "image-not-a-tree", "is no tar archive"),
        (a_tar("rootfs/", "rootfs/etc/", "rootfs/sbin/init"), "image-not-a-tree", "neither etc nor usr at its top"),
        (a_tar("etc/", "etc/passwd", "usr/", "sbin/"), "image-no-init", "has no init"),
    ],
)
async def test_an_image_that_no_guest_can_boot_from_is_never_called_complete(
    tmp_path: Path, data: bytes, reason: str, words: str
) -> None:
    async with playground(tmp_path, converge=False) as play:
        await play.stop()
        kept = (play.files.directory / "images.yaml").read_text()
        offered = dict(play.site.images.files)
        await serve_instead(play, data)
        play.start()
        await told(play, "image/c02/debian-12", reason, "image debian-12 (http://", words, "images.yaml")
        await told(play, "a-n2", reason, "waiting for image debian-12 on c02", words)
        assert not [v for h in play.site.hosts.values() for v in h.machine.all_volumes() if v.name.startswith("vcg-")]
        (play.files.directory / "images.yaml").write_text(kept)
        play.site.images.files.update(offered)
        play.reload()
        await play.converged()


async def test_an_image_that_fails_its_digest_names_the_file_and_what_to_compare(tmp_path: Path) -> None:
    async with playground(tmp_path, converge=False) as play:
        await play.site.corrupt_image("debian-12")
        await told(play, "image/c02/debian-12", "corrupt", "image debian-12: http://", "compare with `sha256sum`")
        await told(play, "a-n2", "corrupt", "waiting for image debian-12 on c02")
        await play.site.corrupt_image("debian-12", on=False)
        await play.converged()
