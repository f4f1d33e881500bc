"""A simulated host's faulty commands: fail, hang, be slow. Set by `sim.breakage`, asked by `sim.programs`."""

from __future__ import annotations

import asyncio
import re
import shlex
from dataclasses import dataclass, field

from vcrecon.sim.process import Process


@dataclass(slots=True)
class Fault:
    """What happens to the next `times` commands (None: to all) whose command line matches `pattern`."""

    pattern: re.Pattern[str]
    times: int | None
    status: int = 1
    stderr: str = ""
    hangs: bool = False


@dataclass(slots=True)
class Faults:
    """All faults of a host. `slow_s` is added to every command, in seconds."""

    slow_s: float = 0.0
    waiting: list[Fault] = field(default_factory=list)
    hanging: list[asyncio.Future[int]] = field(default_factory=list)
    """Commands that hang now: each ends with the status that is put here, as by a signal."""

    async def before(self, process: Process) -> int | None:
        """The hook for `Programs`: the status of a command that must fail, or None to let it run."""
        if self.slow_s:
            await asyncio.sleep(self.slow_s)
        if not self.waiting:
            return None
        line = shlex.join(process.argv)
        for fault in self.waiting:
            if fault.pattern.search(line):
                return await self._strike(fault, process)
        return None

    async def _strike(self, fault: Fault, process: Process) -> int:
        if fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                self.waiting.remove(fault)
        if fault.hangs:
            ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            self.hanging.append(ended)
            try:
                return await ended
            finally:
                self.hanging.remove(ended)
        if fault.stderr:
            await process.fail(fault.stderr)
        return fault.status
