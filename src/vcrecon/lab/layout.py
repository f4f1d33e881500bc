"""Names, addresses and files of a lab. Read by every module of the package.

    this machine  198.18.0.1 ──veth──┐
    images        198.18.0.2 ────────┤ vcprov: the provisioning network
    mirror        198.18.0.3 ──veth──┤
    c01, c02, …   198.18.0.11 … eth0 ┘       (spare machines have the addresses behind them once they are installed)
                                eth1 ─ vctrunk: carries the VLANs ─ VLAN 900 ─ outside  10.200.0.1, 192.0.2.10

Both bridges are in the namespace `vclab`, with every machine; the mirror and the outside world have their own.
198.18.0.0/15 is set aside for tests of network devices (RFC 2544), 192.0.2.0/24 for examples (RFC 5737).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Accel = Literal["auto", "kvm", "tcg"]
"""Whether QEMU uses this machine's /dev/kvm; `auto` tries it."""

LAB_DIR = Path("/var/lib/vcrecon-lab")
CACHE_DIR = Path("/var/cache/vcrecon-lab")

NAMESPACE = "vclab"
MIRROR_NAMESPACE = "vclab-mirror"
OUTSIDE_NAMESPACE = "vclab-outside"
NAMESPACES = (NAMESPACE, MIRROR_NAMESPACE, OUTSIDE_NAMESPACE)

PROVISIONING = "198.18.0.0/24"
THIS_MACHINE = "198.18.0.1"
IMAGES = "198.18.0.2"
MIRROR = "198.18.0.3"
FIRST_CONTAINER = 11
CONTAINERS_MAX = 200

IMAGES_PORT = 8080
MIRROR_PORT = 80
HANDOUT_PORT = 8000

PROVISIONING_BRIDGE = "vcprov"
TRUNK_BRIDGE = "vctrunk"
VETH = "vclab0"
"""This machine's own end of the cable into the lab; the one thing outside the namespaces."""

STRANGERS = ("198.18.0.220", "198.18.0.239")
"""DHCP's addresses for machines that the spec does not know: the spares, before they are adopted."""

BOOT_PORT = 8067
"""Where vcrecon's own boot server is on this machine's address."""

OUTSIDE_VLAN = 900
OUTSIDE_LINK = "outside0"
OUTSIDE_GATEWAY = "10.200.0.1/24"
OUTSIDE_HOST = "192.0.2.10"
OUTSIDE_PORTS = (80, 8080)
"""The outside world answers on both; the lab's spec lets heads reach the first only."""


Firmware = Literal["bios", "uefi"]


@dataclass(frozen=True, slots=True)
class Cabled:
    """A virtual machine with its two cables."""

    name: str
    number: int

    @property
    def address(self) -> str:
        return f"198.18.0.{FIRST_CONTAINER + self.number}"

    @property
    def provisioning_mac(self) -> str:
        return f"52:54:00:1a:00:{self.number:02x}"

    @property
    def trunk_mac(self) -> str:
        return f"52:54:00:1a:01:{self.number:02x}"

    @property
    def provisioning_tap(self) -> str:
        return f"vcp{self.number}"

    @property
    def trunk_tap(self) -> str:
        return f"vct{self.number}"


@dataclass(frozen=True, slots=True)
class MachinePlan(Cabled):
    """One virtual machine that is a container."""

    hypervisor: str
    memory_mib: int
    disk_bytes: int
    volume_group: str
    pool: str


@dataclass(frozen=True, slots=True)
class SparePlan(Cabled):
    """One virtual machine with nothing on its disks, switched off, and unknown to the spec until it is adopted."""

    disks: int
    firmware: Firmware = "bios"
    memory_mib: int = 2048
    disk_bytes: int = 12 * 1024**3


@dataclass(frozen=True, slots=True)
class Files:
    """Where a lab keeps what it makes."""

    root: Path = LAB_DIR

    @property
    def plan(self) -> Path:
        """What was laid out; there while a lab is."""
        return self.root / "lab.json"

    @property
    def specs(self) -> Path:
        return self.root / "specs"

    @property
    def key(self) -> Path:
        """The SSH key that containers and guests let in."""
        return self.root / "specs" / "client_key"

    @property
    def known_hosts(self) -> Path:
        return self.root / "specs" / "known_hosts"

    @property
    def www(self) -> Path:
        """What the image server serves."""
        return self.root / "www"

    @property
    def boot(self) -> Path:
        """What vcrecon's boot server serves: the installer and the system image."""
        return self.root / "boot"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def machine(self, name: str) -> Path:
        return self.root / "machines" / name

    def serial(self, name: str) -> Path:
        """What a container says on its serial console."""
        return self.machine(name) / "serial.log"

    def monitor(self, name: str) -> Path:
        """QEMU's control socket (QMP) of a container."""
        return self.machine(name) / "qmp.sock"
