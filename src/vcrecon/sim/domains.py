"""Virtual machines of a simulated host: definitions, running copies, events, and what a guest's boot does.

`sim.tools.virsh` and `sim.tools.xl` are two faces of this one state; `sim.site` listens to it.
"""

from __future__ import annotations

import asyncio
import configparser
import contextlib
import hashlib
import uuid as uuid_module
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from vcrecon.sim.files import File, Files, Mount
from vcrecon.sim.lvm import Volume

if TYPE_CHECKING:
    from vcrecon.sim.machine import Machine

State = Literal["running", "paused", "in shutdown", "shut off", "crashed"]
NETWORK_UNITS = "/etc/systemd/network"


class DomainError(Exception):
    """A refusal of the hypervisor, in libvirt's words (without `error: `)."""


@dataclass(frozen=True, slots=True)
class Nic:
    """One interface of a domain. `target` is the wanted name of the tap, or empty."""

    mac: str
    bridge: str
    target: str = ""


@dataclass(eq=False)
class Domain:
    """A defined or running virtual machine. `id` is None while it is off; memory is bytes.

    `answers_at` is on the machine's monotonic clock: from then on the guest answers on its network.
    """

    name: str
    uuid: str
    memory_bytes: int
    vcpus: int
    disks: tuple[str, ...]
    nics: tuple[Nic, ...]
    title: str = ""
    xml: ET.Element | None = None
    config: dict[str, object] = field(default_factory=dict)
    kernel: str = ""
    initrd: str = ""
    cmdline: str = ""
    on_poweroff: str = "destroy"
    persistent: bool = True
    id: int | None = None
    state: State = "shut off"
    reason: str = "unknown"
    started_at: float = 0.0
    answers_at: float = 0.0
    boots: int = 0
    deaf: bool = False
    """It takes no notice of its power button."""
    taps: list[str] = field(default_factory=list)

    @property
    def live(self) -> bool:
        return self.id is not None


@dataclass(frozen=True, slots=True)
class DomainEvent:
    """`kind` is libvirt's event (`lifecycle`, `reboot`); `detail` its words (`Stopped Failed`)."""

    domain: str
    kind: str
    detail: str = ""


def parse_domain(text: str) -> Domain:
    """A domain from libvirt XML. Raises DomainError as virDomainDefParse does."""
    try:
        root = ET.fromstring(text)  # noqa: S314 - our own controller's text, in a simulation
    except ET.ParseError as error:
        raise DomainError(f"(domain_definition):{error.position[0]}: {error.msg}") from None
    if root.tag != "domain":
        raise DomainError(f"XML error: unexpected root element <{root.tag}>, expecting <domain>")
    name = root.findtext("name", "")
    if not name:
        raise DomainError("XML error: missing domain name information")
    memory = root.find("memory")
    if memory is None or not (memory.text or "").strip().isdigit():
        raise DomainError("XML error: missing element or attribute './memory'")
    units = {"b": 1, "bytes": 1, "KiB": 1 << 10, "k": 1 << 10, "MiB": 1 << 20, "M": 1 << 20, "GiB": 1 << 30}
    unit = units.get(memory.get("unit", "KiB"))
    if unit is None:
        raise DomainError(f"invalid argument: unknown suffix '{memory.get('unit')}'")
    disks = []
    for disk in root.iterfind("devices/disk"):
        source = disk.find("source")
        if source is not None:
            disks.append(source.get("dev") or source.get("file") or "")
    nics = []
    for interface in root.iterfind("devices/interface"):
        mac, source, target = interface.find("mac"), interface.find("source"), interface.find("target")
        nics.append(
            Nic(
                (mac.get("address", "") if mac is not None else "").lower(),
                source.get("bridge", "") if source is not None else "",
                target.get("dev", "") if target is not None else "",
            )
        )
    generated = str(uuid_module.UUID(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()))
    return Domain(
        name=name,
        uuid=root.findtext("uuid", "").strip() or generated,
        memory_bytes=int((memory.text or "0").strip()) * unit,
        vcpus=int(root.findtext("vcpu", "1")),
        disks=tuple(disks),
        nics=tuple(nics),
        title=root.findtext("title", ""),
        xml=root,
        kernel=root.findtext("os/kernel", ""),
        initrd=root.findtext("os/initrd", ""),
        cmdline=root.findtext("os/cmdline", ""),
        on_poweroff=root.findtext("on_poweroff", "destroy"),
    )


class Domains:
    """All domains of one host, and who wants to hear about them."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.by_name: dict[str, Domain] = {}
        self.listeners: list[Callable[[DomainEvent], None]] = []
        self.starts: list[Callable[[Domain], None]] = []
        self.ends: list[Callable[[Domain], None]] = []
        self._next_id = 1

    def live(self) -> list[Domain]:
        """Domains that run, by id."""
        running = [domain for domain in self.by_name.values() if domain.live]
        return sorted(running, key=lambda domain: domain.id or 0)

    def find(self, key: str) -> Domain | None:
        """By id, uuid or name, in virsh's order."""
        for domain in self.by_name.values():
            if key in (str(domain.id), domain.uuid, domain.name):
                return domain
        return None

    def emit(self, domain: Domain, detail: str, kind: str = "lifecycle") -> None:
        for listener in list(self.listeners):
            listener(DomainEvent(domain.name, kind, detail))

    def define(self, domain: Domain) -> None:
        """Add or replace a persistent definition. Raises DomainError when name and uuid disagree."""
        for other in self.by_name.values():
            if (other.uuid == domain.uuid) != (other.name == domain.name):
                raise DomainError(
                    f"operation failed: domain '{other.name}' already exists with uuid {other.uuid}"
                    if other.name == domain.name
                    else f"operation failed: domain '{other.name}' is already defined with uuid {other.uuid}"
                )
        old = self.by_name.get(domain.name)
        if old is not None:
            for field_name in ("id", "state", "reason", "started_at", "answers_at", "boots", "taps"):
                setattr(domain, field_name, getattr(old, field_name))
        self.by_name[domain.name] = domain
        self.emit(domain, "Defined Updated" if old is not None else "Defined Added")

    def undefine(self, domain: Domain) -> None:
        """Remove the definition; a running copy lives on until it stops."""
        domain.persistent = False
        if not domain.live:
            del self.by_name[domain.name]
        self.emit(domain, "Undefined Removed")

    # -- starting -----------------------------------------------------------------------------------

    def free_memory_bytes(self) -> int:
        used = sum(domain.memory_bytes for domain in self.live())
        return self._machine.memory_bytes - self._machine.reserved_bytes - used

    def volumes(self, domain: Domain) -> list[Volume]:
        """The volumes behind the domain's disks that are there now."""
        found = (self._machine.volume_at(path) for path in domain.disks)
        return [volume for volume in found if volume is not None]

    def check_start(self, domain: Domain) -> None:
        """Raise DomainError for what would keep the emulator from starting."""
        machine = self._machine
        if domain.live:
            raise DomainError("Domain is already active")
        for path in domain.disks:
            volume = machine.volume_at(path)
            if volume is None and not machine.files.exists(path):
                raise DomainError(f"Cannot access storage file '{path}': No such file or directory")
            # Xen's block script looks whether dom0 has mounted the device; QEMU opens it all the same.
            if volume is not None and volume.mounted_at and machine.hypervisor == "xen":
                raise DomainError(
                    "internal error: process exited while connecting to monitor: "
                    f"Could not open '{path}': Device or resource busy"
                )
            if volume is not None and volume.opened_by:
                raise DomainError(
                    "internal error: process exited while connecting to monitor: "
                    f'{path}: Failed to get "write" lock\nIs another process using the image [{path}]?'
                )
        for path in (domain.kernel, domain.initrd):
            if path and not machine.files.exists(path):
                raise DomainError(f"unable to stat: {path}: No such file or directory")
        for nic in domain.nics:
            link = machine.network.links.get(nic.bridge)
            if link is None:
                raise DomainError(f"Cannot get interface MTU on '{nic.bridge}': No such device")
            if link.kind != "bridge":
                raise DomainError(f"Unable to add bridge {nic.bridge} port vnet0: Operation not supported")
        if domain.memory_bytes > self.free_memory_bytes():
            raise DomainError(
                "internal error: process exited while connecting to monitor: "
                "cannot set up guest memory 'pc.ram': Cannot allocate memory"
            )

    def skip_id(self) -> int:
        """The id of a domain that was begun and given up, as Xen counts it."""
        self._next_id += 1
        return self._next_id - 1

    def start(self, domain: Domain, *, tap_prefix: str = "vnet") -> None:
        """Start it now; the guest answers after the boot time. Raises DomainError."""
        self.check_start(domain)
        network = self._machine.network
        domain.id = self._next_id
        self._next_id += 1
        domain.state, domain.reason = "running", "booted"
        self.by_name[domain.name] = domain
        for nic in domain.nics:
            wanted = nic.target if nic.target and not nic.target.startswith(("vnet", "vif")) else ""
            name = wanted if wanted and wanted not in network.links else network.free_tap(tap_prefix)
            network.add_tap(name, nic.bridge)
            domain.taps.append(name)
        for volume in self.volumes(domain):
            volume.opened_by.add(domain.name)
        domain.started_at = self._machine.timing.now()
        self._log(domain, f"Waiting for domain {domain.name} (domid {domain.id}) to die [pid 1]", append=False)
        self._boot(domain)
        self.emit(domain, "Resumed Unpaused")
        self.emit(domain, "Started Booted")
        for callback in list(self.starts):
            callback(domain)

    def _boot(self, domain: Domain) -> None:
        """The guest begins to boot: it will answer later, and it writes its journal to its disk."""
        domain.boots += 1
        domain.deaf = False
        timing = self._machine.timing
        domain.answers_at = timing.now() + timing.duration("boot")
        for volume in self.volumes(domain):
            filesystem = volume.look()
            if filesystem is not None:
                view = Files(filesystem, clock=timing.wall)
                hook, filesystem.on_write = filesystem.on_write, None  # the guest's own writes are its right
                try:
                    view.mkdir("/var/log", parents=True)
                    view.write("/var/log/boots", b"boot\n", append=True)
                except OSError:
                    domain.answers_at = float("inf")  # a full disk keeps a guest from coming up
                finally:
                    filesystem.on_write = hook
            volume.ever_booted = True

    # -- stopping -----------------------------------------------------------------------------------

    def _log(self, domain: Domain, *lines: str, append: bool = True) -> None:
        """What the `xl` that watches over a domain writes: a new log with each start of one."""
        if self._machine.hypervisor == "xen":
            text = "".join(f"{line}\n" for line in lines)
            with contextlib.suppress(OSError):  # no room: it goes on without a log
                self._machine.files.mkdir("/var/log/xen", parents=True)
                self._machine.files.write(f"/var/log/xen/xl-{domain.name}.log", text.encode(), append=append)

    def _ended(self, domain: Domain, reason: str) -> None:
        code = {"shutdown": 0, "crashed": 3}.get(reason)
        if reason == "destroyed":
            self._log(domain, f"Domain {domain.id} has been destroyed.")
        elif code is not None:
            self._log(
                domain,
                f"Domain {domain.id} has shut down, reason code {code} 0x{code:x}",
                f"Action for shutdown reason code {code} is destroy",
                f"Domain {domain.id} needs to be cleaned up: destroying the domain",
                "Done. Exiting now",
            )
        domain.id = None
        domain.state, domain.reason = "shut off", reason
        for tap in domain.taps:
            self._machine.network.links.pop(tap, None)
        domain.taps.clear()
        for volume in self._machine.all_volumes():
            volume.opened_by.discard(domain.name)
        if not domain.persistent:
            self.by_name.pop(domain.name, None)
        for callback in list(self.ends):
            callback(domain)

    def destroy(self, domain: Domain) -> None:
        """Pull the plug (virsh destroy)."""
        self._ended(domain, "destroyed")
        self.emit(domain, "Shutdown Finished after host request")
        self.emit(domain, "Stopped Destroyed")

    def kill(self, domain: Domain) -> None:
        """The emulator dies."""
        self._ended(domain, "crashed")
        self.emit(domain, "Stopped Failed")

    def panic(self, domain: Domain) -> None:
        """The guest's kernel panics, with a pvpanic device."""
        self._ended(domain, "crashed")
        self.emit(domain, "Crashed Panicked")
        self.emit(domain, "Stopped Crashed")

    def powered_off(self, domain: Domain) -> None:
        """The guest switched itself off."""
        self._ended(domain, "shutdown")
        self.emit(domain, "Shutdown Finished after guest request")
        self.emit(domain, "Stopped Shutdown")

    def request_shutdown(self, domain: Domain) -> asyncio.Task[None]:
        """Ask the guest to switch itself off (ACPI); it takes the shutdown time, and ends a boot first."""
        began = domain.id
        timing = self._machine.timing

        async def finish() -> None:
            await timing.spend("shutdown")
            if domain.live and domain.id == began and not domain.deaf:
                self.powered_off(domain)

        return self._machine.background(finish())

    def restart_guest(self, domain: Domain) -> None:
        """A reboot from inside, or a reset: the same copy boots again."""
        self._log(
            domain,
            f"Domain {domain.id} has shut down, reason code 1 0x1",
            "Action for shutdown reason code 1 is restart",
        )
        self._boot(domain)
        self.emit(domain, "", kind="reboot")

    def forget_running(self) -> None:
        """The host lost power: every copy is gone, nobody is told, definitions stay on disk."""
        for domain in list(self.by_name.values()):
            if domain.live:
                self._ended(domain, "unknown")
            domain.reason = "unknown"
        self._next_id = 1

    # -- answering ----------------------------------------------------------------------------------

    def answers(self, address: str) -> bool:
        """Whether a guest on this host answers at `address`: it runs, has booted, has the address on a
        known interface, and the bridge of that interface is up here."""
        now = self._machine.timing.now()
        for domain in self.live():
            if domain.state != "running" or now < domain.answers_at:
                continue
            for mac, configured in self._addresses(domain):
                if configured != address:
                    continue
                for nic in domain.nics:
                    bridge = self._machine.network.links.get(nic.bridge)
                    if nic.mac == mac and bridge is not None and bridge.up:
                        return True
        return False

    def _addresses(self, domain: Domain) -> list[tuple[str, str]]:
        """(MAC, address) pairs in the guest's systemd-networkd files."""
        pairs = []
        for volume in self.volumes(domain)[:1]:
            filesystem = volume.look()
            if filesystem is None:
                continue
            view = Files(filesystem, clock=self._machine.timing.wall)
            view.mounts = [Mount("/", filesystem, volume.path)]
            names = view.listdir(NETWORK_UNITS) if view.is_dir(NETWORK_UNITS) else []
            for name in names:
                node = view.node(f"{NETWORK_UNITS}/{name}")
                if name.endswith(".network") and isinstance(node, File):
                    pairs += _unit_addresses(node.content().decode("utf-8", "replace"))
        return pairs


def _unit_addresses(text: str) -> list[tuple[str, str]]:
    """(MAC, address) pairs of one unit; Address= may stand many times."""
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    try:
        parser.read_string(text)
    except configparser.Error:
        return []
    mac = ""
    addresses = []
    for line in text.splitlines():
        key, _, value = line.strip().partition("=")
        if key.strip() in ("MACAddress", "PermanentMACAddress") and not mac:
            mac = value.strip().lower()
        elif key.strip() == "Address":
            addresses.append(value.strip().split("/")[0])
    return [(mac, address) for address in addresses]
