"""The world of one schedule: a site, one or two services, spec files, and what a person who watches knows of it.

Nothing here looks through the controller's eyes. What a guest wrote, who gave what up, which spec was the last good
one: the classroom writes it down as it happens, and `truth` holds the hosts against it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.simulation.disks import epoch_of, is_aside
from tests.simulation.foreign import Foreign
from tests.simulation.loop import VirtualLoop
from tests.simulation.machine import Machine
from tests.simulation.process import Process
from tests.simulation.site import VirtualSite
from tests.simulation.specs import SpecFiles, draw
from tests.simulation.wire import Network

from vcrecon.core.installs import Ticket
from vcrecon.core.observation import Seen
from vcrecon.settings import Settings
from vcrecon.sim.files import Files
from vcrecon.sim.lvm import Volume
from vcrecon.spec.load import load
from vcrecon.spec.model import Spec

WORK = "/root/thesis.txt"
LOOK_AGAIN_S = 1.0
LOOK_TAKES_S = 3.0
"""A look, and the pass that plans from it, on a site where all is well."""


class Classroom:
    """`good` is the spec that ought to be in force. Everything a strike does is told to `note`."""

    def __init__(
        self,
        loop: VirtualLoop,
        rng: random.Random,
        directory: Path,
        settings: Settings | None = None,
        documents: dict[str, Any] | None = None,
        process: Callable[..., Process] = Process,
    ) -> None:
        self.loop, self.rng, self.directory = loop, rng, directory
        self.settings = settings or replace(
            Settings(), poll_s=rng.choice([10.0, 20.0]), relist_s=rng.choice([30.0, 60.0]), events=rng.choice([1, 1, 0])
        )
        self.network = Network(loop, random.Random(rng.random()))
        self.network.keepalive_s = self.settings.keepalive_s * (self.settings.keepalive_count + 1)
        self.files = SpecFiles(directory / "specs", documents or draw(rng))
        self.files.write_all()
        (self.files.directory / "known_hosts").write_text("")
        self.good: Spec = load(self.files.directory).spec
        self.site = VirtualSite(self.good, self.network)
        self.pin_hosts()
        self.foreign = Foreign(self.site, rng)
        self._process = process
        self.main = self.service("m1")
        self.services = [self.main]
        self.on_installer: Callable[[str, Ticket, Process], None] = lambda name, ticket, service: None
        """Told of each machine that is answered with an installer."""
        self.machines = {name: Machine(self, name) for name, c in self.good.containers.items() if c.mac}
        self.history: list[str] = []
        self.works: dict[str, list[str]] = {}
        """All that students ever wrote, by guest; the last is on the live disk unless the guest began anew."""
        self.pages: Counter[str] = Counter()
        self.anew: set[str] = set()
        """Guests whose disk was given up, by a consent or by a fence, since they last wrote."""
        self.consents: set[tuple[str, str]] = set()
        """What a person said: ("rebuild", guest), ("prune", guest), ("reinstall", container)."""
        self.may_go: set[tuple[str, int]] = set()
        """Disks (guest, epoch) that a person gave up."""
        self.given_up: set[str] = set()
        """Guests of whose work nothing needs to be left."""
        self.fenced: set[str] = set()
        self.never_answered: set[str] = set()
        """Containers that were silent when the record was lost, and are since: they did not stop answering."""
        self.asked_to_hold: set[str] = set()
        self.confirmed = False
        self.known_guests = set(self.good.guests)
        self.before: dict[str, Any] | None = None
        """The documents before the last edit."""
        self._saved = self.files.copy()
        self._running_since_s = 0.0 if self.good.site.session == "running" else None
        self.changed_at_s = 0.0
        """When a person last changed or said anything (virtual seconds)."""

    def service(self, name: str) -> Process:
        return self._process(
            name, self.site, self.files.directory, self.directory / f"state-{name}", self.settings,
            random.Random(self.rng.random()),
        )  # fmt: skip

    def note(self, words: str) -> None:
        self.history.append(f"{self.loop.time():9.3f} {words}")

    # --- the spec ------------------------------------------------------------------------------------------

    @property
    def home(self) -> dict[str, str]:
        return dict(self.good.placement)

    def pin_hosts(self) -> None:
        """The person's own known_hosts file, with the keys that the hosts have now."""
        lines = "".join(server.known_host() for server in self.site.servers.values())
        (self.files.directory / "known_hosts").write_text(lines)

    async def edited(self) -> None:
        """The spec files were saved as the documents say, and the services notice."""
        self.files.write_all()
        before = self.good
        self.good = load(self.files.directory).spec
        self.before, self._saved = self._saved, self.files.copy()
        self.known_guests |= self.good.guests.keys()
        if self.good.digest != before.digest:
            self.confirmed = False
        if self.good.site.session != "running":
            self._running_since_s, self.site.witness.preparing = None, True
        elif self._running_since_s is None:
            self._running_since_s = self.loop.time()
        await self.reload()

    @property
    def class_runs_since_s(self) -> float | None:
        """Since when the spec in force says so (virtual seconds)."""
        return self._running_since_s

    async def reload(self) -> None:
        self.changed_at_s = self.loop.time()
        for service in self.services:
            if service.alive:
                await service.reload()

    # --- what people said ----------------------------------------------------------------------------------

    def gives_up(self, kind: str, guest: str) -> None:
        """A person's word for the disks that there are of this guest now: the live one, or those put aside."""
        self.consents.add((kind, guest))
        self.site.witness.consent(guest)
        for _, _, volume in self.disks(guest):
            if is_aside(volume) == (kind == "prune") or kind == "reinstall":
                self.may_go.add((guest, epoch_of(volume)))
        if kind != "prune":
            self.anew.add(guest)
        if kind in ("prune", "reinstall"):
            self.given_up.add(guest)

    def paused(self) -> set[str]:
        return set(self.main.record.memory.paused) if self.main.alive else set()

    def record_lost(self) -> None:
        """Nobody's word is known any more, and no fence, and who is silent now never answered."""
        self.fenced.clear()
        self.never_answered = set(self.unreachable())
        self.confirmed = False

    # --- what is so ----------------------------------------------------------------------------------------

    def hosts_of(self, guest: str) -> list[str]:
        """Where it really runs, cut hosts included."""
        return self.site.witness.live(guest)

    def on(self, container: str) -> set[str]:
        """Guests that run there, have a disk there, or belong there."""
        here = {guest for guest, place in self.home.items() if place == container}
        return here | {guest for guest in self.works if container in self.places(guest)}

    def places(self, guest: str) -> set[str]:
        return {name for name, _, _ in self.disks(guest)} | set(self.hosts_of(guest))

    def disks(self, guest: str) -> Iterator[tuple[str, str, Volume]]:
        """Container, volume name and volume of all that carry the guest's mark, and this site's."""
        for name, host in self.site.hosts.items():
            for volume in host.machine.all_volumes():
                if {f"vc.guest={guest}", f"vc.site={self.good.site.name}"} <= volume.tags:
                    yield name, volume.name, volume

    def unreachable(self) -> list[str]:
        """Containers that no service can talk to now."""
        return [n for n, s in self.site.servers.items() if s.cut or not s.listening]

    @staticmethod
    def read(volume: Volume, path: str = WORK) -> str | None:
        filesystem = volume.look()
        if filesystem is None:
            return None
        files = Files(filesystem, clock=float)
        return files.read(path).decode("utf-8", "replace") if files.exists(path) else None

    # --- students ------------------------------------------------------------------------------------------

    async def write_new_work(self, guests: Iterable[str] | None = None, *, but: Container[str] = ()) -> None:
        """Each student whose guest runs writes something new, so that an outdated disk can be told from the newest.

        With `guests` only theirs, and nobody writes whose disk a person has just given up. Not those in `but`.
        """
        told = {guest for kind, guest in self.consents if kind != "reinstall"} | self.given_up
        for guest in sorted(self.home if guests is None else set(guests) - told):
            hosts = self.hosts_of(guest)
            if len(hosts) != 1 or guest in but:
                continue
            disk = next((v for name, _, v in self.disks(guest) if name == hosts[0] and guest in v.opened_by), None)
            if disk is None or disk.look() is None or "vc.touched" not in disk.tags:
                continue  # before the class begins nobody works there, and guests are rebuilt at will
            before = self.read(disk)
            self.pages[guest] += 1
            text = f"{guest}, page {self.pages[guest]}"
            kept = self.works.setdefault(guest, [])
            if before in kept:
                kept.remove(before)  # overwritten by its author
            filesystem = disk.look()
            assert filesystem is not None
            hook, filesystem.on_write = filesystem.on_write, None  # a guest's own write is no violation
            try:
                Files(filesystem, clock=self.site.timing.wall).write(WORK, text.encode())
            except OSError:
                if before is not None:
                    kept.append(before)
                continue
            finally:
                filesystem.on_write = hook
            kept.append(text)
            self.anew.discard(guest)
            self.given_up.discard(guest)
            self.consents -= {("rebuild", guest), ("prune", guest)}

    # --- waiting -------------------------------------------------------------------------------------------

    async def until(self, true: Callable[[], bool], deadline_s: float) -> bool:
        """Whether it came true within so many virtual seconds."""
        end_s = self.loop.time() + deadline_s
        while not true():
            if self.loop.time() > end_s:
                return False
            await asyncio.sleep(LOOK_AGAIN_S)
        return True

    def converged(self) -> bool:
        """Whether the service says so, and has looked at everything in full since anybody last changed anything."""
        return self.looked_since() and self.main.controller.converged

    def looked_since(self) -> bool:
        """Whether what the service says comes of looks that are all later than anybody's last change or word."""
        if not self.main.alive:
            return False
        controller = self.main.controller
        stations = [controller.stations[name] for name in controller.spec.containers if name in controller.stations]
        behind_s = self.main.clock() - self.loop.time()
        seen = [controller.world.current.get(station.name) for station in stations]
        if not all(isinstance(found, Seen) and found.at_s - behind_s >= self.changed_at_s for found in seen):
            return False  # a look that is under way may be at a host that died without a word
        looked_s = min((station.full_look_at_s for station in stations), default=self.changed_at_s)
        # A look at one that lost its power begins, and does not end before its silence is noticed.
        changed_s = controller.clock() - (self.loop.time() - self.changed_at_s)
        looks = [controller.world.current.get(station.name) for station in stations]
        return (
            self.changed_at_s <= looked_s <= self.loop.time() - LOOK_TAKES_S
            and all(look is not None and look.at_s >= changed_s for look in looks)
            and not any(station.settling for station in stations)
        )

    def explain(self) -> Iterable[str]:
        """What the service says of itself, for the report of a schedule that failed."""
        if not self.main.alive:
            return ["the service does not run"]
        status = self.main.controls.status()
        lines = [f"converged={status['converged']} frozen={status['frozen']} held={status['spec']['held_back']}"]
        lines += [
            f"  {item['name']}: {item['state']} {item.get('message', '')} {item['blocked'] or ''}"
            for item in [*status["containers"], *status["guests"]]
        ]
        plans: list[dict[str, Any]] = self.main.controls.plans()
        lines += [f"  plan {plan}" for plan in plans if plan["decision"] != "rest"]
        flying = self.main.controller.admission.in_flight.values()
        return lines + [f"  in flight {action.kind} {action.subject}" for action in flying]
