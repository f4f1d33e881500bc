"""All that vcrecon made on a site's hosts, as plain values that two classrooms can be compared by. For `transitions`.

History is left out: how often a guest booted, the number of its disk, process and device numbers, what students and
boots wrote. So are images that lie ready on a container, which are kept for the next guest that needs them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.classroom import WORK, Classroom
from tests.simulation.disks import is_live, value_of

from vcrecon.sim.domains import Domain
from vcrecon.sim.files import File
from vcrecon.sim.lvm import Volume
from vcrecon.sim.machine import Machine

_XEN = "/run/vcrecon/xen"
_OF_THE_GUEST_ITSELF = (WORK, "/var/log/boots")


@dataclass(frozen=True)
class Difference:
    """`part` is disk, definition, interfaces or state of a guest, or network, rules or leftovers of a container."""

    container: str
    guest: str
    part: str
    fresh: object
    found: object

    def __str__(self) -> str:
        fresh, found = _without(self.fresh, self.found), _without(self.found, self.fresh)
        return f"{self.container} {self.guest} {self.part}: fresh {_short(fresh)}, found {_short(found)}"


@dataclass
class Portrait:
    """`guests` and `containers` map (container, guest) and container to part to value."""

    guests: dict[tuple[str, str], dict[str, object]] = field(default_factory=dict)
    containers: dict[str, dict[str, object]] = field(default_factory=dict)

    def differences(self, found: Portrait) -> Iterator[Difference]:
        """What `found` has otherwise than this one, which is the fresh one."""
        for container, parts in self.containers.items():
            for part, value in parts.items():
                if value != found.containers[container][part]:
                    yield Difference(container, "", part, value, found.containers[container][part])
        for container, guest in sorted(self.guests.keys() | found.guests.keys()):
            fresh = self.guests.get((container, guest), {})
            there = found.guests.get((container, guest), {})
            for part in sorted(fresh.keys() | there.keys()):
                if fresh.get(part) != there.get(part):
                    yield Difference(container, guest, part, fresh.get(part), there.get(part))


def portray(room: Classroom) -> Portrait:
    """The containers of the spec in force; what is on one that left it is out of vcrecon's reach."""
    portrait = Portrait()
    site = room.good.site.name
    for name in room.good.containers:
        machine = room.site.hosts[name].machine
        leftovers: list[str] = []
        taps: set[str] = set()
        for volume in machine.all_volumes():
            if f"vc.site={site}" in volume.tags and not _is_kept(volume):
                guest = value_of(volume, "vc.guest=")
                if guest and is_live(volume):
                    portrait.guests.setdefault((name, guest), {})["disk"] = _disk(volume)
                else:
                    leftovers.append(f"volume {volume.name} {sorted(volume.tags)}")
        for guest, mark in _marks(machine).items():
            if f"site={site} " in mark:
                domain = machine.domains.by_name.get(guest)
                parts = portrait.guests.setdefault((name, guest), {})
                parts["state"] = domain.state if domain is not None else "shut off"
                parts["definition"] = {"mark": mark} | (_definition(domain) if domain is not None else {})
                parts["interfaces"] = _links(machine, set(domain.taps) if domain is not None else set())
                taps |= parts["interfaces"].keys()
        leftovers += [f"mount {mount.target}" for mount in machine.files.mounts if "vcrecon" in mount.target]
        portrait.containers[name] = {
            "network": _links(machine, machine.network.links.keys() - taps),
            "rules": [t.text() for (_, table), t in sorted(machine.nft.tables.items()) if table == "vcrecon"],
            "leftovers": leftovers,
        }
    return portrait


def _is_kept(volume: Volume) -> bool:
    """Disks that were put aside (S2, S3), and images that lie ready."""
    return any(tag.startswith(("vc.quarantined", "vc.golden=")) for tag in volume.tags)


def _disk(volume: Volume) -> dict[str, object]:
    said = {tag: value_of(volume, tag) for tag in ("vc.image=", "vc.context=")}
    held = sorted(tag for tag in volume.tags if tag in ("vc.held", "vc.building"))
    return {"size": volume.size_bytes, "kind": volume.kind, "tags": said, "held": held, "files": _files(volume)}


def _files(volume: Volume) -> dict[str, str]:
    filesystem = volume.look()
    if filesystem is None:
        return {}
    found: dict[str, str] = {}
    for path, node in filesystem.walk():
        absolute = f"/{path.lstrip('/')}"
        if isinstance(node, File) and absolute not in _OF_THE_GUEST_ITSELF:
            found[absolute] = f"{node.mode:o} {hashlib.sha256(node.content()).hexdigest()}"
    return found


def _marks(machine: Machine) -> dict[str, str]:
    """Guest to its definition's mark: the title of a libvirt domain, the first line of a Xen guest's configuration."""
    marks = {domain.name: domain.title for domain in machine.domains.by_name.values()}
    for file in machine.files.listdir(_XEN) if machine.files.exists(_XEN) else []:
        if file.endswith(".cfg"):
            marks[file.removesuffix(".cfg")] = machine.files.read(f"{_XEN}/{file}").decode().partition("\n")[0]
    return marks


def _definition(domain: Domain) -> dict[str, object]:
    nics = sorted((nic.mac, nic.bridge) for nic in domain.nics)
    return {
        "memory": domain.memory_bytes, "cores": domain.vcpus, "nics": nics,
        "disks": domain.disks, "kernel": domain.kernel, "initrd": domain.initrd, "cmdline": domain.cmdline,
    }  # fmt: skip


def _links(machine: Machine, names: set[str]) -> dict[str, Any]:
    """Bridges and VLANs, or the interfaces of a guest on them. `vcbr7` is somebody else's (`foreign`)."""
    return {
        link.name: (
            link.kind, link.mtu, link.up, link.master, link.lower, link.vlan_id, link.alias,
            sorted(link.bridge.items()), sorted(link.addresses),
        )
        for link in machine.network.links.values()
        if link.name in names and link.name.startswith("vc") and link.name != "vcbr7"
    }  # fmt: skip


def _without(value: object, other: object) -> object:
    """What of `value` is not the same in `other`: of disks with hundreds of files only those that tell."""
    if not isinstance(value, dict) or not isinstance(other, dict):
        return value
    return {
        key: _without(part, other.get(key)) for key, part in value.items() if key not in other or part != other[key]
    }


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 400 else f"{text[:400]}…"
