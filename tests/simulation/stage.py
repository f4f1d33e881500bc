"""One workflow played once, in a process that can be forked at any of its effects. Called by `sweep` and `views`.

A fork is as good as a replay: the virtual loop, the hosts and the seeded dice are all in memory, so the child stands
where the parent stands, and what it does from there is no business of the parent's. The one thing outside is the
record: the child kills the controller, or begins to use a copy of the record's files, before it goes on. No SQLite
connection is ever used on both sides of a fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pickle
import random
import shutil
import tempfile
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.simulation import picture
from tests.simulation.classroom import Classroom
from tests.simulation.entropy import bury_in_silence, seeded
from tests.simulation.loop import VirtualLoop
from tests.simulation.machine import Switch
from tests.simulation.process import Killed, Process
from tests.simulation.schedule import _MEMORY, Play
from tests.simulation.strikes import Strikes
from tests.simulation.truth import LOCK, Truth
from tests.simulation.wire import Direction, Link
from tests.simulation.workflows import Workflow, classroom_of

from vcrecon.core.backoff import CRASH_LOOP
from vcrecon.settings import Settings
from vcrecon.shell.record import SIZE_BYTES_MAX
from vcrecon.shell.record_store import Store

SEED = 1
SETTINGS = Settings(poll_s=20.0, relist_s=15.0, stable_s=5.0)
"""At rest each look is a full one, and a guest that crashed once is forgiven soon: so little virtual time shows all.
While anything is done, most looks are at guests alone, as ever."""
REST_S = 3600.0
QUIET_S = 25.0
"""As long as a full look at everything takes to come round: 1.2 * poll_s."""
RESTART_S = 2.0
_GARBAGE = 100_000
"""A child ends before so many objects are worth a search."""


@dataclass
class End:
    """How one run ended: `violations` in words, and what `picture.end` saw."""

    violations: list[str]
    picture: picture.Picture
    trace_hash: str = ""
    seconds: float = 0.0
    virtual_seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


class WatchedProcess(Process):
    """A service whose commits are told."""

    on_commit: Callable[[], None] = staticmethod(lambda: None)
    commits = 0

    def _wire(self, *arguments: Any) -> None:
        store, inner = self.record._store, self.record._store.commit

        def commit(*changes: Any, **named: Any) -> None:
            inner(*changes, **named)
            self.commits += 1
            self.on_commit()

        store.commit = commit  # type: ignore[method-assign]
        super()._wire(*arguments)

    @property
    def dead(self) -> bool:
        """Whether this life was ended by a kill."""
        return self.owner in self.loop._dead

    @property
    def unsynced_bytes(self) -> int:
        """How much of the log a power cut may take."""
        return max(0, self._synced._size() - self._synced._synced_bytes)

    def _leave_files(self, power: bool) -> None:
        """A power cut takes all that it may: the log ends at its last sync."""
        super()._leave_files(False)
        if power and self.unsynced_bytes:
            os.truncate(self.state / "record.sqlite-wal", self._synced._synced_bytes)

    def take_own_copy(self) -> None:
        """Go on in a forked child, whose working directory has a copy of the record: on a connection of its own."""
        store = self.record._store
        self.loop.graves.append(store._connection)
        (self.state / "record.sqlite-shm").unlink(missing_ok=True)
        store._connection = Store.open(self.state / "record.sqlite", size_bytes_max=SIZE_BYTES_MAX)[0]._connection
        store._synchronous = ""


class Stage:
    """The classroom of one workflow. `armed` while the workflow runs; `on_point` is told of each effect then."""

    def __init__(self, workflow: Workflow, loop: VirtualLoop, log: list[str]) -> None:
        rng = random.Random(SEED)
        self.workflow, self.loop = workflow, loop
        self.room = Classroom(loop, rng, Path(), SETTINGS, classroom_of(workflow), self._process)
        self.truth = Truth(self.room)
        self.truth.log = log
        self.room.network.deliver = self.deliver
        self.room.main.switches = {name: SeenSwitch(self, name) for name in workflow.switches}
        self.play = Play(
            self.room, self.truth, Strikes(self.room, self.truth, random.Random(rng.random())), random.Random(SEED)
        )
        self.armed = False
        self.on_point: Callable[[], None] = lambda: None
        self.on_switch: Callable[[SeenSwitch, str], Awaitable[str]] = _as_it_is
        self.finish: Callable[[End], None] = lambda end: None
        """Told of the end; does not come back in a forked child."""
        self.notes: list[str] = []
        self._boots: dict[str, int] = {}
        loop.set_exception_handler(lambda _, what: self._fell(what))

    @property
    def main(self) -> WatchedProcess:
        assert isinstance(self.room.main, WatchedProcess)
        return self.room.main

    def _process(self, *arguments: Any) -> WatchedProcess:
        process = WatchedProcess(*arguments)
        process.on_commit = lambda: self._committed(process)
        return process

    async def perform(self) -> End:
        """The whole workflow, to its end."""
        play, room, truth = self.play, self.room, self.truth
        watch = asyncio.ensure_future(play.watch())
        try:
            await self.workflow.prepare(play)
            truth.may_restart |= set(self.workflow.restarts)
            self._boots = dict(room.site.witness.boots)
            self.armed = True
            with contextlib.suppress(Killed):  # a person's command ends with the service
                await self.workflow.change(play)
            await self._rest()
        except Exception as error:
            truth.violate("simulation", f"{type(error).__name__}: {error} {traceback.format_exc()[-600:]}")
        watch.cancel()
        self.armed = False
        words = [str(violation) for violation in truth.violations]
        if words:
            self.notes += [*room.history, *room.explain()]
        seen = picture.end(room) if room.main.alive else {}
        end = End(words, seen, truth.hash.hexdigest(), 0.0, self.loop.time(), self.notes)
        self.finish(end)
        return end

    async def _rest(self) -> None:
        """All is at rest, stays so, and is true."""
        end_s = self.loop.time() + REST_S
        while not self._is_at_rest():
            if self.main.alive:
                with contextlib.suppress(Killed):  # a person's command ends with the service
                    self.play._help_where_only_people_can()
            if self.loop.time() > end_s:
                self.truth.violate("converges", f"not at rest: {' | '.join(self.room.explain())[:1500]}")
                return
            await asyncio.sleep(2.0)
        self.armed = False
        steps: list[str] = []
        listener = self.room.network.on_message

        def listen(host: str, direction: Any, kind: str, data: bytes) -> None:
            listener(host, direction, kind, data)
            if kind == "exec" and LOCK.search(data.decode("utf-8", "replace")):
                steps.append(f"{host}: {data[:120]!r}")

        self.room.network.on_message = listen
        await asyncio.sleep(QUIET_S)
        self.room.network.on_message = listener
        if steps:
            self.truth.violate("converges", f"at rest, and yet {steps[0]}")
        boots = self.room.site.witness.boots
        restarted = {guest for guest, count in boots.items() if count != self._boots.get(guest, 0)}
        self.truth.at_rest(restarted & self.room.known_guests, self.truth.may_restart)

    def _is_at_rest(self) -> bool:
        """Whether the service says so, and no guest waits to be forgiven that it crashed."""
        return self.room.converged() and not any(
            attempts.error == CRASH_LOOP for attempts in self.main.record.memory.attempts.values()
        )

    # --- effects -------------------------------------------------------------------------------------------

    def deliver(self, link: Link, direction: Direction, kind: str, arrive: Callable[[], None]) -> None:
        """Let a message arrive, which is an effect."""
        arrive()
        if self.is_watched(link):
            self.on_point()

    def is_watched(self, link: Link) -> bool:
        """Whether the workflow is under way and this wire is its controller's."""
        return self.armed and self.main.alive and link.client_owner == self.main.owner

    def _committed(self, process: WatchedProcess) -> None:
        if self.armed and process is self.room.main:
            self.on_point()
            if process.dead:
                raise Killed

    # --- crashes -------------------------------------------------------------------------------------------

    def crash(self, *, power: bool) -> None:
        """The controller dies here and now, and systemd starts it again. From now on its own calls raise Killed."""
        main = self.main
        record = main.record
        main.kill(power=power)
        record._store.commit = _dead  # type: ignore[method-assign]
        record.close = lambda: None  # type: ignore[method-assign]
        self.notes.append(f"{self.loop.time():9.3f} crash{' with a power cut' if power else ''}")
        self.loop.call_later(RESTART_S, self._start_again, context=self.room.network.world_context)

    def _start_again(self) -> None:
        self.room.changed_at_s = self.loop.time()
        try:
            self.main.start()
        except Killed:
            return  # while it starts
        except Exception as error:
            self.truth.violate("simulation", f"it does not start: {error!r}")

    def _fell(self, what: dict[str, Any]) -> None:
        error = what.get("exception")
        if error is not None and not isinstance(error, Killed):
            self.truth.violate("simulation", f"{what['message']}: {error!r}")


def _dead(*arguments: Any, **named: Any) -> None:
    raise Killed


class SeenSwitch(Switch):
    """A power controller whose answers are observations."""

    def __init__(self, stage: Stage, name: str) -> None:
        super().__init__(stage.room, name)
        self._stage = stage

    async def state(self) -> Any:
        return await self._stage.on_switch(self, await super().state())


async def _as_it_is(switch: SeenSwitch, state: str) -> str:
    return state


def perform(workflow: Workflow, prepare: Callable[[Stage], None] = lambda stage: None) -> End:
    """Play it in a directory of its own; `prepare` may put its hand on the stage before anything happens."""
    bury_in_silence()
    before = os.getcwd()
    directory = tempfile.mkdtemp(prefix="vcrecon-sweep-", dir=_MEMORY if _MEMORY.is_dir() else None)
    home = Path(directory, "home")  # beside which forked children have theirs
    home.mkdir()
    os.chdir(home)
    loop = VirtualLoop(random.Random(SEED))
    asyncio.set_event_loop(loop)
    log: list[str] = []
    began_s = cpu_s()
    try:
        with seeded(SEED, log):
            stage = Stage(workflow, loop, log)
            prepare(stage)
            try:
                end = loop.run_until_complete(stage.perform())
            except BaseException as error:
                stage.finish(End([f"simulation: {error!r}"], {}))
                raise
        end.seconds = cpu_s() - began_s
        return end
    finally:
        asyncio.set_event_loop(None)
        loop.graves.clear()
        os.chdir(before)
        shutil.rmtree(directory, ignore_errors=True)


def cpu_s() -> float:
    """Processor time of this process and of the children that it waited for."""
    return sum(os.times()[:4])


def fork(stage: Stage, label: dict[str, Any], expected: picture.Picture, results: list[dict[str, Any]]) -> bool:
    """Split the world here; true in the child, which ends itself at the end of the workflow and appends to `results`.

    The child works on a copy of all files. It returns False in the parent, once the child has ended.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            told = pipe.read()
        _, status = os.waitpid(pid, 0)
        lost = {**label, "violations": [f"its process ended with status {status} and no word"], "differences": []}
        results += pickle.loads(told) if told else [lost]
        return False
    os.close(reading)
    gc.freeze()  # what the parent made is copied, page by page, when it is only looked at
    gc.set_threshold(_GARBAGE)
    asyncio._set_running_loop(stage.loop)  # asyncio forgets it in a forked process
    home = tempfile.mkdtemp(prefix="child-", dir="..")
    shutil.copytree(".", home, dirs_exist_ok=True)
    os.chdir(home)
    results.clear()
    stage.notes.append(f"{stage.loop.time():9.3f} {label}")

    def finish(end: End) -> None:
        differences = picture.difference(expected, end.picture) if end.picture and not end.violations else []
        own = {**label, "violations": end.violations, "differences": differences}
        if end.violations or differences:
            own["notes"] = end.notes
        shutil.rmtree(os.getcwd(), ignore_errors=True)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(pickle.dumps([own, *results]))
        os._exit(0)

    stage.finish = finish
    return True


def _dead(*arguments: Any, **named: Any) -> None:
    raise Killed
