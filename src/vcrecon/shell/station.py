"""What the controller keeps for one container. Made by `controller`, one each."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from vcrecon.core.decisions import Plan
from vcrecon.core.observation import ALL_PARTS, Part
from vcrecon.shell.transport import Host


class Station:
    """Its connection, its wake-up, its last plan, and what is due to be looked at."""

    def __init__(self, name: str, host: Host) -> None:
        self.name = name
        self.host = host
        self.wake = asyncio.Event()
        self.answers = asyncio.Event()
        self.due: frozenset[Part] = ALL_PARTS
        self.full_look_at_s = 0.0
        self.plan: Plan | None = None
        self.tasks: list[asyncio.Task[None]] = []
        self.told_at_s: float | None = None
        """When the hypervisor told of something that no pass has looked at yet (monotonic seconds)."""
        self.settling: dict[str, float] = {}
        """Subjects whose action ended (monotonic seconds) and whose outcome was not looked at here since."""

    def poke(self, parts: Collection[Part] = ()) -> None:
        self.due |= frozenset(parts)
        self.wake.set()
