"""A simulated site and the real controller in one process, wired as `service` wires them. Used by tests/e2e.

`async with playground(tmp_path) as play:` serves specs/small on simulated hosts and runs a controller on it. When
the block ends well, the site's own witness must have seen nothing forbidden, no simulated command may have
crashed, and nothing may be left mounted. Tests wait for conditions with `play.until`, never for a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import random
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from vcrecon.boot.desk import Desk
from vcrecon.controller import Controller
from vcrecon.controls import SiteControls, SpecState
from vcrecon.core.installs import Ticket
from vcrecon.host.scripts import Secrets
from vcrecon.service import site_metrics
from vcrecon.settings import Settings
from vcrecon.shell.connector import Connector, password_hash, pinned_keys
from vcrecon.shell.install import BareMetal
from vcrecon.shell.ledger import Ledger
from vcrecon.shell.mastery import this_master
from vcrecon.shell.pins import Pins
from vcrecon.shell.record import Record
from vcrecon.sim.lvm import Volume
from vcrecon.sim.site import Site
from vcrecon.sim.timing import Timing
from vcrecon.spec.load import load
from vcrecon.spec.model import Container

SMALL = Path(__file__).parents[2] / "specs" / "small"
DEADLINE_S = 90.0
LOOK_AGAIN_S = 0.02
STUDENT_FILE = "/root/thesis.txt"
STUDENT_TEXT = "three weeks of work\n"

QUICK = Settings(
    relist_s=1.0,
    poll_s=0.5,
    retry_unreachable_s=0.3,
    look_deadline_s=4.0,
    connect_deadline_s=2.0,
    keepalive_s=0.5,
    keepalive_count=3,
    settle_s=0.01,
    stable_s=60.0,
    shutdown_s=5.0,
)
"""Impatient, so that a test takes seconds; the deadlines leave room for a busy machine."""


class SpecFiles:
    """The five files of a spec, edited as a person would: a file changes at once or not at all."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @contextlib.contextmanager
    def editing(self, name: str) -> Iterator[Any]:
        """The YAML document of `name`.yaml; what the block makes of it is written at its end."""
        yaml, path = YAML(), self.directory / f"{name}.yaml"
        yaml.width = 120
        document = yaml.load(path)
        yield document
        with path.with_suffix(".new").open("w") as file:
            yaml.dump(document, file)
        path.with_suffix(".new").replace(path)

    def take(self, guest: str) -> str | None:
        """Take a guest off its container's line; returns the container."""
        found = None
        with self.editing("deployment") as document:
            for container, guests in document["deployment"].items():
                if guests and guest in guests:
                    guests.remove(guest)
                    found = container
        return found

    def put(self, guest: str, container: str) -> None:
        with self.editing("deployment") as document:
            if document["deployment"].get(container) is None:
                document["deployment"][container] = []
            document["deployment"][container].append(guest)

    def move(self, guest: str, container: str) -> None:
        """Place a guest on another container."""
        self.take(guest)
        self.put(guest, container)

    def add_single(self, guest: str, container: str, address: str) -> None:
        """A guest of its own on the outside network; `remove_single` takes it out again."""
        with self.editing("clusters") as document:
            entry = {
                "name": guest,
                "template": "node",
                "interfaces": [{"network": "outside", "address": address}],
            }
            document.setdefault("guests", []).append(entry)
        self.put(guest, container)

    def remove_single(self, guest: str) -> None:
        with self.editing("clusters") as document:
            document["guests"] = [entry for entry in document["guests"] if entry["name"] != guest]
        self.take(guest)

    def set_session(self, session: str) -> None:
        with self.editing("site") as document:
            document["session"] = session

    def set_policy(self, **policies: object) -> None:
        with self.editing("site") as document:
            document["policies"].update(policies)


class Playground:
    """The site (`site`), the spec files that lead to it (`files`) and, while it runs, the controller."""

    def __init__(
        self,
        site: Site,
        files: SpecFiles,
        state: Path,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.site = site
        self.files = files
        self.state = state
        self.settings = settings
        self.clock = clock
        self.metrics = site_metrics()
        self._record: Record | None = None
        self._controller: Controller | None = None
        self._controls: SiteControls | None = None
        self._spec_state = SpecState(str(files.directory), generation=1)
        self.desk: Desk | None = None
        self.switches: dict[str, Any] = {}
        """Power switches by container, for sites with bare metal."""

    # --- the controller's life -----------------------------------------------------------------------------

    @property
    def controller(self) -> Controller:
        assert self._controller is not None, "the controller is stopped"
        return self._controller

    @property
    def controls(self) -> SiteControls:
        assert self._controls is not None, "the controller is stopped"
        return self._controls

    @property
    def record(self) -> Record:
        assert self._record is not None, "the controller is stopped"
        return self._record

    def start(self) -> None:
        """Begin a controller on the state directory, as `vcrecon run` would."""
        spec = load(self.files.directory).spec
        rng = random.Random(1)
        self.metrics = site_metrics()
        self._record = Record.open(self.state, clock=self.clock)
        ledger = Ledger(self._record, self.metrics, clock=self.clock, rng=rng, stable_s=self.settings.stable_s)
        pins = Pins(self.state / "known_hosts")
        bare_metal = BareMetal(ledger, pins, self._make_desk, self._switch_of, clock=self.clock)
        self._controller = Controller(
            spec,
            ledger,
            Secrets(self._record.secret(), password_hash),
            Connector(self.settings, pins),
            self.settings,
            clock=self.clock,
            rng=rng,
            master=this_master(self.state, lease_s=self.settings.lease_s),
            bare_metal=bare_metal,
        )
        self._controls = SiteControls(self._controller, self._spec_state)
        self._controller.start()

    def _make_desk(self, claim: Callable[[Ticket], None], on_change: Callable[[str], None]) -> Desk:
        self.desk = Desk(clock=self.clock, claim=claim, on_change=on_change)
        return self.desk

    def _switch_of(self, container: Container, uefi: bool) -> Any:
        return self.switches.get(container.name)

    async def stop(self) -> None:
        """End the controller as SIGTERM does; the site lives on."""
        if self._controller is not None:
            await self._controller.stop()
            self.record.close()
        self._controller = self._controls = self._record = None

    async def restart(self, *, without_record: bool = False) -> None:
        """A new controller, on the same record or on none."""
        await self.stop()
        if without_record:
            shutil.rmtree(self.state)
        self.start()

    def reload(self) -> None:
        """Put the edited spec files into force, as the service does when they change."""
        self._spec_state.generation += 1
        spec = load(self.files.directory).spec
        self.controller.adopt(spec)
        self.controller.pin(pinned_keys(spec.site.ssh.known_hosts))

    # --- waiting -------------------------------------------------------------------------------------------

    async def until(
        self,
        true: Callable[[], bool | Awaitable[bool]],
        what: str = "the condition",
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Wait until `true()`; fails with what the service says of itself when it does not come true in time."""
        end_s = time.monotonic() + deadline_s
        while True:
            verdict = true()
            if await verdict if inspect.isawaitable(verdict) else verdict:
                return
            if time.monotonic() > end_s:
                raise AssertionError(f"{what}: not true after {deadline_s:.0f} s\n{self.explain()}")
            await asyncio.sleep(LOOK_AGAIN_S)

    async def converged(self, deadline_s: float = DEADLINE_S) -> None:
        """Until a pass that began after now, on every container, finds everything as the spec wants it."""
        self.controller.refresh()
        began_s = self.clock()
        # A container that does not answer has nothing new to show.
        await self.until(
            lambda: (
                self.controller.converged
                and all(o.at_s >= began_s for o in self.controller.world.current.values())
                and not any(station.settling for station in self.controller.stations.values())
            ),
            "converged",
            deadline_s,
        )

    async def relisted(self, container: str, times: int = 1) -> None:
        """Until `times` full looks at a container were taken and planned from."""
        station = self.controller.stations[container]
        for _ in range(times):
            before = station.full_look_at_s
            self.controller.refresh()
            await self.until(lambda before=before: station.full_look_at_s > before, f"a relist of {container}")
        await self.passed(container)

    async def passed(self, container: str) -> None:
        """Until one more pass of a container, begun after now, has been planned."""
        began_s = self.clock()
        station = self.controller.stations[container]
        station.plan = None
        station.poke()
        await self.until(
            lambda: station.plan is not None and self.controller.world.current[container].at_s >= began_s,
            f"a pass of {container}",
        )

    async def blocked(self, name: str, reason: str, deadline_s: float = DEADLINE_S) -> None:
        """Until an object (`a-head`, `container/c01`) is blocked for this reason."""
        subject = name if "/" in name else f"guest/{name}"

        def true() -> bool:
            block = self.controller.ledger.block(subject)
            return block is not None and block.reason == reason

        await self.until(true, f"{name} is blocked: {reason}", deadline_s)

    async def happened(self, subject: str, reason: str, *, after_id: int = 0) -> dict[str, Any]:
        """Until an event of this reason is in the history; returns it."""
        found: list[dict[str, Any]] = []

        def true() -> bool:
            found[:] = [e for e in self.events(subject, after_id) if e["reason"] == reason]
            return bool(found)

        await self.until(true, f"event {reason} of {subject}")
        return found[0]

    async def runs_on(self, guest: str, container: str, deadline_s: float = DEADLINE_S) -> None:
        """Until the guest runs there, nowhere else, and has answered."""
        await self.until(
            lambda: self.hosts_of(guest) == [container] and self.state_of(guest) == "running",
            f"{guest} runs on {container}",
            deadline_s,
        )

    async def restarted(self, guest: str, boots_before: int) -> None:
        """Until the guest was started again and has answered."""
        await self.until(
            lambda: (
                self.boots(guest) > boots_before and self.state_of(guest) == "running" and bool(self.hosts_of(guest))
            ),
            f"{guest} runs again",
        )

    # --- looking -------------------------------------------------------------------------------------------

    def events(self, subject: str, after_id: int = 0) -> list[dict[str, Any]]:
        return self.controls.events(subject, after_id, 10_000)

    def last_event_id(self) -> int:
        events = self.record.events(None, limit=1)
        return events[-1].id if events else 0

    def hosts_of(self, guest: str) -> list[str]:
        """Where the guest really runs, cut hosts included."""
        return self.site.witness.live(guest)

    def boots(self, guest: str) -> int:
        """How often any copy of the guest was really started."""
        return self.site.witness.boots[guest]

    def all_boots(self) -> dict[str, int]:
        return dict(self.site.witness.boots)

    def state_of(self, guest: str) -> str:
        """The guest's state as the record has it; empty when there is none."""
        last = self.record.memory.states.get(f"guest/{guest}")
        return last.state if last else ""

    def volumes(self, guest: str) -> dict[tuple[str, str], Volume]:
        """Every volume that carries the guest's mark, by container and name."""
        return {
            (name, volume.name): volume
            for name, host in self.site.hosts.items()
            for volume in host.machine.all_volumes()
            if f"vc.guest={guest}" in volume.tags
        }

    def kept(self, guest: str) -> dict[str, str]:
        """The guest's disks that were put aside: container to reason."""
        return {
            place: tag.partition("=")[2]
            for (place, _), volume in self.volumes(guest).items()
            for tag in volume.tags
            if tag.startswith("vc.quarantined=")
        }

    def live_volume(self, guest: str, container: str) -> Volume:
        """The guest's own disk on a container. Raises KeyError when it has none there."""
        return self.volumes(guest)[container, f"vcg-{guest}"]

    async def log_of(self, container: str) -> list[str]:
        """The command lines that ran on a simulated host so far."""
        log: list[str] = (await self.site.commands(container))["log"]
        return log

    async def students_work(self, guest: str, text: str = STUDENT_TEXT) -> None:
        """Somebody writes a file inside the guest."""
        await self.site.write_guest_file(guest, STUDENT_FILE, text)

    async def work_of(self, guest: str) -> str | None:
        """The student's file on the guest's live disk, or None."""
        try:
            return await self.site.read_guest_file(guest, STUDENT_FILE)
        except (FileNotFoundError, LookupError):
            return None

    def explain(self) -> str:
        """What the service knows, for the message of a test that failed."""
        if self._controller is None:
            return "the controller is stopped"
        status = self.controls.status()
        lines = [f"converged={status['converged']} frozen={status['frozen']} held={status['spec']['held_back']}"]
        for item in [*status["containers"], *status["guests"]]:
            lines.append(f"  {item['name']}: {item['state']} {item.get('message', '')} {item['blocked'] or ''}")
        lines.append(f"  orphans: {status['orphans']}")
        for plan in self.controls.plans():
            if plan["decision"] != "rest":
                lines.append(f"  plan {json.dumps(plan)}")
        lines += [f"  in flight {a.kind} {a.subject}" for a in self.controller.admission.in_flight.values()]
        for event in self.controls.events(None, None, 40):
            lines.append(f"  event {event['subject']} {event['reason']}: {event['message']}")
        return "\n".join(lines)

    # --- the end -------------------------------------------------------------------------------------------

    async def check_end(self) -> None:
        """Nothing forbidden was ever seen, and nothing is left lying about."""
        assert (await self.site.audit())["violations"] == []
        for name, host in self.site.hosts.items():
            assert (await self.site.commands(name))["crashes"] == [], name
            mounts = [mount.target for mount in host.machine.files.mounts]
            assert [target for target in mounts if "vcrecon/mnt" in target] == [], name


@contextlib.asynccontextmanager
async def playground(
    directory: Path,
    *,
    source: Path = SMALL,
    vary: Callable[[SpecFiles], None] = lambda files: None,
    settings: Settings = QUICK,
    timing_scale: float = 0.02,
    converge: bool = True,
    clock: Callable[[], float] = time.time,
    bind: Callable[[Playground], Awaitable[None]] | None = None,
) -> AsyncIterator[Playground]:
    """A site that serves `source` (as `vary` changed it first), a controller on it, and the check at the end.

    `bind` changes the specs, or the site, once they lead to each other and before the controller begins.

    `timing_scale` 1 is the demo's pace: a guest answers three seconds after its start. With `converge` the
    block begins when everything runs.
    """
    draft = directory / "draft"
    shutil.copytree(source, draft)
    vary(SpecFiles(draft))
    async with Site(load(draft).spec, timing=Timing(scale=timing_scale)) as site:
        site.materialize(draft, directory / "specs")
        play = Playground(
            site,
            SpecFiles(directory / "specs"),
            directory / "state",
            settings,
            clock=clock,
        )
        try:
            if bind is not None:
                await bind(play)
            play.start()
            if converge:
                await play.converged()
            yield play
            if os.environ.get("VCRECON_E2E_TRACE"):
                print(play.explain())
        finally:
            await play.stop()
        await play.check_end()
