"""Feels how late the event loop runs: a loop that is late makes everything late. Run by `service`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Never

BEAT_S = 0.5


async def feel_pulse(observe: Callable[[float], None], beat_s: float = BEAT_S) -> Never:
    """Until cancelled: tell `observe` by how many seconds each timer of `beat_s` seconds was late."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + beat_s
        await asyncio.sleep(beat_s)
        observe(max(0.0, loop.time() - due_s))
