"""The lab's spare machines: nothing on their disks, switched off, and installed by vcrecon when the spec wants them.

Their firmware tries the disks first and then the network, so a blank one asks vcrecon what to boot; where that sends
it back to its empty disk, it asks again a few seconds later. Called by `lab` and `breakage`.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vcrecon.errors import Refused
from vcrecon.lab import machine, network
from vcrecon.lab.layout import Files, SparePlan

_RETRY_MS = 5000
"""How soon a machine that found nothing to boot starts over. Without this its firmware would halt."""
_OVMF = Path("/usr/share/OVMF")
_NIC = "nic0"
_NETWORK_FIRST, _NETWORK_LAST = 0, 9


@dataclass(frozen=True, slots=True)
class Knobs:
    """What people did to a machine that lasts while it is off: disks that were taken out, and its boot order."""

    pulled: tuple[int, ...] = ()
    network_first: bool = False


def prepare(plan: SparePlan, files: Files) -> None:
    """Make a machine's blank disks, and the firmware's memory where it has one; keeps what is there."""
    home = files.machine(plan.name)
    home.mkdir(parents=True, exist_ok=True)
    for disk in disks(plan, files):
        if not disk.exists():
            with disk.open("wb") as stream:
                stream.truncate(plan.disk_bytes)
    if plan.firmware == "uefi" and not (home / "vars.fd").exists():
        try:
            shutil.copyfile(_OVMF / "OVMF_VARS_4M.fd", home / "vars.fd")
        except FileNotFoundError:
            raise Refused("lab: UEFI machines need OVMF; try: apt install ovmf") from None


def disks(plan: SparePlan, files: Files) -> list[Path]:
    """The files that are its disks, the first one first. Sparse: what was never written takes no space."""
    return [files.machine(plan.name) / f"disk{number}.raw" for number in range(1, plan.disks + 1)]


def knobs(plan: SparePlan, files: Files) -> Knobs:
    """What people did to it."""
    try:
        found = json.loads(_knobs_file(plan, files).read_text())
    except FileNotFoundError:
        return Knobs()
    return Knobs(tuple(found["pulled"]), found["network_first"])


def _knobs_file(plan: SparePlan, files: Files) -> Path:
    return files.machine(plan.name) / "knobs.json"


def _keep(plan: SparePlan, files: Files, found: Knobs) -> None:
    _knobs_file(plan, files).write_text(json.dumps(asdict(found)) + "\n")


def command(plan: SparePlan, files: Files, *, accelerated: bool) -> list[str]:
    """The QEMU command line of a spare machine, as it is now."""
    now = knobs(plan, files)
    name, memory_mib = plan.name, plan.memory_mib
    words = machine.chassis(name, files, memory_mib=memory_mib, hypervisor="kvm", accelerated=accelerated)
    words += ["-boot", f"reboot-timeout={_RETRY_MS}"]
    # By these vcrecon tells machines apart that come with the same MAC.
    words += ["-uuid", f"7663726c-6162-4000-8000-{plan.number:012x}"]
    words += ["-smbios", f"type=1,manufacturer=vcrecon,product=lab,serial={name}"]
    if plan.firmware == "uefi":
        words += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_OVMF / 'OVMF_CODE_4M.fd'}"]
        words += ["-drive", f"if=pflash,unit=1,format=raw,file={files.machine(name) / 'vars.fd'}"]
    for number, path in enumerate(disks(plan, files), start=1):
        if number not in now.pulled:
            words += ["-drive", f"if=none,id=disk{number},file={path},format=raw,cache=unsafe,discard=unmap"]
            words += ["-device", f"virtio-blk-pci,drive=disk{number},serial={name}-{number},bootindex={number}"]
    return [*words, *machine.nics(plan, f"id={_NIC},bootindex={_boot_index(now)}")]


def _boot_index(now: Knobs) -> int:
    return _NETWORK_FIRST if now.network_first else _NETWORK_LAST


def power_on(plan: SparePlan, files: Files, *, accelerated: bool) -> None:
    """Start the machine unless it is on."""
    machine.start(plan.name, command(plan, files, accelerated=accelerated), files)


def boot_order(plan: SparePlan, files: Files, *, network_first: bool) -> None:
    """Change what its firmware tries first, from the next boot on."""
    now = replace(knobs(plan, files), network_first=network_first)
    _keep(plan, files, now)
    if machine.is_on(plan.name, files):
        path = f"/machine/peripheral/{_NIC}"
        machine.ask(plan.name, files, "qom-set", path=path, property="bootindex", value=_boot_index(now))


def move_disk(plan: SparePlan, files: Files, number: int, *, out: bool) -> None:
    """Take one of its disks out, or put it back. Raises Refused while the machine is on, or without such a disk."""
    if not 1 <= number <= plan.disks:
        raise Refused(f"lab: {plan.name} has no disk {number}; its disks are 1 to {plan.disks}")
    if machine.is_on(plan.name, files):
        raise Refused(f"lab: {plan.name} is on; switch it off first: vcrecon lab break power-off {plan.name}")
    now = knobs(plan, files)
    pulled = set(now.pulled) | {number} if out else set(now.pulled) - {number}
    _keep(plan, files, replace(now, pulled=tuple(sorted(pulled))))


def lay_out(found: tuple[SparePlan, ...], taken: dict[str, int], *, bios: int, uefi: int) -> tuple[SparePlan, ...]:
    """The spare machines that there are, and what is missing to so many of each kind.

    `taken`: the numbers of all other machines by name. The second with BIOS has two like disks, for RAID1.
    """
    spares = list(found)
    number = max([*taken.values(), *(spare.number for spare in found), -1])
    for firmware, wanted in (("bios", bios), ("uefi", uefi)):
        have = sum(spare.firmware == firmware for spare in found)
        for place in range(have + 1, wanted + 1):
            number += 1
            twin = firmware == "bios" and place == 2
            names = {*taken, *(spare.name for spare in spares)}
            name = next(name for i in range(1, 1000) if (name := f"spare{i}") not in names)
            spares.append(SparePlan(name, number, 2 if twin else 1, "uefi" if firmware == "uefi" else "bios"))
    return tuple(spares)


def prepare_all(plans: tuple[SparePlan, ...], files: Files) -> None:
    """Their disks and cables, where they are missing."""
    for plan in plans:
        prepare(plan, files)
        network.plug_in(plan)
