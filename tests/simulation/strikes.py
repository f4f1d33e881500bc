"""What happens to a classroom: faults of hosts, wires, disks and processes, and the wishes of people. All by dice.

Each strike is one method; its docstring says what it is in the real world. It tells the classroom and the truth what
a person who caused it would know, and returns words for the history. LookupError means that there was nothing to do.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from tests.simulation.classroom import WORK, Classroom
from tests.simulation.machine import Switch
from tests.simulation.specs import FILES, IMAGES, SINGLES
from tests.simulation.truth import Truth
from tests.simulation.wire import Trap

from vcrecon.errors import HostError, Refused, SpecError
from vcrecon.sim.files import Files
from vcrecon.sim.lvm import Volume

# Programs of every kind of step, and of the looks.
PROGRAMS = (
    "^lvchange", "^lvcreate", "^lvrename", "^lvremove", "^lvs", "^lvm fullreport", "^mount ", "^umount", "^tar",
    "^chpasswd", "^virsh", "^xl", "^dd", "^zstd", "^sha256sum", "^nft", "^ip ", "^flock", "^ping", "^cat", "^sync",
    "^curl", "^mkfs", "^xenstore",
)  # fmt: skip
VLANS = (101, 102, 900)


class Strikes:
    """The dice and the hammer."""

    def __init__(self, room: Classroom, truth: Truth, rng: random.Random) -> None:
        self.room, self.truth, self.rng = room, truth, rng
        self.site = room.site
        self.removed: set[str] = set()
        self.off: set[str] = set()
        self.bad_files = False
        self._entries = list(room.files.documents["containers"]["containers"])

    # --- the dice ------------------------------------------------------------------------------------------

    def container(self) -> str:
        return self.rng.choice(sorted(self.site.hosts))

    def guest(self) -> str:
        return self.rng.choice(sorted(self.room.home))

    def one_of(self, names: Iterable[str]) -> str:
        found = sorted(names)
        if not found:
            raise LookupError("there is none")
        return self.rng.choice(found)

    def disturbed(self, container: str) -> None:
        """Whatever is there, or belongs there, may be started once more."""
        self.truth.may_restart |= self.room.on(container)

    @property
    def dropped(self) -> list[dict[str, Any]]:
        """The entries of containers that left the spec."""
        left = self.room.files.containers
        return [entry for entry in self._entries if entry["name"] not in left]

    # --- guests --------------------------------------------------------------------------------------------

    async def kill_guest(self) -> str:
        """Its emulator dies."""
        guest = self.one_of(g for g in self.room.home if self.room.hosts_of(g))
        self.truth.brought_down(guest)
        await self.site.kill_guest(guest)
        return guest

    async def shut_down_guest(self) -> str:
        """Somebody inside switches it off."""
        guest = self.one_of(g for g in self.room.home if self.room.hosts_of(g) == [self.room.home[g]])
        self.truth.switched_off(guest)
        await self.site.shutdown_guest(guest)
        return guest

    async def deafen_guest(self) -> str:
        """It takes no notice of its power button until it boots again."""
        guest = self.one_of(g for g in self.room.home if self.room.hosts_of(g))
        for host in self.room.hosts_of(guest):
            self.site.hosts[host].machine.domains.by_name[guest].deaf = True
        return guest

    async def namesake(self) -> str:
        """A person makes a machine with the name of a guest."""
        guest, container = self.guest(), self.container()
        self.room.foreign.add_namesake(container, guest)
        return f"{guest} on {container}"

    async def rot(self) -> str:
        """A byte of a copy changes on its way to the disk, before anybody compares it."""

        def fresh() -> tuple[str, Volume] | None:
            for host, found in self.site.hosts.items():
                for volume in found.machine.all_volumes():
                    unproved = "vc.incoming" in volume.tags and not any(t.startswith("vc.copy=") for t in volume.tags)
                    if unproved and self.room.read(volume) is not None and not found.programs.held_locks:
                        return host, volume
            return None

        listener, rotten = self.room.network.on_end, False

        def ended(host: str, script: str, status: int) -> None:
            nonlocal rotten
            listener(host, script, status)
            found = fresh() if not rotten else None
            if found is not None:
                rotten = True
                filesystem = found[1].look()
                assert filesystem is not None
                Files(filesystem, clock=self.site.timing.wall).write(WORK, b"rotten")
                self.room.note(f"a byte of {found[1].name} on {found[0]} rots")

        self.room.network.on_end = ended
        return ""

    async def reboot_guest(self) -> str:
        """Somebody inside reboots it."""
        guest = self.one_of(g for g in self.room.home if self.room.hosts_of(g))
        self.truth.brought_down(guest)
        for host in self.room.hosts_of(guest):
            self.site.hosts[host].machine.reboot_domain(guest)
        return guest

    async def crash_again_and_again(self) -> str:
        """It panics soon after each boot, for some minutes."""
        guest, times = self.guest(), self.rng.choice([4, 8, 12])
        self.truth.may_restart.add(guest)

        async def crash() -> None:
            for _ in range(times):
                await self.room.until(lambda: bool(self.room.hosts_of(guest)), 600)
                await asyncio.sleep(1.0)
                for host in self.room.hosts_of(guest):
                    self.truth.crash_looping(guest)
                    self.site.hosts[host].machine.panic_domain(guest)

        self.site.spawn(crash())
        return f"{guest} {times} times"

    # --- hosts ---------------------------------------------------------------------------------------------

    async def cut(self) -> str:
        """The cable is pulled: packets vanish, guests run on."""
        container = self.container()
        await self.site.cut(container)
        return container

    async def partition(self) -> str:
        """The switch dies: a part of the site, or all of it, is cut."""
        names = sorted(self.site.hosts)
        chosen = self.rng.choice([names, names[1:], names[: max(1, len(names) // 5)]])
        for name in chosen:
            await self.site.cut(name)
        return " ".join(chosen)

    async def mend(self) -> str:
        """A cable is put back."""
        container = self.one_of(n for n, s in self.site.servers.items() if s.cut)
        await self.site.mend(container)
        return container

    async def power_off(self) -> str:
        """The host loses its power, with or without a word on the wire."""
        container = self.container()
        self.site.servers[container].silent_death = self.rng.random() < 0.7
        self.disturbed(container)
        self.off.add(container)
        await self.site.power_off(container)
        return container

    async def power_on(self) -> str:
        """It comes back, with what its disks hold."""
        container = self.one_of(self.off)
        self.off.discard(container)
        await self.site.power_on(container)
        return container

    async def reboot(self) -> str:
        """Off and on."""
        container = self.one_of(set(self.site.hosts) - self.off)
        self.site.servers[container].silent_death = self.rng.random() < 0.5
        self.disturbed(container)
        await self.site.power_off(container)
        self.site.spawn(self._back_later(container, self.rng.choice([2.0, 40.0, 400.0])))
        self.off.add(container)
        return container

    async def _back_later(self, container: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        if container in self.off:
            self.off.discard(container)
            await self.site.power_on(container)

    async def netboot(self) -> str:
        """It boots from the network, unasked."""
        if not self.room.machines:
            raise LookupError("no machine boots from the network")
        container = self.one_of(set(self.room.machines) - self.off)
        self.disturbed(container)
        self.room.machines[container].boot()
        return container

    async def wipe_bridge(self) -> str:
        """Somebody deletes a bridge."""
        container, vlan = self.container(), self.rng.choice(VLANS)
        await self.site.wipe_bridge(container, vlan)
        return f"{container} {vlan}"

    async def delete_vlan(self) -> str:
        """Somebody deletes a VLAN device."""
        container, vlan = self.container(), self.rng.choice(VLANS)
        await self.site.delete_vlan(container, vlan)
        return f"{container} {vlan}"

    async def flush_rules(self) -> str:
        """Somebody deletes our tables."""
        container = self.container()
        tables = self.site.hosts[container].machine.nft.tables
        for key in [key for key in tables if key[1] == "vcrecon"]:
            del tables[key]
        self.truth.gates.flushed.add(container)
        return container

    async def restart_libvirtd(self) -> str:
        """libvirtd is restarted, or dies for a while."""
        container = self.one_of(n for n, h in self.site.hosts.items() if h.machine.libvirtd)
        machine = self.site.hosts[container].machine
        dies = self.rng.random() < 0.4
        machine.restart_libvirtd(running=not dies)
        if dies:
            self.site.spawn(self._libvirtd_back(container))
        return f"{container}{' dies' if dies else ''}"

    async def _libvirtd_back(self, container: str) -> None:
        await asyncio.sleep(self.rng.choice([5.0, 90.0]))
        self.site.hosts[container].machine.restart_libvirtd()

    # --- commands and wires --------------------------------------------------------------------------------

    async def fail_command(self) -> str:
        """A program fails, once or a few times."""
        container, pattern = self.container(), self.rng.choice(PROGRAMS)
        await self.site.fail_command(container, pattern, times=self.rng.choice([1, 2, 5]))
        return f"{container} {pattern}"

    async def fail_long(self) -> str:
        """A program fails whenever it is called, until the end."""
        container, pattern = self.container(), self.rng.choice(PROGRAMS)
        await self.site.fail_command(container, pattern, times=None)
        return f"{container} {pattern}"

    async def hang_command(self) -> str:
        """A program never ends."""
        container, pattern = self.container(), self.rng.choice(PROGRAMS)
        await self.site.hang_command(container, pattern)
        return f"{container} {pattern}"

    async def slow(self) -> str:
        """Every command takes longer."""
        container = self.container()
        await self.site.slow(container, self.rng.choice([0.01, 0.3, 2.0]))
        return container

    async def garbage(self) -> str:
        """Rubbish instead of answers."""
        container = self.container()
        await self.site.garbage(container, self.rng.choice(["output", "banner", None]))
        return container

    async def lose_message(self) -> str:
        """The connection dies before, inside or after a command, or a message is late."""
        container = self.container()
        what = self.rng.choice(["cut", "cut", "half", "late"])
        direction = self.rng.choice(["request", "reply"])
        trap = Trap(direction, self.rng.randint(0, 12), what, self.rng.choice([1.0, 29.0, 45.0]))  # type: ignore[arg-type]
        self.site.servers[container].traps.append(trap)
        return f"{container} {what} {direction}"

    async def slow_wire(self) -> str:
        """The whole network is slow."""
        self.room.network.latency_s = self.rng.choice([(0.0002, 0.002), (0.05, 0.3), (0.5, 4.0)])
        return str(self.room.network.latency_s)

    async def no_more_channels(self) -> str:
        """MaxSessions is reached."""
        server = self.site.servers[self.container()]
        server.full = not server.full
        return f"{server.machine.name} {server.full}"

    async def change_host_key(self) -> str:
        """Another machine answers at its address, and later the right one again."""
        container = self.container()
        server = self.site.servers[container]
        was = server.host_key
        await self.site.change_host_key(container)
        self.site.spawn(self._key_back(container, was))
        return container

    async def _key_back(self, container: str, key: str) -> None:
        await asyncio.sleep(self.rng.choice([20.0, 200.0]))
        server = self.site.servers[container]
        if server.host_key != key and "vcrecon" not in server.host_key:
            server.host_key = key
            await server.restart()

    # --- images and disks ----------------------------------------------------------------------------------

    async def corrupt_image(self) -> str:
        """The image server sends a wrong byte, half of a file, or is slow."""
        image, part = self.rng.choice(IMAGES), self.rng.choice(["root", "root", "kernel"])
        if self.rng.random() < 0.5:
            await self.site.corrupt_image(image, part, on=self.rng.random() < 0.7)
        else:
            await self.site.truncate_image(image, part, on=self.rng.random() < 0.7)
        return f"{image} {part}"

    async def fill_pool(self) -> str:
        """The thin pool has no room, for data or for metadata."""
        container = self.container()
        data, metadata = self.rng.choice([(100.0, 0.0), (50.0, 99.0), (97.0, 0.0)])
        await self.site.fill_pool(container, data, metadata)
        self.truth.full_since_s.setdefault(container, self.room.loop.time())
        return f"{container} {data:.0f} {metadata:.0f}"

    async def fill_root(self) -> str:
        """The host's own file system has no room."""
        container = self.container()
        await self.site.fill_root(container)
        return container

    async def lose_disk(self) -> str:
        """A guest's volume vanishes by somebody's mistake."""
        guest = self.one_of(g for g in self.room.home if self.room.works.get(g))
        places = [(name, volume) for name, _, volume in self.room.disks(guest)]
        if len(places) != 1 or self.rng.random() < 0.7:
            raise LookupError("not now")
        host, volume = places[0]
        self.site.hosts[host].machine.remove_volume(volume.name)
        self.truth.lost_for_good.add(guest)
        self.room.given_up.add(guest)
        self.truth.may_restart.add(guest)
        return f"{guest} on {host}"

    # --- the service ---------------------------------------------------------------------------------------

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
        how = self.rng.choice(["cut", "^virsh|^xl", "^lvs|^lvm|^vgs", "^lvm", "garbage"])
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
        gone = {entry["name"] for entry in self.dropped}
        if any(gone & self.room.places(guest) for guest in self.room.known_guests):
            raise LookupError("somebody would be forgotten")
        if not main.alive:
            raise LookupError("it does not run")
        main.kill()
        main.forget_everything()
        self.room.record_lost()
        words = await meanwhile()
        main.start()
        return words

    async def second_service(self) -> str:
        """Somebody starts another service for the same site, with a state directory of its own, for a while."""
        if len(self.room.services) > 1:
            raise LookupError("there is one")
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

    # --- people --------------------------------------------------------------------------------------------

    async def move(self) -> str:
        """A name is moved to another line."""
        return await self.move_guest(self.guest())

    async def move_guest(self, guest: str) -> str:
        others = set(self.room.files.containers) - {self.room.home[guest]}
        container = self.one_of(others or self.room.files.containers)
        self.truth.may_restart.add(guest)
        self.room.files.move(guest, container)
        await self._save()
        return f"{guest} to {container}"

    async def move_many(self) -> str:
        """deployment.yaml is turned upside down."""
        names = self.room.files.containers
        chosen = [guest for guest in sorted(self.room.home) if self.rng.random() < 0.8]
        for guest in chosen:
            self.truth.may_restart.add(guest)
            self.room.files.move(guest, self.rng.choice(names))
        await self._save()
        return " ".join(chosen)

    async def revert(self) -> str:
        """The last good files are put back, as `git checkout` does."""
        before = self.room.before
        if before is None:
            raise LookupError("there is nothing before")
        self.room.files.documents = before
        self.removed = {guest for guest in SINGLES if guest not in self.room.files.placement}
        self.truth.may_restart |= set(self.room.files.placement) | set(self.room.home)
        await self._save()
        return ""

    async def remove(self) -> str:
        """A guest leaves the spec."""
        guest = self.one_of(set(SINGLES) & set(self.room.home))
        self.truth.may_restart.add(guest)
        self.room.files.remove_single(guest)
        self.removed.add(guest)
        await self._save()
        return guest

    async def add(self) -> str:
        """A guest comes into the spec, perhaps again."""
        guest = self.one_of(set(SINGLES) - set(self.room.home))
        await self.put_back(guest)
        return guest

    async def put_back(self, guest: str) -> None:
        self.truth.may_restart.add(guest)
        self.room.files.add_single(guest, self.one_of(self.room.files.containers))
        self.removed.discard(guest)
        await self._save()

    async def change_image(self) -> str:
        """Another image for all guests, and perhaps the class begins."""
        site = self.room.files.documents["site"]
        site["defaults"]["image"] = self.rng.choice(IMAGES)
        if self.rng.random() < 0.4:
            site["session"] = "running"
        self.truth.may_restart |= set(self.room.home)
        await self._save()
        return str(site["defaults"]["image"])

    async def move_and_back(self) -> str:
        """A name is moved, and soon moved back."""
        guest = self.guest()
        home = self.room.home[guest]
        words = await self.move_guest(guest)
        await asyncio.sleep(self.rng.choice([0.5, 2.0, 5.0, 15.0]))
        self.room.files.move(guest, home)
        await self._save()
        return f"{words} and back"

    async def resize(self) -> str:
        """Other memory and cores for all nodes: taken at a guest's next start."""
        template = self.room.files.documents["clusters"]["templates"]["node"]
        template["memory"] = self.rng.choice(["256MiB", "512MiB", "768MiB"])
        template["cores"] = self.rng.choice([1, 2])
        await self._save()
        return f"{template['memory']} {template['cores']}"

    async def drop_container(self) -> str:
        """A container leaves the spec, and its guests are placed elsewhere; or it comes back."""
        documents = self.room.files.documents["containers"]
        entries = documents["containers"]
        if self.dropped:
            entries.append(self.dropped[0])
            self.room.files.deployment.setdefault(entries[-1]["name"], [])
        else:
            if len(entries) < 3:
                raise LookupError("too few are left")
            entry = self.rng.choice(entries)
            entries.remove(entry)
            for guest in self.room.files.deployment.pop(entry["name"], []):
                self.room.files.move(guest, self.rng.choice(entries)["name"])
        self.truth.may_restart |= self.room.known_guests
        await self._save()
        return " ".join(entry["name"] for entry in self.dropped)

    async def begin_class(self) -> str:
        """session: running."""
        self.room.files.documents["site"]["session"] = "running"
        await self._save()
        return ""

    async def _save(self) -> None:
        self.bad_files = False
        if self.room.good.site.session == "preparing":
            self.truth.may_restart |= self.room.known_guests  # what others are called is part of each guest's context
        await self.room.edited()
        self.truth.spec_changed()

    async def spoil_files(self) -> str:
        """A file is cut, emptied, removed, or no longer YAML: nothing may change (S4)."""
        name = self.rng.choice(FILES)
        text = self.room.files.text(name)
        how = self.rng.choice(["cut", "empty", "gone", "comment", "junk", "no guests"])
        path = self.room.files.directory / f"{name}.yaml"
        if how == "gone":
            path.unlink()
        elif how == "no guests":
            path = self.room.files.directory / "deployment.yaml"
            path.write_text("deployment: {}\n")
        else:
            cut = text[: self.rng.randrange(len(text) - 2)]
            path.write_text({"cut": cut, "empty": "", "comment": "# nothing\n", "junk": "{" + text}[how])
        self.bad_files = True
        await self.room.reload()
        return f"{name} {how}"

    async def mend_files(self) -> str:
        """The files are as they were."""
        if not self.bad_files:
            raise LookupError("they are in order")
        await self._save()
        return ""

    async def pause(self) -> str:
        """`vcrecon pause`."""
        subject = self.rng.choice([self.guest(), self.container(), "site", "cluster/a"])
        self.say(lambda controls: controls.pause(subject))
        return subject

    async def resume(self) -> str:
        """`vcrecon resume`."""
        subject = self.one_of(self.room.paused())
        self.say(lambda controls: controls.resume(subject))
        return subject

    async def rebuild(self) -> str:
        """`vcrecon rebuild`: this disk may be given up."""
        guest = self.guest()
        self.say(lambda controls: controls.consent("rebuild", [guest]))
        self.truth.may_restart.add(guest)
        self.room.gives_up("rebuild", guest)
        return guest

    async def prune(self) -> str:
        """`vcrecon prune`: the kept disks of a guest may go."""
        guest = self.one_of([*self.room.home, *self.removed])
        self.say(lambda controls: controls.consent("prune", [guest]))
        self.room.gives_up("prune", guest)
        return guest

    async def confirm(self) -> str:
        """`vcrecon confirm`: a large change is meant."""
        self.say(lambda controls: controls.confirm())
        self.room.confirmed = True
        return ""

    async def rescue(self) -> str:
        """`vcrecon rescue`: hold this guest's disk."""
        guest = self.guest()
        self.say(lambda controls: controls.rescue(guest, "a person"))
        self.truth.may_restart.add(guest)
        self.room.asked_to_hold.add(guest)
        return guest

    async def release(self) -> str:
        """`vcrecon release`."""
        guest = self.one_of(self.room.asked_to_hold)
        self.say(lambda controls: controls.release(guest, "a person"))
        self.room.asked_to_hold.discard(guest)
        self.truth.may_restart.add(guest)
        return guest

    async def fence(self) -> str:
        """A person vouches for a host that is really off, and places its guests elsewhere."""
        container = self.one_of(self.off)
        await self.room.until(lambda: not self._reachable(container), 120)
        if container not in self.off or self.site.hosts[container].machine.up:
            raise LookupError("it came back")
        self.say(lambda controls: controls.fence(container, "operator"))
        self.room.fenced.add(container)
        self._given_up_there(container)
        others = [name for name in self.room.files.containers if name != container]
        for guest in sorted(g for g, place in self.room.home.items() if place == container):
            self.truth.may_restart.add(guest)
            self.room.files.move(guest, self.rng.choice(others))
        await self._save()
        self.say(lambda controls: controls.confirm())
        self.room.confirmed = True
        return container

    async def power_fence(self) -> str:
        """`vcrecon fence --power-off`, with a power controller that works, is dead, or lies."""
        container = self.one_of(self.room.main.switches)
        switch: Switch = self.room.main.switches[container]
        main = self.room.main
        if not main.alive:
            raise LookupError("it does not run")
        try:
            await main.call(lambda: main.controls.power_fence(container, "operator"))
        finally:
            if self.site.hosts[container].machine.up:
                self._no_fence_stands(container)
            else:
                self.off.add(container)
                self.disturbed(container)
        self.room.fenced.add(container)
        self._given_up_there(container)
        return f"{container} dead={switch.dead} lies={switch.lies}"

    def _no_fence_stands(self, container: str) -> None:
        if container in self.room.main.on_disk("fences"):
            self.truth.violate("S1", f"{container} is fenced, and has power")

    def _given_up_there(self, container: str) -> None:
        """What is on its disks cannot be read: guests that live there may begin anew elsewhere."""
        for guest in sorted(self.room.works):
            if container in self.room.places(guest):
                self.room.anew.add(guest)

    async def change_switch(self) -> str:
        """A power controller dies, begins to lie, or is repaired."""
        container = self.one_of(self.room.main.switches)
        switch: Switch = self.room.main.switches[container]
        switch.dead, switch.lies = self.rng.choice([(True, False), (False, True), (False, False)])
        return f"{container} dead={switch.dead} lies={switch.lies}"

    async def reinstall(self) -> str:
        """`vcrecon reinstall`, sometimes with the names of the guests whose work is there."""
        if not self.room.machines:
            raise LookupError("no machine can be installed")
        container = self.one_of(self.room.machines)
        work = sorted(g for g in self.room.works if container in self.room.places(g))
        named = work if self.rng.random() < 0.5 else []
        self.say(lambda controls: controls.reinstall(container, named, "a person"))
        self.room.consents.add(("reinstall", container))
        self.disturbed(container)
        for guest in named:
            self.room.gives_up("reinstall", guest)
        return f"{container} {' '.join(named)}"

    def _reachable(self, container: str) -> bool:
        main = self.room.main
        return main.alive and main.controller.world.reachable(container)

    def say(self, words: Callable[..., object]) -> None:
        """A command of the command line, given to the running service. Raises LookupError when none runs."""
        main = self.room.main
        if not main.alive:
            raise LookupError("the service does not run")
        main.run(words, main.controls)
        self.room.changed_at_s = self.room.loop.time()

    # --- all of them ---------------------------------------------------------------------------------------

    def table(self) -> dict[Callable[[], Awaitable[str]], int]:
        """Each with its weight."""
        return {
            self.kill_guest: 5, self.shut_down_guest: 2, self.reboot_guest: 1, self.crash_again_and_again: 1,
            self.deafen_guest: 2, self.namesake: 1, self.rot: 2, self.cut: 4, self.partition: 3, self.mend: 4,
            self.power_off: 4, self.power_on: 4, self.reboot: 4, self.netboot: 2, self.wipe_bridge: 2,
            self.delete_vlan: 2, self.flush_rules: 2, self.restart_libvirtd: 2, self.fail_command: 6,
            self.fail_long: 2, self.hang_command: 4, self.slow: 2, self.garbage: 2, self.lose_message: 10,
            self.slow_wire: 1, self.no_more_channels: 1, self.change_host_key: 2, self.corrupt_image: 3,
            self.fill_pool: 2, self.fill_root: 1, self.lose_disk: 1, self.crash_service: 5, self.crash_soon: 6,
            self.restart_blind: 4, self.restart_service: 1, self.lose_record: 3, self.second_service: 2,
            self.jump_clock: 2, self.fill_record_disk: 1, self.move: 10, self.move_many: 4, self.revert: 3,
            self.remove: 3, self.add: 3, self.change_image: 3, self.begin_class: 1, self.move_and_back: 4,
            self.resize: 1, self.drop_container: 2, self.spoil_files: 5, self.mend_files: 3, self.pause: 1,
            self.resume: 2, self.rebuild: 3, self.prune: 2, self.confirm: 2, self.rescue: 2, self.release: 2,
            self.fence: 5, self.power_fence: 2, self.change_switch: 1, self.reinstall: 3,
        }  # fmt: skip

    async def strike(self) -> None:
        """One strike; one that finds nothing, or is refused, makes place for another."""
        table = self.table()
        for strike in self.rng.choices(list(table), list(table.values()), k=12):
            name = strike.__name__
            self.room.note(f"{name} …")
            try:
                self.room.note(f"{name} {await strike()}")
                return
            except (LookupError, Refused, SpecError, HostError) as error:
                self.room.note(f"{name}: {error}")
