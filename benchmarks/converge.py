"""Benchmark (c): converging a simulated site over real SSH, from nothing to every guest running.

    python -m benchmarks converge [--json FILE] [--quick]

The site (`python -m vcrecon.sim`, the tutorial spec) and the controller (`vcrecon apply`) run in processes of
their own, both ended and accounted for by process id, so that the CPU time of each is its own. Once with
simulated work that takes no time, which shows what vcrecon itself costs, and once at the demo's speed, where
the boot times of the guests decide. Each converged site is then applied once more: what a run with nothing to
do costs. A round counts only when the site itself says that every guest runs, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Report, Series
from vcrecon.errors import VcreconError
from vcrecon.sim.control import SiteClient
from vcrecon.spec.load import load

SPECS = Path(__file__).parents[1] / "specs"
APPLY = (sys.executable, "-m", "vcrecon", "apply")
READY_DEADLINE_S = 120.0
APPLY_DEADLINE_S = 120.0
END_DEADLINE_S = 20.0


@dataclass(frozen=True)
class Used:
    """What a process that ended had used: wall time and its own CPU time, in seconds."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Outcome:
    """One round: the first apply, the second with nothing to do, and the simulated site itself."""

    first: Used
    again: Used
    site: Used


class Failed(Exception):
    """A process did not do what this benchmark needs; the message says which, and quotes it."""


class Child:
    """A process in the round's directory, ended by its id, whatever happens.

    What it says goes to a file, except that standard output can be kept to wait for.
    """

    def __init__(self, name: str, command: Sequence[str], directory: Path, *, talks: bool = False) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self._began_s = time.perf_counter()
        with self.log.open("wb") as log:
            output = subprocess.PIPE if talks else log
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=log, cwd=directory)

    def wait_for_line(self, deadline_s: float) -> None:
        """Until it has said one line. Raises Failed."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], deadline_s)
        if not ready or not self.process.stdout.readline():
            raise self.failure("is not ready")

    def end(self, deadline_s: float) -> tuple[int, Used]:
        """Wait for it, or kill it after the deadline; its exit status, and what it used."""
        killer = threading.Timer(deadline_s, self.process.kill)
        killer.start()
        # wait4 tells the usage of exactly this child.
        _, status, usage = os.wait4(self.process.pid, 0)
        wall_s = time.perf_counter() - self._began_s
        killer.cancel()
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return self.process.returncode, _used(wall_s, usage)

    def failure(self, what: str) -> Failed:
        return Failed(f"{self.name} {what}: {self.log.read_text(errors='replace').strip()[-400:]}")

    def clean_up(self) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            self.end(END_DEADLINE_S)
        if self.process.stdout is not None:
            self.process.stdout.close()


def _used(wall_s: float, usage: resource.struct_rusage) -> Used:
    return Used(wall_s, usage.ru_utime + usage.ru_stime)


@contextlib.contextmanager
def child(name: str, command: Sequence[str], directory: Path, *, talks: bool = False) -> Iterator[Child]:
    started = Child(name, command, directory, talks=talks)
    try:
        yield started
    finally:
        started.clean_up()


def converge(specs: Path, guests: int, *, speed: float, apply: Sequence[str]) -> Outcome:
    """One round on a site of its own. Raises Failed when anything is not as it should be at the end."""
    with tempfile.TemporaryDirectory(prefix="vcb") as name:
        directory = Path(name)
        bound, socket = directory / "specs", directory / "site.sock"
        simulate = [sys.executable, "-m", "vcrecon.sim", "--specs", str(specs), "--out", str(bound)]
        simulate += ["--control", str(socket), "--speed", str(speed)]
        with child("simulated-site", simulate, directory, talks=True) as site:
            site.wait_for_line(READY_DEADLINE_S)
            command = [*apply, str(bound), "--state", str(directory / "state")]
            first = _apply("first-apply", command, directory)
            boots = asyncio.run(_boots(socket))
            wrong = [guest for guest, (places, _) in boots.items() if places != 1]
            if wrong or len(boots) != guests:
                raise Failed(f"{len(wrong)} of {len(boots)} guests do not run exactly once: {wrong[:5]}")
            again = _apply("second-apply", command, directory)
            if asyncio.run(_boots(socket)) != boots:
                raise Failed("the second apply had nothing to do, and yet guests were started or stopped")
            site.process.send_signal(signal.SIGTERM)
            _, used = site.end(END_DEADLINE_S)
    return Outcome(first, again, used)


def _apply(name: str, command: Sequence[str], directory: Path) -> Used:
    with child(name, command, directory) as controller:
        status, used = controller.end(APPLY_DEADLINE_S)
        if status:
            raise controller.failure(f"ended with status {status}")
    return used


async def _boots(socket: Path) -> dict[str, tuple[int, int]]:
    """Guest to (how many hosts run it, how often it was booted), as the site itself knows it."""
    async with SiteClient(socket) as client:
        world = await client.call("world")
    return {name: (len(guest["hosts"]), guest["boots"]) for name, guest in world["guests"].items()}


def benchmark(name: str, speeds: Sequence[tuple[float, int]], apply: Sequence[str]) -> Report:
    """Converge `specs/NAME` for each (speed, rounds); a failure is shown in place of the figures."""
    spec = load(SPECS / name).spec
    guests = len(spec.guests)
    parameters: dict[str, object] = {"spec": name, "containers": len(spec.containers), "guests": guests}
    series: list[Series] = []
    figures: dict[str, object] = {}
    for speed, rounds in speeds:
        title = "work takes no time" if not speed else "at the demo's speed"
        first, again = Series(f"apply, {title}"), Series(f"apply again, nothing to do, {title}")
        series += [first, again]
        for _ in range(rounds):
            try:
                outcome = converge(SPECS / name, guests, speed=speed, apply=apply)
            except (Failed, VcreconError) as error:
                first.failed = again.failed = str(error)
                break
            for each, used in ((first, outcome.first), (again, outcome.again)):
                each.wall_s.append(used.wall_s)
                each.cpu_s.append(used.cpu_s)
            figures |= _figures(title, guests, len(spec.containers), outcome)
    return Report("converge", parameters, series, figures)


def _figures(title: str, guests: int, containers: int, outcome: Outcome) -> dict[str, object]:
    """Of the last round. Start-up and one look at everything are in `again`, and so not in what a guest costs."""
    first, again = outcome.first, outcome.again
    return {
        f"{title}: wall s until converged": first.wall_s,
        f"{title}: controller's CPU, s": first.cpu_s,
        f"{title}: controller's CPU per guest, ms": (first.cpu_s - again.cpu_s) / guests * 1000,
        f"{title}: start-up and one look at all {containers} containers, controller's CPU, s": again.cpu_s,
        f"{title}: the simulated site's own CPU, s": outcome.site.cpu_s,
    }


def run(*, quick: bool, apply: Sequence[str] = APPLY) -> Report:
    """Called by `python -m benchmarks`. `quick` converges the small spec once: does it run at all."""
    if apply is APPLY and importlib.util.find_spec("vcrecon.__main__") is None:
        return Report("converge", {}, [Series("all of it", skipped="there is no `vcrecon apply` here yet")])
    if quick:
        return benchmark("small", [(0.0, 1)], apply)
    return benchmark("tutorial", [(0.0, 3), (1.0, 1)], apply)
