"""Captures the golden files of this directory on a KVM and on a Xen container of the lab (`vcrecon lab up`).

    python -m tests.golden.capture root@198.18.0.12 kvm KEY KNOWN_HOSTS
    python -m tests.golden.capture root@198.18.0.13 xen KEY KNOWN_HOSTS

What it makes there is its own (a volume group on a loop device, network namespaces, small domains) and is taken away
again. The tests that read the files know the names and sizes below.
"""

from __future__ import annotations

import base64
import posixpath
import re
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.core.worlds import a_guest
from tests.lab.conformance.serving import halting_bzimage, halting_elf

from vcrecon.core.observation import Part
from vcrecon.core.wanted import WantedBridge
from vcrecon.host import look, network
from vcrecon.hypervisor.base import Launch
from vcrecon.hypervisor.kvm import Kvm, domain_xml
from vcrecon.hypervisor.xen import Xen, config

HERE = Path(__file__).parent
SHA256, CONTEXT, DEFINITION = "c" * 64, "e" * 32, "d" * 32
FILES = "/run/vcgolden"


@dataclass(frozen=True)
class Host:
    """A container as `ssh` reaches it."""

    target: str
    key: str
    known_hosts: str

    def run(self, script: str) -> str:
        """What the script wrote. Raises CalledProcessError with what it said."""
        options = [f"-i{self.key}", f"-oUserKnownHostsFile={self.known_hosts}", "-oBatchMode=yes"]
        done = subprocess.run(
            ["ssh", *options, self.target, "sh"], input=script, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{script}\n{done.stdout}{done.stderr}\nended with {done.returncode}")
        return done.stdout

    def keep(self, name: str, command: str) -> None:
        """Write what a command prints into a golden file."""
        (HERE / name).write_text(self.run(command), encoding="utf-8")
        print(name)


def capture_lvm(host: Host) -> None:
    """Every kind of volume, in a group `vg`; the lab's own group is the other one."""
    host.run(
        f"set -eu; mkdir -p {FILES}; truncate -s 6G /var/tmp/vcgolden\n"
        "vgcreate -q vg $(losetup -f --show /var/tmp/vcgolden) >/dev/null\n"
        "lvcreate -q -y -L 64m -n root vg >/dev/null\n"
        "lvcreate -q -y -L 2g --type thin-pool -n pool vg >/dev/null"
    )
    thin = "--thin -V 1g vg/pool"
    volumes = (
        ("vcimg-cccccccccccccccc", "--thin -V 512m vg/pool", 64, f"vc.site=lab vc.golden={SHA256}"),
        (
            "vcg-alice",
            "-kn -s vg/vcimg-cccccccccccccccc",
            16,
            f"vc.site=lab vc.guest=alice vc.epoch=2 vc.boots=3 vc.touched vc.image={SHA256} vc.context={CONTEXT}",
        ),
        ("vcg-bob", thin, 0, "vc.site=lab vc.guest=bob vc.epoch=1 vc.boots=0 vc.building"),
        ("vcg-carol", thin, 48, "vc.site=lab vc.guest=carol vc.boots=4 vc.copy=3.4 vc.incoming"),
        ("vcq-alice-1", thin, 32, "vc.site=lab vc.guest=alice vc.epoch=1 vc.boots=1 vc.touched vc.quarantined=rebuilt"),
        ("vcg-thick", "-Wy -L 1g vg", 0, "vc.site=lab vc.guest=thick vc.epoch=1 vc.boots=1 vc.held"),
        ("vcg-foreign", thin, 0, "vc.site=other vc.guest=foreign vc.epoch=1"),
    )
    for name, how, written_mib, tags in volumes:
        marks = "".join(f" --addtag {tag}" for tag in ("vcrecon", *tags.split()))
        # At the end of the disk: a snapshot's own blocks are not those of its origin.
        host.run(
            f"set -eu; lvcreate -q -y -n {name} {how}{marks} >/dev/null\n"
            f"dd if=/dev/zero of=/dev/vg/{name} bs=1M count={written_mib} seek=400 conv=fsync status=none"
        )
    host.run("set -eu; lvextend -q -L 1g vg/vcg-alice >/dev/null; lvcreate -q -y -n vcg-unmarked --thin -V 1g vg/pool")
    host.keep("lvm-fullreport.json", look._LVM_REPORT)


def end_lvm(host: Host) -> None:
    host.run(
        "vgremove -y -f vg >/dev/null 2>&1\n"
        "for loop in $(losetup -n -O NAME -j /var/tmp/vcgolden); do\n"
        "  pvremove -q -y $loop >/dev/null; losetup -d $loop\n"
        "done\n"
        "rm -f /var/tmp/vcgolden"
    )


def capture_network(host: Host) -> None:
    """A container's links in a namespace: a real VLAN, bridges of ours and of others, ports; and one guest's answer."""
    wanted = WantedBridge(101, frozenset({"vcg0123456789ab"}), frozenset({"192.0.2.1/32"}), frozenset({"10.1.1.0/24"}))
    inside = [
        "ip link add eno1 type dummy",
        *(f"ip tuntap add dev {tap} mode tap" for tap in ("vcg0123456789ab", "vcgdeadbeef0000")),
        *network.set_up_bridge(wanted, "eno1", "lab", sorted(wanted.taps)),
        "ip link add vcbr102 type bridge",
        "ip link set vcbr102 alias 'vcrecon other-site'",
        "ip link add vcbr103 type bridge",
        "ip link add port netns vcgoldenpeer type veth peer name port",
        "ip link set port master vcbr101 up",
    ]
    peer = ["ip addr add 10.1.1.11/24 dev port", "ip link set port up", "ip route add 192.0.2.1 dev port"]
    host.run("set -eu; ip netns add vcgolden; ip netns add vcgoldenpeer")
    for space, lines in (("vcgolden", inside), ("vcgoldenpeer", peer)):
        host.run(f"ip netns exec {space} sh -eu <<'END'\n" + "\n".join(lines) + "\nEND")
    probes = [("10.1.1.11", 101), ("10.1.1.12", 101)]
    script = look.script([Part.ANSWERS], Kvm(), probes)
    pings = script[script.index("echo '@@ answers'\n") + 18 : script.index('\necho "@@ = 0"')]
    host.keep("ip-addr.json", "ip netns exec vcgolden ip -j -d addr show")
    host.keep("ip-route.json", "ip netns exec vcgolden ip -j route show")
    host.keep("ping.txt", f"ip netns exec vcgolden sh <<'END'\n{pings}\nEND")


def end_network(host: Host) -> None:
    host.run("for space in vcgolden vcgoldenpeer; do ip netns del $space 2>/dev/null; done; true")


def a_launch(name: str, number: int, site: str = "lab", kernel: str = "halt") -> Launch:
    """A domain of one small processor without disk or network."""
    guest = replace(a_guest(name), memory_bytes=64 << 20, cores=1)
    uuid = f"00000000-0000-4000-8000-{number:012}"
    return Launch(guest, site, uuid, DEFINITION, "", (), "root=/dev/vda rw", f"{FILES}/{kernel}", None)


def written(name: str, content: bytes) -> str:
    """A line that writes a file there."""
    return f"mkdir -p {posixpath.dirname(name)}; echo {base64.b64encode(content).decode()} | base64 -d > {name}"


def xml(launch: Launch, title: bool = True) -> bytes:
    text = re.sub(r"    <disk.*</disk>\n", "", domain_xml(launch), flags=re.DOTALL)
    return (text if title else re.sub(r"  <title>.*</title>\n", "", text)).encode()


KVM = ("test", "alice", "other", "a-head.x", "bob")


def capture_kvm(host: Host) -> None:
    """A stranger, a running one of ours, one of another site, one destroyed and one whose emulator was killed."""
    host.run(written(f"{FILES}/halt", halting_bzimage()))
    for number, name in enumerate(KVM):
        launch = a_launch(name, number, "elsewhere" if name == "other" else "lab")
        script = written(f"{FILES}/xml", xml(launch, title=name != "test"))
        host.run(f"set -eu; {script}; virsh -q define {FILES}/xml; virsh -q start {name}")
    host.run(
        "set -eu; virsh -q suspend other; virsh -q destroy a-head.x; kill -9 $(cat /run/libvirt/qemu/bob.pid)\n"
        "until virsh -q domstate bob | grep -q shut; do sleep 0.2; done"
    )
    first, second = Kvm().look
    host.keep("virsh-list-title.txt", f"virsh -q {first}")
    host.keep("virsh-domstats-state.txt", f"virsh -q {second}")


def end_kvm(host: Host) -> None:
    lines = [f'virsh -q "undefine {name}; destroy {name}" >/dev/null 2>&1' for name in KVM]
    host.run("\n".join([*lines, f"rm -rf {FILES}"]))


def ending_elf(reason: int) -> bytes:
    """A Xen PVH kernel that ends its domain with this reason: SCHEDOP_shutdown, hypercall 29, by `vmmcall`."""
    halting = halting_elf()
    at = 0x101000
    code = b"\xb8" + struct.pack("<I", 29) + b"\xbb" + struct.pack("<I", 2) + b"\xb9" + struct.pack("<I", at + 32)
    code = (code + b"\x0f\x01\xd9\xfa\xf4\xeb\xfd").ljust(32, b"\0") + struct.pack("<I", reason)
    # Both lengths of the one loaded segment grow with it.
    head = bytearray(halting[:0x1000])
    struct.pack_into("<II", head, 52 + 16, 0x1000 + len(code), 0x1000 + len(code))
    return bytes(head) + code


XEN = ("alice", "bob", "carol", "dave", "erin", "frank", "not-ours", "stranger")


def capture_xen(host: Host) -> None:
    """One that rebooted and runs, one that is down and kept, one half torn down, one paused, one switched off."""
    for name, content in (("halt", halting_elf()), *((str(code), ending_elf(code)) for code in (0, 1, 3))):
        host.run(written(f"{FILES}/{name}", content))
    for number, name in enumerate(XEN, 1):
        launch = a_launch(name, number, "elsewhere" if name == "frank" else "lab", kernel=name)
        text = re.sub(r"disk = .*\n", "", config(launch))
        if name == "bob":
            text = text.replace('on_poweroff = "destroy"', 'on_poweroff = "preserve"')
        host.run(written(f"/run/vcrecon/xen/{name}.cfg", text.encode()))
    begins = {"alice": "1", "bob": "0", "erin": "1", "stranger": "3"}
    goes_on = {"alice": "halt", "erin": "0"}
    for name in XEN:
        if name == "not-ours":
            continue
        lines = ["set -eu", f"cd {FILES}", f"cp {begins.get(name, 'halt')} {name}"]
        lines.append(f"xl create -p /run/vcrecon/xen/{name}.cfg >/dev/null")
        if name in goes_on:
            lines.append(f"cp {goes_on[name]} {name}")
        if name != "dave":
            lines.append(f"xl unpause {name}")
        host.run("\n".join(lines))
    # The domain of frank's file goes by another name; stranger's log stays, without its file.
    host.run("xl rename frank not-ours; rm -f /run/vcrecon/xen/not-ours.cfg /run/vcrecon/xen/stranger.cfg")
    host.run("for round in $(seq 60); do xl list erin >/dev/null 2>&1 || break; sleep 0.5; done")
    # A console daemon that does not let go of its page keeps a destroyed domain in the list.
    host.run("pkill -STOP -x xenconsoled; xl destroy carol; sleep 2")
    try:
        for file, command in zip(("xl-list-v.txt", "xl-marks.txt", "xl-logs.txt"), Xen().look, strict=True):
            host.keep(file, command)
    finally:
        host.run("pkill -CONT -x xenconsoled")


def end_xen(host: Host) -> None:
    names = " ".join(XEN)
    host.run(
        "pkill -CONT -x xenconsoled\n"
        f"for name in {names}; do\n"
        "  xl destroy $name 2>/dev/null; rm -f /run/vcrecon/xen/$name.cfg /var/log/xen/xl-$name.log*\n"
        "done\n"
        f"rm -rf {FILES}"
    )


PARTS = {
    "kvm": ((capture_lvm, end_lvm), (capture_network, end_network), (capture_kvm, end_kvm)),
    "xen": ((capture_xen, end_xen),),
}


def main(arguments: Sequence[str]) -> int:
    target, hypervisor, key, known_hosts = arguments
    host = Host(target, key, known_hosts)
    for capture, end in PARTS[hypervisor]:
        try:
            capture(host)
        finally:
            end(host)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
