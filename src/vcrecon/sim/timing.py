"""How long things take on a simulated host, and the clock they take it from.

Every tool asks `Timing.spend(operation)`; tests use `Timing.instant()`, the demo `Timing.demo()`, and the
deterministic simulation brings a virtual clock through `sleeper` and `now`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

# Seconds at scale 1, of the order measured on small real servers (image sizes scaled to the simulation's).
SECONDS: Mapping[str, float] = {
    "lvcreate": 0.02,
    "lvremove": 0.02,
    "lvchange": 0.01,
    "lvreport": 0.01,
    "mkfs": 0.05,
    "mount": 0.01,
    "extract": 0.5,
    "copy": 0.1,
    "fetch": 0.05,
    "ip": 0.002,
    "nft": 0.005,
    "virsh": 0.01,
    "start": 0.2,
    "boot": 3.0,
    "shutdown": 1.0,
    "destroy": 0.05,
    "host-boot": 5.0,
    "ping": 0.01,
}


@dataclass(slots=True)
class Timing:
    """Durations in seconds by operation, multiplied by `scale`; 0 means no waiting at all.

    `sleeper` waits for real or virtual seconds; `now` is the matching monotonic clock; `wall` gives Unix
    seconds for dates and file times.
    """

    scale: float = 1.0
    seconds: dict[str, float] = field(default_factory=lambda: dict(SECONDS))
    sleeper: Callable[[float], Awaitable[None]] = asyncio.sleep
    now: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time

    @classmethod
    def instant(cls) -> Timing:
        """Nothing takes time; for tests."""
        return cls(scale=0.0)

    @classmethod
    def demo(cls) -> Timing:
        """Times a person can follow: a guest answers about three seconds after its start."""
        return cls(scale=1.0)

    def duration(self, operation: str) -> float:
        """Seconds that `operation` takes. Raises KeyError for an operation that nobody defined."""
        return self.seconds[operation] * self.scale

    async def spend(self, operation: str) -> None:
        """Take the time of a named operation."""
        await self.sleep(self.seconds[operation])

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds`, scaled. Lets other processes run even when it waits for nothing."""
        await self.sleeper(seconds * self.scale)
