"""A virtual machine of the lab: its disks, its QEMU, its power switch. Called by `lab`, `spare` and `breakage`.

Processor features are left out where QEMU's emulation of them was seen to crash a hypervisor or to corrupt its
guests; one virtual processor with one emulation thread is the most robust setting (docs/lab.md).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vcrecon.errors import Refused
from vcrecon.lab import layout, network
from vcrecon.lab.images import ContainerImage
from vcrecon.lab.layout import Cabled, Files, MachinePlan

_DOM0_MIB = 1024
_HOST_MIB = 1024
_QUIET = "mitigations=off net.ifnames=0 quiet"
_EMULATED_CPU = {
    "kvm": "EPYC,-smap,-smep,-xsave,-avx,-avx2",
    "xen": "EPYC,-smap,-smep,-monitor,-xsave,-avx,-avx2,-fma,-f16c",
}
# The other hypervisor's services would only cost time.
_MASKED = {
    "kvm": ("xen.service", "xendomains.service"),
    "xen": ("libvirtd.service", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket"),
}


def prepare(plan: MachinePlan, image: ContainerImage, files: Files, identity: Mapping[str, tuple[bytes, int]]) -> None:
    """Make a machine's disks: a layer over the system disk, a blank one, and who it is. Raises Refused."""
    home = files.machine(plan.name)
    home.mkdir(parents=True, exist_ok=True)
    network.run(
        "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(image.disk), str(home / "system.qcow2")
    )
    with (home / "data.raw").open("wb") as disk:
        disk.truncate(plan.disk_bytes)
    (home / "seed.tar").write_bytes(seed({**identity, **_own_files(plan)}))


def _own_files(plan: MachinePlan) -> dict[str, tuple[bytes, int]]:
    link = f"[Match]\nMACAddress={plan.provisioning_mac}\n\n[Network]\nAddress={plan.address}/24\nIPv6AcceptRA=no\n"
    group, pool = plan.volume_group, plan.pool
    script = (
        "#!/bin/sh\nset -eu\n"
        f"vgs {group} >/dev/null 2>&1 && exit 0\n"
        f"vgcreate -qq {group} /dev/vdb\n"
        # A tenth is left for volumes of their own (storage: thick).
        f"lvcreate -qq --type thin-pool -l 90%FREE -n {pool} {group}\n"
        f"lvchange -qq --errorwhenfull y {group}/{pool}\n"
    )
    release = f"hypervisor={plan.hypervisor}\ngeneration=lab\n"
    return {
        "etc/hostname": (f"{plan.name}\n".encode(), 0o644),
        "etc/hosts": (f"127.0.0.1 localhost\n127.0.1.1 {plan.name}\n".encode(), 0o644),
        "etc/systemd/network/10-provisioning.network": (link.encode(), 0o644),
        "etc/vclab/prepare": (script.encode(), 0o755),
        "etc/vcrecon/release": (release.encode(), 0o644),
    }


def seed(content: Mapping[str, tuple[bytes, int]]) -> bytes:
    """A tar archive of files by path, each (content, mode): the machine unpacks its third disk over its root."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, (data, mode) in sorted(content.items()):
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), mode
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def command(plan: MachinePlan, image: ContainerImage, files: Files, *, accelerated: bool) -> list[str]:
    """The QEMU command line of a container."""
    home, xen = files.machine(plan.name), plan.hypervisor == "xen"
    masked = " ".join(f"systemd.mask={unit}" for unit in _MASKED[plan.hypervisor])
    linux = f"root=/dev/vda rw {_QUIET} systemd.hostname={plan.name} {masked}"
    if xen:
        boot = ["-kernel", str(image.xen), "-initrd", f"{image.kernel} console=hvc0 {linux},{image.initrd}"]
        boot += [
            "-append",
            f"console=com1 com1=115200 xpti=no spec-ctrl=no cpuidle=0 dom0_mem={_DOM0_MIB}M,max:{_DOM0_MIB}M",
        ]
    else:
        boot = ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", f"console=ttyS0 {linux}"]
    memory = plan.memory_mib + (_DOM0_MIB if xen else _HOST_MIB)
    return [
        *chassis(plan.name, files, memory_mib=memory, hypervisor=plan.hypervisor, accelerated=accelerated),
        *boot,
        *_disk(home / "system.qcow2", "qcow2"),
        *_disk(home / "data.raw", "raw"),
        *_disk(home / "seed.tar", "raw", read_only=True),
        *nics(plan, "romfile="),
    ]


EMULATED = ("-accel", "tcg,thread=multi,tb-size=512", "-smp", "1,maxcpus=2")
"""QEMU before 8.1 leaves the memory barriers out of what it makes of a machine's code unless two processors may run it.

But its disks and network are served by other threads at the same time: without barriers the machine sometimes takes a
queue for empty that was just filled, and nothing wakes it any more.
"""


def chassis(name: str, files: Files, *, memory_mib: int, hypervisor: str, accelerated: bool) -> list[str]:
    """The part of a QEMU command line that all machines have: board, processor, memory, console and control."""
    if accelerated:
        processor = ["-accel", "kvm", "-cpu", "host", "-smp", "2"]
    else:
        processor = [*EMULATED, "-cpu", _EMULATED_CPU[hypervisor]]
    return [
        *("qemu-system-x86_64", "-name", f"vclab-{name}"),
        *("-machine", "pc,graphics=off", "-nodefaults", "-display", "none", "-vga", "none"),
        *processor,
        *("-m", str(memory_mib)),
        *("-device", "virtio-rng-pci"),
        *("-serial", f"file:{files.serial(name)}"),
        *("-qmp", f"unix:{files.monitor(name)},server=on,wait=off"),
    ]


def _disk(path: Path, kind: str, *, read_only: bool = False) -> list[str]:
    only = ",readonly=on" if read_only else ""
    return ["-drive", f"file={path},format={kind},if=virtio,cache=unsafe,discard=unmap{only}"]


# A frame that the VLAN port reads must be whole: no checksums or segments left to the other end.
_WHOLE_FRAMES = (
    "csum=off,gso=off,guest_csum=off,host_tso4=off,host_tso6=off,host_ufo=off,host_ecn=off"
    ",guest_tso4=off,guest_tso6=off,guest_ufo=off,guest_ecn=off,romfile="
)


def nics(plan: Cabled, provisioning: str) -> list[str]:
    """Its two network interfaces; `provisioning` are further properties of the one on the provisioning network."""
    found = []
    for name, tap, mac, properties in (
        ("provisioning", plan.provisioning_tap, plan.provisioning_mac, provisioning),
        ("trunk", plan.trunk_tap, plan.trunk_mac, _WHOLE_FRAMES),
    ):
        found += ["-netdev", f"tap,id={name},ifname={tap},script=no,downscript=no"]
        found += ["-device", f"virtio-net-pci,netdev={name},mac={mac},{properties}"]
    return found


def power_on(plan: MachinePlan, image: ContainerImage, files: Files, *, accelerated: bool) -> None:
    """Start the machine unless it is on."""
    start(plan.name, command(plan, image, files, accelerated=accelerated), files)


def start(name: str, command: Sequence[str], files: Files) -> None:
    """Start a machine's QEMU unless the machine is on."""
    if is_on(name, files):
        return
    files.monitor(name).unlink(missing_ok=True)
    network.start(layout.NAMESPACE, command, files.machine(name) / "qemu.log")


def is_on(name: str, files: Files) -> bool:
    """Whether its QEMU answers; a machine that was frozen is on."""
    try:
        ask(name, files, "query-status")
    except Refused:
        return False
    return True


def power_off(name: str, files: Files, deadline_s: float = 20.0) -> None:
    """As pulling the plug: at once, nothing is written back. Raises Refused when it stays on."""
    # The answer may be lost together with the machine.
    with contextlib.suppress(Refused):
        ask(name, files, "quit")
    ends_s = time.monotonic() + deadline_s
    while is_on(name, files):
        if time.monotonic() > ends_s:
            raise Refused(f"lab: {name} does not go off; look at its QEMU with ps")
        time.sleep(0.1)


def ask(name: str, files: Files, execute: str, **arguments: Any) -> Any:
    """One QMP command, and what it returns. Raises Refused when the machine is off or objects."""
    try:
        with socket.socket(socket.AF_UNIX) as link, contextlib.closing(link.makefile("rw")) as stream:
            link.settimeout(10)
            link.connect(os.fspath(files.monitor(name)))
            stream.readline()
            for message in ({"execute": "qmp_capabilities"}, {"execute": execute, "arguments": arguments}):
                stream.write(json.dumps(message) + "\n")
                stream.flush()
                answer = _answer(stream)
    except (OSError, ValueError) as error:
        raise Refused(f"lab: {name} is off ({error}); switch it on with: vcrecon lab up") from None
    if "error" in answer:
        raise Refused(f"lab: {name}: {execute}: {answer['error'].get('desc', answer['error'])}")
    return answer["return"]


def _answer(stream: Any) -> dict[str, Any]:
    """The next line that is no event."""
    while True:
        answer: dict[str, Any] = json.loads(stream.readline())
        if "event" not in answer:
            return answer


def answers(plan: Cabled, files: Files, record: Path | None = None) -> bool:
    """Whether its sshd lets the lab's key in. For `record` see `ssh`."""
    done = subprocess.run(
        [*ssh(files, "-o", "ConnectTimeout=5", record=record), f"root@{plan.address}", "true"],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def ssh(files: Files, *options: str, record: Path | None = None) -> list[str]:
    """The beginning of an ssh command line to the lab's machines.

    `record` is the state directory of the lab's site: vcrecon keeps the host keys there of what it installed.
    """
    places = [files.known_hosts] if record is None else [record / "known_hosts", files.known_hosts]
    known = ["-o", f"UserKnownHostsFile={' '.join(map(str, places))}", "-o", "StrictHostKeyChecking=yes"]
    return ["ssh", "-i", str(files.key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", *known, *options]
