"""Short stories: faults, wishes and moments that do harm only together. A part of `strikes`, told beside them.

Each ends a while after its last blow, so that the harm, if any, is done before the next begins.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable

from tests.simulation.disks import is_live
from tests.simulation.machine import STEPS
from tests.simulation.outages import Outages
from tests.simulation.specs import CANARY, IMAGES, SINGLES
from tests.simulation.truth import LOCK

NOTICED_S = 170.0
"""The service has seen by then what happened, and the truth demands that it has."""


class Stories(Outages):
    """Those of guests that are to go elsewhere, and of hosts that hide."""

    # --- what they need ------------------------------------------------------------------------------------

    def at_home(self, *, work: bool | None = None) -> str:
        """A guest that runs where it belongs, and that has work, or none. Raises LookupError without one."""
        room = self.room
        home = {g for g, place in room.home.items() if room.hosts_of(g) == [place]}
        return self.one_of(g for g in home if work is None or bool(room.works.get(g)) == work)

    def require_calm(self) -> None:
        """Raises LookupError unless all is at rest."""
        if not self.room.converged():
            raise LookupError("not now")

    def elsewhere(self, container: str) -> str:
        return self.one_of(set(self.room.files.containers) - {container})

    async def come_true(self, true: Callable[[], bool], deadline_s: float = 120.0) -> None:
        """Raises LookupError when it does not, or when the service is gone meanwhile."""
        if not await self.room.until(true, deadline_s) or not self.room.main.alive:
            raise LookupError("it did not come true")

    def step(self, host: str, guest: str, word: str = "", then: Callable[[], None] = lambda: None) -> Future[None]:
        """Done when a step for the guest, with this word in it, next ends on a host; `then` happens at that moment."""
        over: Future[None] = self.room.loop.create_future()
        listener = self.room.network.on_end

        def ended(container: str, script: str, status: int) -> None:
            listener(container, script, status)
            lock = LOCK.search(script)
            mine = container == host and lock is not None and lock[1] == guest and word in script
            if mine and status == 0 and not over.done():
                over.set_result(None)
                then()

        self.room.network.on_end = ended
        return over

    async def reached(self, step: Future[None]) -> None:
        """Wait for it a while; what was to happen then does not happen later."""
        await asyncio.wait([step], timeout=120)
        step.cancel()

    async def move_to(self, guest: str, container: str) -> None:
        self.truth.may_restart.add(guest)
        self.room.files.move(guest, container)
        await self._save()

    # --- guests that are to go elsewhere -------------------------------------------------------------------

    async def hidden_from_a_new_service(self) -> str:
        """See `restart_blind`; it goes on for a while."""
        words = await self.restart_blind()
        await asyncio.sleep(90)
        return words

    async def blind_move(self) -> str:
        """A host answers and does not show its disks, while a guest of it is to leave."""
        guest = self.at_home()
        container = self.room.home[guest]
        await self.site.fail_command(container, "^lvm |^lvs", times=None)
        await asyncio.sleep(self.rng.choice([0.0, 30.0]))
        await self.move_guest(guest)
        await asyncio.sleep(60)
        return f"{guest} from {container}"

    async def reverted_after_the_copy(self) -> str:
        """A move is taken back after its copy was proved, while the destination is cut off; later it is made again.

        By then the guest is down and the service was away: nothing but the disks tells that the copy is old.
        """
        guest = self.at_home(work=True)
        home = self.room.home[guest]
        there = self.elsewhere(home)
        proved = self.step(there, guest, "--addtag vc.copy=", self.site.servers[there].cut_off)
        await self.move_to(guest, there)
        await self.reached(proved)
        await self.move_to(guest, home)
        await self.come_true(lambda: self.room.hosts_of(guest) == [home], 300)
        await self.room.write_new_work([guest])
        self.room.main.kill()
        self.truth.brought_down(guest)
        await self.site.kill_guest(guest)
        await self.move_to(guest, there)
        await self.site.mend(there)
        self.room.main.start()
        await asyncio.sleep(60)
        return f"{guest} from {home} to {there}"

    async def reverted_while_copying(self) -> str:
        """A move is taken back while its copy is made."""
        guest = self.at_home(work=True)
        home = self.room.home[guest]
        there = self.elsewhere(home)
        begun = self.step(there, guest, "--addtag vc.incoming")
        await self.move_to(guest, there)
        await self.reached(begun)
        await self.move_to(guest, home)
        await asyncio.sleep(20)
        return f"{guest} from {home} to {there}"

    async def moved_after_class(self) -> str:
        """The class is over, its work is still on the disks, and one of them is carried over."""
        guest = self.at_home(work=True)
        self.room.files.documents["site"]["session"] = "preparing"
        await self._save()
        await self.move_guest(guest)
        await asyncio.sleep(60)
        return guest

    async def moved_with_rot(self) -> str:
        """A disk is carried over, and a byte of it changes on its way."""
        await self.rot()
        guest = self.at_home(work=True)
        words = await self.move_guest(guest)
        await asyncio.sleep(60)
        return words

    async def copies_in_vain(self) -> str:
        """A disk is to be carried to a host that cannot write it."""
        guest = self.at_home(work=True)
        there = self.elsewhere(self.room.home[guest])
        await self.site.fail_command(there, "^dd", times=None)
        await self.move_to(guest, there)
        await asyncio.sleep(150)
        return f"{guest} to {there}"

    async def namesake_beside_its_disk(self) -> str:
        """Somebody makes a machine of a guest's name where only the guest's disk is, for a person had it in hands."""
        guest = self.at_home(work=True)
        container = self.room.home[guest]
        if self.site.hosts[container].container.hypervisor != "kvm":
            raise LookupError("Xen knows no machine that does not run")
        await self.hold(guest)
        self.room.foreign.add_namesake(container, guest)
        await asyncio.sleep(NOTICED_S)
        self.say(lambda controls: controls.release(guest, "a person"))
        self.room.asked_to_hold.discard(guest)
        await self.move_guest(guest)
        await asyncio.sleep(60)
        return f"{guest} on {container}"

    async def hold(self, guest: str) -> None:
        """`vcrecon rescue`, until the disk is held."""
        self.say(lambda controls: controls.rescue(guest, "a person"))
        self.truth.may_restart.add(guest)
        self.room.asked_to_hold.add(guest)
        await self.come_true(lambda: any("vc.held" in volume.tags for _, _, volume in self.room.disks(guest)))

    async def held_and_forgotten(self) -> str:
        """A person works on a disk when the record is lost."""
        guest = self.at_home(work=True)
        await self.hold(guest)
        await self.lose_record()
        await asyncio.sleep(60)
        return guest

    # --- hosts that are taken for dead ---------------------------------------------------------------------

    async def taken_for_dead(self) -> str:
        """Somebody vouches that a silent host is off, truly or not; its guests begin anew, and it comes back.

        Its guests may take no notice of their power buttons, and the spec may have them back there by then.
        """
        guest = self.at_home()
        container, wrongly = self.room.home[guest], self.rng.random() < 0.6
        here = sorted(g for g in self.room.known_guests if self.room.hosts_of(g) == [container])
        if wrongly:
            self.truth.copies.sworn |= set(here)
            for name in here:
                self.site.hosts[container].machine.domains.by_name[name].deaf = self.rng.random() < 0.7
            await self.site.cut(container)
        else:
            self.site.servers[container].silent_death = False
            self.off.add(container)
            await self.site.power_off(container)
        self.disturbed(container)
        await self.come_true(lambda: not self._reachable(container))
        await self.fenced(container)
        await self.room.until(lambda: any(h != container for h in self.room.hosts_of(guest)), 200)
        if not wrongly:  # else on which of two copies?
            await self.room.write_new_work([guest])
        if self.rng.random() < 0.6:
            await self.move_to(guest, container)
        self.off.discard(container)
        await (self.site.mend(container) if wrongly else self.site.power_on(container))
        await asyncio.sleep(60)
        return f"{container} {'wrongly' if wrongly else ''}, {guest}"

    async def power_fence_in_vain(self) -> str:
        """A host is cut off, and its power controller is dead, or lies, when it is asked to switch it off."""
        container = self.one_of(self.room.main.switches)
        switch = self.room.main.switches[container]
        switch.dead, switch.lies = self.rng.choice([(True, False), (False, True)])
        await self.site.cut(container)
        await self.come_true(lambda: not self._reachable(container))
        return await self.power_fence_of(container)

    async def partition_and_edit(self) -> str:
        """More than may be silent are, and the files are edited all the same: the others must be left as they are."""
        names = sorted(self.site.hosts)
        lost = self.rng.sample(names, 3)
        others = sorted(set(names) - set(lost))
        here = [g for g, place in self.room.home.items() if place in others and self.room.hosts_of(g) == [place]]
        guest = self.one_of(g for g in here if len(others) > 1 or g in SINGLES)
        if self.off or self.dropped:
            raise LookupError("not now")
        for name in lost:
            await self.site.cut(name)
        await asyncio.sleep(NOTICED_S + 30)
        self.truth.may_restart.add(guest)
        if len(others) == 1:
            await self.leave_spec(guest)
        else:
            await self.move_to(guest, self.one_of(set(others) - {self.room.home[guest]}))
        await asyncio.sleep(60)
        return f"{' '.join(lost)} cut, {guest} is to leave"

    async def reinstalled_meanwhile(self) -> str:
        """A machine that is to be installed anew boots from the network when too many containers are silent."""
        if not self.room.main.alive or self.site.hosts.keys() - self.room.main.on_disk("seen"):
            raise LookupError("not all have answered before")
        container = self.one_of(self.room.machines.keys() - self.room.main.switches.keys() - self.off)
        self.disturbed(container)
        self.off.add(container)
        await self.site.power_off(container)
        await self.come_true(lambda: not self._reachable(container))
        self.reinstall_one(container, named=True)
        for name in self.rng.sample(sorted(set(self.site.hosts) - {container}), 2):
            await self.site.cut(name)
        await asyncio.sleep(NOTICED_S + 30)
        before = self.room.main.on_disk("tickets")
        self.room.machines[container].boot()
        await asyncio.sleep(30)
        if self.truth.edits.frozen and container in self.room.main.on_disk("tickets") - before:
            self.truth.violate("S6", f"{container} is to be installed anew while too many containers do not answer")
        return container

    async def install_in_vain(self) -> str:
        """A machine is to be installed anew; its installer fails at the disks, or is heard of no more after a step."""
        container = self.one_of(self.room.machines)
        machine = self.room.machines[container]
        machine.fails = self.rng.random() < 0.4
        machine.stops_at = "" if machine.fails else self.rng.choice(STEPS)
        words = self.reinstall_one(container, named=True)
        if container not in self.room.main.switches:
            machine.boot()  # by hand
        await asyncio.sleep(self.rng.choice([20.0, 60.0, 900.0]))
        if self.rng.random() < 0.5:
            machine.fails, machine.stops_at = False, ""
            await asyncio.sleep(60)
        return f"{words} {machine.stops_at or 'at its disks'}"

    # --- disks and images ----------------------------------------------------------------------------------

    async def lose_disk_and_fall(self) -> str:
        """A guest's volume vanishes by somebody's mistake, and the guest dies of it."""
        guest = self.at_home(work=True)
        self.require_remembered(guest)
        places = [(name, volume) for name, _, volume in self.room.disks(guest) if is_live(volume)]
        if len(places) != 1:
            raise LookupError("not now")
        host, volume = places[0]
        self.truth.brought_down(guest)
        self.truth.lost_for_good.add(guest)
        self.room.given_up.add(guest)
        await self.site.kill_guest(guest)
        self.site.hosts[host].machine.remove_volume(volume.name)
        await asyncio.sleep(60)
        return f"{guest} on {host}"

    async def no_room(self) -> str:
        """A host's pool is full, and a guest there is to have a new disk."""
        guest = self.at_home()
        container = self.room.home[guest]
        data, metadata = self.rng.choice([(100.0, 0.0), (50.0, 99.0)])
        await self.site.fill_pool(container, data, metadata)
        self.truth.full_since_s.setdefault(container, self.room.loop.time())
        await asyncio.sleep(NOTICED_S)
        self.say(lambda controls: controls.consent("rebuild", [guest]))
        self.truth.may_restart.add(guest)
        self.room.gives_up("rebuild", guest)
        await asyncio.sleep(90)
        return f"{guest} on {container} {data:.0f} {metadata:.0f}"

    async def bad_image(self) -> str:
        """A new image is not what its digest says, or cannot be unpacked, and guests are to be made from it.

        Or what is to be written into them cannot be, and the tool prints what it was given.
        """
        site = self.room.files.documents["site"]
        image = self.one_of(set(IMAGES) - {site["defaults"]["image"]})
        wrong = self.rng.choice(["root", "kernel", "^tar", "^chpasswd"])
        if wrong.startswith("^"):
            for name in self.site.hosts:
                said = f"{wrong.strip('^')}: cannot make anything of root:{CANARY}"
                await self.site.fail_command(name, wrong, times=2, stderr=said)
        else:
            await self.site.corrupt_image(image, wrong, on=True)
        site["defaults"]["image"] = image
        self.truth.may_restart |= set(self.room.home)
        await self._save()
        await asyncio.sleep(30)
        guest = self.at_home()
        self.say(lambda controls: controls.consent("rebuild", [guest]))
        self.room.gives_up("rebuild", guest)
        await asyncio.sleep(60)
        return f"{image} {wrong}, {guest}"

    # --- large changes, and small ones ---------------------------------------------------------------------

    async def large_edits(self) -> str:
        """Many guests are moved at once; perhaps a person means it, and another such edit follows."""
        self.require_calm()
        await asyncio.sleep(NOTICED_S)
        words = await self.move_some()
        await asyncio.sleep(20)
        if self.rng.random() < 0.5:
            await self.confirm()
            await self.come_true(self.room.converged, 900)
            await asyncio.sleep(NOTICED_S)
            words += f"; {await self.move_some()}"
            await asyncio.sleep(20)
        return words

    async def move_some(self) -> str:
        """One or two more than may be moved without a word, or all of them."""
        home = self.room.home
        few = self.rng.choice([3, 3, 4, len(home)])
        chosen = self.rng.sample(sorted(home), min(few, len(home)))
        for guest in chosen:
            self.truth.may_restart.add(guest)
            self.room.files.move(guest, self.elsewhere(home[guest]))
        await self._save()
        return " ".join(chosen)

    async def dropped_after_an_action(self) -> str:
        """A container leaves the spec in the moment that something was done there."""
        guest = self.at_home()
        container = self.room.home[guest]
        if self.dropped:
            raise LookupError("one has left already")
        done = self.step(container, guest)
        self.truth.brought_down(guest)
        await self.site.kill_guest(guest)
        await self.reached(done)
        await asyncio.sleep(self.rng.choice([0.0025, 0.01, 0.05]))
        return f"{await self.drop_container(container)} after a step for {guest}"

    # --- guests that are down, or seem so ------------------------------------------------------------------

    async def mute_host(self) -> str:
        """A program of a look fails once, or hangs, after the connections to the host were lost."""
        container, hangs = self.container(), self.rng.random() < 0.4
        if hangs:
            await self.site.hang_command(container, self.rng.choice(["^lvm fullreport", "^virsh|^xl", "^ip "]))
        else:
            await self.site.fail_command(container, "^virsh|^xl", times=self.rng.choice([1, 1, 2]))
        await self.site.servers[container].restart()
        await asyncio.sleep(90)
        return f"{container} {'hangs' if hangs else 'fails'}"

    async def no_ping(self) -> str:
        """A guest boots, and its network lets nothing through for longer than it may take to boot."""
        guest = self.at_home()
        container = self.room.home[guest]
        await self.site.fail_command(container, "^ping", times=None)
        self.truth.brought_down(guest)
        await self.site.kill_guest(guest)
        await asyncio.sleep(450)
        return f"{guest} on {container}"

    async def switched_off_in_peace(self) -> str:
        """Somebody inside switches a guest off that has run for long."""
        self.require_calm()
        await asyncio.sleep(NOTICED_S)
        guest = await self.shut_down_guest()
        await asyncio.sleep(60)
        return guest

    async def fails_for_all_lives(self) -> str:
        """A guest cannot be started, and the service is killed again and again."""
        guest = self.at_home()
        container = self.room.home[guest]
        await self.site.fail_command(container, "^lvchange", times=None)
        self.truth.brought_down(guest)
        await self.site.kill_guest(guest)
        for _ in range(7):
            await asyncio.sleep(7)
            if self.room.main.alive:
                self.room.main.kill()
                self.room.main.start()
        await asyncio.sleep(10)
        return f"{guest} on {container}"

    async def crashes_for_long(self) -> str:
        """See `crash_again_and_again`; nothing else happens meanwhile."""
        words = await self.crash_again_and_again()
        await asyncio.sleep(90)
        return words

    async def two_at_work(self) -> str:
        """Two services run, and there is something to do."""
        await self.second_service()
        for _ in range(3):
            await asyncio.sleep(self.rng.choice([4.0, 13.0]))
            await self.kill_guest()
        await asyncio.sleep(20)
        return ""
