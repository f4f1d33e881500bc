"""One schedule: a classroom drawn from a seed, rounds of strikes upon it, and after each round it must come to rest."""

from __future__ import annotations

import asyncio
import gc
import math
import random
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.simulation.classroom import Classroom
from tests.simulation.disks import is_aside
from tests.simulation.entropy import bury_in_silence, seeded
from tests.simulation.loop import VirtualLoop
from tests.simulation.machine import Switch
from tests.simulation.strikes import Strikes
from tests.simulation.truth import LOCK, Truth, Violation

from vcrecon.errors import HostError, Refused, SpecError

REST_S = 3600.0
"""Virtual seconds within which a site comes to rest once nobody strikes it: longer than the longest waits for a failed
object, a stuck install and a guest that does not boot, one after the other."""
HANGS_S = 600.0
"""A step that hangs and keeps its lock is ended by a person after so long, and disks kept aside are let go that leave
no room for one that is to come."""
STORY_S = 60_000.0
"""No story takes longer: somebody waits for ever."""
QUIET_S = 80.0
"""At rest nothing is done for so long: a full look at everything, and more."""
PAUSES_S = {0.0: 8, 0.05: 4, 1.0: 4, 5.0: 4, 20.0: 2, 60.0: 1, 300.0: 0.3}
"""Between two strikes, and how often each: most of what goes wrong does so while something is under way."""
STORIES = 0.6
"""How many of the rounds have a story among their strikes."""
TERMINATED = 143
"""The status of a program that was ended by SIGTERM."""
_MEMORY = Path("/dev/shm")


@dataclass
class Result:
    """What became of one seed."""

    seed: int
    violations: list[Violation]
    trace_hash: str
    seconds: float
    virtual_seconds: float
    history: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)


Story = Callable[["Play"], Awaitable[None]]


class Play:
    """A classroom with its truth and its strikes, and the words to let it come to rest."""

    def __init__(self, room: Classroom, truth: Truth, strikes: Strikes, rng: random.Random) -> None:
        self.room, self.truth, self.strikes, self.rng = room, truth, strikes, rng
        self.tale = ""
        """The story that is told in every round; without it some are drawn."""

    async def watch(self) -> None:
        while True:
            self.truth.tick()
            await asyncio.sleep(1.0)

    async def heal(self) -> None:
        """Everything from outside is in order again; nothing that vcrecon has to do itself is done for it."""
        room, strikes, site = self.room, self.strikes, self.room.site
        room.note("-- heal")
        self.truth.others_are_left_alone()
        room.network.latency_s = (0.0002, 0.002)
        await strikes.end_second()
        for task in list(site._tasks):
            task.cancel()
        room.main.disk_full = False
        for switch in room.main.switches.values():
            switch.dead = switch.lies = False
        for name, host in site.hosts.items():
            await site.heal(name)
            await site.slow(name, 0.0)
            await site.fill_pool(name, 0.0)
            await site.fill_root(name, full=False)
            server = site.servers[name]
            server.traps.clear()
            server.full = server.silent_death = False
            if host.container.hypervisor == "kvm" and not host.machine.libvirtd:
                host.machine.restart_libvirtd()
        self.truth.full_since_s.clear()
        for image in site.spec.images:
            for part in ("root", "kernel", "initrd"):
                await site.corrupt_image(image, part, on=False)
                await site.truncate_image(image, part, on=False)
        for machine in room.machines.values():
            machine.fails, machine.stops_at = False, ""
        room.files.write_all()
        if not room.main.alive:
            room.main.start()
        room.pin_hosts()
        room.foreign.remove_namesakes()
        while strikes.dropped:
            await strikes.drop_container()
        await room.edited()
        self.truth.edits.spec_changed()
        await self.switch_on()
        self._say_what_is_left_to_say()
        room.changed_at_s = room.loop.time()  # what lost its power a moment ago looks well until it is looked at

    async def switch_on(self) -> None:
        """Everybody has power, and what an installer left half way is begun again by a person."""
        room = self.room
        for name in room.site.hosts:
            machine = room.machines.get(name)
            if machine is not None and machine.blank:
                work = sorted(g for g in room.works if name in room.places(g))
                self._try(lambda name=name, work=work: room.main.controls.reinstall(name, work, "a person"))
                room.consents.add(("reinstall", name))
                machine.boot()
            elif machine is None or not machine.busy:
                await room.site.power_on(name)
            self.strikes.off.discard(name)

    def _say_what_is_left_to_say(self) -> None:
        room, controls = self.room, self.room.main.controls
        for subject in sorted(room.paused()):
            self._try(lambda subject=subject: controls.resume(subject))
        for guest in sorted(room.asked_to_hold):
            self._try(lambda guest=guest: controls.release(guest, "a person"))
        room.asked_to_hold.clear()
        self._try(controls.confirm)
        room.confirmed = True
        self._reset_those_that_hang()

    def _reset_those_that_hang(self) -> None:
        """One that booted on a full disk hangs: vcrecon says "silent" after five minutes, a person resets it."""
        for name, host in self.room.site.hosts.items():
            for domain in host.machine.domains.live():
                if domain.answers_at == math.inf:
                    self.truth.may_restart.add(domain.name)
                    self.room.note(f"a person resets {domain.name} on {name}")
                    host.machine.kill_domain(domain.name)

    def _try(self, say: Callable[[], object]) -> None:
        try:
            self.room.main.run(say)
            self.room.changed_at_s = self.room.loop.time()
        except (Refused, HostError, LookupError) as error:
            self.room.note(f"refused: {error}")

    async def come_to_rest(self, *, quiet_s: float = QUIET_S) -> None:
        """Wait until all is as the spec wants it, and see that nothing is done for `quiet_s` then.

        Raises nothing: a site that does not come to rest is a violation.
        """
        room = self.room
        end_s = room.loop.time() + REST_S
        kill_at_s = room.loop.time() + HANGS_S
        self._help_where_only_people_can()
        while not room.converged():
            if room.loop.time() > kill_at_s:
                kill_at_s = math.inf
                for host in room.site.hosts.values():
                    if host.programs.held_locks:
                        host.programs.kill_all()  # somebody ends what hangs there
                self._make_room()
            if room.loop.time() > end_s:
                blocked = [line for line in room.explain() if "plan" in line or "converged" in line]
                self.truth.violate("converges", f"not at rest within {REST_S:.0f} s: {' | '.join(blocked)[:600]}")
                return
            await asyncio.sleep(2.0)
            self._help_where_only_people_can()  # also with what a last look has just shown
        for host in room.site.hosts.values():
            for hanging in host.faults.hanging if host.programs.held_locks else ():
                hanging.set_result(TERMINATED)  # a strike's doing, and nobody waits for what it keeps: else a leak
        steps: list[str] = []
        listener = room.network.on_message

        def listen(host: str, direction: str, kind: str, data: bytes) -> None:
            listener(host, direction, kind, data)  # type: ignore[arg-type]
            if kind == "exec" and LOCK.search(data.decode("utf-8", "replace")):
                steps.append(f"{host}: {data[:120]!r}")

        room.network.on_message = listen
        await asyncio.sleep(quiet_s)
        room.network.on_message = listener
        if steps:
            self.truth.violate("converges", f"at rest, and yet {steps[0]}")

    def _help_where_only_people_can(self) -> None:
        """A disk that is lost for good, or two of them: a person says what is to become of it."""
        room = self.room
        controls = room.main.controls
        self._reset_those_that_hang()
        status = controls.status()
        for item in status["containers"]:
            machine, install = room.machines.get(item["name"]), item["install"]
            if machine is not None and not machine.busy and install and install["step"] == "waits for the machine":
                room.note(f"a person boots {item['name']} from the network")
                machine.boot()
            if "gives-up-work" in {entry["reason"] for entry in item["blocked"] or ()}:
                self._try(lambda name=item["name"]: controls.cancel_reinstall(name, "a person"))
        for item in status["guests"]:
            if item["state"] == "held" and item["name"] not in room.asked_to_hold:  # asked for before a record was lost
                self._try(lambda guest=item["name"]: controls.release(guest, "a person"))
                self.truth.may_restart.add(item["name"])
            blocked = item["blocked"]
            if not blocked:
                continue
            guest, reasons = item["name"], [entry["reason"] for entry in blocked]
            lost = guest in self.truth.lost_for_good and {"disk-lost", "no-disk", "disk-out-of-reach"} & set(reasons)
            if lost or (guest in room.given_up and "only-copy" in reasons):
                self.truth.may_restart.add(guest)
                room.gives_up("rebuild", guest)
                self._try(lambda guest=guest: controls.consent("rebuild", [guest]))
                self.truth.lost_for_good.discard(guest)

    def _make_room(self) -> None:
        """Only a person may let go of what is kept aside; thick disks soon fill the little beside the thin pool."""
        room, controls = self.room, self.room.main.controls
        wait = [g["name"] for g in controls.status()["guests"] if "MiB are needed" in str(g["blocked"])]
        full = {room.home[guest] for guest in wait}
        for guest in sorted(room.known_guests):
            if any(n in full and is_aside(volume) for n, _, volume in room.disks(guest)):
                room.note(f"a person lets go of the disks of {guest} that are kept aside")
                room.gives_up("prune", guest)
                self._try(lambda guest=guest: controls.consent("prune", [guest]))


async def storm(play: Play) -> None:
    """The usual story: all comes up, students work, and then it rains."""
    room, rng = play.room, play.rng
    room.main.start()
    calm = rng.random() < 0.75
    if calm:
        await play.come_to_rest(quiet_s=0.0)
    for _ in range(rng.choice([1, 1, 2])):
        await room.write_new_work()
        play.truth.may_restart.clear()
        boots = dict(room.site.witness.boots)
        strikes = rng.randint(1, 14)
        tells = rng.choice([0, 0, rng.randrange(strikes)]) if play.tale or rng.random() < STORIES else None
        for number in range(strikes):
            if number == tells:
                await play.strikes.tell(play.tale)
            await play.strikes.strike()
            await asyncio.sleep(*rng.choices(list(PAUSES_S), list(PAUSES_S.values())))
        await play.heal()
        await play.come_to_rest()
        if not calm:
            play.truth.may_restart |= room.known_guests
            calm = True
        restarted = {guest for guest, count in room.site.witness.boots.items() if count != boots.get(guest, 0)}
        play.truth.at_rest(restarted & room.known_guests, play.truth.may_restart)
        if play.truth.violations:
            return


def told(story: str, play: Play) -> None:
    """Have this story (see `stories`) told in every round."""
    play.tale = story


def run(
    seed: int, story: Story = storm, *, trace: bool = False, prepare: Callable[[Play], None] | None = None
) -> Result:
    """Play `story` in the classroom that `seed` draws. Any exception is a violation too."""
    bury_in_silence()
    began_s = time.process_time()
    rng = random.Random(seed)
    log: list[str] = []
    directory = Path(tempfile.mkdtemp(prefix="vcrecon-simulation-", dir=_MEMORY if _MEMORY.is_dir() else None))
    loop = VirtualLoop(random.Random(rng.random()))
    asyncio.set_event_loop(loop)
    try:
        with seeded(seed, log):
            result = loop.run_until_complete(_play(seed, story, loop, rng, directory, log, trace, prepare))
        result.seconds = time.process_time() - began_s
        return result
    finally:
        asyncio.set_event_loop(None)
        loop.graves.clear()
        del loop
        gc.collect()  # what this run left half done ends now, and not in the middle of the next
        shutil.rmtree(directory, ignore_errors=True)


async def _play(
    seed: int,
    story: Story,
    loop: VirtualLoop,
    rng: random.Random,
    directory: Path,
    log: list[str],
    trace: bool,
    prepare: Callable[[Play], None] | None,
) -> Result:
    room = Classroom(loop, rng, directory)
    truth = Truth(room)
    truth.log = log
    loop.set_exception_handler(lambda _, what: _fell(truth, what))
    if trace:
        truth.trace = []
    room.main.switches = {name: Switch(room, name) for name in room.machines if rng.random() < 0.6}
    play = Play(room, truth, Strikes(room, truth, random.Random(rng.random())), random.Random(rng.random()))
    if prepare is not None:
        prepare(play)
    watch = asyncio.ensure_future(play.watch())
    try:
        async with asyncio.timeout(STORY_S):
            await story(play)
    except (Exception, SpecError) as error:
        truth.violate("simulation", f"{type(error).__name__}: {error}")
        if trace:
            raise
    watch.cancel()
    loop.set_exception_handler(lambda _, what: None)  # what the end itself tears apart tells nothing
    if truth.violations and room.main.alive:
        room.history += room.explain()
    return Result(
        seed, truth.violations, truth.hash.hexdigest(), 0.0, loop.time(), room.history, truth.trace or []
    )  # fmt: skip


def _fell(truth: Truth, what: dict[str, Any]) -> None:
    """An exception that nobody took is a fault of somebody's."""
    if what.get("exception") is not None:
        truth.violate("simulation", f"{what['message']}: {what['exception']!r}")
