"""The faults: what each does to a box, when each comes, and which calls met none. Used by `one`.

A fault is an asynchronous context: it is there inside, and gone behind it. Faults of one family never overlap on a
box; those of different families may.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from io import RawIOBase

from tests.faults.box import PORT, Box, load, run

MARGIN_S = 15.0
"""For so long after a fault a call may still meet what it left: a connection that is dead, a step that holds a lock."""
_CHUNK = bytes(1 << 16)


# --- servers -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def listener_killed(box: Box, rng: random.Random) -> AsyncIterator[None]:
    box.stop_listening()
    yield
    await asyncio.to_thread(box.listen)


@asynccontextmanager
async def sessions_killed(box: Box, rng: random.Random) -> AsyncIterator[None]:
    box.kill(box.sessions())
    yield


@asynccontextmanager
async def servers_killed(box: Box, rng: random.Random) -> AsyncIterator[None]:
    """The servers of connections go; what they started lives on without them."""
    box.kill(box.servers())
    yield


@asynccontextmanager
async def all_killed(box: Box, rng: random.Random) -> AsyncIterator[None]:
    box.stop_listening()
    box.kill(box.sessions())
    yield
    await asyncio.to_thread(box.listen)


@asynccontextmanager
async def restarted(box: Box, rng: random.Random) -> AsyncIterator[None]:
    box.stop_listening(signal.SIGTERM)
    await asyncio.to_thread(box.listen)
    yield


@asynccontextmanager
async def sessions_stopped(box: Box, rng: random.Random) -> AsyncIterator[None]:
    """All but the listener is frozen: new logins work meanwhile."""
    async for _ in _stopped(box, box.sessions()):
        yield


@asynccontextmanager
async def all_stopped(box: Box, rng: random.Random) -> AsyncIterator[None]:
    async for _ in _stopped(box, box.processes()):
        yield


@asynccontextmanager
async def listener_stopped(box: Box, rng: random.Random) -> AsyncIterator[None]:
    """The kernel takes connections, and nobody speaks."""
    async for _ in _stopped(box, [box.server.process.pid]):
        yield


async def _stopped(box: Box, pids: list[int]) -> AsyncIterator[None]:
    box.kill(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        box.kill(pids, signal.SIGCONT)


@asynccontextmanager
async def key_swapped(box: Box, rng: random.Random) -> AsyncIterator[None]:
    """Another machine answers at its address, and would take our key (S9)."""
    box.stop_listening()
    box.kill(box.sessions())
    await asyncio.to_thread(box.listen, impostor=True)
    yield
    box.stop_listening()
    box.kill(box.sessions())
    await asyncio.to_thread(box.listen)


@asynccontextmanager
async def few_sessions(box: Box, rng: random.Random) -> AsyncIterator[None]:
    """A server with tight limits in the place of the other one."""
    box.stop_listening()
    box.kill(box.sessions())
    sessions, startups = rng.choice((1, 2, 3)), rng.choice(("1:50:2", "1", "10:30:100"))
    await asyncio.to_thread(box.listen, max_sessions=sessions, max_startups=startups)
    yield
    box.stop_listening()
    box.kill(box.sessions())
    await asyncio.to_thread(box.listen)


# --- the network -------------------------------------------------------------------------------------------


@asynccontextmanager
async def _rules(box: Box, *, inward: str = "", outward: str = "") -> AsyncIterator[None]:
    """`inward` and `outward` say what becomes of packets from and to the box on this side of its cable."""
    table = f"inet fault_{box.name}"
    chains = [
        f'chain {hook} {{\n type filter hook {hook} priority -10;\n {way} "{box.link}" {verdict}\n }}\n'
        for hook, way, verdict in (("input", "iifname", inward), ("output", "oifname", outward))
        if verdict
    ]
    load(f"table {table} {{\n{''.join(chains)}}}\n")
    try:
        yield
    finally:
        run("nft", "delete", "table", *table.split())


def loss(box: Box, rng: random.Random) -> AbstractAsyncContextManager[None]:
    percent = rng.choice((2, 10, 30))
    rule = f"numgen random mod 100 < {percent} drop"
    return _rules(box, inward=rule, outward=rule)


def hole_inward(box: Box, rng: random.Random) -> AbstractAsyncContextManager[None]:
    return _rules(box, inward="drop")


def hole_outward(box: Box, rng: random.Random) -> AbstractAsyncContextManager[None]:
    return _rules(box, outward="drop")


def hole(box: Box, rng: random.Random) -> AbstractAsyncContextManager[None]:
    return _rules(box, inward="drop", outward="drop")


@asynccontextmanager
async def forgotten(box: Box, rng: random.Random) -> AsyncIterator[None]:
    """The connections of now are dead for good, and neither side is told; new ones work."""
    box.forget(f"forgotten_{box.name}_{time.monotonic_ns()}")
    yield


def reset(box: Box, rng: random.Random) -> AbstractAsyncContextManager[None]:
    return _rules(box, inward=f"tcp sport {PORT} reject with tcp reset", outward=f"tcp dport {PORT} drop")


@asynccontextmanager
async def slow_network(box: Box, rng: random.Random) -> AsyncIterator[None]:
    """In both directions, with a short queue: what does not fit is lost."""
    rate = rng.choice(("200kbit", "1mbit"))
    shape = ("root", "tbf", "rate", rate, "burst", "8k", "latency", "200ms")
    run("tc", "qdisc", "add", "dev", box.link, *shape)
    run("tc", "-n", box.namespace, "qdisc", "add", "dev", "eth0", *shape)
    try:
        yield
    finally:
        run("tc", "qdisc", "del", "dev", box.link, "root")
        run("tc", "-n", box.namespace, "qdisc", "del", "dev", "eth0", "root")


# --- disks -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def disk_full(box: Box, rng: random.Random) -> AsyncIterator[None]:
    async with _filled(box, "var/lib/vcrecon"):
        yield


@asynccontextmanager
async def run_full(box: Box, rng: random.Random) -> AsyncIterator[None]:
    async with _filled(box, "run"):
        yield


@asynccontextmanager
async def _filled(box: Box, directory: str) -> AsyncIterator[None]:
    """Full to the last byte, and kept so: what is freed meanwhile is taken at once."""
    file = box.root / directory / "filler"

    async def fill() -> None:
        with file.open("ab", buffering=0) as filler:
            while True:
                _write_until_full(filler)
                await asyncio.sleep(0.05)

    filling = asyncio.create_task(fill())
    try:
        yield
    finally:
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)
        file.unlink(missing_ok=True)


def _write_until_full(file: RawIOBase, bytes_max: int = 4 << 20) -> None:
    """Not for long: a disk that writes through takes its time, and others have theirs."""
    for piece in (_CHUNK, b"\0"):
        with contextlib.suppress(OSError):
            for _ in range(bytes_max // len(_CHUNK)):
                if file.write(piece) != len(piece):
                    break


@asynccontextmanager
async def slow_disk(box: Box, rng: random.Random) -> AsyncIterator[None]:
    box.slow_disk(rng.choice((20_000, 100_000, 400_000)))
    try:
        yield
    finally:
        box.slow_disk(0)


Fault = Callable[[Box, random.Random], AbstractAsyncContextManager[None]]
FAMILIES: dict[str, dict[str, Fault]] = {
    "server": {
        "listener killed": listener_killed,
        "sessions killed": sessions_killed,
        "servers killed": servers_killed,
        "all killed": all_killed,
        "restarted": restarted,
        "sessions stopped": sessions_stopped,
        "listener stopped": listener_stopped,
        "all stopped": all_stopped,
        "key swapped": key_swapped,
        "few sessions": few_sessions,
    },
    "network": {
        "loss": loss,
        "hole inward": hole_inward,
        "hole outward": hole_outward,
        "hole": hole,
        "forgotten": forgotten,
        "reset": reset,
        "slow network": slow_network,
    },
    "disk": {"disk full": disk_full, "run full": run_full, "slow disk": slow_disk},
}


# --- when --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spell:
    """A fault of `kind` on box number `box`, `at_s` into the run's bad weather, `for_s` long."""

    kind: str
    box: int
    at_s: float
    for_s: float

    @property
    def family(self) -> str:
        return next(name for name, kinds in FAMILIES.items() if self.kind in kinds)


def forecast(rng: random.Random, boxes: Collection[int], slow_disks: Collection[int], length_s: float) -> list[Spell]:
    """What will happen: four to seven faults on the given boxes, short ones and ones that outlast keep-alives."""
    found: list[Spell] = []
    wanted = rng.randint(4, 7)
    for _ in range(50):
        family = rng.choices(list(FAMILIES), weights=(5, 4, 2))[0]
        spell = Spell(
            rng.choice(list(FAMILIES[family])),
            rng.choice(sorted(boxes)),
            round(rng.uniform(0.0, length_s * 0.7), 2),
            round(rng.choice((rng.uniform(0.05, 0.6), rng.uniform(0.6, 4.0))), 2),
        )
        if spell.kind == "slow disk" and spell.box not in slow_disks:
            continue
        if not any(_meet(spell, other) for other in found):
            found.append(spell)
        if len(found) == wanted:
            break
    return sorted(found, key=lambda spell: spell.at_s)


def _meet(one: Spell, other: Spell) -> bool:
    gap_s = 0.5
    return (one.box, one.family) == (other.box, other.family) and (
        one.at_s < other.at_s + other.for_s + gap_s and other.at_s < one.at_s + one.for_s + gap_s
    )


class Weather:
    """Lets the faults come and go, and knows afterwards when each was there."""

    def __init__(self, boxes: Collection[Box]) -> None:
        self._spells: list[tuple[str, str, float, float]] = []
        self._boxes = dict(enumerate(boxes, 1))
        # A server takes its time to start: on a busy machine one fault may not be gone when the next is due.
        self._turns: defaultdict[tuple[int, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def pass_over(self, spells: Collection[Spell], rng: random.Random) -> None:
        """Returns when the last fault is gone."""
        began_s = time.monotonic()
        await asyncio.gather(*(self._strike(spell, began_s, random.Random(rng.random())) for spell in spells))

    async def _strike(self, spell: Spell, began_s: float, rng: random.Random) -> None:
        await asyncio.sleep(max(began_s + spell.at_s - time.monotonic(), 0.0))
        async with self._turns[spell.box, spell.family]:
            await self._be_there(spell, rng)

    async def _be_there(self, spell: Spell, rng: random.Random) -> None:
        box = self._boxes[spell.box]
        entry = len(self._spells)
        came_s = time.monotonic()
        self._spells.append((spell.kind, box.name, came_s, float("inf")))
        async with FAMILIES[spell.family][spell.kind](box, rng):
            there_s = time.monotonic()
            await asyncio.sleep(spell.for_s)
            left_s = time.monotonic()
        self._spells[entry] = (spell.kind, box.name, came_s, time.monotonic())
        if spell.kind == "key swapped":
            self._spells.append(("impostor", box.name, there_s, left_s))

    def met(self, box: str, from_s: float, until_s: float) -> bool:
        """Whether a call on `box` in that time may have met a fault or what it left behind."""
        return any(
            where == box and came < until_s and from_s < went + MARGIN_S for _, where, came, went in self._spells
        )

    def strange(self, box: str, from_s: float, until_s: float) -> bool:
        """Whether another machine answered at that address for the whole of that time."""
        return any(
            kind == "impostor" and where == box and came <= from_s and until_s <= went
            for kind, where, came, went in self._spells
        )
