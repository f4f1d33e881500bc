"""The control loop: one task a container, each pass the same short way from look to action.

    observe ─► remember ─► plan ─► admit ─► act ─► look again

Level-triggered: events, spec edits and finished actions only wake a pass earlier; the slow relist alone
converges. Made and run by `service`, which owns the record, the sockets and the spec files.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Collection, Iterable, Iterator

import structlog

from vcrecon import __version__
from vcrecon.core.actions import Action, Install
from vcrecon.core.admission import Admission
from vcrecon.core.classify import answered
from vcrecon.core.concern import concerned, mended
from vcrecon.core.decisions import Block, Plan
from vcrecon.core.effects import Effects
from vcrecon.core.installs import BootFacts
from vcrecon.core.mastery import UNCLEAR, Master, Quiet, foreign, holds, obeying, quiet
from vcrecon.core.observation import ALL_PARTS, Observation, Part, Seen, Unseen
from vcrecon.core.plan import View, plan_container
from vcrecon.core.wanted import Wanted
from vcrecon.core.world import World
from vcrecon.errors import HostError, Transient
from vcrecon.host.scripts import Bench, Secrets
from vcrecon.hypervisor import HYPERVISORS
from vcrecon.settings import Settings
from vcrecon.shell.act import carry_out
from vcrecon.shell.connector import pinned_keys
from vcrecon.shell.install import BareMetal
from vcrecon.shell.ledger import Ledger
from vcrecon.shell.mastery import give_up
from vcrecon.shell.observe import observe
from vcrecon.shell.station import Station
from vcrecon.shell.survey import Survey
from vcrecon.shell.transport import Host
from vcrecon.spec.model import Container, Spec

_log = structlog.get_logger("vcrecon")

RECORD_PAUSE_S = 2.0
FLEETING = "left at the end"
CHEAP_PARTS = frozenset({Part.GUESTS, Part.ANSWERS})


class Controller:
    """Runs until cancelled. `connect` makes the connection of a container; everything else is given too.

    Without `bare_metal` nothing is installed. `master` is who this is among masters; without it no lease is taken,
    and none is respected.
    """

    def __init__(
        self,
        spec: Spec,
        ledger: Ledger,
        secrets: Secrets,
        connect: Callable[[Container, Spec], Host],
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        on_change: Callable[[], None] = lambda: None,
        bare_metal: BareMetal | None = None,
        master: Master | None = None,
    ) -> None:
        self.wanted = Wanted(spec)
        self.world = World()
        self.ledger = ledger
        self.memory = ledger.record.memory
        self.admission = Admission(spec.site.limits)
        self.stations: dict[str, Station] = {}
        self.settings = settings
        self.record_trouble: str | None = None
        self._secrets = secrets
        self._connect = connect
        self.clock = clock
        self._monotonic = monotonic
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not secrecy
        self._on_change = on_change
        self.bare_metal = bare_metal
        if bare_metal is not None:
            bare_metal.on_change = lambda container: self.wake((container,))
            bare_metal.on_keys = self._pin_one
            bare_metal.on_installed = self._installed
        self._master = master
        self._quiet: Quiet | None = UNCLEAR if master is not None else None
        """Why this master serves no boots."""
        self._actions: set[asyncio.Task[None]] = set()
        self._settling: dict[str, set[str]] = {}
        """Subjects whose last action's outcome was not looked at yet, and on which containers."""
        self._effects = Effects()
        self._stopping = False
        self._idle_until_s = 0.0
        self._survey = Survey(ledger.record, clock)

    @property
    def spec(self) -> Spec:
        return self.wanted.spec

    # --- generations ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin one task for each container."""
        self._announce()
        if self.bare_metal is not None:
            self.bare_metal.be_quiet(self._quiet)
            self.bare_metal.desk.hold(self._words)
            self.bare_metal.start(self.spec)
        for name in self.spec.containers:
            self._open(name)

    def adopt(self, spec: Spec) -> None:
        """Put a new generation in force, and wake the containers that it concerns."""
        old = self.spec
        # First: what cannot be written changes nothing.
        self._survey.mind_unshown(sorted({*old.containers, *spec.containers}))
        self.wanted = Wanted(spec)
        self.admission.limits = spec.site.limits
        for name in old.containers.keys() - spec.containers.keys():
            self._close(name)
        for name, container in spec.containers.items():
            if name in self.stations and (container != old.containers[name] or spec.site.ssh != old.site.ssh):
                self._close(name)
            if name not in self.stations:
                self._open(name)
        self._announce()
        self._end_gone_intents(old)
        self.ledger.forget_gone_guests(self.world, spec)
        self._forgive_mended(old)
        if self.bare_metal is not None:
            self.bare_metal.adopt(spec)
        for name in concerned(old, spec, self.world):
            self.stations[name].plan = None
            self.stations[name].poke()
        self._on_change()

    def _announce(self) -> None:
        """Tell the metrics what there is."""
        spec = self.spec
        clusters = {name: cluster.guests for name, cluster in spec.clusters.items()}
        placement = {guest: spec.placement.get(guest, "") for guest in spec.guests}
        site = (spec.site.name, spec.site.session, __version__)
        self.ledger.metrics.announce(site, spec.containers, clusters, placement)

    def _end_gone_intents(self, old: Spec) -> None:
        """A guest that left the spec together with its container is nobody's to finish: its intent ends.

        Not while a step for it is under way, of which there may be no trace yet (S7).
        """
        begun = self.memory.intents.keys() - self.admission.busy
        gone = sorted(g for g in old.guests.keys() - self.spec.guests.keys() if f"guest/{g}" in begun)
        with self.ledger.record.batch() as batch:
            for guest in gone:
                if not any(place in self.stations for place in self.world.sightings.get(guest, {})):
                    batch.remove_intent(f"guest/{guest}")

    def _forgive_mended(self, old: Spec) -> None:
        """What failed for a hook or an image that was changed meanwhile is tried at once."""
        failed = {subject: attempts.error for subject, attempts in self.memory.attempts.items()}
        with self.ledger.record.batch() as batch:
            for subject in mended(old, self.spec, failed):
                batch.remove_attempts(subject)

    def _open(self, name: str) -> None:
        station = Station(name, self._connect(self.spec.containers[name], self.spec))
        self.stations[name] = station
        station.tasks = [
            asyncio.create_task(self._watch_over(station), name=f"container {name}"),
            asyncio.create_task(self._listen(station), name=f"events of {name}"),
        ]

    def _close(self, name: str) -> None:
        station = self.stations.pop(name)
        for subject in list(station.settling):
            self._settled(station, subject)
        self.admission.retain(name, ())  # nobody waits behind what will never be asked for again
        for task in station.tasks:
            task.cancel()
        self._spawn(station.host.close())
        # What was there may still be there: unreachable, not gone (S1).
        self.world.observe(Unseen(name, self.clock(), "left-spec", "it is no longer in containers.yaml"))
        self.ledger.forget_container(name)

    # --- one container -------------------------------------------------------------------------------------

    async def _watch_over(self, station: Station) -> None:
        while self.stations.get(station.name) is station:
            station.wake.clear()
            try:
                with self._record_may_fail():
                    await self.run_pass(station)
            except Exception:
                _log.exception("a pass failed", container=station.name)
            await asyncio.sleep(self.settings.settle_s)
            # Not `wait_for`: before Python 3.12 it loses a cancel that comes together with the wake-up, for ever.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s(station)):
                    await station.wake.wait()

    def _pause_s(self, station: Station) -> float:
        """Until the next pass, with jitter, so that a fleet does not march in step."""
        observation = self.world.current.get(station.name)
        seen = isinstance(observation, Seen)
        longest = self.settings.poll_s if seen else self.settings.retry_unreachable_s
        wanted_s = station.plan.look_again_s(longest) if station.plan else longest
        return wanted_s * (0.8 + 0.4 * self._rng.random())

    async def run_pass(self, station: Station) -> None:
        """Look, remember, plan, act: one pass of one container."""
        began_s, told_at_s = self._monotonic(), station.told_at_s
        station.told_at_s = None
        self._survey.begin(self.spec.containers)
        observation = await self._look(station)
        if self.stations.get(station.name) is not station:
            return  # it left the spec, or was opened anew, while it was looked at
        changed = self.world.observe(observation)
        if isinstance(observation, Seen):
            station.answers.set()
        else:
            station.answers.clear()
        self._settle(station, observation, began_s)
        self.ledger.saw(observation, self.world, self.spec)
        if self.bare_metal is not None:
            if isinstance(observation, Seen):
                self.bare_metal.saw(observation)
            else:
                self._spawn(self.bare_metal.ask_switch(station.name), lasts=False)
        if self._survey.end(self.spec.containers, self.world, self.spec.site.limits):
            self.wake(self.stations)
        self._mind_other_masters()
        plan = obeying(plan_container(self.view(), station.name), self.world, self._quiet)
        self.ledger.planned(plan, self.spec)
        station.plan = plan
        self._obey(plan)
        self._wake_others(station.name, changed)
        ended_s = self._monotonic()
        self.ledger.metrics.observe_pass(ended_s - began_s)
        if told_at_s is not None:
            self.ledger.metrics.observe_event_lag(ended_s - told_at_s)
        self._on_change()

    async def _look(self, station: Station) -> Observation:
        now_s = self._monotonic()
        parts, station.due = station.due | CHEAP_PARTS, frozenset()
        before = self.world.current.get(station.name)
        if not isinstance(before, Seen) or now_s - station.full_look_at_s > self.settings.relist_s:
            parts, station.full_look_at_s = ALL_PARTS, now_s
        observation = await observe(
            station.host,
            self.spec.containers[station.name],
            site=self.spec.site.name,
            parts=parts,
            probes=self._probes(station.name),
            before=before if isinstance(before, Seen) else None,
            clock=self.clock,
            deadline_s=self.settings.look_deadline_s,
            master=self._master,
        )
        if isinstance(observation, Unseen):
            station.due = ALL_PARTS
        return observation

    def _probes(self, container: str) -> list[tuple[str, int]]:
        """Guests that run and have not answered yet: ask them now."""
        found = []
        for sighting in self.world.on(container).values():
            guest = self.spec.guests.get(sighting.guest)
            if guest is not None and sighting.active and not answered(self.memory, sighting):
                found += [(i.address.partition("/")[0], i.vlan) for i in guest.interfaces[:1] if i.address]
        return found

    def view(self) -> View:
        """What a planner may look at now."""
        return View(
            self.wanted,
            self.world,
            self.memory,
            self.clock(),
            busy=self.admission.busy | self._settling.keys(),
            boot=self.bare_metal.facts() if self.bare_metal is not None else BootFacts(),
        )

    def _settle(self, station: Station, observation: Observation, began_s: float) -> None:
        """Actions that ended before this look began are now seen in their outcome."""
        lost = isinstance(observation, Unseen)
        for subject in [s for s, ended_s in station.settling.items() if lost or ended_s <= began_s]:
            self._settled(station, subject)

    def _settled(self, station: Station, subject: str) -> None:
        del station.settling[subject]
        self._settling[subject].discard(station.name)
        if not self._settling[subject]:
            del self._settling[subject]

    def _mind_other_masters(self) -> None:
        """Whether boots are served: two DHCP servers would fight, and so would two installers."""
        if self._master is None or self.bare_metal is None:
            return
        self._quiet = quiet(self.spec.containers, self.world, self._master, self.clock(), self._quiet)
        self.bare_metal.be_quiet(self._quiet)
        serves = self.spec.site.provisioning.mode != "off"
        block = Block("site", self._quiet.reason, self._quiet.message) if self._quiet and serves else None
        self.ledger.boots_held(block if self._quiet is not UNCLEAR else None)

    def _wake_others(self, container: str, guests: Iterable[str]) -> None:
        """What a guest leaves here decides what may begin elsewhere."""
        for guest in guests:
            places = {self.spec.placement.get(guest, ""), *self.world.sightings.get(guest, {})}
            for name in places - {container}:
                if name in self.stations:
                    self.stations[name].poke()

    async def _listen(self, station: Station) -> None:
        """Be told at once that a guest started or died. Lost events cost time only: the next look finds out."""
        command = HYPERVISORS[self.spec.containers[station.name].hypervisor].watch
        while self.settings.events:
            await station.answers.wait()
            with contextlib.suppress(HostError):
                async for _ in station.host.lines(command):
                    station.told_at_s = station.told_at_s or self._monotonic()
                    station.poke(CHEAP_PARTS)
            station.poke(CHEAP_PARTS)
            await asyncio.sleep(self.settings.retry_unreachable_s * (0.5 + self._rng.random()))

    # --- actions -------------------------------------------------------------------------------------------

    def _obey(self, plan: Plan) -> None:
        self.admission.retain(plan.container, (action.subject for action in plan.actions))
        self._effects.planned(plan.container, plan.actions, self.admission.busy | self._settling.keys())
        if self._survey.on or self._stopping or self._monotonic() < self._idle_until_s:
            return
        self.record_trouble = None
        for action in plan.actions:
            if self.admission.ask(action, self.memory) is None:
                self._spawn(self._act(action), lasts=not isinstance(action, Install))
        for queue, length in self.admission.lengths().items():
            self.ledger.metrics.set_queue(queue, length)

    async def _act(self, action: Action) -> None:
        began_s = self._monotonic()
        bench = Bench(self.wanted, self.world, self.memory, self._secrets)
        try:
            self.ledger.begins(action)
            if isinstance(action, Install):
                await self._bare_metal().install(action, self._host(action.container))
            else:
                await carry_out(action, bench, self._host)
        except HostError as error:
            self._failed(action, error, began_s)
        except Exception as error:
            _log.exception("an action failed", action=action.kind, subject=action.subject)
            bug = Transient(f"{action.kind} of {action.subject}: {error!r}", delay_s=30, kind="bug")
            self._failed(action, bug, began_s)
        else:
            in_vain = self._effects.succeeded(action, bench.wanted)
            if in_vain is not None:
                self._failed(action, in_vain, began_s)
            else:
                with self._record_may_fail():
                    self.ledger.done(action, self._monotonic() - began_s, self.spec)
        finally:
            self._ended(action)

    def _failed(self, action: Action, error: HostError, began_s: float) -> None:
        with self._record_may_fail():
            self.ledger.failed(action, error, self._monotonic() - began_s)

    @contextlib.contextmanager
    def _record_may_fail(self) -> Iterator[None]:
        """While the record cannot be written nothing more is begun (S7); looking goes on."""
        try:
            yield
        except Transient as error:
            self.record_trouble = str(error)
            self._idle_until_s = self._monotonic() + RECORD_PAUSE_S
            _log.error("record", error=str(error))

    def _ended(self, action: Action) -> None:
        waiting = self.admission.done(action)
        places = action.places
        for name in places & self.stations.keys():
            station = self.stations[name]
            station.settling[action.subject] = self._monotonic()
            self._settling.setdefault(action.subject, set()).add(name)
            station.poke(action.changes)
        for name in (waiting - places) & self.stations.keys():
            self.stations[name].poke()

    def _host(self, container: str) -> Host:
        if container not in self.stations:
            raise Transient(f"{container} is not in the spec", kind="left-spec")
        other = foreign(self.world, container)
        if other is not None:  # found since the action was planned, or the container is another's source
            raise Transient(f"{container} is looked after by another master, {other.title}", kind="other-master")
        return self.stations[container].host

    def _spawn(self, work: object, *, lasts: bool = True) -> None:
        """Run `work` beside the passes. One that does not last is left at once when the controller stops."""
        task: asyncio.Task[None] = asyncio.create_task(work, name=None if lasts else FLEETING)  # type: ignore[arg-type]
        self._actions.add(task)
        task.add_done_callback(self._actions.discard)

    # --- installs ------------------------------------------------------------------------------------------

    def _bare_metal(self) -> BareMetal:
        if self.bare_metal is None:
            raise Transient("this controller installs nothing", kind="never-booted")
        return self.bare_metal

    def _installed(self, container: str) -> None:
        """Its disks are new: nothing that was seen there before is believed (S1)."""
        self.world.forget(container)
        self.wake((container,))

    def _pin_one(self, container: str) -> None:
        if container in self.stations and self.bare_metal is not None:
            keys = pinned_keys(self.spec.site.ssh.known_hosts)
            self.stations[container].host.pin(self.bare_metal.pins.over(self.spec.containers[container], keys))
            self.wake((container,))

    def _words(self, container: str) -> str:
        """What the desk tells a machine whose install may not begin yet."""
        station = self.stations.get(container)
        return self._bare_metal().words(container, station.plan if station is not None else None, self.admission)

    # --- the whole site ------------------------------------------------------------------------------------

    @property
    def converged(self) -> bool:
        """Whether every container was planned and found as wanted, with nothing under way."""
        return not self.admission.in_flight and all(
            station.plan is not None and station.plan.settled for station in self.stations.values()
        )

    def refresh(self) -> None:
        """Look at everything now."""
        for station in self.stations.values():
            station.poke(ALL_PARTS)

    def pin(self, keys: str) -> None:
        """Take new pinned host keys into use (S9), except where vcrecon pinned its own."""
        for name, station in self.stations.items():
            own = self.bare_metal.pins if self.bare_metal is not None else None
            station.host.pin(own.over(self.spec.containers[name], keys) if own else keys)
        self.refresh()

    def wake(self, containers: Iterable[str]) -> None:
        for name in containers:
            if name in self.stations:
                self.stations[name].poke()

    async def stop(self) -> None:
        """Let steps in flight end for a while, then leave them: each is re-entrant (S7)."""
        self._stopping = True
        for station in self.stations.values():
            for task in station.tasks:
                task.cancel()
        for task in self._actions:
            if task.get_name() == FLEETING:
                task.cancel()  # an install takes minutes, and the next controller goes on with it
        if self._actions:
            await asyncio.wait(self._actions, timeout=self.settings.shutdown_s)
        # A step that was left may run on for a while: there the next master waits until the lease has run out.
        kept = {name for action in self.admission.in_flight.values() for name in action.places}
        left = [*self._actions, *(task for s in self.stations.values() for task in s.tasks)]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._release_leases(kept)
        await asyncio.gather(*(s.host.close() for s in self.stations.values()), return_exceptions=True)

    async def _release_leases(self, kept: Collection[str]) -> None:
        """Give the containers up that are ours, so that the next master need not wait. What fails runs out."""
        if self._master is None:
            return
        ours = [s for name, s in self.stations.items() if name not in kept and holds(self.world, name)]
        failed = await give_up(self._master, {s.name: s.host for s in ours})
        if failed:
            _log.warning("leases that run out by themselves", containers=failed, after_s=self._master.lease_s)
