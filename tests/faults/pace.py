"""Whether this machine kept pace: on a busy one a program may wait for seconds. Used by `one`."""

from __future__ import annotations

import asyncio
import time

SLOW_S = 0.1
"""So long no process takes to start and to end unless the machine is overloaded; a login is a row of such waits."""


class Pace:
    """Starts a small program again and again, and remembers when that took too long."""

    def __init__(self) -> None:
        self._slow: list[tuple[float, float]] = []
        self._began_s = time.monotonic()
        self.slow_s = 0.0
        """How much of the time was lost so far."""

    async def watch(self) -> None:
        while True:
            self._began_s = time.monotonic()
            process = await asyncio.create_subprocess_exec("/bin/true")
            await process.wait()
            took_s = time.monotonic() - self._began_s
            if took_s > SLOW_S:
                self._slow.append((self._began_s, time.monotonic()))
                self.slow_s += took_s
            await asyncio.sleep(0.1)

    def lost(self, from_s: float, until_s: float) -> bool:
        """Whether the machine was too slow at any moment of that time."""
        return any(came < until_s and from_s < went for came, went in self._slow)

    def late_s(self, from_s: float, until_s: float) -> float:
        """How much of that time was lost."""
        return sum(max(min(until_s, went) - max(from_s, came), 0.0) for came, went in self._slow)
