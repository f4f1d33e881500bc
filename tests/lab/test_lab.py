"""The story of a class on real Debian hosts: two clusters and a teacher, KVM and Xen, as root and from inside.

Everything here is proved from inside a guest, from the outside, or by the host's own tools; never by what the
controller says. The tests share one lab, and each leaves it converged.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab_site import LabSite, address

from vcrecon.host.context import host_key
from vcrecon.lab import layout
from vcrecon.lab.network import inside
from vcrecon.spec.model import Guest

# The first test waits for the whole lab, which is emulated where /dev/kvm does not run it.
pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.lab, pytest.mark.timeout(3600)]

MIRROR = "10.255.0.1"


def reached(site: LabSite, name: str, *places: tuple[str, int], prepare: str = "true") -> set[tuple[str, int]]:
    """Those of the (address, TCP port) pairs that answer when asked from `name`, all at once."""
    tries = [
        f"(timeout 8 bash -c '</dev/tcp/{host}/{port}' 2>/dev/null && echo {host} {port}) &" for host, port in places
    ]
    said = site.on(name, "\n".join([prepare, *tries, "wait"]))
    return {(host, int(port)) for host, port in (line.split() for line in said.splitlines())}


@contextmanager
def captured(bridge: str, *expression: str) -> Iterator[list[str]]:
    """The frames on one of the lab's bridges that match, one a line; complete when the block has ended."""
    command = inside(layout.NAMESPACE, ["tcpdump", "-n", "-e", "-l", "-i", bridge, *expression])
    frames: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tcpdump:
        assert tcpdump.stderr
        assert tcpdump.stdout
        # It captures once it has said so.
        for line in tcpdump.stderr:
            if "listening on" in line:
                break
        yield frames
        tcpdump.terminate()
        frames += [line for line in tcpdump.stdout.read().splitlines() if line]


def guests(site: LabSite, *, hypervisor: str | None = None) -> list[Guest]:
    spec = site.spec
    return [
        guest
        for name, guest in spec.guests.items()
        if hypervisor in (None, spec.containers[spec.placement[name]].hypervisor)
    ]


def test_a_lab_that_was_cut_off_half_way_is_cleared_away(
    after_a_crash: tuple[dict[str, list[str]], dict[str, list[str]]],
) -> None:
    before, after = after_a_crash
    assert after == before, "no process, namespace, link or loop device is left"


# --- what a guest is made of ---------------------------------------------------------------------------------


def test_thin_guests_are_snapshots_of_one_golden_volume_and_a_thick_one_stands_alone(site: LabSite) -> None:
    spec = site.spec
    for container in {spec.containers[site.container_of(name)] for name in spec.guests}:
        fields = "lv_name,origin,pool_lv,lv_tags,lv_size"
        report = json.loads(site.on(container.name, f"lvs --reportformat json --units b --nosuffix -o {fields}"))
        volumes = {row["lv_name"]: row for row in report["report"][0]["lv"]}
        goldens = [row for row in volumes.values() if "vc.golden=" in row["lv_tags"]]
        assert len(goldens) == 1, "one golden volume per image and container"
        for name in spec.deployment[container.name]:
            guest, volume = spec.guests[name], volumes[f"vcg-{name}"]
            assert f"vc.guest={name}" in volume["lv_tags"].split(",")
            assert f"vc.image={spec.images[guest.image].root.sha256}" in volume["lv_tags"].split(",")
            assert int(volume["lv_size"]) >= guest.disk_bytes
            if guest.storage == "thick":
                assert (volume["pool_lv"], volume["origin"]) == ("", "")
            else:
                assert (volume["pool_lv"], volume["origin"]) == (container.pool, goldens[0]["lv_name"])
            kind = site.on(container.name, f"blkid -p -s TYPE -o value /dev/{container.volume_group}/vcg-{name}")
            assert kind.strip() == "xfs"


def test_a_hook_finished_every_clusters_disks(site: LabSite) -> None:
    spec = site.spec
    said = site.everywhere(list(spec.guests), "cat /etc/machines 2>/dev/null || echo none")
    for name, guest in spec.guests.items():
        assert said[name].split() == (list(spec.clusters[guest.cluster].guests) if guest.cluster else ["none"])


def test_every_guest_is_who_the_spec_says(site: LabSite) -> None:
    spec = site.spec
    secret = (Path("/var/lib/vcrecon") / spec.site.name / "site.key").read_bytes()
    script = "hostname; cat /etc/ssh/ssh_host_ed25519_key.pub /root/.ssh/authorized_keys; grep ^root: /etc/shadow"
    said = site.everywhere(list(spec.guests), f"{script}; ip -br -4 addr; echo HOSTS; cat /etc/hosts")
    password = next(iter(spec.guests.values())).root_password.read_text().strip()
    for name, guest in spec.guests.items():
        facts, _, hosts = said[name].partition("HOSTS\n")
        assert facts.startswith(f"{name}\n")
        assert host_key(secret, name)[1].decode().split()[1] in facts, "the chosen SSH host key"
        assert guest.authorized_keys[0].split()[1] in facts
        assert f"root:{password}:" in facts
        for interface in guest.interfaces:
            assert interface.address is None or f" {interface.address}" in facts
        named = {word for line in hosts.splitlines() for word in line.split()[1:]}
        members = set(spec.clusters[guest.cluster].guests) if guest.cluster else set(spec.guests)
        assert named & set(spec.guests) == members, "exactly the cluster's nodes; the teacher's has all"


def test_a_disk_that_does_not_fit_is_refused_before_anything_is_written(site: LabSite) -> None:
    before = site.on("c01", "lvs --noheadings -o lv_name,lv_tags")

    def add(document: dict[str, list[dict[str, object]]]) -> None:
        # By the container's figures it fits; the thin pool has the space that it needs.
        giant = {"name": "giant", "template": "small", "disk": "6GiB", "storage": "thick"}
        document["guests"].append({**giant, "interfaces": [{"network": "outside", "address": "10.200.0.40"}]})

    site.edit("clusters.yaml", add)
    site.edit("deployment.yaml", lambda document: document["deployment"]["c01"].append("giant"))
    found = site.until("giant is refused", lambda s: any(g["name"] == "giant" and g["blocked"] for g in s["guests"]))
    block = next(guest for guest in found["guests"] if guest["name"] == "giant")["blocked"][0]
    assert block["reason"] == "pool-full"
    assert site.on("c01", "lvs --noheadings -o lv_name,lv_tags") == before
    site.edit("deployment.yaml", lambda document: document["deployment"]["c01"].remove("giant"))
    site.edit("clusters.yaml", lambda document: document["guests"].pop())
    site.converged()


# --- who can reach whom --------------------------------------------------------------------------------------


def test_a_head_logs_in_to_its_nodes_across_containers_and_hypervisors(site: LabSite) -> None:
    key = site.files.key.read_text()
    for cluster in site.spec.clusters.values():
        head, *nodes = cluster.guests
        assert len({site.container_of(name) for name in cluster.guests}) > 1
        site.on(head, f"umask 077; cat > /root/.ssh/id_ed25519 <<'EOF'\n{key}EOF")
        for node in nodes:
            said = site.on(head, f"ssh -o StrictHostKeyChecking=accept-new -o BatchMode=yes {node} hostname")
            assert said.strip() == node


def test_multicast_works_inside_a_cluster(site: LabSite) -> None:
    _, first, second = site.spec.clusters["a"].guests
    join = "sysctl -q -w net.ipv4.icmp_echo_ignore_broadcasts=0; ip addr replace 239.1.2.3/32 dev {} autojoin"
    for name in (first, second):
        site.on(name, join.format(_interface(site, name)))
    said = site.on("a-head", f"ping -c 4 -W 3 -I {address(site.spec.guests['a-head'], 'a')} 239.1.2.3", check=False)
    for name in (first, second):
        assert f"from {address(site.spec.guests[name], 'a')}" in said
        site.on(name, f"ip addr del 239.1.2.3/32 dev {_interface(site, name)}")


def _interface(site: LabSite, guest: str, index: int = 0) -> str:
    """The name that the guest's kernel gave to an interface of the spec."""
    mac = site.spec.guests[guest].interfaces[index].mac
    return site.on(guest, f"ip -br link | awk '$3==\"{mac}\" {{print $1}}'").strip()


def test_the_teacher_reaches_every_node_and_clusters_do_not_reach_each_other(site: LabSite) -> None:
    spec = site.spec
    everyone = {n: address(g, g.cluster or "outside") for n, g in spec.guests.items() if n != "teacher"}
    nodes = {(where, 22) for where in everyone.values()}
    assert reached(site, "teacher", *nodes) == nodes
    others = [(address(spec.guests[name], "b"), 22) for name in spec.clusters["b"].guests]
    others.append((address(spec.guests["b-head"], "outside"), 22))
    for name in spec.clusters["a"].guests:
        assert reached(site, name, *others) == set()


@pytest.mark.parametrize("intruder", ["a-n1", "a-n2"], ids=["from KVM", "from Xen"])
def test_a_node_cannot_enter_another_cluster_by_arp_addresses_or_tags(site: LabSite, intruder: str) -> None:
    """`intruder` shares its container with a guest of cluster b."""
    spec, link = site.spec, _interface(site, intruder)
    vlan, target = spec.networks["b"].vlan, "10.1.2.1"
    mac = spec.guests[intruder].interfaces[0].mac
    container = site.container_of(intruder)
    script = f"""
        ip addr add 10.1.2.77/24 dev {link}
        ping -c 2 -W 2 -I 10.1.2.77 {target} | grep received
        ip addr del 10.1.2.77/24 dev {link}
        modprobe 8021q && ip link add link {link} name sly type vlan id {vlan} && ip link set sly up
        ip addr add 10.1.2.78/24 dev sly
        ping -c 2 -W 2 -I sly {target} | grep received
        ip link del sly
    """
    with _watched(site, container, f"vcbr{vlan}", f"ether src {mac}") as frames:
        said = site.on(intruder, script)
    assert said.count(", 0 received") == 2, said
    assert frames == [], "nothing of it arrived on the other cluster's bridge"


@contextmanager
def _watched(site: LabSite, container: str, link: str, expression: str) -> Iterator[list[str]]:
    """The frames on a link of a container that match, one a line; complete when the block has ended."""
    log = "/run/vclab-capture"
    site.on(
        container,
        f"nohup tcpdump -n -e -l -i {link} {expression} > {log} 2> {log}.err < /dev/null & echo $! > {log}.pid;"
        f"until grep -q 'listening on' {log}.err; do sleep 0.2; kill -0 $(cat {log}.pid) || exit 1; done",
    )
    frames: list[str] = []
    yield frames
    said = site.on(container, f"kill $(cat {log}.pid); sleep 1; cat {log}; rm -f {log} {log}.*")
    frames += [line for line in said.splitlines() if line]


def test_a_node_cannot_pose_as_its_neighbour(site: LabSite) -> None:
    """a-n1 claims the head's address on its own VLAN; a-n2, on another container, must not believe it."""
    spec, link = site.spec, _interface(site, "a-n1")
    head = address(spec.guests["a-head"], "a")
    true_mac = next(i.mac for i in spec.guests["a-head"].interfaces if i.network == "a")
    site.on("a-n2", f"ping -c 1 -W 3 {head}")
    said = site.on(
        "a-n1",
        f"ip addr add {head}/32 dev {link}; ip neigh flush dev {link}; "
        f"ping -c 2 -W 2 -I {head} {address(spec.guests['a-n2'], 'a')}; ip addr del {head}/32 dev {link}",
        check=False,
    )
    assert " 0 received" in said
    assert true_mac in site.on("a-n2", f"ip neigh show {head}")


def test_no_guest_reaches_a_container(site: LabSite) -> None:
    spec = site.spec
    own = [container.address for container in spec.containers.values()]
    for name in ("a-head", "a-n2", "teacher"):
        link = _interface(site, name)
        # Also when the guest takes its container for a router, by the one address that it knows of it.
        way = f"ip route replace {layout.PROVISIONING} via {MIRROR} dev {link} onlink"
        assert reached(site, name, (MIRROR, 22), *((where, 22) for where in own), prepare=way) == set()
        site.on(name, f"ip route del {layout.PROVISIONING}")


def test_a_head_reaches_outside_only_what_the_spec_allows(site: LabSite) -> None:
    allowed, _ = layout.OUTSIDE_PORTS
    places = [(layout.OUTSIDE_HOST, port) for port in layout.OUTSIDE_PORTS]
    for name in ("a-head", "b-head", "teacher"):
        assert reached(site, name, *places) == {(layout.OUTSIDE_HOST, allowed)}
    assert reached(site, "a-n1", *places) == set()


# --- the mirror ----------------------------------------------------------------------------------------------


def test_every_guest_installs_a_package_through_its_own_container(site: LabSite) -> None:
    spec = site.spec
    handout = "exec 3<>/dev/tcp/handout/8000; printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
    script = f"apt-get -qq update && apt-get -qq -y install hello >/dev/null && hello; bash -c {handout!r}"
    with (
        site.timed("7 guests install a package at once"),
        captured(layout.TRUNK_BRIDGE, "host", MIRROR, "or", "(vlan", "and", "host", f"{MIRROR})") as frames,
        captured(layout.PROVISIONING_BRIDGE, "tcp", "dst", "port", "80", "and", "dst", layout.MIRROR) as requests,
    ):
        said = site.everywhere(list(spec.guests), script)
    for name in spec.guests:
        assert "Hello, world!" in said[name], said[name]
        assert "the lab's handout" in said[name], "any other service is masqueraded the same way"
    assert frames == [], "neither the mirror's traffic nor ARP for it crosses the trunk"
    asked = {match[1] for line in requests if (match := re.search(r"IPv4.*?: (\S+?)\.\d+ >", line))}
    homes = {spec.containers[site.container_of(name)].address for name in spec.guests}
    assert asked == homes, "each container for its own"


# --- healing -------------------------------------------------------------------------------------------------


def _leave_work(site: LabSite) -> dict[str, str]:
    """A student's file on every guest, and which disk it is on."""
    site.everywhere(list(site.spec.guests), "echo thesis > /root/work; sync")
    return {name: _epoch(site, name) for name in site.spec.guests}


def _epoch(site: LabSite, guest: str) -> str:
    return next(tag for tag in site.volume_tags(guest) if tag.startswith("vc.epoch="))


def _work_is_there(site: LabSite, epochs: dict[str, str]) -> None:
    said = site.everywhere(list(epochs), "cat /root/work")
    assert {name: text.strip() for name, text in said.items()} == dict.fromkeys(epochs, "thesis")
    assert {name: _epoch(site, name) for name in epochs} == epochs, "no image was written again"


def test_killed_guests_and_overwritten_shadow_files_are_mended(site: LabSite) -> None:
    """A KVM and a Xen guest killed; and the paper's accident, `cp /etc/passwd /etc/shadow`, on one of each."""
    epochs = _leave_work(site)
    killed, overwritten = ["b-head", "b-n2"], ["a-n1", "a-n2"]
    boots = site.everywhere(killed, "cat /proc/sys/kernel/random/boot_id")
    site.everywhere(overwritten, "cp /etc/passwd /etc/shadow; sync")
    with (
        site.timed("heal: a KVM and a Xen guest killed, two shadow files restored, at once"),
        site.healing(*killed, *overwritten),
    ):
        for name in killed:
            site.vcrecon("lab", "break", "kill", name)
        for name in overwritten:
            site.ask("fix", name, "restore-shadow")
    now = site.everywhere(killed, "cat /proc/sys/kernel/random/boot_id")
    assert all(now[name] != boots[name] for name in killed)
    for name in overwritten:
        password = site.spec.guests[name].root_password.read_text().strip()
        assert f"root:{password}:" in site.on(name, "cat /etc/shadow")
        assert site.on(name, "stat -c '%U:%G %a' /etc/shadow").strip() == "root:shadow 640"
    _work_is_there(site, epochs)


def test_containers_get_their_networks_back(site: LabSite) -> None:
    """Rules flushed on a KVM and a Xen container, and at the same time bridges gone on one, VLANs on another."""
    harms = {"c01": "flush-rules", "c02": "wipe-bridges", "c03": "wipe-vlans", "c04": "flush-rules"}
    with site.timed("heal: rules, bridges and VLANs of four containers at once"), site.healing(*harms):
        for container, what in harms.items():
            site.vcrecon("lab", "break", what, container)
    assert site.on("a-head", "ping -c 1 -W 5 a-n2 >/dev/null && echo reached").strip() == "reached"
    assert site.on("b-n1", "ping -c 1 -W 5 b-head >/dev/null && echo reached").strip() == "reached"
    assert reached(site, "a-n2", (MIRROR, 22)) == set(), "the firewall is back as well"


def test_a_rebooted_and_a_powered_off_container_come_back_with_their_guests(site: LabSite) -> None:
    epochs = _leave_work(site)
    victims = [name for name in site.spec.guests if site.container_of(name) in ("c02", "c03")]
    with site.timed("heal: c02 rebooted, c03 without power and back"), site.healing("c02", "c03", *victims):
        site.on("c02", "systemctl reboot", check=False)
        site.vcrecon("lab", "break", "power-off", "c03")
        site.until("c03 is missed", lambda s: any(c["name"] == "c03" and not c["reachable"] for c in s["containers"]))
        site.vcrecon("lab", "break", "power-on", "c03")
    _work_is_there(site, epochs)


# --- moving --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "moves",
    [{"a-n1": "c01", "b-n2": "c02"}, pytest.param({"a-n2": "c04"}, marks=pytest.mark.by_hand)],
    ids=["KVM to KVM and Xen to KVM", "Xen to Xen"],
)
def test_a_moved_guest_arrives_with_its_work(site: LabSite, moves: dict[str, str]) -> None:
    sources = {guest: site.container_of(guest) for guest in moves}
    site.everywhere(list(moves), "echo thesis > /root/work; sync")
    with site.timed("move " + ", ".join(f"{guest} from {sources[guest]} to {moves[guest]}" for guest in moves)):
        for guest, target in moves.items():
            site.move(guest, target)
        site.until("the move begins", lambda s: not s["converged"])
        site.converged()
    for guest, target in moves.items():
        assert site.on(guest, "cat /root/work").strip() == "thesis"
        assert {place: guest in _domains(site, place) for place in (sources[guest], target)} == {
            sources[guest]: False,
            target: True,
        }


def _domains(site: LabSite, container: str) -> list[str]:
    """The words of the hypervisor's own list of what runs."""
    xen = site.spec.containers[container].hypervisor == "xen"
    return site.on(container, "xl list" if xen else "virsh -q list --name").split()
