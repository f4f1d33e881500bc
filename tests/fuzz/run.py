"""Runs many inputs in worker processes that may crash, hang or eat memory, and counts. Called by `__main__` and tests.

A worker has bounded memory and a deadline for each input; for what no signal ends, the parent has a harder one and
kills it. Either way the input is named and the next ones go on in a new worker.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

from tests.fuzz.bases import Case, Workshop
from tests.fuzz.inputs import make
from tests.fuzz.oracle import Fault, Loader, Oracle
from tests.fuzz.plans import Planner

from vcrecon.core.plan import plan_container
from vcrecon.spec.load import load

_FORK = multiprocessing.get_context("fork")
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = resource.getpagesize()
_ACCEPTED, _REFUSED, _AT = range(3)

Made = Callable[[int, int], Case]


@dataclass(frozen=True)
class Settings:
    """What is tested, and how long and how much memory one input may take.

    `deadline_s` is of computing, or of waiting without any; `hard_s` of computing is the parent's.
    """

    seed: int
    deadline_s: float = 20.0
    memory_bytes: int = 1 << 30
    loader: Loader = load
    planner: Planner = plan_container
    make: Made = make

    @property
    def hard_s(self) -> float:
        return 2 * self.deadline_s

    @property
    def blocked_s(self) -> float:
        """By the clock: a process that no signal ends and that does not compute either."""
        return 30 * self.deadline_s


@dataclass
class Tally:
    """What came of a run. `faults` has the number of each input that was taken badly, with what was wrong."""

    seed: int
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    computed_s: float = 0.0
    faults: list[tuple[int, Fault]] = field(default_factory=list)

    @property
    def inputs(self) -> int:
        return self.accepted + self.refused + len({i for i, fault in self.faults if fault.kind in ("crash", "hang")})

    def count(self, kind: str) -> int:
        return len({index for index, fault in self.faults if fault.kind == kind})

    def distinct(self) -> dict[str, tuple[int, Fault]]:
        """The first input of each bug."""
        found: dict[str, tuple[int, Fault]] = {}
        for index, fault in sorted(self.faults, key=lambda entry: entry[0]):
            found.setdefault(f"{fault.kind} {fault.signature}", (index, fault))
        return found


def run(settings: Settings, indexes: range, jobs: int = 1, progress: Callable[[Tally], None] | None = None) -> Tally:
    """Judge the inputs of these numbers."""
    began, tally = time.monotonic(), Tally(settings.seed)
    scratch = Path(tempfile.mkdtemp(prefix="vcrecon-fuzz-"))
    workers = [_Worker(settings, indexes[job::jobs], scratch / f"{job}", tally) for job in range(jobs)]
    try:
        while busy := [worker for worker in workers if not worker.done]:
            wait([worker.pipe for worker in busy], timeout=0.5)
            for worker in busy:
                worker.attend()
            tally.accepted = sum(worker.count(_ACCEPTED) for worker in workers)
            tally.refused = sum(worker.count(_REFUSED) for worker in workers)
            tally.computed_s = sum(worker.computed_s for worker in workers)
            tally.seconds = time.monotonic() - began
            if progress is not None:
                progress(tally)
    finally:
        for worker in workers:
            worker.kill()
        shutil.rmtree(scratch, ignore_errors=True)
    return tally


def judge_apart(settings: Settings, case: Case) -> tuple[Fault, ...]:
    """The faults of one case, judged in a process of its own."""
    faults = run(_only(settings, case), range(1)).faults
    return tuple(fault for _, fault in faults)


def _only(settings: Settings, case: Case) -> Settings:
    return Settings(
        settings.seed, settings.deadline_s, settings.memory_bytes, settings.loader, settings.planner, lambda *_: case
    )


class _Worker:
    """One line of inputs, and the process that is at it just now."""

    def __init__(self, settings: Settings, indexes: range, scratch: Path, tally: Tally) -> None:
        self.done = False
        self.pipe: Connection
        self._settings = settings
        self._indexes = indexes
        self._scratch = scratch
        self._tally = tally
        # Accepted, refused, and the place in `indexes` that it is at; when it began that, by the monotonic clock and
        # by its own processor time; processor time of all inputs that are done.
        self._counts: Any = _FORK.Array("q", [0, 0, 0], lock=False)
        self._since_s: Any = _FORK.Value("d", time.monotonic(), lock=False)
        self._began_s: Any = _FORK.Value("d", 0.0, lock=False)
        self._used_s: Any = _FORK.Value("d", 0.0, lock=False)
        self._process: ForkProcess
        self._start()

    def count(self, which: int) -> int:
        return int(self._counts[which])

    def attend(self) -> None:
        """Take what the process says; see to it when it died or hangs."""
        alive = self._process.is_alive()
        self._listen()
        if self.done:
            return
        if not alive:
            code = self._process.exitcode
            how = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
            self._lost(Fault("crash", f"the process ended by {how}", f"the process ended by {how}"))
        elif self._overdue():
            self._process.kill()
            self._process.join()
            words = f"not done after {self._settings.hard_s:g} s of computing, and no signal ended it"
            self._lost(Fault("hang", "hang that no signal ends", words))

    @property
    def computed_s(self) -> float:
        """What its processes computed so far, in seconds."""
        return float(self._used_s.value)

    def _overdue(self) -> bool:
        computed_s = _computed_s(self._process.pid) - self._began_s.value
        waited_s = time.monotonic() - self._since_s.value
        return computed_s > self._settings.hard_s or waited_s > self._settings.blocked_s

    def kill(self) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self.pipe.close()

    def _listen(self) -> None:
        try:
            while self.pipe.poll():
                word = self.pipe.recv()
                if word is None:
                    self.done = True
                    return
                self._tally.faults.append(word)
        except EOFError:
            pass

    def _lost(self, fault: Fault) -> None:
        """The process is gone with the input it was at: go on with the next."""
        at = self.count(_AT)
        if at < len(self._indexes):
            self._tally.faults.append((self._indexes[at], fault))
        self._counts[_AT] = at + 1
        self.pipe.close()
        if at + 1 < len(self._indexes):
            self._start()
        else:
            self.pipe, other = _FORK.Pipe(duplex=False)
            other.close()
            self.done = True

    def _start(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True)
        self._since_s.value, self._began_s.value = time.monotonic(), 0.0
        self.pipe, far = _FORK.Pipe(duplex=False)
        self._process = _FORK.Process(target=self._work, args=(far,), daemon=True)
        self._process.start()
        far.close()

    def _work(self, far: Connection) -> None:
        _bound_memory(self._settings.memory_bytes)
        settings, counts = self._settings, self._counts
        oracle = Oracle(Workshop(self._scratch), settings.deadline_s, settings.loader, settings.planner)
        for at in range(counts[_AT], len(self._indexes)):
            counts[_AT], self._since_s.value, self._began_s.value = at, time.monotonic(), time.process_time()
            index = self._indexes[at]
            verdict = oracle.judge(settings.make(settings.seed, index))
            for fault in verdict.faults:
                far.send((index, fault))
            if not any(fault.kind in ("crash", "hang") for fault in verdict.faults):
                counts[_ACCEPTED if verdict.accepted else _REFUSED] += 1
            self._used_s.value += time.process_time() - self._began_s.value
        far.send(None)


def _bound_memory(more_bytes: int) -> None:
    """This process may take so much more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * _PAGE_BYTES + more_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _computed_s(process_id: int | None) -> float:
    """Processor time of a process, in seconds; 0 when it is gone."""
    try:
        text = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return 0.0
    user, system = text.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / _TICKS_A_SECOND


def failing(tally: Tally) -> list[int]:
    """The numbers of the inputs that were taken badly."""
    return sorted({index for index, _ in tally.faults})


def commands(tally: Tally, indexes: Iterable[int]) -> list[str]:
    """What replays each of these inputs."""
    return [f"python -m tests.fuzz --seed {tally.seed} --only {index}" for index in indexes]
