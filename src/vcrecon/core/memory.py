"""What vcrecon remembers because no host can tell: claims, consents, fences, attempts, intents, pauses, rescues.

Read by the planner, kept on disk by `shell.record`. Deleting all of it must cause no restart and no
reinstall (design, section 4); what it adds is caution (S1, S2) and patience (S8). Times are Unix seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vcrecon.core.installs import Ticket

SURVEY = "site"
"""The subject of the intent that lasts until a record that begins anew knows what the hosts hold."""

ConsentKind = Literal["rebuild", "prune", "reinstall"]


@dataclass(frozen=True, slots=True)
class Claim:
    """The container that holds the live copy of a guest, written before the act that makes it so.

    `epoch` grows by one each time the guest gets a new disk (made, moved or rebuilt); `touched` says that
    this disk may hold a student's work.
    """

    guest: str
    container: str
    epoch: int
    touched: bool


@dataclass(frozen=True, slots=True)
class Consent:
    """A person's word that the disk `epoch` of `subject` may be given up. Spent by the next epoch."""

    kind: ConsentKind
    subject: str
    epoch: int
    given_at_s: float


@dataclass(frozen=True, slots=True)
class Attempts:
    """Failures in a row of one object ("container/c01", "guest/a-head"), and when to try again."""

    count: int
    retry_at_s: float
    error: str
    message: str


@dataclass(frozen=True, slots=True)
class Intent:
    """An act begun on an object; written before the first command is sent (S7)."""

    subject: str
    action: str
    since_s: float


@dataclass(frozen=True, slots=True)
class Fence:
    """Somebody's word, or a power controller's, that a container is off. Void once the container is seen."""

    container: str
    at_s: float
    by: str
    how: Literal["word", "power"] = "word"


@dataclass(frozen=True, slots=True)
class LastState:
    """The state an object was last seen in, and since when: the base of Stay, Step or Jump."""

    subject: str
    state: str
    since_s: float


@dataclass(frozen=True, slots=True)
class Rescue:
    """A person's wish to work on a guest's disk, or to give it back. That the disk is held, its own tag says.

    `done` once the guest was held; a wish to give it back is forgotten when it is done.
    """

    guest: str
    wish: Literal["hold", "release"]
    asked_at_s: float
    by: str
    done: bool = False


@dataclass(slots=True)
class Memory:
    """All of it, by key. `claims_complete` is false when hosts may have held guests before this record began.

    `held_digest` is of the spec that was last held back (S3), `confirmed_digest` of the one that a person let go ahead.
    `shown` says when a container first showed both its disks and its guests to this record. One that is not in it may
    hold what no claim tells of, unless the claims are complete. `unshown` has those of which this record heard while
    they were not, by when it heard of them: also when they leave the spec.
    """

    claims: dict[str, Claim] = field(default_factory=dict)
    consents: dict[tuple[str, str], Consent] = field(default_factory=dict)
    attempts: dict[str, Attempts] = field(default_factory=dict)
    intents: dict[str, Intent] = field(default_factory=dict)
    fences: dict[str, Fence] = field(default_factory=dict)
    states: dict[str, LastState] = field(default_factory=dict)
    paused: dict[str, float] = field(default_factory=dict)
    rescues: dict[str, Rescue] = field(default_factory=dict)
    tickets: dict[str, Ticket] = field(default_factory=dict)
    answered: dict[str, str] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)
    shown: dict[str, float] = field(default_factory=dict)
    unshown: dict[str, float] = field(default_factory=dict)
    confirmed_digest: str | None = None
    held_digest: str | None = None
    claims_complete: bool = True
