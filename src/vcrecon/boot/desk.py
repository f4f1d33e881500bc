"""Where controller and boot server meet: open tickets in, what machines said out.

`controller` opens and closes tickets and waits for their end; `boot.server` asks for answers and passes on what
installers say. One event loop, no I/O of its own: what must last goes through the `claim` given to the constructor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from vcrecon.core import boot_rules
from vcrecon.core.installs import BootAnswer, Ended, LocalBoot, Netboot, Progress, Ticket
from vcrecon.core.mastery import Quiet
from vcrecon.spec.model import Spec

BEGAN_ANEW = "began-anew"
NETBOOTS_MAX = 1000
CLOSED_MAX = 1000
_CLOCK_CHECK_S = 30.0
"""The clock may be set while we wait for a deadline: look at it again at least this often."""

Claimed = Literal["ok", "spent", "expired", "quiet"]


class Desk:
    """Open installs and what is known of them. `netboots` are by MAC, `progress` and `tickets` by container.

    Open the record's tickets before `adopt`: until a spec is adopted the server asks machines for patience, so
    that no installer is turned away by a controller that has just begun.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        claim: Callable[[Ticket], None],
        on_change: Callable[[str], None],
    ) -> None:
        """`clock` gives Unix seconds. `claim` makes a claimed ticket durable, or raises Transient.

        `on_change` is told the container of which something new is known: its pass should run.
        """
        self._clock, self._claim, self._on_change = clock, claim, on_change
        self.netboots: dict[str, Netboot] = {}
        self.progress: dict[str, Progress] = {}
        self.tickets: dict[str, Ticket] = {}
        self.closed: dict[str, Ticket] = {}
        """By nonce: what a late call of an ended install is recognised by. At most 1000."""
        self._waiting: Callable[[str], str | None] = lambda container: None
        self._ended: dict[str, Ended] = {}
        self._news: dict[str, asyncio.Event] = {}
        self._addresses: dict[str, str] = {}
        self._machines: dict[str, str] = {}
        self.spec: Spec | None = None
        self.quiet: Quiet | None = None
        """While it is set no machine is told to install and no ticket can be claimed; an install that was claimed
        before goes on, since its machine has nothing else any more."""

    # --- the controller's side -----------------------------------------------------------------------------

    def adopt(self, spec: Spec) -> None:
        """Answer by this spec from now on."""
        self.spec = spec

    def hold(self, waiting: Callable[[str], str | None]) -> None:
        """Whom to ask, for each machine that calls, what it is told while its container waits; "" for nothing."""
        self._waiting = waiting

    def open(self, ticket: Ticket) -> None:
        """Let the machine of this ticket install. Again with the same nonce changes nothing."""
        known = self.tickets.get(ticket.container)
        if known is not None:
            if known.nonce == ticket.nonce:
                if ticket.state == "claimed":
                    self.tickets[ticket.container] = ticket
                return
            self.close(ticket.container)
        self.tickets[ticket.container] = ticket
        self._news[ticket.container] = asyncio.Event()

    def close(self, container: str) -> None:
        """The ticket is void; its installer is told to stop when it calls again. No ticket is no error."""
        ticket = self.tickets.pop(container, None)
        if ticket is None:
            return
        self.closed[ticket.nonce] = ticket
        _keep_newest(self.closed, CLOSED_MAX)
        self._ended.pop(container, None)
        self._addresses.pop(ticket.nonce, None)
        self._machines.pop(ticket.nonce, None)
        self.progress.pop(container, None)
        self._news.pop(container).set()

    async def ended(self, container: str) -> Ended:
        """Wait for the end of a container's open ticket.

        It is the installer's word; or error "deadline" at the ticket's `expires_at_s`; "began-anew" when the
        machine boots from the network again after it claimed its job; "closed" when there is no ticket (any more).
        """
        ticket = self.tickets.get(container)
        while ticket is not None and self.is_open(ticket.nonce):
            if (told := self._ended.get(container)) is not None:
                return told
            left_s = ticket.expires_at_s - self._clock()
            if left_s <= 0:
                message = f"the installer did not say that it ended within {_minutes(ticket)} minutes"
                return Ended(container, ticket.nonce, self._clock(), "deadline", message)
            # Not `wait_for`: before Python 3.12 it may lose a cancel.
            try:
                async with asyncio.timeout(min(left_s, _CLOCK_CHECK_S)):
                    await self._news[container].wait()
            except TimeoutError:
                continue
        return Ended(container, "" if ticket is None else ticket.nonce, self._clock(), "closed", "no open ticket")

    # --- the boot server's side ----------------------------------------------------------------------------

    def answer(self, netboot: Netboot) -> BootAnswer:
        """What this machine boots. Notes that it asked; a machine that claimed its job and asks again ended it.

        Raises RuntimeError before a spec was adopted.
        """
        if self.spec is None:
            raise RuntimeError("no spec yet")
        container = boot_rules.container_of(netboot.mac, self.spec)
        ticket = None if container is None else self.tickets.get(container)
        if ticket is not None and self.is_double(ticket, netboot):
            return LocalBoot(f"{ticket.container}: another machine with the same MAC {ticket.mac} is being installed")
        self.netboots.pop(netboot.mac, None)
        self.netboots[netboot.mac] = netboot
        _keep_newest(self.netboots, NETBOOTS_MAX)
        now_s = self._clock()
        valid = {name: t for name, t in self.tickets.items() if self._counts(t)}
        words = self._waiting(container) if container is not None else None
        waiting = {container: words} if container is not None and words else {}
        found = boot_rules.answer(netboot.mac, spec=self.spec, tickets=valid, waiting=waiting, quiet=self.quiet)
        if ticket is not None and ticket.mac == netboot.mac:
            if ticket.state == "claimed":
                message = "the machine booted from the network again before its installer had ended"
                self.end(Ended(ticket.container, ticket.nonce, now_s, BEGAN_ANEW, message))
            elif _tells_apart(netboot.uuid):
                self._machines[ticket.nonce] = netboot.uuid
        if container is not None:
            self._on_change(container)
        return found

    def _counts(self, ticket: Ticket) -> bool:
        """Whether a ticket still says what its machine boots."""
        told = self._ended.get(ticket.container)
        return not self.is_late(ticket) and (told is None or told.error == BEGAN_ANEW)

    def is_double(self, ticket: Ticket, netboot: Netboot) -> bool:
        """Whether a machine was given this ticket's token, and now one with another UUID comes with its MAC."""
        first = self._machines.get(ticket.nonce)
        return ticket.mac == netboot.mac and first is not None and _tells_apart(netboot.uuid) and netboot.uuid != first

    def is_open(self, nonce: str) -> bool:
        """Whether a ticket with this nonce is open."""
        return any(ticket.nonce == nonce for ticket in self.tickets.values())

    def has_ended(self, ticket: Ticket) -> bool:
        """Whether nothing more is expected of this ticket's installer."""
        return not self.is_open(ticket.nonce) or ticket.container in self._ended or self.is_late(ticket)

    def is_late(self, ticket: Ticket) -> bool:
        """Whether the ticket's time is over."""
        return self._clock() >= ticket.expires_at_s

    def claim(self, ticket: Ticket, address: str) -> Claimed:
        """Spend a ticket: durable when this returns "ok". Raises Transient when it cannot be made durable."""
        known = self.tickets.get(ticket.container)
        if known is None or known.nonce != ticket.nonce or self.has_ended(known):
            return "expired"
        if self.quiet is not None:
            return "quiet"
        if known.state == "claimed":
            return "spent"
        claimed = replace(known, state="claimed")
        self._claim(claimed)
        self.tickets[ticket.container] = claimed
        self._addresses[ticket.nonce] = address
        now_s = self._clock()
        self.progress[ticket.container] = Progress(ticket.container, "started", now_s, now_s)
        self._on_change(ticket.container)
        return "ok"

    def is_bound(self, ticket: Ticket, address: str) -> bool:
        """Whether `address` may speak for a claimed ticket: it claimed it, or is the first heard since a restart."""
        known = self.tickets.get(ticket.container)
        if known is None or known.state != "claimed":
            return False
        return self._addresses.setdefault(ticket.nonce, address) == address

    def report(self, progress: Progress) -> None:
        """Note what an installer said. `began_at_s` is kept from its first word."""
        before = self.progress.get(progress.container)
        if before is not None:
            progress = replace(progress, began_at_s=before.began_at_s)
        self.progress[progress.container] = progress
        if before is None or before.step != progress.step or int(before.percent) != int(progress.percent):
            self._on_change(progress.container)

    def end(self, ended: Ended) -> None:
        """Note the end of the open ticket; the first word counts."""
        if ended.container in self._ended or not self.is_open(ended.nonce):
            return
        self._ended[ended.container] = ended
        self._news[ended.container].set()
        self._on_change(ended.container)


def _tells_apart(uuid: str) -> bool:
    """Firmware without a UUID of its own says all zeros or all ones (SMBIOS 7.2.1)."""
    return len(set(uuid) - {"-"}) > 1


def _minutes(ticket: Ticket) -> int:
    return round((ticket.expires_at_s - ticket.opened_at_s) / 60)


def _keep_newest(table: dict[str, Ticket] | dict[str, Netboot], most: int) -> None:
    while len(table) > most:
        table.pop(next(iter(table)))
