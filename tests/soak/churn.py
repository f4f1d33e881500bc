"""What goes wrong at a site, and what people wish, drawn from a seed, as fast as the spec's limits let it happen.

Never more containers are in trouble than would freeze moves, never more guests move at once than `limits.moves`, and a
guest that was harmed is left alone until it runs again and counts as stable: so nothing that the service does is held
back by a rule, and what is not as wanted at the end is its fault. A guest may be started as often as it was harmed,
and not once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from tests.soak.service import Service
from tests.soak.site import Site
from tests.soak.specs import IMAGES

from vcrecon.core.world import allowed
from vcrecon.errors import Refused, VcreconError
from vcrecon.shell.control import ControlClient
from vcrecon.spec.model import Limits

STUDENT_FILE = "/root/thesis.txt"
BAD_SPEC_S = 60.0
HELD_S = 120.0
BY = "soak"


class NoRoom(Exception):
    """The limits leave no room for this now, or there is nothing that it could be done to."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How hard it is churned. A guest counts as stable `stable_s` after its start."""

    every_s: float = 1.0
    stable_s: float = 60.0
    trouble_s: tuple[float, float] = (1.0, 25.0)
    """How long a container is cut off or without power."""


@dataclass
class Churn:
    """The dice, and what a person who watched would know."""

    site: Site
    service: Service
    rng: random.Random
    pace: Pace
    limits: Limits = field(default_factory=Limits)
    works: dict[str, str] = field(default_factory=dict)
    """The last that each student wrote."""
    harms: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    trouble: list[str] = field(default_factory=list)
    history: deque[str] = field(default_factory=lambda: deque(maxlen=500))
    moving: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Guests on their way: from where, and to where."""
    rescued: set[str] = field(default_factory=set)
    gone: dict[str, str] = field(default_factory=dict)
    """Guests that left the spec and may come back, and where they ran."""
    bad: dict[str, str] = field(default_factory=dict)
    """Containers in trouble, and what it is."""
    harmed_at_s: dict[str, float] = field(default_factory=dict)
    _pages: int = 0
    _editing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    # --- the dice ------------------------------------------------------------------------------------------

    def harm(self, guest: str) -> None:
        """It has one more reason to be started."""
        self.harms[guest] += 1
        self.harmed_at_s[guest] = time.monotonic()

    def _one_of(self, names: list[str]) -> str:
        if not names:
            raise NoRoom
        return self.rng.choice(names)

    def calm(self, guest: str) -> bool:
        """It runs where it belongs and has done so for a while, on a container without trouble."""
        home = self.site.files.placement.get(guest, "")
        now_s, since_s = time.monotonic(), self.site.lives.since_s(guest)
        return (
            self.site.lives.hosts(guest) == [home]
            and since_s is not None
            and now_s - since_s > self.pace.stable_s
            and now_s - self.harmed_at_s.get(guest, 0.0) > self.pace.stable_s
            and guest not in self.moving.keys() | self.rescued
            and home not in self.bad
        )

    def guest(self) -> str:
        """A calm one, found by trying a few."""
        names = list(self.site.files.placement)
        return self._one_of([guest for guest in self.rng.sample(names, min(20, len(names))) if self.calm(guest)])

    def single(self) -> str:
        return self._one_of([guest for guest in self.site.files.singles if self.calm(guest)])

    def container(self) -> str:
        """One without trouble."""
        return self._one_of([name for name in self.site.ports if name not in self.bad])

    @contextlib.contextmanager
    def troubled(self, what: str) -> Iterator[str]:
        """A container that is in trouble for a while, if one more may be (S6: at half of the limit)."""
        if len(self.bad) >= max(1, allowed(self.limits, len(self.site.ports)) // 2):
            raise NoRoom
        name = self.container()
        self.bad[name] = what
        try:
            yield name
        finally:
            del self.bad[name]

    async def _a_while(self) -> None:
        await asyncio.sleep(self.rng.uniform(*self.pace.trouble_s))

    # --- guests and hosts ----------------------------------------------------------------------------------

    async def kill_guest(self) -> str:
        guest = self.guest()
        self.harm(guest)
        await self.site.host(self.site.files.placement[guest]).kill_guest(guest)
        return guest

    async def shutdown_guest(self) -> str:
        guest = self.guest()
        self.harm(guest)
        await self.site.host(self.site.files.placement[guest]).shutdown_guest(guest)
        return guest

    async def power_cycle(self) -> str:
        with self.troubled("off") as name:
            self._harm_all_on(name)
            self._hinder_moves(name)
            await self.site.host(name).power_off(name)
            await self._a_while()
            self._harm_new_on(name)
            await self.site.host(name).power_on(name)
        return name

    def _harm_all_on(self, name: str) -> None:
        """Whoever runs there goes down, and whoever is about to is put off; each is started once more."""
        self.site.lives.read()
        here = {guest for guest, hosts in self.site.lives.live.items() if name in hosts}
        for guest in here | set(self.site.files.on[name]):
            self.harm(guest)

    def _hinder_moves(self, name: str) -> None:
        """A disk that cannot be carried over now: the guest runs on where it was until it can."""
        for guest in [guest for guest, places in self.moving.items() if name in places]:
            self.harm(guest)

    def _harm_new_on(self, name: str) -> None:
        """What was moved there meanwhile waits for it, which is no harm; it is only left alone for a while."""
        for guest in self.site.files.on[name]:
            self.harmed_at_s[guest] = time.monotonic()

    async def cut(self) -> str:
        with self.troubled("cut") as name:
            self._hinder_moves(name)
            await self.site.host(name).cut(name)
            await self._a_while()
            await self.site.host(name).mend(name)
        return name

    async def reset_connections(self) -> str:
        name = self.container()
        self._hinder_moves(name)
        await self.site.host(name).refuse_key(name, False)  # begins anew, and resets what is connected
        return name

    async def wipe_bridge(self) -> str:
        guest = self.guest()
        name, vlan = self.site.files.placement[guest], self.site.files.vlans[guest]
        await self.site.host(name).wipe_bridge(name, vlan)
        return f"{name} {vlan}"

    async def delete_vlan(self) -> str:
        guest = self.guest()
        name, vlan = self.site.files.placement[guest], self.site.files.vlans[guest]
        await self.site.host(name).delete_vlan(name, vlan)
        return f"{name} {vlan}"

    async def flush_rules(self) -> str:
        name = self.container()
        await self.site.host(name).flush_rules(name)
        return name

    async def write_work(self) -> str:
        guest = self.guest()
        self._pages += 1
        text = f"{guest}, page {self._pages}\n"
        await self.site.host(self.site.files.placement[guest]).write_guest_file(guest, STUDENT_FILE, text)
        self.works[guest] = text
        return guest

    # --- wishes --------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _edit(self, *names: str) -> AsyncIterator[None]:
        """The block changes what the person has in mind; then the files are saved."""
        async with self._editing:
            yield
            self.site.files.write(*names)

    async def move(self) -> str:
        if len(self.moving) >= self.limits.moves:
            raise NoRoom
        guest, target = self.guest(), self.site.files.roomy(self.rng)
        if target in self.bad or target == self.site.files.placement[guest]:
            raise NoRoom
        self.harm(guest)
        self.moving[guest] = (self.site.files.placement[guest], target)
        async with self._edit("deployment"):
            self.site.files.move(guest, target)
        await self._until(f"{guest} runs on {target}", lambda: self.site.lives.hosts(guest) == [target])
        del self.moving[guest]
        return f"{guest} to {target}"

    async def remove(self) -> str:
        guest = self.single()
        home = self.site.files.placement[guest]
        async with self._edit("clusters", "deployment"):
            self.site.files.remove(guest)
        await self._until(f"{guest} is stopped", lambda: not self.site.lives.hosts(guest))
        self.gone[guest] = home
        return guest

    async def add(self) -> str:
        """A new guest, made from one image and soon after wished from another, or one that comes back."""
        if len(self.site.files.singles) > self.most_singles:
            raise NoRoom
        target = self.site.files.roomy(self.rng)
        if self.gone and self.rng.random() < 0.3:
            return await self._bring_back(self.rng.choice(sorted(self.gone)), target)
        guest = self.site.files.new_name()
        self.harm(guest)
        async with self._edit("clusters", "deployment"):
            self.site.files.add(guest, target, self.rng.choice(IMAGES))
        if self.rng.random() < 0.5:
            await asyncio.sleep(self.rng.uniform(0.0, 2.0))
            async with self._edit("clusters"):
                self.site.files.singles[guest]["image"] = self.rng.choice(IMAGES)
        return f"{guest} on {target}"

    async def _bring_back(self, guest: str, target: str) -> str:
        del self.gone[guest]
        self.harm(guest)
        async with self._edit("clusters", "deployment"):
            self.site.files.add(guest, target)
        return f"{guest} again, on {target}"

    most_singles = 1 << 30

    async def change_image(self) -> str:
        """Of a guest that has booted: nothing may come of it."""
        guest = self.single()
        async with self._edit("clusters"):
            self.site.files.singles[guest]["image"] = self.rng.choice(IMAGES)
        return guest

    async def prune(self) -> str:
        """A guest that left is given up for good."""
        guest = self._one_of([guest for guest, home in self.gone.items() if home not in self.bad])
        del self.gone[guest]
        for player in self.site.players():  # a disk that it had before a move may be kept on any host
            await player.consent(guest)
        async with self._asking() as control:
            await control.consent("prune", [guest])
        self.works.pop(guest, None)
        return guest

    async def rescue(self) -> str:
        guest = self.guest()
        self.harm(guest)
        self.rescued.add(guest)
        try:
            async with self._asking() as control:
                await control.rescue(guest, BY)
                end_s = time.monotonic() + HELD_S
                while not (await control.guest(guest))["held"]:
                    if time.monotonic() > end_s:
                        raise VcreconError(f"the disk of {guest} was not held within {HELD_S:g} s")
                    await asyncio.sleep(0.5)
                await asyncio.sleep(self.rng.uniform(0.0, 3.0))
                await control.release(guest, BY)
        finally:
            self.rescued.discard(guest)
        return guest

    async def bad_edit(self) -> str:
        """A slip of the editor: refused as a whole, and put right once it was seen."""
        kind, text = self.rng.choice(sorted(self._slips().items()))
        async with self._editing:
            self.site.files.put("deployment", text)
            end_s = time.monotonic() + BAD_SPEC_S
            while (await self.service.metrics())["vcrecon_spec_valid"]:
                if time.monotonic() > end_s:
                    raise VcreconError(f"a bad spec ({kind}) was not told of within {BAD_SPEC_S:g} s")
                await asyncio.sleep(0.2)
            self.site.files.write("deployment")
        return kind

    def _slips(self) -> dict[str, str]:
        good = self.site.files.text("deployment")
        guest, name = self.rng.choice(sorted(self.site.files.placement.items()))
        others = {other: guests for other, guests in self.site.files.on.items() if other != name}
        return {
            "empty": "",
            "truncated": good[: len(good) // 2],
            "not YAML": "deployment: [}\n",
            "a container that is not there": good.replace(f'"{name}"', '"c9999"'),
            "a guest twice": json.dumps({"deployment": {**others, name: [*self.site.files.on[name], guest, guest]}}),
        }

    def _asking(self) -> ControlClient:
        return ControlClient(self.service.state / "control.sock", answer_s=60.0)

    async def _until(self, what: str, true: Callable[[], bool], deadline_s: float = 600.0) -> None:
        end_s = time.monotonic() + deadline_s
        while not true():
            if time.monotonic() > end_s:
                raise VcreconError(f"{what}: not within {deadline_s:g} s")
            await asyncio.sleep(0.2)
            self.site.lives.read()

    # --- all of it -----------------------------------------------------------------------------------------

    def acts(self) -> dict[Callable[[], Awaitable[str]], int]:
        """Each with its weight."""
        return {
            self.kill_guest: 8, self.shutdown_guest: 5, self.power_cycle: 2, self.cut: 3, self.reset_connections: 4,
            self.wipe_bridge: 4, self.delete_vlan: 2, self.flush_rules: 4, self.write_work: 6, self.move: 8,
            self.remove: 3, self.add: 4, self.change_image: 2, self.prune: 2, self.rescue: 2, self.bad_edit: 1,
        }  # fmt: skip

    async def run(self, seconds: float) -> None:
        """Act after act, many of them at once, and then wait until each has ended."""
        self.most_singles = len(self.site.files.singles) + 5
        acts = self.acts()
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            (act,) = self.rng.choices(list(acts), list(acts.values()))
            self.site.lives.read()
            task = asyncio.create_task(self._act(act))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(self.pace.every_s * self.rng.uniform(0.5, 1.5))
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _act(self, act: Callable[[], Awaitable[str]]) -> None:
        name, began_s = act.__name__, time.monotonic()
        try:
            what = await act()
        except (NoRoom, Refused):
            self.skipped[name] += 1
        except Exception as error:
            self.trouble.append(f"{name}: {error!r}")
        else:
            self.done[name] += 1
            self.history.append(f"{began_s:.1f} to {time.monotonic():.1f}: {name} {what}")

    async def give_everybody_work(self) -> None:
        """Each student begins to write."""
        for guest, home in self.site.files.placement.items():
            self.works[guest] = f"{guest}, page 0\n"
            await self.site.host(home).write_guest_file(guest, STUDENT_FILE, self.works[guest])

    async def heal(self) -> None:
        """Who left comes back; everything else that was done to the site has ended by itself."""
        for guest in sorted(self.gone):
            await self._bring_back(guest, self.site.files.emptiest())
        self.site.files.write()

    # --- what must hold ------------------------------------------------------------------------------------

    async def lost(self) -> list[str]:
        """Whoever does not run where it belongs, once, with the student's last words on its disk."""
        self.site.lives.read()
        found = [*self.site.lives.twice()]
        for guest, home in self.site.files.placement.items():
            hosts = self.site.lives.hosts(guest)
            if hosts != [home]:
                found.append(f"{guest} runs on {hosts}, not on {home}")
            if guest in self.works:
                text = await self._work(guest, home)
                if text != self.works[guest]:
                    found.append(f"{guest}: {text!r} on its disk, not {self.works[guest]!r}")
        return found

    async def _work(self, guest: str, home: str) -> str:
        try:
            return str(await self.site.host(home).read_guest_file(guest, STUDENT_FILE))
        except Refused as error:
            return str(error)

    def unharmed_but_started(self, before: dict[str, int]) -> list[str]:
        """Guests that were started more often since than somebody harmed them."""
        return [
            f"{guest} was started {count - before.get(guest, 0)} times and harmed {self.harms[guest]} times"
            for guest, count in sorted(self.site.lives.starts.items())
            if count - before.get(guest, 0) > self.harms[guest]
        ]
