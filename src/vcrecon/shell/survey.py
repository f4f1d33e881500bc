"""What a record that knows nothing yet asks of the site first: do hosts hold guests that no claim tells of (S1)?

Until every container was looked at once nothing is begun. Made and asked by `controller`, at every look.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from vcrecon.core.memory import SURVEY, Intent
from vcrecon.core.survey import hidden, may_be_taken_for_empty, was_in_use
from vcrecon.core.world import World
from vcrecon.shell.record import Record
from vcrecon.spec.model import Limits

_IN_USE = "survey of a site in use"


class Survey:
    """Begun by a record without sightings and claims, or by one that came from another master. `clock` in seconds."""

    def __init__(self, record: Record, clock: Callable[[], float]) -> None:
        self._record = record
        self._clock = clock
        memory = record.memory
        self.on = SURVEY in memory.intents or not (memory.seen or memory.claims)

    def begin(self, containers: Iterable[str]) -> None:
        """Durable before the first look is: a controller that is killed in a survey must begin it anew (S7)."""
        if self.on and SURVEY not in self._record.memory.intents:
            with self._record.batch() as batch:
                batch.put_intent(Intent(SURVEY, "survey", self._clock()))
        if self.on:
            self.mind_unshown(containers)

    def mind_unshown(self, containers: Iterable[str]) -> None:
        """What may hold guests that no claim tells of is not forgotten when it leaves the spec (S1)."""
        memory = self._record.memory
        new = [name for name in containers if name not in memory.shown and name not in memory.unshown]
        if new and (self.on or not memory.claims_complete):
            with self._record.batch() as batch:
                for name in new:
                    batch.put_unshown(name, self._clock())

    def end(self, containers: Collection[str], world: World, limits: Limits) -> bool:
        """Once every container was looked at: may one hold guests that this record knows nothing of? True if over.

        The claims are complete at the latest when the last of them has shown what it holds.
        """
        memory = self._record.memory
        in_use = self.on and self._in_use(world)
        if (memory.claims_complete and not self.on) or any(name not in world.current for name in containers):
            return False
        expected = {*containers, *memory.unshown}
        unknown = hidden(expected, world, memory)
        if unknown and not self.on:
            return False
        doubt = bool(unknown) and (in_use or not may_be_taken_for_empty(unknown, len(expected), world, limits))
        with self._record.batch() as batch:
            batch.set_claims_complete(not doubt)
            batch.remove_intent(SURVEY)
            for name in () if doubt else tuple(memory.unshown):
                batch.remove_unshown(name)
        self.on = False
        return True

    def _in_use(self, world: World) -> bool:
        """Durable at once: the next look finds our own lease there, and what showed it may leave the spec."""
        intent = self._record.memory.intents[SURVEY]
        if intent.action == _IN_USE:
            return True
        if not was_in_use(world, intent.since_s):
            return False
        with self._record.batch() as batch:
            batch.put_intent(replace(intent, action=_IN_USE))
        return True
