"""How many guests a change of the spec stops without a person's word (S3), and that none is while too many containers
do not answer (S6). Called by `truth`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.truth import Truth

LIMIT_LAG_S = 150.0
"""How long the service may act on what it saw before the site changed: a relist, a pass and a step that waited."""


class Edits:
    """Guests that the spec in force would stop, and since when they are more than may be stopped unasked."""

    def __init__(self, truth: Truth) -> None:
        self.truth, self.room = truth, truth.room
        self._over_since_s: float | None = None
        self._frozen_since_s: float | None = None
        self._told: set[str] = set()
        self._halting: set[str] = set()
        """Guests that are told to stop since a person asked for their disk: down in a moment, and not for the spec."""
        self._digest = ""
        """Of the spec that was in force a moment ago."""
        self._calm_since_s: float | None = None
        self._from_calm = False
        """The spec in force came when all was at home, and nothing happened since: the service knows what we know."""

    @property
    def frozen(self) -> bool:
        """Whether so many containers have not answered for so long that the service must know it."""
        now_s = self.room.loop.time()
        return self._frozen_since_s is not None and now_s - self._frozen_since_s > LIMIT_LAG_S

    def tick(self) -> None:
        """Once a virtual second: what only counts when it lasts."""
        room, now_s = self.room, self.room.loop.time()
        self._notice_edit()
        displaced, running = self._displaced(), self._running()
        over = len(displaced) > self._most(len(running)) and not room.confirmed
        self._over_since_s = (self._over_since_s if self._over_since_s is not None else now_s) if over else None
        room.never_answered &= set(room.unreachable())
        installed = {name for kind, name in room.consents if kind == "reinstall"}  # nobody expects them to answer
        lost = set(room.unreachable()) & room.good.containers.keys() - room.fenced - room.never_answered - installed
        cut = len(lost) > self._most(len(room.good.containers))
        self._frozen_since_s = (self._frozen_since_s if self._frozen_since_s is not None else now_s) if cut else None
        well = self._nothing_is_broken()
        self._from_calm = self._from_calm and well
        calm = well and not displaced and running.keys() == room.home.keys()
        self._calm_since_s = (self._calm_since_s if self._calm_since_s is not None else now_s) if calm else None

    def spec_changed(self) -> None:
        """Another spec is in force: who was told to stop for the one before may be told again."""
        self._told &= {g for g in self._told if not self.room.hosts_of(g)}

    def halts(self, guest: str) -> None:
        """A guest is stopped since a person asked for its disk."""
        self._halting.add(guest)

    def stops(self, guest: str, host: str) -> None:
        """A guest is stopped since the spec no longer has it here."""
        self._notice_edit()
        at_once = self._from_calm and self._nothing_is_broken() and not self.room.confirmed
        at_once = at_once and len(self._displaced()) > self._most(len(self._running()))
        self.tick()  # what ended a moment ago forbids nothing
        room, now_s = self.room, self.room.loop.time()
        lasts = self._over_since_s is not None and now_s - self._over_since_s > LIMIT_LAG_S and not room.confirmed
        if (at_once or lasts) and guest not in self._told:
            self.truth.violate(
                "S3", f"{guest} on {host} is stopped for a spec that stops too many, and nobody confirmed it"
            )
        if self.frozen:
            self.truth.violate("S6", f"{guest} on {host} is stopped for a move while too many containers do not answer")
        self._told.add(guest)

    def _notice_edit(self) -> None:
        if self.room.good.digest == self._digest:
            return
        since_s, now_s = self._calm_since_s, self.room.loop.time()
        self._from_calm = since_s is not None and now_s - since_s > LIMIT_LAG_S
        self._digest, self._calm_since_s = self.room.good.digest, None

    def _running(self) -> dict[str, set[str]]:
        """Where guests run, but for the containers that a new record may never have seen."""
        seen = self.room.good.containers.keys() - set(self.room.unreachable())
        return {guest: hosts for guest in self.room.known_guests if (hosts := seen & set(self.room.hosts_of(guest)))}

    def _displaced(self) -> set[str]:
        home, running = self.room.home, self._running()
        self._halting &= running.keys()
        return {g for g, hosts in running.items() if home.get(g) not in hosts} - self._told - self._halting

    def _most(self, total: int) -> int:
        limits = self.room.good.site.limits
        return max(limits.disruption_min, int(limits.disruption_fraction * total))

    def _nothing_is_broken(self) -> bool:
        """Whether every host says what is so to the one service that there is, and at once."""
        room = self.room
        if len(room.services) > 1 or not room.main.alive or room.unreachable() or room.network.latency_s[1] > 1:
            return False
        hosts = room.site.hosts.values()
        servers = room.site.servers.values()
        return not any(host.faults.waiting or host.faults.slow_s for host in hosts) and not any(
            server.garbage or server.full or server.traps for server in servers
        )
