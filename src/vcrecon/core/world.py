"""The last that each container showed, and where each guest was sighted. Kept by the controller, read by `plan`.

A container that stops answering keeps its last sightings: what was there may still be there (S1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from vcrecon.core.memory import Memory
from vcrecon.core.observation import UNKNOWN, Domain, FoundLease, Lease, Observation, Seen, Storage, Unseen, Volume
from vcrecon.spec.model import Limits, Spec


@dataclass(frozen=True, slots=True)
class Sighting:
    """A guest's traces on one container: its live or incoming disk, its quarantined disks, its domain."""

    container: str
    guest: str
    volume: Volume | None = None
    quarantined: tuple[Volume, ...] = ()
    domain: Domain | None = None

    @property
    def active(self) -> bool:
        return self.domain is not None and self.domain.active

    @property
    def live(self) -> bool:
        """Whether a copy of the guest lives here: it runs, or has a disk that may be booted."""
        return self.active or (self.volume is not None and self.volume.live)

    @property
    def epoch(self) -> int:
        """The epoch of the live disk; 0 without one."""
        return self.volume.epoch if self.volume is not None and self.volume.live else 0


def sight(observation: Seen) -> dict[str, Sighting]:
    """The guests that left a trace on a container, by name."""
    volumes = observation.storage.volumes if isinstance(observation.storage, Storage) else ()
    domains = () if observation.domains is UNKNOWN else observation.domains
    by_guest: dict[str, tuple[list[Volume], list[Domain]]] = {}
    for volume in volumes:
        by_guest.setdefault(volume.guest, ([], []))[0].append(volume)
    for domain in domains:
        by_guest.setdefault(domain.guest, ([], []))[1].append(domain)
    found = {}
    for guest, (mine, running) in by_guest.items():
        current = [v for v in mine if v.quarantined is None]
        aside = sorted((v for v in mine if v.quarantined is not None), key=lambda v: -v.epoch)
        found[guest] = Sighting(
            observation.container,
            guest,
            # A live disk outranks an incoming one; the copy is then a leftover and is planned away.
            max(current, key=lambda v: (v.live, v.epoch), default=None),
            tuple(aside),
            max(running, key=lambda d: d.active, default=None),
        )
    return found


class World:
    """Mutable, but pure: changed only by `observe`. One instance a controller."""

    def __init__(self) -> None:
        self.current: dict[str, Observation] = {}
        self.sightings: dict[str, dict[str, Sighting]] = {}
        self.foreign: dict[str, tuple[Lease, float]] = {}
        """By container: the lease of another master that it showed last, and when."""
        self.found: dict[str, tuple[FoundLease | None, float]] = {}
        """By container: the lease that lay there before the first look that told of it, and when that was."""
        self._guests_of: dict[str, dict[str, Sighting]] = {}
        self._known: dict[str, Seen] = {}

    def observe(self, observation: Observation) -> frozenset[str]:
        """Take in one observation; returns the guests whose traces on that container changed."""
        self.current[observation.container] = observation
        if isinstance(observation, Unseen):
            return frozenset()
        lease = observation.lease
        if isinstance(lease, Lease) and not lease.ours:
            self.foreign[observation.container] = (lease, observation.at_s)
        elif lease is not UNKNOWN:
            self.foreign.pop(observation.container, None)
        if isinstance(lease, Lease):
            self.found.setdefault(observation.container, (lease.found, observation.at_s))
        before = self._guests_of.get(observation.container, {})
        after = sight(self._with_what_was_known(observation))
        self._guests_of[observation.container] = after
        changed = {guest for guest in before.keys() | after.keys() if before.get(guest) != after.get(guest)}
        for guest in changed:
            if guest in after:
                self.sightings.setdefault(guest, {})[observation.container] = after[guest]
            else:
                self._forget_trace(guest, observation.container)
        return frozenset(changed)

    def _forget_trace(self, guest: str, container: str) -> None:
        places = self.sightings.get(guest, {})
        places.pop(container, None)
        if not places:
            self.sightings.pop(guest, None)  # else every name that ever was is walked through for ever

    def _with_what_was_known(self, observation: Seen) -> Seen:
        """UNKNOWN is not absence: disks or domains that a host does not show now keep their last sightings."""
        known = self._known.get(observation.container)
        if known is not None and observation.storage is UNKNOWN:
            observation = replace(observation, storage=known.storage)
        if known is not None and observation.domains is UNKNOWN:
            observation = replace(observation, domains=known.domains)
        self._known[observation.container] = observation
        return observation

    def forget(self, container: str) -> None:
        """Drop a container that left the spec."""
        self.current.pop(container, None)
        self._known.pop(container, None)
        self.foreign.pop(container, None)
        self.found.pop(container, None)
        for guest in self._guests_of.pop(container, {}):
            self._forget_trace(guest, container)

    def on(self, container: str) -> Mapping[str, Sighting]:
        """The guests with traces on a container when it was last seen."""
        return self._guests_of.get(container, {})

    def known(self, container: str) -> Seen | None:
        """The last that a container showed, with what it had shown before where it showed nothing."""
        return self._known.get(container)

    def reachable(self, container: str) -> bool:
        return isinstance(self.current.get(container), Seen)

    def clear(self, container: str) -> bool:
        """Whether it answers and shows its disks and its domains: only then is absence there a fact."""
        seen = self.current.get(container)
        return isinstance(seen, Seen) and isinstance(seen.storage, Storage) and seen.domains is not UNKNOWN

    def elsewhere(self, guest: str, container: str) -> Iterator[Sighting]:
        """Its traces on other containers, unreachable ones included."""
        return (s for place, s in self.sightings.get(guest, {}).items() if place != container)


def fenced(memory: Memory, container: str) -> bool:
    """Whether somebody vouches that the container is off, and it has not been seen since."""
    fence = memory.fences.get(container)
    return fence is not None and fence.at_s >= memory.seen.get(container, 0.0)


def allowed(limits: Limits, total: int) -> int:
    """How many of `total` may be affected at once without a person's word (S3, S6)."""
    return max(limits.disruption_min, int(limits.disruption_fraction * total))


def frozen(spec: Spec, world: World, memory: Memory) -> str | None:
    """Why moves are frozen, or None (S6): too many containers that once answered do not answer now."""
    lost = [name for name in _missed(spec, world, memory) if name in world.current]
    limit = allowed(spec.site.limits, len(spec.containers))
    if len(lost) <= limit:
        return None
    return (
        f"{len(lost)} of {len(spec.containers)} containers stopped answering (more than {limit}): "
        "the fault may be ours, so nothing is moved until they answer again or are fenced"
    )


def few_answered(spec: Spec, world: World, memory: Memory) -> str | None:
    """Why moves wait after a start, or None (S6): who does not answer is not known before all were looked at."""
    missed = _missed(spec, world, memory)
    if len(missed) <= allowed(spec.site.limits, len(spec.containers)):
        return None
    return (
        f"{len(missed)} of {len(spec.containers)} containers have not answered since this start: nothing is moved yet"
    )


def _missed(spec: Spec, world: World, memory: Memory) -> list[str]:
    """Containers that once answered and do not now, nor are expected to be silent."""
    return [
        name
        for name in spec.containers
        if not isinstance(world.current.get(name), Seen)
        and name in memory.seen
        and name not in memory.tickets  # being installed anew, it cannot answer
        and not fenced(memory, name)
    ]


def not_looked_at(spec: Spec, world: World) -> str | None:
    """A container that was not looked at since this start, or None.

    Until then nobody knows how many are silent (S6), nor how many guests this spec would stop (S3).
    """
    return next((name for name in spec.containers if name not in world.current), None)


def displaced(spec: Spec, world: World, memory: Memory) -> frozenset[str]:
    """Live guests that the spec would stop: moved or removed, and not already on their way (S3).

    On a silent container too, until it is fenced: what it holds is touched as soon as it answers.
    """
    placement = spec.placement
    found = set()
    for guest, places in world.sightings.items():
        target = placement.get(guest)
        if len(places) == 1 and target in places:
            continue  # at home and nowhere else, as nearly all are
        away = [place for place, s in places.items() if s.active and place != target]
        if any(world.reachable(place) or not fenced(memory, place) for place in away):
            intent = memory.intents.get(f"guest/{guest}")
            if intent is None or intent.action != "stop-guest":
                found.add(guest)
    return frozenset(found)


def held_back(spec: Spec, world: World, memory: Memory) -> str | None:
    """Why this spec's moves and removals wait for a person, or None (S3).

    Once held back, it waits for their word: else, when one of three dies, the other two would be few enough to go.
    """
    if memory.confirmed_digest == spec.digest:
        return None
    count, held = len(displaced(spec, world, memory)), memory.held_digest == spec.digest
    if count <= (0 if held else spec.site.limits.disruption_min):
        return None
    running = sum(any(s.active for s in places.values()) for places in world.sightings.values())
    limit = allowed(spec.site.limits, running)
    if count <= limit and not held:
        return None
    many = f"more than {limit}" if count > limit else "more when it was first looked at"
    return (
        f"this spec would stop {count} of {running} running guests ({many}): "
        "look at `vcrecon plan`, then say `vcrecon confirm`, or put the spec back"
    )
