"""False views: what the controller sees is lost, late, old, out of order or doubled, at each observation.

Called by `sweep --views`. An observation is an answer to one question put to a program that stays on a host (the look,
the hypervisor), the end of one command, one packet of events, what a power controller shows, or a call of a machine
that boots from the network. At each the process is forked, and the child sees it

- `dropped`: the connection dies instead (a power controller: it does not answer);
- `late` by 20 s, with all that comes after it on the same connection, or by 45 s: beyond the deadline of a look;
- `slow`: this answer alone comes 20 s after it was true, while other commands of the host go on being answered;
- `stale`: what the same question was answered one or two times before. SSH has no proxy that could do that; it stands
  for a look that began before the last change and is believed to have begun after it, so that what lies between was
  never seen. The random mark that ends an answer is that of the new question;
- events: `lost`, `twice`, or after those that came later (`reordered`);
- calls: `lost` before the service or after it (`unanswered`), or made `twice`.

The end must be that of the run that was not misled.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.simulation import picture
from tests.simulation.machine import Machine
from tests.simulation.picture import Picture
from tests.simulation.stage import SeenSwitch, Stage, fork
from tests.simulation.wire import Direction, Ends, Link

from vcrecon.errors import Transient

LATE_S = 20.0
BEYOND_S = 45.0
_TICK_S = 1e-6
_MARK = re.compile(rb"vcr[0-9a-f]{16}")
_GREETING = re.compile(rb"\A(?:printf '\\n%s\\n' |echo )vcr[0-9a-f]{16}\n")
_REORDERED_S = 10.0

Answer = Callable[[Ends, bytes], bytes]


@dataclass
class Question:
    """One that was put to a program that stays, and what it has answered."""

    key: tuple[str, str, bytes]
    mark: bytes
    answer: bytearray = field(default_factory=bytearray)


class Views:
    """Attached to a stage: misleads a forked child at each observation."""

    def __init__(self, stage: Stage, expected: Picture, *, every: int, offset: int) -> None:
        self.stage, self.expected, self.every, self.offset = stage, expected, every, offset
        self.points = 0
        self.results: list[dict[str, Any]] = []
        self.variants = 0
        self._is_child = False
        self._asked: dict[Ends, Question] = {}
        self._history: dict[tuple[str, str, bytes], list[Question]] = defaultdict(list)
        self._states: dict[str, list[str]] = defaultdict(list)
        self._late: dict[Link, float] = {}
        self._tainted: dict[Ends, Answer] = {}
        network = stage.room.network
        network.asked, network.answered, network.deliver = self._question, self._answer, self._deliver
        stage.on_switch = self._switch
        for machine in stage.room.machines.values():
            machine.on_call = self._call

    def _fork(self, what: str, how: str) -> bool:
        """True in a child that is to be misled like this."""
        if self._is_child:
            return False
        self.variants += 1
        if self.variants % self.every != self.offset % self.every:
            return False
        label = {"workflow": self.stage.workflow.name, "point": self.points, "how": f"{what} {how}"}
        if fork(self.stage, label, self.expected, self.results):
            self._is_child = True
            self.stage.main.take_own_copy()
            return True
        return False

    def _counts(self, link: Link) -> bool:
        if self._is_child or not self.stage.is_watched(link):
            return False
        self.points += 1
        return True

    # --- answers of programs that stay ---------------------------------------------------------------------

    def _question(self, ends: Ends, data: bytes) -> None:
        if not picture.stays(ends.command) or picture.is_events(ends.command):
            return
        self._tainted.pop(ends, None)
        before = self._asked.pop(ends, None)
        if before is not None:
            self._history[before.key].append(before)
            del self._history[before.key][:-2]
        mark = _MARK.search(data)
        if mark is None or _GREETING.match(data):
            return
        host = ends.link.server.machine.name
        question = Question((host, ends.command, _MARK.sub(b"", data)), mark[0])
        self._asked[ends] = question
        if self._counts(ends.link):
            self._mislead(ends, question, "look" if ends.command == "exec sh" else "hypervisor")

    def _mislead(self, ends: Ends, question: Question, what: str) -> None:
        what = f"{what} of {question.key[0]}"
        earlier = self._history[question.key]
        if self._fork(what, "dropped"):
            self._tainted[ends] = self._drop
        elif self._fork(what, "late"):
            self._late[ends.link] = self.stage.loop.time() + LATE_S
        elif self._fork(what, "beyond"):
            self._late[ends.link] = self.stage.loop.time() + BEYOND_S
        elif self._fork(what, "slow"):
            self._tainted[ends] = partial(self._slow, question)
        else:
            for looks, old in enumerate(reversed(earlier), 1):
                if self._fork(what, f"stale by {looks}"):
                    self.stage.truth.copies.misled = True
                    said = bytes(old.answer).replace(old.mark, question.mark)
                    self._tainted[ends] = partial(self._stale, iter([said]))
                    return

    def _answer(self, ends: Ends, data: bytes) -> bytes:
        question = self._asked.get(ends)
        if question is not None:
            question.answer += data
        tainted = self._tainted.get(ends)
        if tainted is not None:
            return tainted(ends, data)
        if picture.is_events(ends.command) and self._counts(ends.link):
            return self._events(ends, data)
        return data

    def _drop(self, ends: Ends, data: bytes) -> bytes:
        del self._tainted[ends]
        ends.link._dies()
        return b""

    def _slow(self, question: Question, ends: Ends, data: bytes) -> bytes:
        """Nothing for a while, then all of it."""

        def release() -> None:
            if self._asked.get(ends) is question and not ends.client_over:
                del self._tainted[ends]
                said = bytes(question.answer)
                question.answer.clear()
                ends.client_end.deliver(said, None)

        if len(question.answer) == len(data):
            loop = self.stage.loop
            loop.call_at(loop.time() + LATE_S, release, context=ends.link.client_context)
        return b""

    @staticmethod
    def _stale(said: Any, ends: Ends, data: bytes) -> bytes:
        """The old answer at once, and nothing of the new one."""
        return next(said, b"")

    # --- events, ends of commands, power, calls ------------------------------------------------------------

    def _events(self, ends: Ends, data: bytes) -> bytes:
        what = f"event of {ends.link.server.machine.name}"
        if self._fork(what, "lost"):
            return b""
        if self._fork(what, "twice"):
            return data * 2
        if self._fork(what, "reordered"):
            self._tainted[ends] = lambda ends, later: self._after(ends, data, later)
            loop = self.stage.loop
            loop.call_at(loop.time() + _REORDERED_S, self._release, ends, data, context=ends.link.client_context)
            return b""
        return data

    def _after(self, ends: Ends, first: bytes, later: bytes) -> bytes:
        del self._tainted[ends]
        return later + first

    def _release(self, ends: Ends, first: bytes) -> None:
        """Nothing came after it."""
        if self._tainted.pop(ends, None) is not None and not ends.client_over:
            ends.client_end.deliver(first, None)

    def _deliver(self, link: Link, direction: Direction, kind: str, arrive: Callable[[], None]) -> None:
        loop = self.stage.loop
        until_s = self._late.get(link, 0.0)
        if direction == "reply" and loop.time() < until_s:
            self._late[link] = until_s + _TICK_S  # so that they stay in order
            loop.call_at(until_s, self._arrive_late, link, arrive, context=link.client_context)
        elif kind == "exit" and self._counts(link) and self._mislead_step(link, direction, kind, arrive):
            return
        else:
            self.stage.deliver(link, direction, kind, arrive)

    def _mislead_step(self, link: Link, direction: Direction, kind: str, arrive: Callable[[], None]) -> bool:
        """True in a child, which has taken care of the message."""
        what = f"command on {link.server.machine.name}"
        if self._fork(what, "dropped"):
            link._dies()
            return True
        for how, late_s in (("late", LATE_S), ("beyond", BEYOND_S)):
            if self._fork(what, how):
                self._late[link] = self.stage.loop.time() + late_s
                self._deliver(link, direction, kind, arrive)
                return True
        return False

    @staticmethod
    def _arrive_late(link: Link, arrive: Callable[[], None]) -> None:
        if link.open:
            arrive()

    async def _switch(self, switch: SeenSwitch, state: str) -> str:
        if self.stage.armed and not self._is_child:
            self.points += 1
            what = f"power of {switch.name}"
            if self._fork(what, "dropped"):
                raise Transient(f"{switch.name}: its power controller does not answer", kind="power-timeout")
            if self._fork(what, "late"):
                await asyncio.sleep(LATE_S)
            elif self._states[switch.name] and self._fork(what, "stale by 1"):
                return self._states[switch.name][-1]
        self._states[switch.name].append(state)
        return state

    def _call(self, machine: Machine, call: Callable[[], object]) -> object:
        """Makes it, or not; None is what a machine hears of a server that does not answer."""
        if self.stage.armed and not self._is_child:
            self.points += 1
            what = f"call of {machine.name}"
            if self._fork(what, "lost"):
                return None
            if self._fork(what, "unanswered"):
                call()
                return None
            if self._fork(what, "twice"):
                answer = call()
                call()
                return answer
        return call()
