"""What breaks by itself: guests, hosts, programs, wires, images and disks. A part of `strikes`."""

from __future__ import annotations

import asyncio

from tests.simulation.classroom import WORK
from tests.simulation.dice import Dice
from tests.simulation.specs import IMAGES
from tests.simulation.wire import Trap

from vcrecon.sim.files import Files
from vcrecon.sim.lvm import Volume

# Programs of every kind of step, and of the looks.
PROGRAMS = (
    "^lvchange", "^lvcreate", "^lvrename", "^lvremove", "^lvs", "^lvm fullreport", "^mount ", "^umount", "^tar",
    "^chpasswd", "^virsh", "^xl", "^dd", "^zstd", "^sha256sum", "^nft", "^ip ", "^flock", "^ping", "^cat", "^sync",
    "^curl", "^mkfs", "^xenstore",
)  # fmt: skip
VLANS = (101, 102, 900)


class Faults(Dice):
    """The world's own."""

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
        self.require_remembered(guest)
        host, volume = places[0]
        self.site.hosts[host].machine.remove_volume(volume.name)
        self.truth.lost_for_good.add(guest)
        self.room.given_up.add(guest)
        self.truth.may_restart.add(guest)
        return f"{guest} on {host}"

    def require_remembered(self, guest: str) -> None:
        """Raises LookupError when nothing would know that a guest had a disk, as before a new record has seen it."""
        if guest not in self.room.main.on_disk("claims"):
            raise LookupError("nothing would know of it")
