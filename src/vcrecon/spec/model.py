"""The spec as the rest of vcrecon sees it: expanded, validated, frozen.

Built by `spec.load`; read by `core` and `host`. Sizes are bytes, times are seconds. Two equal specs
compare equal and have the same `digest`, whatever their YAML looked like.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

_T = TypeVar("_T")

HypervisorName = Literal["kvm", "xen"]
PowerKind = Literal["redfish", "ipmi", "manual"]
BootMode = Literal["off", "managed", "external"]
Role = Literal["head", "node", "single"]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file fetched over HTTP; never used before its SHA-256 matches (S11)."""

    url: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Image:
    """A guest image: a root file system as a tar archive (plain, .gz, .xz or .zst), with its kernel.

    `disk_bytes` is the size of the golden volume, the smallest disk a guest of this image can have.
    """

    name: str
    root: Artifact
    disk_bytes: int
    kernel: Artifact | None = None
    initrd: Artifact | None = None
    cmdline: str = "root=/dev/vda rw console=ttyS0"


@dataclass(frozen=True, slots=True)
class System:
    """A system image of containers: the root file system, kernel and boot files included, as a tar archive."""

    name: str
    root: Artifact
    hypervisor: HypervisorName
    cmdline: str = "console=tty0 console=ttyS0,115200"


@dataclass(frozen=True, slots=True)
class Build:
    """What an image is built from: `vcrecon image build KIND NAME --specs …`. `hypervisor` counts for containers.

    `packages` come beside those that every image of its kind has, out of the archive's `components`.
    """

    name: str
    kind: Literal["container", "guest", "installer"]
    hypervisor: HypervisorName = "kvm"
    suite: str = "bookworm"
    components: tuple[str, ...] = ("main",)
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Interface:
    """One network interface of a guest. `address` is in CIDR form (`10.1.0.11/24`), or None for none."""

    mac: str
    vlan: int
    network: str
    address: str | None = None
    gateway: str | None = None


@dataclass(frozen=True, slots=True)
class Hook:
    """A script of the site's own that finishes a guest's file system; see docs/hooks.md.

    `name` is its path below the spec directory. `interpreter` is what its first line says, /bin/sh without one.
    The content may hold secrets (S10): it is neither shown nor compared, its `sha256` stands for it.
    """

    name: str
    interpreter: tuple[str, ...]
    sha256: str
    content: bytes = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Guest:
    """One virtual machine. `root_password` is a file that holds a crypt(3) hash; never the hash itself (S10)."""

    name: str
    role: Role
    cluster: str | None
    image: str
    memory_bytes: int
    cores: int
    disk_bytes: int
    root_password: Path
    interfaces: tuple[Interface, ...]
    authorized_keys: tuple[str, ...] = ()
    storage: Literal["thin", "thick"] = "thin"
    on_poweroff: Literal["restart", "honour"] = "restart"
    pinned: str | None = None
    hooks: tuple[Hook, ...] = ()


@dataclass(frozen=True, slots=True)
class AllowRule:
    """What guests of a network with a gateway may reach beyond it. Empty `tcp` and `udp` mean every port."""

    to: str
    tcp: tuple[int, ...] = ()
    udp: tuple[int, ...] = ()
    roles: tuple[Role, ...] = ("head", "single")


@dataclass(frozen=True, slots=True)
class Network:
    """A VLAN with its subnet (CIDR). A cluster's private network has no gateway and allows nothing out."""

    name: str
    vlan: int
    subnet: str
    cluster: str | None = None
    gateway: str | None = None
    allow: tuple[AllowRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Cluster:
    """One head, its compute nodes and their private network. `guests` are names, the head first."""

    name: str
    network: str
    guests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DiskMatch:
    """Which disks an install may use: all that is given must fit. Models and serials are shell patterns."""

    model: str = "*"
    serial: str = "*"
    min_bytes: int = 0
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class DiskLayout:
    """How an install uses a machine's disks. Without `match` every disk that is healthy and large enough may be used.

    `raid` "auto" mirrors the system and the volume group over two like disks where there are two, "mirror"
    insists on it, "single" takes the best one. `root_bytes` is the size of the system's own volume; the rest of
    the volume group, less a tenth, becomes the thin pool.
    """

    match: tuple[DiskMatch, ...] = ()
    raid: Literal["auto", "mirror", "single"] = "auto"
    root_bytes: int = 8 << 30
    swap_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Power:
    """How a container is switched on and off. `credentials` is a file with `user:password`; never the secret itself.

    `address` is the URL of the Redfish service (with the system's path where it has several), or the host that
    speaks IPMI. `ca` is the certificate that a Redfish service is trusted by; without it the system's own.
    """

    kind: PowerKind
    address: str = ""
    credentials: Path | None = None
    ca: Path | None = None


@dataclass(frozen=True, slots=True)
class Container:
    """A physical host that holds guests. `generation` is the system image generation it should run.

    With `mac` (of the interface on the provisioning network) and `system` vcrecon can install it.
    """

    name: str
    address: str
    port: int
    hypervisor: HypervisorName
    memory_bytes: int
    cores: int
    disk_bytes: int
    trunk: str
    volume_group: str
    pool: str
    generation: str
    mac: str | None = None
    system: str | None = None
    layout: DiskLayout = field(default_factory=DiskLayout)
    power: Power = field(default_factory=lambda: Power("manual"))


@dataclass(frozen=True, slots=True)
class Service:
    """A service that every guest reaches through its own container under one masqueraded address.

    `address` is the same on every container and never crosses a trunk; `to` is `host:port` as the
    container reaches it.
    """

    name: str
    address: str
    port: int
    to: str


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may happen at once, site-wide unless said otherwise."""

    installs: int = 16
    image_transfers: int = 16
    moves: int = 4
    starts_per_container: int = 1
    disruption_fraction: float = 0.2
    disruption_min: int = 2


@dataclass(frozen=True, slots=True)
class Ssh:
    """How containers are reached. `known_hosts` pins every host key (S9)."""

    user: str
    key: Path
    known_hosts: Path


@dataclass(frozen=True, slots=True)
class Provisioning:
    """The network that containers boot from and are reached on.

    `mode` "managed": vcrecon runs DHCP, TFTP and HTTP for it on `interface` of the master, whose own address there
    is `address`; "external": the site has its own DHCP, vcrecon serves HTTP only; "off": containers are installed by
    hand. `strangers` is the range of addresses for machines that no container has the MAC of. `images` is the
    directory of files that are served over HTTP on `port`. With `nginx_port` nginx serves there, and vcrecon listens
    behind it on that port of loopback. `kernel_args` are further words for the installer's kernel.
    """

    network: str
    mode: BootMode = "off"
    interface: str = ""
    address: str = ""
    port: int = 8067
    gateway: str | None = None
    dns: tuple[str, ...] = ()
    strangers: tuple[str, str] | None = None
    images: Path = Path("/var/lib/vcrecon/images")
    install_deadline_s: float = 1800.0
    root_password: Path | None = None
    kernel_args: str = ""
    nginx_port: int | None = None


@dataclass(frozen=True, slots=True)
class Site:
    name: str
    session: Literal["preparing", "running"]
    ssh: Ssh
    services: tuple[Service, ...] = ()
    limits: Limits = field(default_factory=Limits)
    stop_grace_s: float = 60.0
    boot_deadline_s: float = 300.0
    hook_deadline_s: float = 60.0
    provisioning: Provisioning = field(default_factory=lambda: Provisioning("192.0.2.0/24"))


@dataclass(frozen=True)
class Spec:
    """One generation of all spec files together.

    `deployment` maps every container to the guests that belong on it; a guest is on exactly one.
    `digest` is the SHA-256 of the expanded content.
    """

    site: Site
    images: Mapping[str, Image]
    containers: Mapping[str, Container]
    networks: Mapping[str, Network]
    clusters: Mapping[str, Cluster]
    guests: Mapping[str, Guest]
    deployment: Mapping[str, tuple[str, ...]]
    cordoned: frozenset[str]
    digest: str
    systems: Mapping[str, System] = field(default_factory=dict)
    builds: Mapping[str, Build] = field(default_factory=dict, compare=False)
    """By name. No part of what the site should be: neither compared nor in the digest."""

    @cached_property
    def placement(self) -> Mapping[str, str]:
        """Guest name to container name, the inverse of `deployment`."""
        return {guest: container for container, guests in self.deployment.items() for guest in guests}

    @cached_property
    def networks_by_vlan(self) -> Mapping[int, Network]:
        return {network.vlan: network for network in self.networks.values()}

    def sharing(self, old: Spec) -> Spec:
        """This spec with the very objects of `old` wherever they are equal: comparing the two is then cheap."""
        return replace(
            self,
            images=_shared(old.images, self.images),
            containers=_shared(old.containers, self.containers),
            networks=_shared(old.networks, self.networks),
            clusters=_shared(old.clusters, self.clusters),
            guests=_shared(old.guests, self.guests),
            deployment=_shared(old.deployment, self.deployment),
        )

    def guests_on(self, container: str) -> tuple[Guest, ...]:
        """The guests that belong on `container`, in the order of the deployment file."""
        return tuple(self.guests[name] for name in self.deployment.get(container, ()))


def _shared(old: Mapping[str, _T], new: Mapping[str, _T]) -> dict[str, _T]:
    kept = {}
    for name, value in new.items():
        before = old.get(name)
        kept[name] = before if before is not None and before == value else value
    return kept
