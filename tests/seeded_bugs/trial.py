"""Tries one bug: a copy of the product with the mistake in it, and the simulation (or a test) run on that copy.

The copy is put in front by PYTHONPATH. A seed counts only when the sound product passes it: a simulation that fails
by itself has caught nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.seeded_bugs.catalogue import ROOT, SOURCE, Bug

SIMULATION = "tests.simulation"
TEST_S = 600.0
_SAID_MAX = 300
_RUNNING: set[subprocess.Popen[bytes]] = set()


class Broken(Exception):
    """A trial that says nothing about the bug: it did not run to its end. The message says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is tried for each bug: `schedules_max` seeds from `first_seed` on, `batch` in one process.

    `story` is told in every one of them (see `tests.simulation.stories`); without it they are as drawn.
    A process may take `start_s` and `schedule_s` for each schedule, in seconds; one that takes longer hangs.
    """

    first_seed: int = 1
    schedules_max: int = 2000
    batch: int = 50
    simulation: str = SIMULATION
    story: str = ""
    start_s: float = 120.0
    schedule_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a bug. `schedules` is how many were run up to the one that caught it; 0 where a test did."""

    bug: Bug
    result: Literal["caught", "missed", "broken"]
    schedules: int = 0
    seed: int | None = None
    why: str = ""


def attempt(bug: Bug, plan: Plan, source: Path = SOURCE) -> Outcome:
    """Try one bug on a copy of the product at `source`. Never raises for what the bug does."""
    try:
        with _copy(source, bug) as copy:
            return _by_test(bug, copy) if bug.test else _by_simulation(bug, plan, copy, source.parent)
    except (Broken, ValueError) as error:
        return Outcome(bug, "broken", why=str(error))


@contextmanager
def _copy(source: Path, bug: Bug) -> Iterator[Path]:
    """A directory for PYTHONPATH with the product in it, mistaken."""
    with tempfile.TemporaryDirectory(prefix="vcrecon-seeded-") as directory:
        copy = Path(directory) / source.name
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        file = copy / bug.file
        file.write_text(bug.apply(file.read_text(encoding="utf-8")), encoding="utf-8")
        yield Path(directory)


def _by_simulation(bug: Bug, plan: Plan, copy: Path, sound: Path) -> Outcome:
    first, end = plan.first_seed, plan.first_seed + plan.schedules_max
    while first < end:
        schedules = min(plan.batch, end - first)
        failing = simulate(plan, copy, first, schedules)
        if failing and not simulate(plan, sound, failing[0], 1):
            return Outcome(bug, "caught", failing[0] - plan.first_seed + 1, failing[0])
        first = failing[0] + 1 if failing else first + schedules
    return Outcome(bug, "missed", plan.schedules_max)


def simulate(plan: Plan, product: Path, first_seed: int, schedules: int) -> list[int]:
    """The seeds that fail on the product in this directory, in order. Raises Broken when it does not come to an end."""
    arguments: tuple[str, ...] = (
        "--first-seed",
        str(first_seed),
        "--schedules",
        str(schedules),
        "--until-violation",
        "--json",
    )
    if plan.story:
        arguments += ("--story", plan.story)
    status, output = _run(product, plan.simulation, arguments, plan.start_s + schedules * plan.schedule_s)
    where = f"seeds {first_seed} to {first_seed + schedules - 1}"
    lines = output.splitlines()
    try:
        report = json.loads([line for line in lines if line.startswith("{")][-1])
        ran, failing = int(report["schedules"]), sorted(map(int, report["failing_seeds"]))
    except (IndexError, ValueError, KeyError, TypeError):
        said = lines[-1][:_SAID_MAX] if lines else "it said nothing"
        raise Broken(f"{where}: the simulation ended with status {status} and no report: {said}") from None
    if ran != schedules and not failing:
        raise Broken(f"{where}: the simulation ran {ran} schedules")
    return failing


def _by_test(bug: Bug, copy: Path) -> Outcome:
    arguments = ("-q", "-x", "-p", "no:cacheprovider", bug.test)
    status, output = _run(copy, "pytest", arguments, TEST_S)
    if status in (0, 1):
        return Outcome(bug, "caught" if status else "missed", why=bug.test)
    last = (output.splitlines() or ["it said nothing"])[-1]
    raise Broken(f"{bug.test}: pytest ended with status {status}: {last[:_SAID_MAX]}")


def _run(product: Path, module: str, arguments: Sequence[str], deadline_s: float) -> tuple[int, str]:
    """Exit status and output of a module run on the product in this directory, in a process group of its own."""
    # A file, not a pipe: nothing that the run left behind, and that still writes, holds us up.
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.seeded_bugs.inside", str(product), module, *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(product), str(ROOT)])},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        _RUNNING.add(process)
        try:
            status = process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise Broken(f"{module} {' '.join(arguments)}: no end within {deadline_s:.0f} s") from None
        finally:
            _RUNNING.discard(process)
            _end(process)
        output.seek(0)
        return status, output.read().decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the run and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def end_all() -> None:
    """End what the trials of other threads run just now: each then ends as broken."""
    for process in list(_RUNNING):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
