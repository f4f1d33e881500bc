"""Whether containers may hold guests that a new record knows nothing of (S1). Pure; called by `shell.survey`."""

from __future__ import annotations

from collections.abc import Collection

from vcrecon.core.memory import Memory
from vcrecon.core.observation import Seen, Unseen
from vcrecon.core.world import World, allowed
from vcrecon.spec.model import Limits

_LET_US_IN = frozenset({"garbage", "tool-died", "output-too-large", "channel-refused", "deadline", "connection-lost"})
"""Kinds of Unseen that come from a host that speaks SSH with us: it runs, and may run guests."""


def hidden(containers: Collection[str], world: World, memory: Memory) -> frozenset[str]:
    """Those that have not shown this record what they hold, though they have the programs to run guests."""
    return frozenset(name for name in containers if name not in memory.shown and not _lacks_programs(world, name))


def may_be_taken_for_empty(silent: Collection[str], total: int, world: World, limits: Limits) -> bool:
    """Whether these, of `total` containers, hold no guests as far as anybody can tell: a few of an unused site.

    On a small site a few may be all that hold guests: most must have shown that they hold none.
    """
    if world.used or len(silent) > min(allowed(limits, total), (total - 1) // 2):
        return False
    return all(isinstance(seen := world.current.get(name), Unseen) and seen.kind not in _LET_US_IN for name in silent)


def _lacks_programs(world: World, container: str) -> bool:
    seen = world.current.get(container)
    return isinstance(seen, Seen) and bool(seen.missing)
