"""Who may go now: slots for installs, image transfers, moves and starts, first come first served. Pure.

Called by the controller with each planned action. What is refused waits in a queue, whose lengths are the
metric `vcrecon_queue`, and is asked for again by the next pass of its container.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from vcrecon.core.actions import Action, CopyDisk, FetchImage, Install, StartGuest, StopGuest
from vcrecon.core.memory import Memory
from vcrecon.spec.model import Limits

QUEUES = ("installs", "image-transfers", "moves", "starts", "channels", "retries")
PER_CONTAINER = ("starts", "channels")
CHANNELS_PER_CONTAINER = 6
"""Steps at once on one container: OpenSSH allows 10 sessions a connection, and looks and events need three."""
RETRIES_AT_ONCE = 16
"""How many objects that failed before may be tried at the same time, so that they never starve the others."""


class Admission:
    """Mutable, but without a clock: its owner says what begins and what ends."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.in_flight: dict[str, Action] = {}
        self._waiting: dict[str, dict[str, str]] = {queue: {} for queue in QUEUES}
        self._retrying: set[str] = set()
        self._numbered: dict[str, dict[str, int]] = {}
        """By queue: who waits, numbered from 0. Made when it is asked for, dropped when the queue changes."""

    @property
    def busy(self) -> frozenset[str]:
        """Subjects with an action in flight."""
        return frozenset(self.in_flight)

    def lengths(self) -> dict[str, int]:
        """How many actions wait in each queue."""
        return {queue: len(waiting) for queue, waiting in self._waiting.items()}

    def ask(self, action: Action, memory: Memory) -> str | None:
        """Take a slot and return None, or return the queue that the action waits in."""
        if action.subject in self.in_flight:
            return "retries"
        for queue in self._queues(action, memory):
            waiting = self._waiting[queue]
            free = self._free(queue, action, memory)
            ahead = self._number(queue)[action.subject] if action.subject in waiting else len(waiting)
            if queue in PER_CONTAINER:
                # One queue for the metric, but slots are per container: only those of this one are ahead.
                before = list(waiting.items())[:ahead]
                ahead = sum(container == action.container for _, container in before)
            if ahead >= free:
                if queue in self._numbered:
                    self._numbered[queue].setdefault(action.subject, len(waiting))
                waiting[action.subject] = action.container
                return queue
        for queue, waiting in self._waiting.items():
            if waiting.pop(action.subject, None) is not None:
                self._numbered.pop(queue, None)
        if action.subject in memory.attempts and not isinstance(action, Install):
            self._retrying.add(action.subject)
        self.in_flight[action.subject] = action
        return None

    def done(self, action: Action) -> frozenset[str]:
        """Give the slots back; returns the containers that wait for one."""
        self.in_flight.pop(action.subject, None)
        self._retrying.discard(action.subject)
        return frozenset(c for waiting in self._waiting.values() for c in waiting.values())

    def retain(self, container: str, wanted: Iterable[str]) -> None:
        """Drop what `container` waited for and no longer plans."""
        keep = set(wanted)
        for queue, waiting in self._waiting.items():
            for subject in [s for s, c in waiting.items() if c == container and s not in keep]:
                del waiting[subject]
                self._numbered.pop(queue, None)

    def place(self, action: Action, queue: str) -> tuple[int, int] | None:
        """Where an action stands in a queue, the first being 1, and how many are in it; None when it is not."""
        number = self._number(queue).get(action.subject)
        return (number + 1, len(self._waiting[queue])) if number is not None else None

    def _number(self, queue: str) -> dict[str, int]:
        found = self._numbered.get(queue)
        if found is None:
            found = self._numbered[queue] = {subject: n for n, subject in enumerate(self._waiting[queue])}
        return found

    def _queues(self, action: Action, memory: Memory) -> Iterable[str]:
        if isinstance(action, Install):
            yield "installs"
            return  # it uses no channel, and one that is tried again must not keep others from their retries
        if isinstance(action, FetchImage):
            yield "image-transfers"
        if isinstance(action, CopyDisk) or (isinstance(action, StopGuest) and not (action.force or action.urgent)):
            yield "moves"
        if isinstance(action, StartGuest):
            yield "starts"
        if not (isinstance(action, StopGuest) and action.force):  # a stale copy is stopped before anything (S1)
            yield "channels"
        if action.subject in memory.attempts:
            yield "retries"

    def _free(self, queue: str, action: Action, memory: Memory) -> int:
        running = self.in_flight.values()
        if queue == "installs":
            # A slot lasts from the ticket to its end, also across a restart.
            taken = {name for name, ticket in memory.tickets.items() if ticket.state != "installed"}
            if action.container in taken:
                return sys.maxsize
            return self.limits.installs - len(taken | {a.container for a in running if isinstance(a, Install)})
        if queue == "image-transfers":
            return self.limits.image_transfers - sum(isinstance(a, FetchImage) for a in running)
        if queue == "moves":
            # A guest on its way holds its slot from the stop until it answers at its new place.
            # One that fails gives it up: four that cannot arrive must not stop all others for ever (S8).
            under_way = {s for s, intent in memory.intents.items() if intent.action in ("stop-guest", "copy-disk")}
            under_way -= memory.attempts.keys()
            under_way |= {a.subject for a in running if isinstance(a, CopyDisk | StopGuest)}
            if action.subject in under_way:
                return sys.maxsize  # it holds its slot already: never behind those that wait for one
            return self.limits.moves - len(under_way)
        if queue == "starts":
            mine = sum(isinstance(a, StartGuest) and a.container == action.container for a in running)
            return self.limits.starts_per_container - mine
        if queue == "channels":
            return CHANNELS_PER_CONTAINER - sum(a.container == action.container for a in running)
        return RETRIES_AT_ONCE - len(self._retrying)
