"""Which containers a new generation concerns. Pure; called by the controller when it adopts one."""

from __future__ import annotations

from vcrecon.core.world import World
from vcrecon.spec.model import Spec


def concerned(old: Spec, new: Spec, world: World) -> frozenset[str]:
    """The containers of `new` whose plan may differ from the one under `old`. Cheap when most objects are shared."""
    shared = ("site", "images", "networks", "clusters")
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
            if before is None or before.interfaces != guest.interfaces:
                # Its address is in the hosts file of its cluster, and of every guest without a cluster.
                changed |= {g.name for g in new.guests.values() if g.cluster in (None, guest.cluster)}
    for name in changed:
        found |= {new.placement[name]} if name in new.placement else set()
        found |= world.sightings.get(name, {}).keys() & new.containers.keys()
    return frozenset(found)
