"""Proofs that no other copy of a guest lives: what an action that begins one must carry (S1). Pure; made by the rules.

The actions after which a copy lives on a container (`core.actions.BeginsCopy`) have a field of these types and no
default for it. Only the functions here make such values, from what each place that may hold the guest showed, or from
what somebody vouched for; where one place gives neither, they return a Doubt, and the action cannot be made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING, Literal

from vcrecon.core.installs import wiped_at_s
from vcrecon.core.memory import Fence, Memory
from vcrecon.core.observation import Seen
from vcrecon.core.world import World

if TYPE_CHECKING:
    from vcrecon.core.plan import View

_SEAL = object()


@dataclass(frozen=True, slots=True)
class _Sealed:
    """Base of what only this module makes. Raises TypeError for anybody else."""

    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError(f"{type(self).__name__} is made from evidence, by vcrecon.core.proof alone")


@dataclass(frozen=True, slots=True)
class SeenWithout(_Sealed):
    """The container showed its disks and its guests, and no live copy of this one. `at_s` is the look's time."""

    container: str
    at_s: float
    boot_id: str


@dataclass(frozen=True, slots=True)
class SeenStopped(_Sealed):
    """The container showed its disks and its guests: this one has a disk there and does not run."""

    container: str
    at_s: float
    boot_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class PoweredOff(_Sealed):
    """Its power control showed it off after it was switched off, and it was not seen since."""

    container: str
    at_s: float
    by: str


@dataclass(frozen=True, slots=True)
class Attested(_Sealed):
    """A person vouched that it is off, and it was not seen since."""

    container: str
    at_s: float
    by: str


@dataclass(frozen=True, slots=True)
class Wiped(_Sealed):
    """Never looked at before, and our installer, at work there now, is past the wipe of its disks."""

    container: str
    at_s: float


Gone = SeenWithout | PoweredOff | Attested | Wiped
"""No copy of the guest lives there."""


@dataclass(frozen=True, slots=True)
class StoppedElsewhere(_Sealed):
    """The guest runs on no container but this one: a disk may be made here, or come into use."""

    guest: str
    container: str
    places: tuple[Gone | SeenStopped, ...]


@dataclass(frozen=True, slots=True)
class NotElsewhere(_Sealed):
    """No copy of the guest lives on any other container: it may be started here."""

    guest: str
    container: str
    places: tuple[Gone, ...]


@dataclass(frozen=True, slots=True)
class Doubt:
    """The first place that keeps a proof from being made.

    It is silent, runs the guest, holds a disk of it, or is looked after by another master, who may begin it there.
    """

    container: str
    why: Literal["silent", "runs", "holds", "other-master"]


def stopped_elsewhere(view: View, guest: str, container: str) -> StoppedElsewhere | Doubt:
    """Whether the guest runs nowhere but on `container`, and no other master can make a disk of it."""
    found: list[Gone | SeenStopped] = []
    for evidence in _evidence(view, guest, places(view, guest, container) | (_anothers(view) - {container})):
        if isinstance(evidence, Doubt):
            return evidence
        found.append(evidence)
    return StoppedElsewhere(_SEAL, guest, container, tuple(found))


def not_elsewhere(view: View, guest: str, container: str) -> NotElsewhere | Doubt:
    """Whether nothing of the guest that runs, or could be started, is anywhere but on `container`."""
    found: list[Gone] = []
    for evidence in _evidence(view, guest, places(view, guest, container)):
        if isinstance(evidence, SeenStopped):
            return Doubt(evidence.container, "holds")
        if isinstance(evidence, Doubt):
            return evidence
        found.append(evidence)
    return NotElsewhere(_SEAL, guest, container, tuple(found))


def silent(view: View, guest: str, container: str) -> tuple[str, ...]:
    """The other containers that may hold a live copy, do not show what they hold, and that nobody vouches for."""
    found = _evidence(view, guest, places(view, guest, container))
    return tuple(e.container for e in found if isinstance(e, Doubt) and e.why == "silent")


def places(view: View, guest: str, container: str) -> frozenset[str]:
    """Every other container on which a copy of the guest may live, as far as world and record know."""
    return frozenset(_held(view, guest) | _never_shown(view)) - {container}


def vouched_unseen(view: View, proof: StoppedElsewhere) -> bool:
    """Whether a container counts as off that never showed this record its disks, so that their numbers are unknown."""
    unseen = _never_shown(view)
    return any(isinstance(place, PoweredOff | Attested) and place.container in unseen for place in proof.places)


def _held(view: View, guest: str) -> set[str]:
    """Where a live copy was last seen, and where the record says that it is."""
    claim = view.memory.claims.get(guest)
    found = {place for place, sighting in view.world.sightings.get(guest, {}).items() if sighting.live}
    return found | {claim.container} if claim is not None else found


def _never_shown(view: View) -> set[str]:
    """Containers that no claim tells of: this record began, or came here, when hosts held guests already."""
    memory = view.memory
    if memory.claims_complete:
        return set()
    return memory.unshown.keys() | {name for name in view.spec.containers if name not in memory.shown}


def _anothers(view: View) -> set[str]:
    """Containers that another master looked after when they were last seen."""
    return {name for name in view.spec.containers if name in view.world.foreign}


def _evidence(view: View, guest: str, among: Collection[str]) -> Iterator[Gone | SeenStopped | Doubt]:
    """What is known of each place, by name."""
    held, anothers = _held(view, guest), _anothers(view)
    for place in sorted(among):
        seen = view.world.current.get(place)
        if isinstance(seen, Seen) and view.world.clear(place):
            shown = _shown(view, guest, seen)
            yield Doubt(place, "other-master") if place in anothers and not isinstance(shown, Doubt) else shown
            continue
        fence = _standing_fence(view.world, view.memory, place)
        wiped_s = wiped_at_s(view.memory.tickets.get(place), view.boot) if place not in held else None
        if fence is not None:
            yield (PoweredOff if fence.how == "power" else Attested)(_SEAL, place, fence.at_s, fence.by)
        elif wiped_s is not None:
            yield Wiped(_SEAL, place, wiped_s)
        else:
            yield Doubt(place, "silent")


def _shown(view: View, guest: str, seen: Seen) -> SeenWithout | SeenStopped | Doubt:
    """What a container that shows everything says of the guest."""
    sighting = view.world.on(seen.container).get(guest)
    if sighting is None or not sighting.live:
        return SeenWithout(_SEAL, seen.container, seen.at_s, seen.boot_id)
    if sighting.active:
        return Doubt(seen.container, "runs")
    return SeenStopped(_SEAL, seen.container, seen.at_s, seen.boot_id, sighting.epoch)


def _standing_fence(world: World, memory: Memory, container: str) -> Fence | None:
    """The fence of a container that was not seen since.

    That it was seen is asked of `world` as well: while the record cannot be written, a fence outlives its end there.
    """
    fence, known = memory.fences.get(container), world.known(container)
    if fence is None or world.reachable(container):
        return None
    seen_s = max(memory.seen.get(container, 0.0), known.at_s if known is not None else 0.0)
    return fence if fence.at_s >= seen_s else None
