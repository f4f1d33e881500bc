"""One guest on one container, and all that bears on it: what the rules in `guest_rules` are asked about. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from vcrecon.core import proof
from vcrecon.core.memory import Claim, Memory
from vcrecon.core.observation import Seen, Storage, Volume
from vcrecon.core.world import Sighting
from vcrecon.spec.model import Guest

if TYPE_CHECKING:
    from vcrecon.core.plan import View


@dataclass(frozen=True)
class Case:
    """One guest on one container, and all that bears on it. `ready` says the container is vlan-ready."""

    view: View
    observation: Seen
    name: str
    here: Sighting
    ready: bool

    @property
    def subject(self) -> str:
        return f"guest/{self.name}"

    @property
    def container(self) -> str:
        return self.here.container

    @property
    def memory(self) -> Memory:
        return self.view.memory

    @property
    def guest(self) -> Guest | None:
        return self.view.spec.guests.get(self.name)

    @property
    def wanted_here(self) -> bool:
        return self.view.spec.placement.get(self.name) == self.container

    @property
    def claim(self) -> Claim | None:
        return self.memory.claims.get(self.name)

    @property
    def volume(self) -> Volume | None:
        """The live disk here."""
        return self.here.volume if self.here.volume is not None and self.here.volume.live else None

    @property
    def incoming(self) -> Volume | None:
        return self.here.volume if self.here.volume is not None and self.here.volume.incoming else None

    @property
    def storage(self) -> Storage | None:
        return self.observation.storage if isinstance(self.observation.storage, Storage) else None

    @cached_property
    def others(self) -> tuple[Sighting, ...]:
        """Live copies on other containers that answer."""
        found = self.view.world.elsewhere(self.name, self.container)
        return tuple(s for s in found if s.live and self.view.world.reachable(s.container))

    @cached_property
    def silent(self) -> tuple[str, ...]:
        """Containers that do not answer or do not show what they hold, are not fenced, and may hold a live copy."""
        return proof.silent(self.view, self.name, self.container)

    @property
    def last_word(self) -> bool:
        """Whether it lives here, or nowhere: else what is to be done to it is said elsewhere."""
        return self.here.live or not any(s.live for s in self.view.world.elsewhere(self.name, self.container))

    def stopped_elsewhere(self) -> proof.StoppedElsewhere | proof.Doubt:
        """The proof that a disk which is made here, or comes into use, belongs to no guest that runs elsewhere."""
        return proof.stopped_elsewhere(self.view, self.name, self.container)

    def not_elsewhere(self) -> proof.NotElsewhere | proof.Doubt:
        """The proof that the guest may be started here."""
        return proof.not_elsewhere(self.view, self.name, self.container)

    @property
    def last_epoch(self) -> int:
        """The highest epoch of the guest's disks that anything knows of; 0 for a guest never made."""
        places = [self.here, *self.view.world.elsewhere(self.name, self.container)]
        known = [v.epoch for s in places for v in (s.volume, *s.quarantined) if v is not None and not v.incoming]
        return max(known + ([self.claim.epoch] if self.claim else []), default=0)

    def next_epoch(self, last: int, elsewhere: proof.StoppedElsewhere) -> int:
        """The number of a disk that comes into use after disk `last`: above all that the guest ever had.

        Where nobody can know what a container holds that counts as off, it is the time in seconds: no count gets there.
        """
        return max(last + 1, int(self.view.now_s) if proof.vouched_unseen(self.view, elsewhere) else 0)

    def holds_work(self, volume: Volume) -> bool:
        """Whether the disk may hold a student's work (S2)."""
        return volume.touched or (volume.boots > 0 and self.view.spec.site.session == "running")

    def consents(self, kind: str, epoch: int) -> bool:
        """Whether a person named this disk for `kind`."""
        consent = self.memory.consents.get((kind, self.name))
        return consent is not None and consent.epoch >= epoch
