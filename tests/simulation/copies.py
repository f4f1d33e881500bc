"""What becomes of each guest's copies: no second disk, no second start, no installer over a host that was in use (S1,
S2). Called by `truth`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.simulation.disks import is_live
from tests.simulation.edits import LIMIT_LAG_S
from tests.simulation.wire import Ends

from vcrecon.core.installs import Ticket
from vcrecon.sim.lvm import Volume

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.truth import Truth

_NEW_DISK = re.compile(r"vc\.building .*vc\.guest=(\S+)")


class Copies:
    """Knows who was vouched for, truly or not, and which start of a guest was the last."""

    def __init__(self, truth: Truth) -> None:
        self.truth, self.room = truth, truth.room
        self.vouched: set[str] = set()
        """Containers that were ever fenced: what is on their disks was given up."""
        self.sworn: set[str] = set()
        """Guests that run on a container of which somebody said wrongly that it is off: they may run twice until all
        is at rest."""
        self.misled = False
        """Whether the service was shown what was true some time ago, so that it starts what runs by now."""
        self._begun: dict[tuple[str, str], Ends] = {}
        """By host and guest: the last start step."""
        self._started: dict[tuple[str, str], Ends] = {}
        """By host and guest: the start step that ended well, if nothing else started the guest since."""
        self._builder: dict[tuple[str, str], str] = {}
        """By host and guest: who sent the last step that makes a disk."""
        self._built_at_s: dict[tuple[str, str], float] = {}
        """By host and guest: when such a step last ended well."""
        truth.room.on_installer = self._installer

    def new_disk(self, host: str, line: str) -> None:
        """No disk is made beside one that lives, unless somebody gave that one up."""
        found = _NEW_DISK.search(line)
        if found is None:
            return
        guest, room = found[1], self.room
        given_up = guest in room.anew | room.given_up | self.truth.lost_for_good or ("rebuild", guest) in room.consents
        lives = {n for n, _, v in room.disks(guest) if n != host and is_live(v) and not self._left_behind(n, guest, v)}
        lives -= self.vouched
        if lives and not given_up:
            self.truth.violate("S1", f"{guest} gets a new disk on {host}, and has one on {', '.join(sorted(lives))}")

    def builds(self, host: str, guest: str, ends: Ends) -> None:
        """A step begins that makes a disk."""
        self._builder[host, guest] = ends.link.client_owner

    def built(self, host: str, guest: str) -> None:
        """It ended well."""
        self._built_at_s[host, guest] = self.room.loop.time()

    def _left_behind(self, host: str, guest: str, volume: Volume) -> bool:
        """Whether the step of a service that is dead has just finished this disk, which never booted.

        Its successor saw it unfinished, which is no copy, and makes one with a higher epoch where the spec wants it by
        then: this one is never started.
        """
        services = {service.owner for service in self.room.services if service.alive}
        built_s = self._built_at_s.get((host, guest), -LIMIT_LAG_S)
        just = self.room.loop.time() - built_s < LIMIT_LAG_S
        return just and not volume.ever_booted and self._builder[host, guest] not in services

    def starts(self, host: str, guest: str, ends: Ends) -> None:
        """A start step begins: not of a guest that its sender started, as it was told, and that runs on ever since."""
        domain = self.room.site.hosts[host].machine.domains.by_name.get(guest)
        before = self._started.pop((host, guest), None)
        known = before is not None and before.heard and before.link.client_owner == ends.link.client_owner
        if domain is not None and domain.live and known and not self.misled:
            self.truth.violate("healthy", f"{guest}, which runs on {host}, is started there once more")
        self._begun[host, guest] = ends

    def begins_to_run(self, host: str, guest: str) -> None:
        """Whoever started it."""
        self._started.pop((host, guest), None)

    def started(self, host: str, guest: str) -> None:
        """A start step ended well."""
        self._started[host, guest] = self._begun[host, guest]

    def _installer(self, name: str, ticket: Ticket, service: Process) -> None:
        """A machine is given an installer: without a person's word only when it was never seen before."""
        seen_s = service.record.memory.seen.get(name)
        set_anew = any(process.clock.jump_s for process in self.room.services)
        if not ticket.wipe and not set_anew and seen_s is not None and seen_s < ticket.opened_at_s:
            self.truth.violate("S2", f"{name}, which was in use, is given an installer, and nobody asked for it")
