"""Decides which container holds which guest. Pure. Called by `spec.edit` for place, cordon and evacuate.

What is placed well stays where it is. A guest that is placed newly goes, in this order of importance, where
it has room (memory, disk, cores up to `CORES_OVERCOMMIT`), shares with none of its cluster (above all, a head
with none of its nodes), and where the smallest share of the memory is taken; then by order of containers.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from vcrecon.spec.check import CORES_OVERCOMMIT
from vcrecon.spec.model import Container, Guest, Spec
from vcrecon.spec.values import human_bytes

REBALANCE_MARGIN = 0.1
"""The least gain, as a share of a container's memory, that is worth moving a guest for."""


@dataclass(frozen=True, slots=True)
class Move:
    """One guest's change of container; `source` is None for a guest that was nowhere."""

    guest: str
    source: str | None
    target: str


@dataclass(frozen=True, slots=True)
class Stuck:
    """A guest that cannot be placed, and why."""

    guest: str
    reason: str


@dataclass(frozen=True, slots=True)
class Placement:
    """`deployment` has every container; guests that stay keep their order, new ones come after them."""

    deployment: Mapping[str, tuple[str, ...]]
    moves: tuple[Move, ...]
    stuck: tuple[Stuck, ...]


def place(
    spec: Spec,
    current: Mapping[str, Sequence[str]],
    cordoned: Collection[str],
    *,
    rebalance: bool = False,
) -> Placement:
    """Where every guest of `spec` goes, beginning from `current`; `spec.deployment` itself is not read.

    Nothing new goes to a container in `cordoned`, and only pins and want of room drive a guest off one.
    With `rebalance`, guests also move to separate a cluster's guests and to even out memory. A guest that
    fits nowhere stays where it was, if it was anywhere, and is in `stuck`.
    """
    state = _State(spec, frozenset(cordoned))
    source: dict[str, str] = {}
    for container, names in current.items():
        for name in names:
            if container in spec.containers and name in spec.guests and name not in source:
                source[name] = container
                state.put(spec.guests[name], container)
    for container in spec.containers:
        _evict(state, container)
    stuck = [entry for guest in _homeless(state) if (entry := _settle(state, guest, source)) is not None]
    if rebalance:
        _spread(state)
        _even_out(state)
    deployment = {name: tuple(room.guests) for name, room in state.rooms.items()}
    moves = tuple(
        Move(name, source.get(name), state.home[name])
        for name in spec.guests
        if name in state.home and state.home[name] != source.get(name)
    )
    return Placement(deployment, moves, tuple(stuck))


@dataclass(slots=True)
class _Room:
    """What is taken on one container."""

    container: Container
    index: int
    memory_bytes: int = 0
    disk_bytes: int = 0
    cores: int = 0
    guests: dict[str, Guest] = field(default_factory=dict)
    images: Counter[str] = field(default_factory=Counter)
    members: Counter[str] = field(default_factory=Counter)
    heads: Counter[str] = field(default_factory=Counter)

    @property
    def load(self) -> float:
        """The share of the memory that is taken."""
        return self.memory_bytes / self.container.memory_bytes

    def conflict(self, guest: Guest) -> tuple[int, int]:
        """How `guest` would share with its cluster: head-node pairs first, then guests in all."""
        if guest.cluster is None:
            return (0, 0)
        mine = guest.name in self.guests
        others = self.members[guest.cluster] - mine
        heads = self.heads[guest.cluster] - (mine and guest.role == "head")
        return (others - heads if guest.role == "head" else heads, others)


class _State:
    """All rooms, kept in order of load."""

    def __init__(self, spec: Spec, cordoned: frozenset[str]) -> None:
        self.spec = spec
        self.cordoned = cordoned
        self.rooms = {name: _Room(c, index) for index, (name, c) in enumerate(spec.containers.items())}
        self.home: dict[str, str] = {}
        self.open = [room for name, room in self.rooms.items() if name not in cordoned]
        self._names = list(self.rooms)
        self._by_load = [(room.load, room.index) for room in self.open]

    def put(self, guest: Guest, container: str) -> None:
        self._change(guest, container, 1)
        self.rooms[container].guests[guest.name] = guest
        self.home[guest.name] = container

    def take(self, guest: Guest) -> str:
        container = self.home.pop(guest.name)
        self._change(guest, container, -1)
        del self.rooms[container].guests[guest.name]
        return container

    def lacks(self, room: _Room, guest: Guest) -> str | None:
        """What `room` is short of for `guest`, or None when it fits."""
        has = room.container
        if room.memory_bytes + guest.memory_bytes > has.memory_bytes:
            return "memory"
        golden = 0 if room.images[guest.image] else self.spec.images[guest.image].disk_bytes
        if room.disk_bytes + guest.disk_bytes + golden > has.disk_bytes:
            return "disk"
        if room.cores + guest.cores > has.cores * CORES_OVERCOMMIT:
            return "cores"
        return None

    def best(self, guest: Guest) -> _Room | None:
        """The room that suits `guest` best. Least loaded first, so the first without conflict is it."""
        found: tuple[tuple[int, int], _Room] | None = None
        for _, index in self._by_load:
            room = self.rooms[self._names[index]]
            if self.lacks(room, guest) is not None:
                continue
            conflict = room.conflict(guest)
            if conflict == (0, 0):
                return room
            if found is None or conflict < found[0]:
                found = (conflict, room)
        return None if found is None else found[1]

    def extremes(self) -> tuple[_Room, _Room]:
        """The least and the most loaded of the open rooms."""
        return self.rooms[self._names[self._by_load[0][1]]], self.rooms[self._names[self._by_load[-1][1]]]

    def _change(self, guest: Guest, container: str, sign: int) -> None:
        room = self.rooms[container]
        old = (room.load, room.index)
        golden = self.spec.images[guest.image].disk_bytes
        before = room.images[guest.image] > 0
        room.images[guest.image] += sign
        after = room.images[guest.image] > 0
        room.memory_bytes += sign * guest.memory_bytes
        room.disk_bytes += sign * guest.disk_bytes + (after - before) * golden
        room.cores += sign * guest.cores
        if guest.cluster is not None:
            room.members[guest.cluster] += sign
            room.heads[guest.cluster] += sign * (guest.role == "head")
        position = bisect.bisect_left(self._by_load, old)
        if position < len(self._by_load) and self._by_load[position] == old:
            del self._by_load[position]
            bisect.insort(self._by_load, (room.load, room.index))


def _evict(state: _State, container: str) -> None:
    """Take off what may not be here, and from the end of the list what does not fit."""
    room = state.rooms[container]
    for guest in list(room.guests.values()):
        if guest.pinned is not None and guest.pinned != container:
            state.take(guest)
    for guest in reversed(list(room.guests.values())):
        over_memory = room.memory_bytes > room.container.memory_bytes
        if not over_memory and room.disk_bytes <= room.container.disk_bytes:
            return
        if guest.pinned is None:
            state.take(guest)


def _homeless(state: _State) -> list[Guest]:
    """Guests without a container: pinned ones first, then the largest, then in the order of the spec."""
    waiting = [guest for name, guest in state.spec.guests.items() if name not in state.home]
    return sorted(waiting, key=lambda guest: (guest.pinned is None, -guest.memory_bytes))


def _settle(state: _State, guest: Guest, source: Mapping[str, str]) -> Stuck | None:
    """Put `guest` where it belongs; where there is no room, back, with the reason."""
    if guest.pinned is not None:
        room = state.rooms[guest.pinned]
        short_of = state.lacks(room, guest)
        if short_of is None and guest.pinned not in state.cordoned:
            state.put(guest, guest.pinned)
            return None
        why = f"has too little {short_of}" if short_of else "is cordoned"
        reason = f"it is pinned to {guest.pinned!r}, which {why}"
    else:
        best = state.best(guest)
        if best is not None:
            state.put(guest, best.container.name)
            return None
        reason = _no_room(state, guest)
    if guest.name in source:
        state.put(guest, source[guest.name])
    return Stuck(guest.name, reason)


def _no_room(state: _State, guest: Guest) -> str:
    if not state.open:
        return "every container is cordoned"
    freest = min(state.open, key=lambda room: (room.memory_bytes - room.container.memory_bytes, room.index))
    free = max(0, freest.container.memory_bytes - freest.memory_bytes)
    short_of = sorted({state.lacks(room, guest) or "" for room in state.open})
    need = f"{human_bytes(guest.memory_bytes)} of memory and {human_bytes(guest.disk_bytes)} of disk"
    return (
        f"it needs {need}, and every open container is short of {' or '.join(short_of)}; "
        f"{freest.container.name!r} has the most memory free, {human_bytes(free)}"
    )


def _spread(state: _State) -> None:
    """Move guests that share a container with their cluster, where that makes it better."""
    for guest in state.spec.guests.values():
        home = state.home.get(guest.name)
        if home is None or guest.pinned is not None or state.rooms[home].conflict(guest) == (0, 0):
            continue
        now = state.rooms[home].conflict(guest)
        best = state.best(guest)
        if best is not None and best.conflict(guest) < now and best.container.name != home:
            state.take(guest)
            state.put(guest, best.container.name)


def _even_out(state: _State) -> None:
    """Move guests from the most to the least loaded container while the gap shrinks enough."""
    for _ in range(len(state.spec.guests)):
        if len(state.open) < 2:
            return
        low, high = state.extremes()
        gap = high.load - low.load
        for guest in high.guests.values():
            gain = gap - abs(gap - guest.memory_bytes / high.container.memory_bytes * 2)
            fits = guest.pinned is None and state.lacks(low, guest) is None
            if fits and gain > REBALANCE_MARGIN and low.conflict(guest) <= high.conflict(guest):
                state.take(guest)
                state.put(guest, low.container.name)
                break
        else:
            return
