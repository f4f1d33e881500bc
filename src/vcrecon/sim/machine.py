"""One simulated host: its files, volumes, network, firewall, domains, and what a loss of power does to them.

Made by `sim.site` (and by tests); the tools in `sim.tools` act on it through `Process.machine`.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Literal

from vcrecon.sim.domains import Domain, DomainEvent, Domains
from vcrecon.sim.files import Device, Directory, File, Files, FileSystem, Link, Mount, Node
from vcrecon.sim.lvm import Lvm, LvmError, Volume, VolumeGroup
from vcrecon.sim.network import Network
from vcrecon.sim.nftables import Ruleset
from vcrecon.sim.timing import Timing

Fetch = Callable[[str, int], Awaitable[tuple[int, AsyncIterator[bytes]]]]
"""`await fetch(url, start_offset)` gives the HTTP status and the body from that offset.

Raises ConnectionRefusedError (curl 7), LookupError (6), TimeoutError (28); a body that ends early raises
ConnectionResetError (18).
"""

ROOT_DIRECTORIES = (
    *("bin", "boot", "dev", "etc", "etc/vcrecon", "home", "mnt", "proc", "root", "run", "srv", "sys", "tmp"),
    *("usr", "usr/bin", "var", "var/cache", "var/lib", "var/lib/libvirt", "var/lib/libvirt/images"),
    *("var/log", "var/tmp"),
)
TMPFS = ("/run", "/tmp")  # noqa: S108 - directories of the simulated host


@dataclass(frozen=True, slots=True)
class VolumeEvent:
    """Something happened to a volume that has been booted before: a student's work may be on it.

    `kind`: remove, mkfs, tar, device-write (dd and redirections), write (any other change through a mount).
    """

    machine: str
    kind: str
    volume: str
    tags: frozenset[str]
    detail: str


class PowerLost(asyncio.CancelledError):
    """The host lost power while a process ran on it; the process is gone."""


async def no_network(url: str, offset: int) -> tuple[int, AsyncIterator[bytes]]:
    """The default fetch: nothing listens anywhere."""
    raise ConnectionRefusedError(url)


class Machine:
    """A host. Sizes are bytes; `address` is its own address in CIDR form on the trunk, if any.

    With `make_pool` the volume group starts with an empty thin pool over 90 % of it. Public state:
    `files`, `lvm`, `network`, `nft`, `domains`, `sysctl`, `timing`, `up`, `boot_id`, `started_at`.
    """

    def __init__(
        self,
        name: str,
        *,
        hypervisor: Literal["kvm", "xen"],
        memory_bytes: int,
        cores: int,
        disk_bytes: int,
        trunk: str = "eth0",
        volume_group: str = "vg0",
        pool: str = "vcpool",
        timing: Timing | None = None,
        fetch: Fetch = no_network,
        address: str | None = None,
        make_pool: bool = True,
    ) -> None:
        self.name = name
        self.hypervisor = hypervisor
        self.memory_bytes = memory_bytes
        # Dom0, or the host's own processes: guests cannot have this part.
        self.reserved_bytes = min(1 << 30, memory_bytes // 8)
        self.cores = cores
        self.trunk = trunk
        self.timing = timing if timing is not None else Timing.instant()
        self.fetch = fetch
        self.up = True
        self.boots = 0
        self.boot_id = ""
        self.started_at = 0.0
        self.libvirtd = hypervisor == "kvm"
        self.sysctl: dict[str, str] = {}
        self.modules: set[str] = set()
        self._places: dict[int, tuple[str, ...]] = {}
        """Working directory and open files of each shell that runs, by process id."""
        self._down: list[Callable[[], None]] = []
        self._up: list[Callable[[], None]] = []
        self._volume_events: list[Callable[[VolumeEvent], None]] = []
        self._libvirt_gone: list[Callable[[], None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.files = Files(FileSystem("ext4", capacity_bytes=20 << 30), clock=self.timing.wall)
        self.lvm = Lvm(clock=self.timing.wall, on_change=self._make_device_nodes)
        self.lvm.groups[volume_group] = VolumeGroup(volume_group, disk_bytes, self.audit)
        self.network = Network(name, trunk, address)
        self.nft = Ruleset()
        self.domains = Domains(self)
        for directory in ROOT_DIRECTORIES:
            self.files.mkdir(f"/{directory}", parents=True)
        for name_, text in {"hostname": f"{name}\n", "os-release": 'ID=debian\nVERSION_ID="12"\n'}.items():
            self.files.write(f"/etc/{name_}", text.encode())
        self._start()
        if make_pool:
            group = self.lvm.groups[volume_group]
            size = int(group.extents * 0.9) * (4 << 20)
            self.lvm.create_pool(volume_group, pool, size)

    # -- what others hook into ----------------------------------------------------------------------

    def on_down(self, callback: Callable[[], None]) -> None:
        """Called at once when the host loses power or reboots."""
        self._down.append(callback)

    def on_up(self, callback: Callable[[], None]) -> None:
        """Called when the host has booted again."""
        self._up.append(callback)

    def on_domain_event(self, callback: Callable[[DomainEvent], None]) -> Callable[[], None]:
        """Called for every domain event; returns a function that ends the subscription."""
        self.domains.listeners.append(callback)
        return lambda: self.domains.listeners.remove(callback)

    def on_domain_start(self, callback: Callable[[Domain], None]) -> None:
        """Called when a copy of a domain begins to run."""
        self.domains.starts.append(callback)

    def on_domain_end(self, callback: Callable[[Domain], None]) -> None:
        """Called when a copy of a domain runs no more, whatever ended it."""
        self.domains.ends.append(callback)

    def on_volume_event(self, callback: Callable[[VolumeEvent], None]) -> None:
        """Called when a volume that was ever booted is removed, formatted or written."""
        self._volume_events.append(callback)

    def on_libvirt_restart(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Called when libvirtd stops; returns a function that ends the subscription."""
        self._libvirt_gone.append(callback)
        return lambda: self._libvirt_gone.remove(callback)

    def audit(self, kind: str, volume: Volume, detail: str) -> None:
        """Tell the listeners about something done to a volume that was booted before."""
        event = VolumeEvent(self.name, kind, volume.full_name, frozenset(volume.tags), detail)
        for callback in list(self._volume_events):
            callback(event)

    def background(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Run something that belongs to the host and ends with its power."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def process_began(self, pid: int, name: str, directory: str) -> None:
        """A shell runs: /proc tells its name and working directory."""
        entries: dict[str, Node] = {
            "comm": File(0o444, generate=lambda: f"{name}\n".encode()),
            "cwd": Link(target=directory),
        }
        self._processes.entries[str(pid)] = Directory(0o555, entries=entries)
        self._places[pid] = (directory,)

    def process_moved(self, pid: int, directory: str) -> None:
        """It changed its working directory."""
        self._places[pid] = (directory, *self._places[pid][1:])
        entry = self._processes.entries.get(str(pid))
        if isinstance(entry, Directory):
            entry.entries["cwd"] = Link(target=directory)

    def process_holds(self, pid: int, paths: list[str]) -> None:
        """It keeps these files open from now on, and none of those before."""
        self._places[pid] = (self._places[pid][0], *paths)
        entry = self._processes.entries.get(str(pid))
        if isinstance(entry, Directory):
            links: dict[str, Node] = {str(number): Link(target=path) for number, path in enumerate(paths, 3)}
            entry.entries["fd"] = Directory(0o500, entries=links)

    def process_ended(self, pid: int) -> None:
        self._places.pop(pid, None)
        self._processes.entries.pop(str(pid), None)

    def in_use(self, path: str) -> bool:
        """Whether a process works in, or holds open, what is at or below `path`."""
        return any(f"{place}/".startswith(f"{path}/") for places in self._places.values() for place in places)

    def volumes_in_use(self) -> list[Volume]:
        """Those whose device a process keeps open."""
        found = (self.volume_at(place) for places in self._places.values() for place in places[1:])
        return [volume for volume in found if volume is not None]

    async def work(self, operation: str) -> None:
        """Take the time of an operation on this host. Raises PowerLost when the power went meanwhile."""
        boot_id = self.boot_id
        await self.timing.spend(operation)
        if boot_id != self.boot_id or not self.up:
            raise PowerLost(self.name)

    # -- power --------------------------------------------------------------------------------------

    def power_off(self) -> None:
        """Lose power now: domains die, links, rules, mounts and tmpfs are gone; disks keep what they hold.

        A reboot that is under way ends, too: the host stays off.
        """
        for task in list(self._tasks):
            task.cancel()
        if not self.up:
            return
        self.up = False
        self.domains.forget_running()
        for callback in list(self._down):
            callback()

    def power_on(self) -> None:
        """Boot. Takes no time here; who wants a boot to last waits before calling."""
        if self.up:
            return
        self.up = True
        self._start()
        for callback in list(self._up):
            callback()

    def reboot(self) -> None:
        """power_off() and power_on(), at once."""
        self.power_off()
        self.power_on()

    def reboot_later(self) -> None:
        """What the `reboot` command does: off now, back after the host's boot time."""
        self.power_off()

        async def come_back() -> None:
            await self.timing.spend("host-boot")
            self.power_on()

        self.background(come_back())

    def _start(self) -> None:
        self.boots += 1
        self.boot_id = str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}/{self.boots}"))
        self.started_at = self.timing.now()
        del self.files.mounts[1:]
        self.network.restart()
        self.nft.clear()
        self.modules.clear()
        self.sysctl = {"net.ipv4.ip_forward": "0", "kernel.hostname": self.name, "vm.swappiness": "60"}
        self.libvirtd = self.hypervisor == "kvm"
        self.files.attach(Mount("/proc", self._proc(), "proc", ("rw",)))
        self.devices = FileSystem("devtmpfs", capacity_bytes=1 << 30)
        self.files.attach(Mount("/dev", self.devices, "udev", ("rw",)))
        for target in TMPFS:
            tmpfs = FileSystem("tmpfs", capacity_bytes=max(1 << 20, self.memory_bytes // 5))
            self.files.attach(Mount(target, tmpfs, "tmpfs", ("rw", "nosuid", "nodev")))
        self.files.mkdir("/run/lock")
        self.lvm.restart()

    def restart_libvirtd(self, *, running: bool = True) -> None:
        """Restart (or stop) libvirtd: watchers are cut off, guests live on."""
        self.libvirtd = running
        for callback in list(self._libvirt_gone):
            callback()

    # -- domains, for the breakage API --------------------------------------------------------------

    def _live(self, name: str) -> Domain:
        domain = self.domains.by_name.get(name)
        if domain is None or not domain.live:
            raise LookupError(f"{self.name}: domain {name} does not run here")
        return domain

    def kill_domain(self, name: str) -> None:
        """The emulator of a domain dies. Raises LookupError when it does not run here."""
        self.domains.kill(self._live(name))

    def panic_domain(self, name: str) -> None:
        """The guest's kernel panics. Raises LookupError when it does not run here."""
        self.domains.panic(self._live(name))

    def shutdown_domain(self, name: str) -> None:
        """Somebody inside the guest switches it off. Raises LookupError when it does not run here."""
        self.domains.powered_off(self._live(name))

    def reboot_domain(self, name: str) -> None:
        """Somebody inside the guest reboots it. Raises LookupError when it does not run here."""
        self.domains.restart_guest(self._live(name))

    # -- volumes ------------------------------------------------------------------------------------

    def all_volumes(self) -> list[Volume]:
        return [v for group in self.lvm.groups.values() for v in group.volumes.values()]

    def volume_at(self, path: str) -> Volume | None:
        """The volume behind a device path; None when no such active device is there."""
        if not self.files.exists(path):
            return None
        node = self.files.node(path)
        if isinstance(node, Device) and isinstance(node.device, Volume):
            return node.device
        return None

    def fill_pool(self, data_percent: float, metadata_percent: float) -> None:
        """Make every thin pool at least this full, as if other volumes had used it."""
        for volume in self.all_volumes():
            if volume.kind == "pool":
                own = volume.group.pool_used_bytes(volume.name) - volume.filler_data_bytes
                volume.filler_data_bytes = max(0, int(volume.size_bytes * data_percent / 100) - own)
                volume.filler_metadata_percent = 0.0
                now = volume.group.metadata_percent(volume) or 0.0
                volume.filler_metadata_percent = max(0.0, metadata_percent - now)

    def remove_volume(self, name: str) -> None:
        """A volume vanishes by somebody's mistake, whatever uses it. Raises LvmError when it is not there."""
        for group in self.lvm.groups.values():
            volume = group.volumes.pop(name, None)
            if volume is not None:
                self.lvm.changed(group)
                return
        raise LvmError(f"{self.name}: no volume {name}")

    def _make_device_nodes(self) -> None:
        """What udev does: /dev/VG/LV and /dev/mapper/VG-LV exist while the volume is active."""
        entries = self.devices.root.entries
        for name in [n for n, node in entries.items() if isinstance(node, Directory)]:
            del entries[name]
        for name in ("null", "zero", "tty", "full", "urandom", "random"):
            entries.setdefault(name, Device(0o666))
        mapper = Directory()
        entries["mapper"] = mapper
        for group in self.lvm.groups.values():
            active = [v for v in group.volumes.values() if v.active and v.kind != "pool"]
            if active and not group.missing:
                directory = Directory()
                entries[group.name] = directory
                for volume in active:
                    node = Device(0o660, device=volume)
                    directory.entries[volume.name] = node
                    escaped = f"{group.name.replace('-', '--')}-{volume.name.replace('-', '--')}"
                    mapper.entries[escaped] = node

    # -- /proc --------------------------------------------------------------------------------------

    def _proc(self) -> FileSystem:
        proc = FileSystem("proc", capacity_bytes=0)
        self._processes = proc.root

        def put(path: str, generate: Callable[[], str]) -> None:
            directory = proc.root
            *above, name = path.split("/")
            for part in above:
                child = directory.entries.setdefault(part, Directory(0o555))
                assert isinstance(child, Directory)
                directory = child
            directory.entries[name] = File(0o444, generate=lambda: generate().encode())

        put("sys/kernel/random/boot_id", lambda: f"{self.boot_id}\n")
        put("sys/kernel/hostname", lambda: f"{self.name}\n")
        put("sys/net/ipv4/ip_forward", lambda: self.sysctl["net.ipv4.ip_forward"] + "\n")
        put("uptime", self._uptime)
        put("meminfo", self._meminfo)
        put("mounts", self._mounts)
        put("self/mounts", self._mounts)
        put("loadavg", lambda: f"{0.01 * len(self.domains.live()):.2f} 0.00 0.00 1/100 1000\n")
        put(
            "cpuinfo",
            lambda: "".join(f"processor\t: {n}\nmodel name\t: simulated\n\n" for n in range(self.cores)),
        )
        return proc

    def _uptime(self) -> str:
        seconds = max(0.0, self.timing.now() - self.started_at)
        return f"{seconds:.2f} {seconds * self.cores:.2f}\n"

    def _meminfo(self) -> str:
        free = self.domains.free_memory_bytes()
        rows = {
            "MemTotal": self.memory_bytes,
            "MemFree": free,
            "MemAvailable": free,
            "SwapTotal": 0,
            "SwapFree": 0,
        }
        return "".join(f"{name + ':':<15} {size >> 10:>8} kB\n" for name, size in rows.items())

    def _mounts(self) -> str:
        rows = []
        for mount in self.files.mounts:
            options = ",".join(mount.options) or "rw"
            target = mount.target.replace(" ", "\\040")
            rows.append(f"{mount.source} {target} {mount.filesystem.kind} {options} 0 0\n")
        return "".join(rows)
