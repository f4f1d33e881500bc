"""`vcrecon demo`: the main job on a simulated site, by the same commands that a person would type.

The simulated hosts are one process, the service another; this module only types, breaks things and watches.
What it reports is judged on the site's own truth, not on the service's word.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

from vcrecon.cli.output import count
from vcrecon.cli.shipped import shipped_specs
from vcrecon.errors import Refused, VcreconError
from vcrecon.shell.control import ControlClient
from vcrecon.sim.control import SiteClient

READY_S = 60.0
CONVERGE_S = 300.0
HEAL_S = 120.0
MOVE_S = 180.0
WIDTH = 110
SOCKET_ROOM = 70
STUDENT_FILE = "root/thesis.txt"
STUDENT_TEXT = "three weeks of work\n"


@dataclass(slots=True)
class Outcome:
    """What the demo measured; `problems` is empty when everything came true."""

    containers: int = 0
    guests: int = 0
    running: int = 0
    converge_seconds: float = 0.0
    heal_seconds: list[float] = field(default_factory=list)
    moved: int = 0
    move_seconds: float = 0.0
    carry_seconds: float = 0.0
    violations: int = 0
    problems: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The contract of `vcrecon demo --json`, and the problems."""
        rounded = [round(seconds, 2) for seconds in self.heal_seconds]
        return {
            "containers": self.containers,
            "guests": self.guests,
            "running": self.running,
            "converge_seconds": round(self.converge_seconds, 2),
            "heal_seconds": rounded,
            "moved": self.moved,
            "move_seconds": round(self.move_seconds, 2),
            "carry_seconds": round(self.carry_seconds, 2),
            "violations": self.violations,
            "problems": self.problems,
        }


def demo(*, keep: bool = False, as_json: bool = False, spec: str = "tutorial", directory: Path | None = None) -> int:
    """Run the whole show. Returns 0 when everything came true, 1 otherwise; says what did not."""
    console = Console(stderr=as_json, highlight=False)
    if not console.is_terminal:
        console = Console(stderr=as_json, highlight=False, width=WIDTH)
    # Unix sockets lie below it, and their paths have at most 107 bytes.
    base = None if len(tempfile.gettempdir()) < SOCKET_ROOM else "/tmp"  # noqa: S108 - mkdtemp makes it private
    work = directory or Path(tempfile.mkdtemp(prefix="vcrecon-demo-", dir=base))
    work.mkdir(parents=True, exist_ok=True)
    if any(work.iterdir()):
        raise Refused(f"{work} is not empty: give an empty directory, or none")
    show = _Show(console, work, keep)
    outcome = asyncio.run(show.run(shipped_specs(spec)))
    if as_json:
        print(json.dumps(outcome.as_json()))
    if not keep and directory is None:
        shutil.rmtree(work, ignore_errors=True)
    return 1 if outcome.problems or outcome.violations else 0


class _Show:
    def __init__(self, console: Console, work: Path, keep: bool) -> None:
        self._console, self._work, self._keep = console, work, keep
        self._specs, self._state = work / "specs", work / "state"
        self._outcome = Outcome()
        self._log: list[tuple[str, str]] = []

    async def run(self, source: Path) -> Outcome:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(
                self._process("site", "-m", "vcrecon.sim", "--specs", str(source), "--out", str(self._specs))
            )
            await self._until("the simulated site", READY_S, lambda: (self._specs / "site.sock").exists())
            site = await stack.enter_async_context(SiteClient(self._specs / "site.sock"))
            await self._say_vcrecon("check", str(self._specs))
            await self._say_vcrecon("plan", str(self._specs), "--state", str(self._state), expect=2, last_lines=3)
            service = self._process(
                "service", "-m", "vcrecon", "run", str(self._specs), "--state", str(self._state),
                "--listen", "127.0.0.1:0",
            )  # fmt: skip
            began_s = time.monotonic()
            await stack.enter_async_context(service)
            await self._until("the service", READY_S, lambda: (self._state / "control.sock").exists())
            control = await stack.enter_async_context(ControlClient(self._state / "control.sock"))
            try:
                await self._converge(control, began_s)
                await self._heal(control, site)
                await self._carry(control, site)
                await self._lose_a_container(control, site)
                await self._settle(control, site)
            except _Untrue as problem:
                self._outcome.problems.append(str(problem))
                self._console.print(f"[red]✗ {problem}[/red]")
            await self._report(control)
        return self._outcome

    # --- the acts ------------------------------------------------------------------------------------------

    async def _converge(self, control: ControlClient, began_s: float) -> None:
        status = await control.status()
        self._outcome.containers, self._outcome.guests = len(status["containers"]), len(status["guests"])
        self._title(f"{self._outcome.containers} containers, {self._outcome.guests} guests: from bare disks to running")
        await self._watch(control, "everything runs", CONVERGE_S, lambda s: bool(s["converged"]))
        self._outcome.converge_seconds = time.monotonic() - began_s
        self._note("converged", f"{self._outcome.guests} guests running", self._outcome.converge_seconds)

    async def _heal(self, control: ControlClient, site: SiteClient) -> None:
        """Kill three guests; each comes back with the disk it had."""
        status = await control.status()
        by_cluster: dict[str, str] = {}
        for guest in status["guests"]:
            by_cluster.setdefault(guest["cluster"] or guest["name"], guest["name"])
        victims = list(by_cluster.values())[:3]
        self._title(f"{count(len(victims), 'guest')} die: {', '.join(victims)}")
        world = await site.world()
        boots = {name: world["guests"][name]["boots"] for name in victims}
        began_s = time.monotonic()
        for name in victims:
            await site.kill_guest(name)
        left = set(victims)

        async def healed(status: dict[str, Any]) -> bool:
            truth = await site.world()
            running = {g["name"] for g in status["guests"] if g["state"] == "running"}
            for name in sorted(left & running):
                if truth["guests"][name]["boots"] > boots[name]:
                    left.discard(name)
                    seconds = time.monotonic() - began_s
                    self._outcome.heal_seconds.append(seconds)
                    self._note("healed", f"{name} restarted on the disk it had", seconds)
            return not left

        await self._watch(control, "they run again", HEAL_S, healed)

    async def _carry(self, control: ControlClient, site: SiteClient) -> None:
        """Move a line in deployment.yaml: the guest arrives on the other container with a student's file."""
        deployment = self._read_deployment()
        source = next(name for name, guests in deployment.items() if guests)
        guest, target = deployment[source][-1], next(name for name in reversed(deployment) if name != source)
        self._title(f"edit deployment.yaml: {guest} moves from {source} to {target}, a student's file with it")
        await site.write_guest_file(guest, STUDENT_FILE, STUDENT_TEXT)
        began_s = time.monotonic()
        self._edit_deployment(guest, source, target)
        await self._watch(control, f"{guest} runs on {target}", MOVE_S, _runs_on({guest: target}))
        self._outcome.carry_seconds = time.monotonic() - began_s
        if await site.read_guest_file(guest, STUDENT_FILE) != STUDENT_TEXT:
            raise _Untrue(f"{guest} arrived on {target} without the student's file")
        self._outcome.moved += 1
        self._note("moved", f"{guest} to {target}, file intact, old disk kept on {source}", self._outcome.carry_seconds)

    async def _lose_a_container(self, control: ControlClient, site: SiteClient) -> None:
        """A container stops answering: its guests move only after somebody vouches that it is off."""
        deployment = self._read_deployment()
        lost = next(name for name, guests in reversed(deployment.items()) if guests and name != list(deployment)[-1])
        guests = list(deployment[lost])
        self._title(f"{lost} stops answering, with {', '.join(guests)} on it")
        await site.cut(lost)
        await self._watch(control, f"{lost} is seen as lost", HEAL_S, lambda s: not _container(s, lost)["reachable"])
        began_s = time.monotonic()
        await self._say_vcrecon("evacuate", lost, "--specs", str(self._specs), "--yes")
        await self._watch(control, "its guests wait (S1)", HEAL_S, _blocked(guests, "may-live-elsewhere"))
        self._note("refused", f"{lost} may still run them: no second copy is started", time.monotonic() - began_s)
        await site.power_off(lost)
        self._console.print(f"[dim]somebody walks over and pulls the plug of {lost}[/dim]")
        began_s = time.monotonic()
        await self._say_vcrecon("fence", lost, "--confirmed", "--state", str(self._state))
        targets = {guest: name for name, here in self._read_deployment().items() for guest in here if guest in guests}
        await self._watch(control, "they run elsewhere", MOVE_S, _runs_on(targets))
        self._outcome.move_seconds = time.monotonic() - began_s
        self._outcome.moved += len(guests)
        self._note("moved", f"{len(guests)} guests off {lost}, after the fence", self._outcome.move_seconds)
        await site.power_on(lost)
        await site.mend(lost)
        began_s = time.monotonic()
        await self._watch(control, f"{lost} is back", HEAL_S, lambda s: _container(s, lost)["reachable"])
        await self._watch(control, "old disks are kept aside", HEAL_S, lambda s: _kept(s, lost) >= set(guests))
        self._note("returned", f"{lost}: its old disks are kept aside, never booted", time.monotonic() - began_s)

    async def _settle(self, control: ControlClient, site: SiteClient) -> None:
        """All is as the spec wants it, by the site's truth as well, and there is nothing left to do."""
        await self._watch(control, "everything is settled", CONVERGE_S, lambda s: bool(s["converged"]))
        await self._say_vcrecon("plan", str(self._specs), "--state", str(self._state), expect=0, last_lines=1)
        truth, audit = await site.world(), await site.audit()
        self._outcome.running = int(truth["running"])
        self._outcome.violations = len(audit["violations"])
        for violation in audit["violations"]:
            self._console.print(f"[red]violation: {violation}[/red]")
        twice = [name for name, guest in truth["guests"].items() if len(guest["hosts"]) > 1]
        if self._outcome.running != self._outcome.guests or twice:
            raise _Untrue(f"{self._outcome.running} of {self._outcome.guests} guests run; twice: {twice}")

    async def _report(self, control: ControlClient) -> None:
        table = Table(title="What happened", title_justify="left")
        for column in ("what", "detail"):
            table.add_column(column, overflow="fold")
        table.add_column("seconds", justify="right")
        for what, rest in self._log:
            detail, _, seconds = rest.rpartition("\t")
            table.add_row(what, detail, seconds)
        self._console.print(table)
        if not self._keep:
            self._console.print(
                "Look next at: [bold]vcrecon demo --keep[/bold] (leaves it running, to break and mend), "
                "README.md, docs/ARCHITECTURE.md"
            )
            return
        with contextlib.suppress(VcreconError):
            status = await control.status()
            # After `make demo` it is in the virtual environment alone.
            typed = "vcrecon" if shutil.which("vcrecon") else f"{sys.executable} -m vcrecon"
            self._console.print(
                f"Left running. Edit [bold]{self._specs}/deployment.yaml[/bold] and watch it move:\n"
                f"  page           {status['page_url']}\n"
                f"  metrics        {status['metrics_url']}\n"
                f"  spec directory {self._specs}\n"
                f"  status         {typed} status --watch --state {self._state}\n"
                f"  events         {typed} events -f --state {self._state}\n"
                f"  stop           kill {self._pid('service')} {self._pid('site')}; rm -r {self._work}"
            )

    # --- the means -----------------------------------------------------------------------------------------

    def _title(self, text: str) -> None:
        self._console.print(f"\n[bold]{text}[/bold]")

    def _note(self, what: str, detail: str, seconds: float) -> None:
        self._log.append((what, f"{detail}\t{seconds:.1f}"))
        self._console.print(f"[green]✓[/green] {what}: {detail} ({seconds:.1f} s)")

    async def _say_vcrecon(self, *arguments: str, expect: int = 0, last_lines: int = 12) -> None:
        """Run a vcrecon command as a person would, and show the end of what it prints."""
        self._console.print(f"[bold]$ vcrecon {' '.join(arguments)}[/bold]".replace(str(self._work), "…"))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "vcrecon", *arguments,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=self._environment(),
        )  # fmt: skip
        output = (await process.communicate())[0].decode(errors="replace").rstrip()
        for line in output.splitlines()[-last_lines:]:
            self._console.print(f"  {line}", markup=False)
        if process.returncode != expect:
            raise _Untrue(f"`vcrecon {arguments[0]}` ended with {process.returncode}, not {expect}: {output[-300:]}")

    def _environment(self) -> dict[str, str]:
        # A simulated host answers in milliseconds, so a silent one is known as lost sooner than a real one.
        patience = {"VCRECON_LOOK_DEADLINE_S": "5", "VCRECON_CONNECT_DEADLINE_S": "3"}
        return {**os.environ, **patience, "NO_COLOR": "1", "COLUMNS": str(WIDTH)}

    @contextlib.asynccontextmanager
    async def _process(self, name: str, *arguments: str) -> AsyncIterator[None]:
        """A child process with its log in the working directory; ended by its id, unless it is to be kept."""
        with (self._work / f"{name}.log").open("wb") as log:
            child = await asyncio.create_subprocess_exec(
                sys.executable, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, env=self._environment(),
            )  # fmt: skip
        (self._work / f"{name}.pid").write_text(f"{child.pid}\n")
        try:
            yield
        finally:
            if not self._keep or sys.exc_info()[0] is not None:
                with contextlib.suppress(ProcessLookupError):
                    child.send_signal(signal.SIGTERM)
                try:
                    await asyncio.wait_for(child.wait(), 30)
                except TimeoutError:
                    child.kill()

    def _pid(self, name: str) -> str:
        return (self._work / f"{name}.pid").read_text().strip()

    async def _until(self, what: str, deadline_s: float, true: Callable[[], bool]) -> None:
        end_s = time.monotonic() + deadline_s
        while not true():
            if time.monotonic() > end_s:
                logs = "\n".join(path.read_text(errors="replace")[-1000:] for path in self._work.glob("*.log"))
                raise Refused(f"{what} did not start within {deadline_s:.0f} s:\n{logs}")
            await asyncio.sleep(0.05)

    async def _watch(
        self, control: ControlClient, what: str, deadline_s: float, true: Callable[[dict[str, Any]], Any]
    ) -> None:
        """Show progress until a condition on the service's status holds; _Untrue when it does not in time."""
        end_s = time.monotonic() + deadline_s
        with self._console.status(what) as spinner:
            last_s, line = time.monotonic(), ""
            while True:
                status = await control.status()
                verdict = true(status)
                if await verdict if asyncio.iscoroutine(verdict) else verdict:
                    return
                counts = Counter(guest["state"] for guest in status["guests"])
                now = "  ".join(f"{state} {count}" for state, count in sorted(counts.items()))
                spinner.update(f"{what} … {now}")
                if not self._console.is_terminal and now != line and time.monotonic() - last_s > 2:
                    self._console.print(f"  {now}")
                    last_s, line = time.monotonic(), now
                if time.monotonic() > end_s:
                    raise _Untrue(f"{what}: not true after {deadline_s:.0f} s; {self._why(status)}")
                await asyncio.sleep(0.2)

    @staticmethod
    def _why(status: dict[str, Any]) -> str:
        stuck = [f"{g['name']}: {g['state']}, {g['message']}" for g in status["guests"] if g["state"] != "running"]
        stuck += [f"{o['name']}: {b['message']}" for o in status["containers"] for b in o["blocked"]]
        return "; ".join(stuck[:5]) or "see `vcrecon status`"

    def _read_deployment(self) -> dict[str, list[str]]:
        found = YAML(typ="safe").load(self._specs / "deployment.yaml")
        return {name: list(guests or []) for name, guests in found["deployment"].items()}

    def _edit_deployment(self, guest: str, source: str, target: str) -> None:
        """What a person does in an editor: take the name out of one line and put it into another."""
        yaml, path = YAML(), self._specs / "deployment.yaml"
        content = yaml.load(path)
        content["deployment"][source].remove(guest)
        if content["deployment"].get(target) is None:
            content["deployment"][target] = []
        content["deployment"][target].append(guest)
        with path.with_suffix(".new").open("w") as file:
            yaml.dump(content, file)
        path.with_suffix(".new").replace(path)
        self._console.print(f"[dim]deployment.yaml: {guest} moved from the line of {source} to that of {target}[/dim]")


class _Untrue(VcreconError):
    """Something that the demo claims did not come true."""


def _container(status: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in status["containers"] if c["name"] == name)
    return found


def _runs_on(targets: dict[str, str]) -> Callable[[dict[str, Any]], bool]:
    def true(status: dict[str, Any]) -> bool:
        guests = {g["name"]: g for g in status["guests"]}
        return all(
            guests[name]["state"] == "running" and target in guests[name]["seen_on"] and not guests[name]["detail"]
            for name, target in targets.items()
        )

    return true


def _blocked(names: list[str], reason: str) -> Callable[[dict[str, Any]], bool]:
    def true(status: dict[str, Any]) -> bool:
        guests = {g["name"]: g for g in status["guests"]}
        return all(any(b["reason"] == reason for b in guests[name]["blocked"]) for name in names)

    return true


def _kept(status: dict[str, Any], container: str) -> set[str]:
    return {o["name"] for o in status["orphans"] if o["container"] == container and o["disks"]}
