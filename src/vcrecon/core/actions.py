"""What vcrecon can do to a container or guest, as frozen values. Planned by `plan`, carried out by `shell.act`.

`kind` is the action's name in plans, metrics and events, and the trigger of the edge it serves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from vcrecon.core.observation import ALL_PARTS, Part
from vcrecon.core.proof import NotElsewhere, StoppedElsewhere


@dataclass(frozen=True, slots=True)
class Action:
    """Base. `container` is where the commands run; `reason` says in plain words why now."""

    kind: ClassVar[str] = ""
    disturbs: ClassVar[bool] = False
    """Whether a running guest notices."""
    changes: ClassVar[frozenset[Part]] = frozenset({Part.STORAGE, Part.GUESTS})
    """What must be looked at again after it."""

    container: str
    reason: str

    @property
    def subject(self) -> str:
        """The object it acts on: one action at a time on each."""
        return f"container/{self.container}"

    @property
    def places(self) -> frozenset[str]:
        """The containers that it works on."""
        return frozenset({self.container})


@dataclass(frozen=True, slots=True)
class SetUpNetwork(Action):
    """Firewall first, then the VLANs, bridges, service addresses and routes that differ."""

    kind: ClassVar[str] = "set-up-network"
    changes: ClassVar[frozenset[Part]] = frozenset({Part.NETWORK})
    vlans: tuple[int, ...] = ()
    leftovers: tuple[int, ...] = ()


Rouse = Literal["follow", "switch-on", "power-cycle", "reboot"]
"""How a machine is brought to boot from the network: it does so by itself, or its switch or SSH makes it."""


@dataclass(frozen=True, slots=True)
class Install(Action):
    """Open a ticket, bring the machine to boot the installer, and wait until the installer has ended.

    With `wipe` a person gave up what is on its disks. `resumed`: its ticket is open already.
    """

    kind: ClassVar[str] = "install"
    disturbs: ClassVar[bool] = True
    changes: ClassVar[frozenset[Part]] = ALL_PARTS
    system: str = ""
    mac: str = ""
    wipe: bool = False
    rouse: Rouse = "follow"
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class FetchImage(Action):
    """Download an image, prove its SHA-256, unpack it into a golden volume.

    With `boot_only` no more than its kernel and initrd: all that a guest needs that brought its disk along.
    """

    kind: ClassVar[str] = "fetch-image"
    changes: ClassVar[frozenset[Part]] = frozenset({Part.STORAGE, Part.SYSTEM})
    image: str = ""
    boot_only: bool = False

    @property
    def subject(self) -> str:
        return f"image/{self.container}/{self.image}"


@dataclass(frozen=True, slots=True)
class GuestAction(Action):
    """An action on one guest."""

    guest: str = ""

    @property
    def subject(self) -> str:
        return f"guest/{self.guest}"


@dataclass(frozen=True, slots=True)
class BeginsCopy(GuestAction):
    """An action after which a live copy of the guest is here. It cannot be made without the proof for elsewhere (S1).

    Raises ValueError for a proof of another guest, or for another container. Two actions that do the same are equal
    whatever was seen at which time.
    """

    elsewhere: StoppedElsewhere | NotElsewhere = field(kw_only=True, compare=False)

    def __post_init__(self) -> None:
        proved = (self.elsewhere.guest, self.elsewhere.container)
        if proved != (self.guest, self.container):
            raise ValueError(f"{self.kind} of {self.guest} on {self.container}: the proof is of {proved}")


@dataclass(frozen=True, slots=True)
class CreateVolume(BeginsCopy):
    """A new disk from the golden volume (thin) or the image file (thick)."""

    kind: ClassVar[str] = "create-volume"
    epoch: int = 1


@dataclass(frozen=True, slots=True)
class Contextualize(GuestAction):
    """Write identity, network, hosts file, keys and password into the guest's file system."""

    kind: ClassVar[str] = "contextualize"
    volume: str = ""


@dataclass(frozen=True, slots=True)
class StartGuest(BeginsCopy):
    """Define and boot. The disk is marked first: `boots` is the count after this start."""

    kind: ClassVar[str] = "start-guest"
    elsewhere: NotElsewhere = field(kw_only=True, compare=False)
    volume: str = ""
    epoch: int = 1
    boots: int = 1
    touched: bool = False


@dataclass(frozen=True, slots=True)
class StopGuest(GuestAction):
    """Ask the guest to power off; `force` pulls the plug. With `urgent` a person waits at the keyboard."""

    kind: ClassVar[str] = "stop-guest"
    disturbs: ClassVar[bool] = True
    force: bool = False
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class CopyDisk(GuestAction):
    """Stream the disk from `source` into an incoming volume and prove both SHA-256 equal."""

    kind: ClassVar[str] = "copy-disk"
    source: str = ""
    source_volume: str = ""
    size_bytes: int = 0
    epoch: int = 1
    boots: int = 0
    touched: bool = False
    image: str = ""
    context: str = ""

    @property
    def places(self) -> frozenset[str]:
        return frozenset({self.container, self.source})


@dataclass(frozen=True, slots=True)
class ActivateCopy(BeginsCopy):
    """Make a proved incoming copy the live disk, one epoch after the one it was copied from."""

    kind: ClassVar[str] = "activate-copy"
    volume: str = ""
    epoch: int = 1
    touched: bool = False


@dataclass(frozen=True, slots=True)
class MarkTouched(GuestAction):
    """The class has begun: from now on this disk holds student work (S2)."""

    kind: ClassVar[str] = "mark-touched"
    volume: str = ""


@dataclass(frozen=True, slots=True)
class Quarantine(GuestAction):
    """Put a stopped guest's disk aside: kept, never booted."""

    kind: ClassVar[str] = "quarantine"
    volume: str = ""
    epoch: int = 1
    why: str = ""


@dataclass(frozen=True, slots=True)
class Restore(BeginsCopy):
    """Take a quarantined disk back into use: the guest came back into the spec."""

    kind: ClassVar[str] = "restore"
    volume: str = ""
    epoch: int = 1
    touched: bool = False


@dataclass(frozen=True, slots=True)
class Hold(GuestAction):
    """Mark a stopped guest's disk as in a person's hands, and mount it on the container (rescue).

    `boots` is the count after it: what a person changes makes a copy outdated as a boot does.
    """

    kind: ClassVar[str] = "hold"
    volume: str = ""
    boots: int = 1


@dataclass(frozen=True, slots=True)
class Release(GuestAction):
    """Unmount a held disk and hand it back to the rules."""

    kind: ClassVar[str] = "release"
    volume: str = ""


@dataclass(frozen=True, slots=True)
class Discard(GuestAction):
    """Remove a volume that holds no student's work: an unfinished copy, or a disk that was never touched."""

    kind: ClassVar[str] = "discard"
    volume: str = ""


@dataclass(frozen=True, slots=True)
class Prune(GuestAction):
    """Remove a quarantined disk that a person named."""

    kind: ClassVar[str] = "prune"
    volume: str = ""
    epoch: int = 1


ACTIONS: tuple[type[Action], ...] = (
    SetUpNetwork,
    Install,
    FetchImage,
    CreateVolume,
    Contextualize,
    StartGuest,
    StopGuest,
    CopyDisk,
    ActivateCopy,
    MarkTouched,
    Quarantine,
    Restore,
    Hold,
    Release,
    Discard,
    Prune,
)
