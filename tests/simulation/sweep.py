"""`python -m tests.simulation.sweep`: crash the controller at every point of every workflow; with --views, mislead it.

A point is an effect: a message that reached a host, a message that reached the controller, a commit of the record.
Between two effects all awaits of the controller leave the same hosts, the same record and the same wires behind, so a
crash anywhere between them is the crash at the first of them: that is what makes "every await" countable. A controller
that dies leaves nothing else (its memory is gone, its connections are reset, what it had not yet sent is lost, commands
that began go on). So two points that leave the same behind (`picture.remains`, and the record) are one crash, at two
times; it is played once, and both points are covered. `--all` plays every point by itself, and so checks that.

At each crash the process is forked: the child kills the controller, starts it again, and must come to the same end as
the uninterrupted run, with `truth` clean all the way. The variants: `kill` (SIGKILL), `power` (the log is torn back to
its last sync, where that takes anything), and each of them with a second kill at an effect of the recovery that is
drawn from the seed (`again`; it is forked once more).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.simulation import picture
from tests.simulation.entropy import require_fixed_hashes
from tests.simulation.picture import Picture
from tests.simulation.stage import Stage, cpu_s, fork, perform
from tests.simulation.views import Views
from tests.simulation.workflows import WORKFLOWS

_RECOVERY_POINTS = 150
"""The second kill falls among about so many effects; a recovery that has fewer has no second kill."""


@dataclass
class Swept:
    """What became of one workflow. `crashes` are those that leave something of their own behind, or false views."""

    workflow: str
    points: int = 0
    crashes: int = 0
    runs: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


class Crashes:
    """Attached to a stage: crashes a forked child at each point that leaves something new behind."""

    def __init__(self, stage: Stage, expected: Picture, options: Options) -> None:
        self.stage, self.expected, self.options = stage, expected, options
        self.points = self.crashes = 0
        self.results: list[dict[str, Any]] = []
        self._seen: set[object] = set()
        self._on_disk: tuple[object, ...] = ()
        self._synced: tuple[object, ...] = ()
        self._commits = -1
        stage.on_point = self._point

    def _point(self) -> None:
        self.points += 1
        self._read_record()
        world: tuple[object, ...] = picture.remains(self.stage.room)
        if self.options.every_point:
            world = (*world, self.points)
        self._crash((world, self._on_disk), power=False)
        if self.stage.main.unsynced_bytes and not self.stage.main.dead:
            self._crash((world, self._synced), power=True)

    def _read_record(self) -> None:
        main = self.stage.main
        if main.commits != self._commits:
            self._commits = main.commits
            self._on_disk = picture.kept(main.record._store.load())
            if not main.unsynced_bytes:
                self._synced = self._on_disk

    def _crash(self, leaves: object, *, power: bool) -> None:
        if leaves in self._seen or self.stage.main.dead:
            return
        self._seen.add(leaves)
        self.crashes += 1
        if self.crashes % self.options.every != self.options.offset % self.options.every:
            return
        label = {"workflow": self.stage.workflow.name, "point": self.points, "how": "power" if power else "kill"}
        if fork(self.stage, label, self.expected, self.results):
            again = int(_RECOVERY_POINTS ** random.Random(f"{self.points} {power}").random())
            self.stage.on_point = partial(self._recover, iter(range(again, -1, -1)), label)
            self.stage.crash(power=power)

    def _recover(self, left: Iterator[int], label: dict[str, Any]) -> None:
        """An effect of the recovery: the second kill, at the one that was drawn."""
        if next(left, -1) == 0:
            again = {**label, "how": f"{label['how']}, again at {self.stage.loop.time():.3f}"}
            if fork(self.stage, again, self.expected, self.results):
                self.stage.on_point = lambda: None
                self.stage.crash(power=False)


@dataclass(frozen=True)
class Options:
    """`every`: play each such crash or view only, from the `offset`-th on."""

    every: int = 1
    offset: int = 0
    every_point: bool = False
    views: bool = False


def sweep(name: str, options: Options) -> Swept:
    """One workflow. Its uninterrupted run is played twice, and must be the same both times."""
    began_s = cpu_s()
    workflow = WORKFLOWS[name]
    swept = Swept(name)
    plain = perform(workflow)
    if plain.violations:
        swept.failures.append({"workflow": name, "point": 0, "how": "uninterrupted", "violations": plain.violations})
        return swept
    found: list[Crashes | Views] = []

    def prepare(stage: Stage) -> None:
        if options.views:
            found.append(Views(stage, plain.picture, every=options.every, offset=options.offset))
        else:
            found.append(Crashes(stage, plain.picture, options))

    end = perform(workflow, prepare)
    hand = found[0]
    swept.points, swept.runs = hand.points, len(hand.results)
    swept.crashes = hand.crashes if isinstance(hand, Crashes) else hand.variants
    swept.failures += [result for result in hand.results if result["violations"] or result["differences"]]
    if end.trace_hash != plain.trace_hash:
        swept.failures.append({"workflow": name, "point": 0, "how": "the two uninterrupted runs differ"})
    swept.seconds = round(cpu_s() - began_s, 2)
    return swept


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.sweep", description=__doc__.split("\n")[0])
    parser.add_argument("--workflow", action="append", choices=list(WORKFLOWS), help="only this one (repeatable)")
    parser.add_argument("--views", action="store_true", help="dropped, late, stale and reordered views, not crashes")
    parser.add_argument("--all", action="store_true", help="crash at points, too, that leave the same behind")
    parser.add_argument("--every", type=int, default=1, help="each such crash or view only")
    parser.add_argument("--offset", type=int, default=None, help="with --every: from which on (drawn when not given)")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    offset = asked.offset if asked.offset is not None else random.SystemRandom().randrange(asked.every)
    options = Options(asked.every, offset, asked.all, asked.views)
    swept = []
    for result in _results(asked.workflow or list(WORKFLOWS), options, asked.jobs):
        swept.append(result)
        if not asked.json:
            print(f"{result.workflow}: {result.points} points, {result.crashes} different, {result.runs} runs, "
                  f"{len(result.failures)} failures, {result.seconds} s", flush=True)  # fmt: skip
        for failure in result.failures:
            print(json.dumps(failure, default=str), flush=True)
    total = {
        "workflows": len(swept),
        "points": sum(result.points for result in swept),
        "different": sum(result.crashes for result in swept),
        "runs": sum(result.runs for result in swept),
        "failures": sum(len(result.failures) for result in swept),
        "cpu_seconds": round(sum(result.seconds for result in swept), 1),
        "every": asked.every,
        "offset": offset,
    }
    print(json.dumps(total))
    return 1 if total["failures"] else 0


def _results(names: list[str], options: Options, jobs: int) -> Iterator[Swept]:
    if jobs == 1:
        yield from (sweep(name, options) for name in names)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=1) as pool:
        yield from pool.imap_unordered(partial(sweep, options=options), names)


if __name__ == "__main__":
    require_fixed_hashes()
    sys.exit(main())
