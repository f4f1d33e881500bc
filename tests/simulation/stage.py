"""One workflow played once, in a process that can be forked at any of its effects. Called by `sweep` and `views`.

A fork is as good as a replay: the virtual loop, the hosts and the seeded dice are all in memory, so the child stands
where the parent stands, and what it does from there is no business of the parent's. The one thing outside is the
record: the child kills the controller, or begins to use a copy of the record's files, before it goes on. No SQLite
connection is ever used on both sides of a fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import random
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.simulation import picture
from tests.simulation.classroom import Classroom
from tests.simulation.entropy import bury_in_silence, seeded
from tests.simulation.loop import VirtualLoop
from tests.simulation.machine import Switch
from tests.simulation.process import Killed, Process, Synced
from tests.simulation.schedule import _MEMORY, Play
from tests.simulation.strikes import Strikes
from tests.simulation.truth import LOCK, Truth
from tests.simulation.workflows import Workflow, classroom_of, give_a_real_key

from vcrecon.core.memory import Memory
from vcrecon.settings import Settings

SEED = 1
SETTINGS = Settings(poll_s=20.0, relist_s=60.0)
REST_S = 3600.0
QUIET_S = 65.0
"""As long as a full look at everything takes to come round."""


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
    """A service whose commits are told, and whose files go to `grave` when it dies in a forked child."""

    grave: Path | None = None
    on_commit: Callable[[WatchedProcess], None] = staticmethod(lambda process: None)
    synced_memory: Callable[[], tuple[object, ...]]

    def _start(self) -> None:
        super()._start()
        store, inner = self.record._store, self.record._store.commit

        def commit(*arguments: Any, **named: Any) -> None:
            inner(*arguments, **named)
            self.on_commit(self)

        store.commit = commit  # type: ignore[method-assign]

    @property
    def unsynced_bytes(self) -> int:
        """How much of the log a power cut may take."""
        return max(0, self._synced._size() - self._synced._synced_bytes)

    def _leave_files(self, power: bool) -> None:
        """A power cut takes all that it may: the log ends at its last sync."""
        if self.grave is None:
            super()._leave_files(False)
        else:
            home, self.grave = self.grave / f"state-{self.name}", None
            shutil.copytree(self.state, home, ignore=shutil.ignore_patterns("*-shm", "control.sock"))
            self.state = home
            self.loop.graves.append(self.record)
        wal = self.state / "record.sqlite-wal"
        if power and wal.exists() and wal.stat().st_size > self._synced._synced_bytes:
            os.truncate(wal, self._synced._synced_bytes)

    def survive_fork(self, home: Path) -> None:
        """Go on in a child with a copy of the record: its own files, its own connection."""
        target = home / f"state-{self.name}"
        shutil.copytree(self.state, target, ignore=shutil.ignore_patterns("*-shm", "control.sock", "record.lock"))
        old, self.state = self.record, target
        reader = type(old).open(target, clock=self.clock)
        self.loop.graves.append(old._store._connection)
        old._store._connection = reader._store._connection
        old._store._synchronous = ""
        old._store._path, old._directory, old._lock = target, target, reader._lock
        self.loop.graves.append(reader)


class Stage:
    """The classroom of one workflow. `armed` while the workflow runs; `on_point` is told of each effect then."""

    def __init__(self, workflow: Workflow, loop: VirtualLoop, directory: Path, log: list[str]) -> None:
        rng = random.Random(SEED)
        self.workflow, self.loop, self.directory = workflow, loop, directory
        self.room = Classroom(loop, rng, directory, SETTINGS, classroom_of(workflow), WatchedProcess)
        give_a_real_key(self.room)
        self.truth = Truth(self.room)
        self.truth.log = log
        self.room.main.switches = {name: Switch(self.room, name) for name in workflow.switches}
        self.play = Play(
            self.room, self.truth, Strikes(self.room, self.truth, random.Random(rng.random())), random.Random(SEED)
        )
        self.armed = False
        self.on_point: Callable[[], None] = lambda: None
        self.notes: list[str] = []
        self._boots: dict[str, int] = {}
        loop.set_exception_handler(lambda _, what: self._fell(what))

    @property
    def main(self) -> WatchedProcess:
        assert isinstance(self.room.main, WatchedProcess)
        return self.room.main

    async def perform(self) -> End:
        """The whole workflow, to its end."""
        play, room, truth = self.play, self.room, self.truth
        watch = asyncio.ensure_future(play.watch())
        try:
            await self.workflow.prepare(play)
            truth.may_restart |= set(self.workflow.restarts)
            room.network.deliver = self._deliver
            self._boots = dict(room.site.witness.boots)
            self.armed = True
            self.attend(room.main)
            await self.workflow.change(play)
            self.attend(room.main)
            await self._rest()
        except Exception as error:
            truth.violate("simulation", f"{type(error).__name__}: {error} {traceback.format_exc()[-600:]}")
        watch.cancel()
        self.armed = False
        words = [str(violation) for violation in truth.violations]
        if words:
            self.notes += [*room.history, *room.explain()]
        seen = picture.end(room) if room.main.alive else {}
        return End(words, seen, truth.hash.hexdigest(), 0.0, self.loop.time(), self.notes)

    async def _rest(self) -> None:
        """All is at rest, stays so, and is true."""
        end_s = self.loop.time() + REST_S
        while not self.room.converged():
            if self.main.alive:
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

    # --- effects -------------------------------------------------------------------------------------------

    def attend(self, process: Process) -> None:
        """Count its commits from now on."""
        process.on_commit = self._committed  # type: ignore[attr-defined]

    def _deliver(self, link: Any, direction: str, kind: str, arrive: Callable[[], None]) -> None:
        arrive()
        if self.armed and link.client_owner == self.main.owner and self.main.alive:
            self.on_point()

    def _committed(self, process: Process) -> None:
        if not process.alive and process.lives and self.main.owner == process.owner and self._is_dead(process):
            raise Killed  # what a dead one still does on its way out has no effect
        if self.armed and process is self.room.main:
            self.on_point()
            if self._is_dead(process):
                raise Killed

    def _is_dead(self, process: Process) -> bool:
        return process.owner in self.loop._dead

    # --- crashes -------------------------------------------------------------------------------------------

    def crash(self, *, power: bool, after_s: float) -> None:
        """The controller dies here and now, and is started again by systemd."""
        main = self.main
        main.kill(power=power)
        main.record._store.commit = _dead  # type: ignore[method-assign]
        self.room.note(f"crash{' with power cut' if power else ''}")
        self.loop.call_later(after_s, self._start_again, context=self.room.network.world_context)

    def _start_again(self) -> None:
        try:
            self.main.start()
        except Exception as error:
            self.truth.violate("simulation", f"it does not start: {error!r}")
        self.room.changed_at_s = max(self.room.changed_at_s, self.loop.time())

    def _fell(self, what: dict[str, Any]) -> None:
        error = what.get("exception")
        if error is not None and not isinstance(error, Killed):
            self.truth.violate("simulation", f"{what['message']}: {error!r}")


def _dead(*arguments: Any, **named: Any) -> None:
    raise Killed


def perform(workflow: Workflow, prepare: Callable[[Stage], None] = lambda stage: None) -> End:
    """Play it; `prepare` may put its hand on the stage before anything happens."""
    bury_in_silence()
    directory = Path(tempfile.mkdtemp(prefix="vcrecon-sweep-", dir=_MEMORY if _MEMORY.is_dir() else None))
    loop = VirtualLoop(random.Random(SEED))
    asyncio.set_event_loop(loop)
    log: list[str] = []
    began_s = _cpu_s()
    try:
        with seeded(SEED, log):
            stage = Stage(workflow, loop, directory, log)
            prepare(stage)
            end = loop.run_until_complete(stage.perform())
        end.seconds = _cpu_s() - began_s
        return end
    finally:
        asyncio.set_event_loop(None)
        loop.graves.clear()
        shutil.rmtree(directory, ignore_errors=True)


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system


class Child:
    """A forked run: in the parent its result, in the child the way to give it."""

    def __init__(self, label: dict[str, Any], path: Path, pid: int) -> None:
        self.label, self.path, self.pid = label, path, pid

    def wait(self) -> dict[str, Any]:
        _, status = os.waitpid(self.pid, 0)
        try:
            found: dict[str, Any] = pickle.loads(self.path.read_bytes())  # noqa: S301 - our own child's
        except OSError:
            found = {"violations": [f"the child ended with status {status} and no word"], "differences": []}
        self.path.unlink(missing_ok=True)
        return self.label | found


@contextlib.contextmanager
def own_directory(base: Path) -> Iterator[Path]:
    """For a child's files; gone with it."""
    home = Path(tempfile.mkdtemp(prefix="child-", dir=base))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def synced(memory: Memory) -> tuple[object, ...]:
    return picture.kept(memory)


__all__ = ["Child", "End", "Killed", "Memory", "Stage", "Synced", "WatchedProcess", "own_directory", "perform"]
