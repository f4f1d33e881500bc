"""Whether containers may hold guests that a new record knows nothing of (S1). Pure; called by `shell.survey`."""

from __future__ import annotations

from collections.abc import Collection

from vcrecon.core.memory import Memory
from vcrecon.core.observation import Seen, Storage, Unseen
from vcrecon.core.world import World, allowed
from vcrecon.spec.model import Limits

_LET_US_IN = frozenset({"garbage", "tool-died", "output-too-large", "channel-refused", "deadline", "connection-lost"})
"""Kinds of Unseen that come from a host that speaks SSH with us: it runs, and may run guests."""


def hidden(containers: Collection[str], world: World, memory: Memory) -> frozenset[str]:
    """Those that have not shown this record what they hold, though they have the programs to run guests."""
    return frozenset(name for name in containers if name not in memory.shown and not _lacks_programs(world, name))


def was_in_use(world: World, since_s: float) -> bool:
    """Whether a container shows what only a site leaves that was in use before the survey began at `since_s`.

    That is a guest's traces, an image's volume, or a lease: of another master, or ours and written earlier. It lies
    there until the container boots anew, and tells of guests that another container holds.
    """
    shown = (world.known(name) for name in world.current)
    goldens = (seen.storage.goldens for seen in shown if seen is not None and isinstance(seen.storage, Storage))
    leases = ((lease, at_s) for lease, at_s in world.found.values() if lease is not None)
    return (
        bool(world.sightings)
        or any(goldens)
        # Ages are whole seconds.
        or any(not lease.ours or at_s - lease.age_s - 1 < since_s for lease, at_s in leases)
    )


def may_be_taken_for_empty(silent: Collection[str], total: int, world: World, limits: Limits) -> bool:
    """Whether these, of `total` containers of a site that was not in use, are taken to hold no guests: a few.

    On a small site a few may be all that hold guests: most must have shown that they hold none.
    """
    if len(silent) > min(allowed(limits, total), (total - 1) // 2):
        return False
    return all(isinstance(seen := world.current.get(name), Unseen) and seen.kind not in _LET_US_IN for name in silent)


def _lacks_programs(world: World, container: str) -> bool:
    seen = world.current.get(container)
    return isinstance(seen, Seen) and bool(seen.missing)
