"""What a look at a container showed, as frozen facts. Made by `host.look`, read by `classify` and `plan`.

UNKNOWN marks a fact that could not be learned. It is not absence: nothing destructive and nothing that
needs the fact is planned on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Literal


class Unknown(Enum):
    """The type of UNKNOWN."""

    UNKNOWN = auto()


UNKNOWN: Final = Unknown.UNKNOWN


class Part(Enum):
    """A part of a look. Parts cost the host differently, so they are looked at as often as they change."""

    SYSTEM = "system"
    STORAGE = "storage"
    NETWORK = "network"
    GUESTS = "guests"
    ANSWERS = "answers"


ALL_PARTS: Final = frozenset(Part)


@dataclass(frozen=True, slots=True)
class Volume:
    """A logical volume that carries our mark for a guest; its LVM tags are the witnesses.

    `epoch` numbers the guest's disks over time, the highest is the live one. `boots` counts how often this
    disk was handed to a running guest: two copies with the same epoch and boots hold the same data.
    `quarantined` is why the disk was put aside, or None. `copy_of` is set on an incoming copy once its
    SHA-256 was proved equal to the source's: the source's (epoch, boots).
    """

    name: str
    guest: str
    epoch: int
    size_bytes: int
    used_bytes: int = 0
    image: str = ""
    context: str = ""
    boots: int = 0
    touched: bool = False
    incoming: bool = False
    copy_of: tuple[int, int] | None = None
    held: bool = False
    quarantined: str | None = None

    @property
    def live(self) -> bool:
        """Whether this disk may be booted: complete and not put aside."""
        return not self.incoming and self.quarantined is None


DomainState = Literal["running", "paused", "stopping", "off"]


@dataclass(frozen=True, slots=True)
class Domain:
    """A virtual machine that carries our mark, as the hypervisor lists it.

    `serial` differs for each start. `reason` is why it is off ("shutdown", "crashed", "destroyed", …).
    """

    guest: str
    state: DomainState
    serial: str = ""
    reason: str = ""
    definition: str = ""

    @property
    def active(self) -> bool:
        """Whether it uses its disk."""
        return self.state != "off"


@dataclass(frozen=True, slots=True)
class Storage:
    """The volume group and thin pool. Sizes in bytes, fill in percent; `pool_bytes` is 0 without a pool."""

    group_present: bool
    group_free_bytes: int = 0
    pool_bytes: int = 0
    pool_data_percent: float = 0.0
    pool_metadata_percent: float = 0.0
    goldens: frozenset[str] = frozenset()
    volumes: tuple[Volume, ...] = ()
    strangers: frozenset[str] = frozenset()
    """Volumes that are named like ours and do not carry our mark."""

    @property
    def pool_free_bytes(self) -> int:
        return int(self.pool_bytes * (100.0 - self.pool_data_percent) / 100.0)


@dataclass(frozen=True, slots=True)
class Bridge:
    """A VLAN's bridge that carries our mark, with what hangs on it."""

    vlan: int
    up: bool
    trunked: bool
    addresses: frozenset[str] = frozenset()
    routes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """`firewall` is the digest of the rules' inputs, "" when the loaded rules are not what was applied.

    `loose` names guests' ports (taps) that hang on no bridge.
    """

    bridges: Mapping[int, Bridge]
    firewall: str
    loose: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FoundLease:
    """A lease that lay on a container before a look, void or not: written `age_s` seconds ago, by us or another."""

    age_s: int
    ours: bool


@dataclass(frozen=True, slots=True)
class Lease:
    """Which master looks after a container, `age_s` seconds after it last said so; `ours` is whether it is this one.

    `found` is what lay there before this look, which may have taken the container; None when nothing did.
    """

    master: str
    generation: int
    age_s: int
    title: str
    ours: bool
    found: FoundLease | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A container that answered. `release` is None when it has no /etc/vcrecon/release."""

    container: str
    at_s: float
    boot_id: str
    release: Mapping[str, str] | Unknown | None = UNKNOWN
    memory_bytes: int = 0
    images: frozenset[str] = frozenset()
    storage: Storage | Unknown = UNKNOWN
    network: NetworkFacts | Unknown = UNKNOWN
    domains: tuple[Domain, ...] | Unknown = UNKNOWN
    answers: frozenset[str] = frozenset()
    trouble: Mapping[str, str] | None = None
    missing: Mapping[str, str] | None = None
    """Parts that could not be looked at because the host lacks a program: which."""
    strangers: frozenset[str] = frozenset()
    """Names of virtual machines that do not carry our mark."""
    lease: Lease | Unknown | None = None
    """None when it was not asked for, as by `vcrecon plan`."""


@dataclass(frozen=True, slots=True)
class Unseen:
    """A container that did not answer; says nothing about what runs there. `kind` is the error's kind."""

    container: str
    at_s: float
    kind: str
    reason: str


Observation = Seen | Unseen
