"""Installs of containers as values: tickets, progress, what a machine asked for, and what it is answered. Pure.

A *ticket* is the plan's word that one machine is installed anew, once. Only a ticket makes the boot server hand a
machine an installer and a token; a machine without one is sent to its own disk (S2). Tickets are part of the
record (`Memory.tickets`), so a controller that is killed in the middle goes on with the same one (S7). Progress and
netboots are what machines say by themselves: they are kept in memory only, and said again within seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

TicketState = Literal["open", "claimed", "installed"]
PowerState = Literal["on", "off", "unknown"]


@dataclass(frozen=True, slots=True)
class Ticket:
    """Leave to install one container, bound to the MAC of its provisioning interface. Times are Unix seconds.

    `wipe`: a person consented that what is on its disks is lost; without it the installer stops at the first
    signature it finds. `nonce` makes token and host key of this install different from any other's; both are derived
    from it and the site's secret, and never stored. A token is spent by `claimed`. At `expires_at_s` the install
    has failed. An "installed" ticket, of which the installer said that all is done, stays until SSH shows the pinned
    key: from `expires_at_s` on the machine is one that does not answer. `cycled`: its machine was switched off and on
    because an earlier ticket passed its deadline, which is done once.
    """

    container: str
    mac: str
    system: str
    wipe: bool
    nonce: str
    opened_at_s: float
    expires_at_s: float
    state: TicketState = "open"
    cycled: bool = False


@dataclass(frozen=True, slots=True)
class Netboot:
    """A machine asked what to boot. `address` is where the request came from."""

    mac: str
    at_s: float
    address: str
    platform: str = ""
    uuid: str = ""
    serial: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """What an installer said last. `bytes_total` is 0 while there is nothing to count."""

    container: str
    step: str
    at_s: float
    began_at_s: float
    percent: float = 0.0
    bytes_done: int = 0
    bytes_total: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a ticket: `error` is the reason of a failure (a short code) or "" when the machine is installed."""

    container: str
    nonce: str
    at_s: float
    error: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class BootFacts:
    """What machines and their switches said lately: netboots by MAC, progress and power by container."""

    netboots: Mapping[str, Netboot] = field(default_factory=dict)
    progress: Mapping[str, Progress] = field(default_factory=dict)
    power: Mapping[str, PowerState] = field(default_factory=dict)


_BEFORE_WIPED = frozenset({"started", "disks", "partition"})
"""Steps of an installer in which its disks may still hold what they held."""


def progress_of(ticket: Ticket, boot: BootFacts) -> Progress | None:
    """What the installer of this ticket said last; None when that was another install's."""
    found = boot.progress.get(ticket.container)
    return found if found is not None and found.at_s >= ticket.opened_at_s else None


def wiped_at_s(ticket: Ticket | None, boot: BootFacts) -> float | None:
    """When an installer of ours last said that it is past the step after which nothing old is on the disks, or None.

    Until it ends it can run no guest, and afterwards it has none (S1). Being asked what to boot proves nothing: a
    machine that was sent to its disk may hold guests.
    """
    if ticket is None or ticket.state != "claimed":
        return None
    progress = progress_of(ticket, boot)
    return progress.at_s if progress is not None and progress.step not in _BEFORE_WIPED else None


@dataclass(frozen=True, slots=True)
class LocalBoot:
    """Boot your own disk; `reason` is shown on the machine's console."""

    reason: str


@dataclass(frozen=True, slots=True)
class WaitInLine:
    """Ask again in a few seconds; `message` is shown on the machine's console."""

    message: str
    seconds: int = 5


@dataclass(frozen=True, slots=True)
class RunInstaller:
    """Boot the installer with this token."""

    ticket: Ticket


BootAnswer = LocalBoot | WaitInLine | RunInstaller
