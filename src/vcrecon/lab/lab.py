"""The lab as a whole: up, down, and what is there. Called by `cli.lab_command`.

`up` may be called again at any time: it makes what is missing and leaves the rest alone. `down` finds what to
remove by the lab's names alone, so it also clears away what a crash left half made.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import asyncssh

from vcrecon.errors import Refused
from vcrecon.lab import boot_files, images, layout, machine, network, spare
from vcrecon.lab.accel import kvm_works
from vcrecon.lab.bind import offer_installs, write_specs
from vcrecon.lab.layout import Accel, Cabled, Files, MachinePlan, SparePlan
from vcrecon.paths import listener_pid, socket_path, state_directory
from vcrecon.spec.load import load
from vcrecon.spec.model import Container

Say = Callable[[str], None]

BOOT_S = 600.0
"""How long an emulated container may take until its sshd answers; 30 to 60 s when nothing else runs."""

_PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mmdebstrap": "mmdebstrap",
    "apt-ftparchive": "apt-utils",
    "mke2fs": "e2fsprogs",
    "zstd": "zstd",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "ssh": "openssh-client",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What `up` laid out, kept in lab.json: all later commands read it."""

    site: str
    accelerated: bool
    machines: tuple[MachinePlan, ...]
    spares: tuple[SparePlan, ...] = ()

    @property
    def record(self) -> Path:
        """The state directory of the lab's site."""
        return state_directory(self.site)

    def machine(self, name: str) -> MachinePlan | SparePlan:
        """A container or a spare machine. Raises Refused for a name that no machine has."""
        everyone: tuple[MachinePlan | SparePlan, ...] = (*self.machines, *self.spares)
        for found in everyone:
            if found.name == name:
                return found
        names = ", ".join(found.name for found in everyone)
        raise Refused(f"lab: no container or spare machine {name}; there are {names}")

    def spare(self, name: str) -> SparePlan:
        """Raises Refused for a name that is no spare machine's."""
        for found in self.spares:
            if found.name == name:
                return found
        names = ", ".join(found.name for found in self.spares) or "none"
        raise Refused(f"lab: {name} is no spare machine, and it has to be one for that; there are {names}")


def read_plan(files: Files) -> Plan:
    """The plan of the lab that is there. Raises Refused when there is none."""
    try:
        text = json.loads(files.plan.read_text())
    except FileNotFoundError:
        raise Refused("no lab is up here; make one with: vcrecon lab up") from None
    machines = tuple(MachinePlan(**entry) for entry in text["machines"])
    return Plan(text["site"], text["accelerated"], machines, tuple(SparePlan(**e) for e in text.get("spares", ())))


def write_plan(plan: Plan, files: Files) -> None:
    """Keep the plan for later commands."""
    files.plan.write_text(json.dumps(asdict(plan), indent=2) + "\n")


def up(
    specs: Path, say: Say, *, files: Files | None = None, cache: Path = layout.CACHE_DIR, accel: Accel = "auto",
    spares: int = 0, uefi_spares: int = 0, bare_metal: bool = False,
) -> Plan:  # fmt: skip
    """Make the lab, or what is missing of it, and wait until every container answers. Raises Refused, SpecError.

    The spare machines, so many with BIOS and so many with UEFI, are made and left switched off. With `bare_metal`
    the spec lets vcrecon boot and install them from what the cache holds.
    """
    files = files or Files()
    _require_tools()
    if not files.plan.exists() and network.exists():
        raise Refused("a lab that was cut off half way is in the way; clear it with: vcrecon lab down")
    containers = images.container_image(cache, say)
    guests = images.guest_image(cache, say)
    if files.plan.exists():
        plan = read_plan(files)
        if not network.exists():
            say("network: gone, as after a reboot of this machine; made anew")
            _make_network(plan, files, guests)
    else:
        plan = _lay_out(specs, kvm_works(containers, accel, say))
        _make(plan, specs, files, containers, guests, say)
    if bare_metal:
        offer_installs(files.specs, files.boot, boot_files.lay(cache, files))
    plan = _with_spares(plan, files, say, bios=spares, uefi=uefi_spares)
    for entry in plan.machines:
        if not machine.is_on(entry.name, files):
            say(f"{entry.name}: power on ({entry.hypervisor}, {'KVM' if plan.accelerated else 'emulated'})")
            machine.power_on(entry, containers, files, accelerated=plan.accelerated)
    _until_all_answer(plan, files, say)
    return plan


def _with_spares(plan: Plan, files: Files, say: Say, *, bios: int, uefi: int) -> Plan:
    """The plan with the spare machines that it lacks."""
    taken = {entry.name: entry.number for entry in plan.machines}
    wanted = spare.lay_out(plan.spares, taken, bios=bios, uefi=uefi)
    for entry in wanted[len(plan.spares) :]:
        kind = f"{entry.disks} blank disk{'s' if entry.disks > 1 else ''}, {entry.firmware.upper()}"
        say(f"{entry.name}: made, switched off ({kind}, MAC {entry.provisioning_mac})")
    plan = replace(plan, spares=wanted)
    # Noted first: what a crash leaves half made is completed by the next call.
    write_plan(plan, files)
    spare.prepare_all(wanted, files)
    return plan


def _require_tools() -> None:
    if os.geteuid() != 0:
        raise Refused("the lab needs root (network namespaces, taps); try: sudo vcrecon lab up")
    if platform.machine() != "x86_64":
        raise Refused(f"the lab's machines are x86_64, this machine is {platform.machine()}")
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = sorted({package for program, package in _PROGRAMS.items() if shutil.which(program, path=path) is None})
    if missing:
        raise Refused(f"the lab needs Debian packages that are not installed; try: apt install {' '.join(missing)}")


def _lay_out(specs: Path, accelerated: bool) -> Plan:
    spec = load(specs).spec
    found = tuple(_machine(number, container) for number, container in enumerate(spec.containers.values()))
    if len(found) > layout.CONTAINERS_MAX:
        raise Refused(f"{specs}: {len(found)} containers; the lab takes {layout.CONTAINERS_MAX}")
    return Plan(f"lab-{secrets.token_hex(3)}", accelerated, found)


def _machine(number: int, container: Container) -> MachinePlan:
    return MachinePlan(
        container.name,
        number,
        container.hypervisor,
        container.memory_bytes // 1024**2,
        container.disk_bytes,
        container.volume_group,
        container.pool,
    )


def _make(
    plan: Plan, specs: Path, files: Files, containers: images.ContainerImage, guests: images.GuestImage, say: Say
) -> None:
    for directory in (*(files.www / name for name in ("images", "mirror", "handout")), files.logs, files.specs):
        directory.mkdir(parents=True, exist_ok=True)
    say("spec: bound to the lab's machines")
    user_key = asyncssh.generate_private_key("ssh-ed25519", comment="vcrecon lab")
    public_key = user_key.export_public_key().decode().strip()
    artifacts = {
        part: (f"http://{layout.IMAGES}:{layout.IMAGES_PORT}/{path.name}", images.sha256(path))
        for part, path in (("root", guests.root), ("kernel", guests.kernel), ("initrd", guests.initrd))
    }
    write_specs(specs, files.specs, site=plan.site, machines=plan.machines, artifacts=artifacts, public_key=public_key)
    files.key.touch(mode=0o600)
    user_key.write_private_key(str(files.key))
    known = []
    for entry in plan.machines:
        host_key = asyncssh.generate_private_key("ssh-ed25519", comment=f"root@{entry.name}")
        public = host_key.export_public_key().decode().strip()
        known.append(f"{entry.address} {public}\n")
        identity = {
            "etc/ssh/ssh_host_ed25519_key": (host_key.export_private_key(), 0o600),
            "etc/ssh/ssh_host_ed25519_key.pub": (f"{public}\n".encode(), 0o644),
            "root/.ssh/authorized_keys": (f"{public_key}\n".encode(), 0o600),
        }
        machine.prepare(entry, containers, files, identity)
    files.known_hosts.write_text("".join(known))
    say("network: namespaces, bridges, mirror, outside world")
    _make_network(plan, files, guests)
    # The last step: from here on `up` completes what is missing.
    write_plan(plan, files)


def _make_network(plan: Plan, files: Files, guests: images.GuestImage) -> None:
    (files.www / "handout" / "index.html").write_text("the lab's handout\n")
    links = {files.www / "images" / path.name: path for path in (guests.root, guests.kernel, guests.initrd)}
    for link, target in {**links, files.www / "mirror" / "debian": guests.repository}.items():
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    network.lay(plan.machines)
    network.serve(files.logs, files.www)


def _until_all_answer(plan: Plan, files: Files, say: Say) -> None:
    began_s = time.monotonic()
    waiting: Sequence[MachinePlan] = plan.machines
    while waiting:
        for entry in [entry for entry in waiting if machine.answers(entry, files)]:
            say(f"{entry.name}: answers after {time.monotonic() - began_s:.0f} s")
            waiting = [other for other in waiting if other != entry]
        for entry in waiting:
            if not machine.is_on(entry.name, files):
                log = files.machine(entry.name) / "qemu.log"
                raise Refused(f"lab: {entry.name} went off while it booted; see {log} and {files.serial(entry.name)}")
        if waiting and time.monotonic() - began_s > BOOT_S:
            names = ", ".join(entry.name for entry in waiting)
            raise Refused(f"lab: {names} did not answer within {BOOT_S:.0f} s; see {files.serial(waiting[0].name)}")
        time.sleep(1.0)


def status(files: Files) -> list[dict[str, str]]:
    """One row for each machine, the spare ones last. Raises Refused when there is no lab."""
    plan = read_plan(files)
    rows = [
        {"kind": "container", "hypervisor": entry.hypervisor, **_row(entry, plan, files)} for entry in plan.machines
    ]
    return rows + [{"kind": "spare", "hypervisor": "", **_row(entry, plan, files)} for entry in plan.spares]


def _row(entry: Cabled, plan: Plan, files: Files) -> dict[str, str]:
    on = machine.is_on(entry.name, files)
    return {
        "name": entry.name,
        "address": entry.address,
        "mac": entry.provisioning_mac,
        "power": "on" if on else "off",
        "ssh": "answers" if on and machine.answers(entry, files, plan.record) else "silent",
        "console": str(files.serial(entry.name)),
    }


def down(files: Files | None = None) -> int:
    """Remove the lab with everything in it; returns how many processes were ended. Raises Refused."""
    files = files or Files()
    record = read_plan(files).record if files.plan.exists() else None
    if record is not None and (pid := listener_pid(socket_path(record))) is not None:
        raise Refused(f"a vcrecon service still works on the lab; stop it first: kill {pid}")
    ended = network.remove(files.key)
    # The record speaks of guests that are gone with the machines.
    if record is not None and record.exists():
        shutil.rmtree(record)
    if files.root.exists():
        shutil.rmtree(files.root)
    return ended
