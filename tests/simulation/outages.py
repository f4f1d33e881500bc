"""What happens to the service itself, while people and hosts go on. A part of `strikes`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.simulation.disks import is_live
from tests.simulation.faults import Faults
from tests.simulation.people import People

from vcrecon.sim.lvm import Volume


class Outages(People, Faults):
    """It crashes, is started anew, loses its record, or runs twice."""

    async def crash_service(self) -> str:
        """SIGKILL at any await, or a power cut of its machine; it comes back after a while."""
        main = self.room.main
        if not main.alive:
            raise LookupError("it does not run")
        power = self.rng.random() < 0.4
        main.kill(power=power)
        meanwhile = await self._meanwhile()
        await asyncio.sleep(self.rng.choice([0.0, 0.0, 1.0, 30.0, 200.0]))
        main.start()
        return f"{'power' if power else 'kill'} {meanwhile}"

    async def _meanwhile(self) -> str:
        """While no service runs, people go on editing, and hosts go on failing."""
        words = []
        if self.rng.random() < 0.5:
            words.append(f"move {await self.move()}")
        if self.rng.random() < 0.3:
            words.append(f"cut {await self.cut()}")
        return ", ".join(words)

    async def crash_soon(self) -> str:
        """SIGKILL in a moment that something is under way."""
        main = self.room.main

        async def kill() -> None:
            for _ in range(self.rng.randint(1, 400)):
                await asyncio.sleep(0)
            await asyncio.sleep(self.rng.choice([0.0, 0.05, 0.3]))
            if main.alive:
                main.kill(power=self.rng.random() < 0.4)
                main.start()

        self.site.spawn(kill())
        return ""

    async def restart_blind(self) -> str:
        """The service starts anew, perhaps without its record, while a host hides what it has: a guest is to leave."""
        main = self.room.main
        guest = self.one_of(g for g in self.room.home if self.room.hosts_of(g) == [self.room.home[g]])
        container = self.room.home[guest]
        if not main.alive:
            raise LookupError("it does not run")
        how = self.rng.choice(["cut", "^virsh|^xl", "^lvm|^lvs", "^virsh|^xl|^lvm|^lvs", "garbage"])
        if how == "cut":
            await self.site.cut(container)
        elif how == "garbage":
            await self.site.garbage(container, "output")
        else:
            await self.site.fail_command(container, how, times=self.rng.choice([3, 10, None]))
        await asyncio.sleep(self.rng.choice([0.0, 30.0]))
        if not main.alive:
            raise LookupError("it does not run")
        lost = self.rng.random() < 0.4
        if lost:
            await self.lose_record_with(lambda: self.move_guest(guest))
        else:
            main.kill(power=self.rng.random() < 0.3)
            await self.move_guest(guest)
            main.start()
        return f"{container} {how}, {guest} is to leave{', record lost' if lost else ''}"

    async def restart_service(self) -> str:
        """`systemctl restart`."""
        main = self.room.main
        if not main.alive:
            raise LookupError("it does not run")
        await main.stop()
        main.start()
        return ""

    async def lose_record(self) -> str:
        """The state directory is lost together with the service.

        Not while a container that left the spec still has disks of guests: then nothing is left that knows of it, and
        its guests are begun anew elsewhere. That is a limit of S1 (docs/RELIABILITY.md).
        """
        return await self.lose_record_with(self._meanwhile)

    async def lose_record_with(self, meanwhile: Callable[[], Awaitable[str]]) -> str:
        main = self.room.main
        self._refuse_to_forget()
        if not main.alive:
            raise LookupError("it does not run")
        main.kill()
        main.forget_everything()
        self.room.record_lost()
        self.truth.tries.clear()  # how often a thing failed is lost with it
        self.room.anew |= self.truth.lost_for_good  # nothing is left that knows of those disks
        words = await meanwhile()
        shows = await self._let_somebody_show_that_the_site_was_used()
        main.start()
        if 0 < len(shows) < 3:  # few enough to be taken for empty when the next strikes silence them all
            await self.room.until(lambda: not main.alive or bool(shows & main.on_disk("shown")), 60)
        return words

    async def _let_somebody_show_that_the_site_was_used(self) -> set[str]:
        """Who will. A new record takes few silent containers for empty when no other shows a trace of guests: a limit
        of S1."""
        silent = set(self.room.unreachable()) | self.off
        shows = {n for n, h in self.site.hosts.items() if any(_is_trace(v) for v in h.machine.all_volumes())}
        if shows - silent:
            return shows - silent
        for name in sorted(shows):
            self.off.discard(name)
            await self.site.mend(name)
            await self.site.power_on(name)
        return shows

    def _refuse_to_forget(self) -> None:
        """A new record can know of a guest by its disk alone, on a container of the spec."""
        gone = {entry["name"] for entry in self.dropped}
        known = self.room.known_guests
        alive = {guest for guest in known if any(is_live(volume) for _, _, volume in self.room.disks(guest))}
        lost = self.room.works.keys() & known - alive
        if lost or any(gone & self.room.places(guest) for guest in known):
            raise LookupError("somebody would be forgotten")

    async def second_service(self) -> str:
        """Somebody starts another service for the same site, with a state directory of its own, for a while."""
        if len(self.room.services) > 1:
            raise LookupError("there is one")
        self._refuse_to_forget()
        other = self.room.service("m2")
        self.room.services.append(other)
        other.start()
        self.site.spawn(self._end_second())
        return ""

    async def _end_second(self) -> None:
        await asyncio.sleep(self.rng.choice([10.0, 120.0]))
        await self.end_second()

    async def end_second(self) -> None:
        for other in self.room.services[1:]:
            if other.alive:
                if self.rng.random() < 0.5:
                    other.kill()
                else:
                    await other.stop()
        del self.room.services[1:]

    async def jump_clock(self) -> str:
        """The service's clock is set."""
        jump_s = self.rng.choice([-3600.0, -60.0, 60.0, 3600.0, 86_400.0])
        self.room.main.clock.jump_s += jump_s
        self.room.changed_at_s = self.room.loop.time()
        return f"{jump_s:+.0f}"

    async def fill_record_disk(self) -> str:
        """The disk of the record is full for a while."""
        main = self.room.main
        if not main.alive or main.disk_full:
            raise LookupError("not now")
        main.disk_full = True
        self.site.spawn(self._record_disk_empty())
        return ""

    async def _record_disk_empty(self) -> None:
        await asyncio.sleep(self.rng.choice([5.0, 60.0]))
        self.room.main.disk_full = False


def _is_trace(volume: Volume) -> bool:
    return "vc.building" not in volume.tags and "vcrecon" in volume.tags and "vc.site=elsewhere" not in volume.tags
