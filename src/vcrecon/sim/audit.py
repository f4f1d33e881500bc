"""The witness of a simulated site: sees every start and every lost disk, reports what must not happen.

Asked by tests and the demo through `Site.audit()`. It checks S1 (one live copy of a guest) at every start on
any host, cut hosts included, and S2 (a disk that has booted is not overwritten or removed without consent).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from vcrecon.sim.domains import Domain
from vcrecon.sim.lvm import Volume
from vcrecon.sim.machine import Machine, VolumeEvent

GUEST_TAG = "vc.guest="
HELD_TAG = "vc.held"
"""A person works on the disk, and may write what they like."""
DESTRUCTIVE = frozenset({"remove", "mkfs", "device-write"})
# A booted guest may get a new identity; an image unpacked over it also writes elsewhere, and that is its end.
CONTEXT_DIRECTORIES = ("/etc/", "/root/")


def guest_of(tags: Iterable[str]) -> str:
    """The guest that a volume's LVM tags name, or nothing."""
    return next((tag.removeprefix(GUEST_TAG) for tag in tags if tag.startswith(GUEST_TAG)), "")


class Audit:
    """`violations` is empty as long as nothing forbidden was ever seen. `boots` counts starts by guest."""

    def __init__(self, machines: Mapping[str, Machine], *, preparing: bool) -> None:
        self._machines = machines
        self.preparing = preparing
        self.violations: list[dict[str, Any]] = []
        self.removals: list[dict[str, Any]] = []
        self.boots: Counter[str] = Counter()
        self.started_at_s: dict[tuple[str, str], float] = {}
        self._consents: set[str] = set()
        for machine in machines.values():
            self._watch(machine)

    def _watch(self, machine: Machine) -> None:
        machine.on_domain_start(lambda domain: self._started(machine, domain))
        machine.on_volume_event(self._volume_event)

    def consent(self, guest: str) -> None:
        """From now on the disks of `guest` may be given up: a test that rebuilds or prunes on purpose."""
        self._consents.add(guest)

    def _started(self, machine: Machine, domain: Domain) -> None:
        self.boots[domain.name] += 1
        self.started_at_s[machine.name, domain.name] = machine.timing.wall()
        hosts = self.live(domain.name)
        if len(hosts) > 1:
            self._report("two live copies", domain.name, machine.name, f"runs on {', '.join(hosts)}")

    def live(self, guest: str) -> list[str]:
        """The hosts on which a live domain of this name runs now."""
        return [
            machine.name
            for machine in self._machines.values()
            if (domain := machine.domains.by_name.get(guest)) is not None and domain.live
        ]

    def _volume_event(self, event: VolumeEvent) -> None:
        if event.kind not in DESTRUCTIVE and not self._overwrites(event):
            return
        guest = guest_of(event.tags) or event.volume
        # Before the session guests may be rebuilt at will, unless their disk is already marked touched.
        if guest in self._consents or (self.preparing and "vc.touched" not in event.tags):
            self.removals.append({"kind": event.kind, "guest": guest, "host": event.machine})
            return
        kind = f"{event.kind} of a booted volume"
        self._report(kind, guest, event.machine, f"{event.volume} {event.detail}", volume=event.volume)

    def _overwrites(self, event: VolumeEvent) -> bool:
        """Whether a write through a mount is to something else than the guest's context."""
        if event.kind != "write" or HELD_TAG in event.tags:
            return False
        volumes = self._machines[event.machine].all_volumes()
        mounts = [at for volume in volumes if volume.full_name == event.volume for at in volume.mounted_at]
        inside = next((event.detail.removeprefix(at) for at in mounts if event.detail.startswith(at)), event.detail)
        if f"{inside}/".startswith(CONTEXT_DIRECTORIES):
            return False
        latest = self.violations[-1] if self.violations else {}
        # One unpacked archive is one violation, not one for each of its files.
        return (latest.get("volume"), latest.get("kind")) != (event.volume, "write of a booted volume")

    def _report(self, kind: str, guest: str, host: str, detail: str, *, volume: str = "") -> None:
        entry = {"kind": kind, "guest": guest, "host": host, "volume": volume, "detail": detail.strip()}
        self.violations.append({**entry, "at_s": self._machines[host].timing.wall()})

    def report(self) -> dict[str, Any]:
        """Everything as JSON: `violations` (what must not happen) and `removals` (what was allowed)."""
        return {"violations": list(self.violations), "removals": list(self.removals)}


def live_volume(machines: Iterable[Machine], guest: str) -> tuple[Machine, Volume] | None:
    """Where the guest's disk is: of a running copy first, else any tagged volume that is not quarantined."""
    tagged: list[tuple[Machine, Volume]] = []
    for machine in machines:
        domain = machine.domains.by_name.get(guest)
        if domain is not None and domain.live and (volumes := machine.domains.volumes(domain)):
            return machine, volumes[0]
        tagged += [(machine, volume) for volume in machine.all_volumes() if guest_of(volume.tags) == guest]
    kept = [found for found in tagged if not any(tag.startswith("vc.quarantined") for tag in found[1].tags)]
    return kept[0] if kept else None
