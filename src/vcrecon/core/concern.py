"""Which containers a new generation concerns. Pure; called by the controller when it adopts one."""

from __future__ import annotations

from collections.abc import Mapping

from vcrecon.core.install_rules import ADVICE
from vcrecon.core.world import World
from vcrecon.spec.model import Guest, Spec


def concerned(old: Spec, new: Spec, world: World) -> frozenset[str]:
    """The containers of `new` whose plan may differ from the one under `old`. Cheap when most objects are shared."""
    shared = ("site", "images", "systems", "networks", "clusters")
    if any(getattr(old, part) != getattr(new, part) for part in shared):
        return frozenset(new.containers)
    found = {name for name in new.containers if old.deployment.get(name) != new.deployment.get(name)}
    changed = {
        guest
        for name in old.deployment.keys() | new.deployment.keys()
        if old.deployment.get(name) != new.deployment.get(name)
        for guest in (*old.deployment.get(name, ()), *new.deployment.get(name, ()))
    }
    for name, guest in new.guests.items():
        before = old.guests.get(name)
        if before is not guest and before != guest:
            changed.add(name)
            if before is None or _told(before) != _told(guest):
                # Its address is in the hosts file of its cluster, and of every guest without a cluster; hooks are
                # told the rest.
                changed |= {g.name for g in new.guests.values() if g.cluster in (None, guest.cluster)}
    for name in changed:
        found |= {new.placement[name]} if name in new.placement else set()
        found |= world.sightings.get(name, {}).keys() & new.containers.keys()
    return frozenset(found)


def _told(guest: Guest) -> tuple[object, ...]:
    """What others' contexts say of it."""
    return guest.interfaces, guest.role, guest.cores, guest.memory_bytes


def mended(old: Spec, new: Spec, failed: Mapping[str, str]) -> frozenset[str]:
    """Subjects that failed for what a person has now changed: they are tried at once.

    `failed` maps a subject to the reason it failed for.
    """
    found = set()
    for subject, reason in failed.items():
        kind, _, name = subject.partition("/")
        if kind == "container" and reason in ADVICE and _installs_differ(old, new, name):
            found.add(subject)
        if kind == "guest" and reason == "hook-failed":
            before, after = old.guests.get(name), new.guests.get(name)
            if before is None or after is None or before.hooks != after.hooks:
                found.add(subject)
        elif kind == "image" and old.images.get(name.rpartition("/")[2]) != new.images.get(name.rpartition("/")[2]):
            found.add(subject)
    return frozenset(found)


def _installs_differ(old: Spec, new: Spec, container: str) -> bool:
    """Whether an install of it would go differently now: another machine, other disks, another system."""
    before, after = old.containers.get(container), new.containers.get(container)
    if before is None or after is None:
        return True
    parts = ("mac", "system", "layout")
    if any(getattr(before, part) != getattr(after, part) for part in parts):
        return True
    return old.systems.get(before.system or "") != new.systems.get(after.system or "")
