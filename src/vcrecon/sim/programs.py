"""What one simulated host's PATH holds, and every process that runs on the host.

`sim.shell` looks programs up and runs them here; `sim.site` hooks in its faults and reads the command log;
`sim.server` ends all of it when the host loses power.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import shlex
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from vcrecon.sim.process import Process, Tool

LOG_ENTRIES_MAX = 4096
SCRIPTS_MAX = 256
_DIRECTORIES = ("/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")

_quoted = functools.lru_cache(maxsize=4096)(shlex.quote)

Hook = Callable[[Process], Awaitable[int | None]]
"""Runs before a program; a status from it is the program's, and the program does not run."""


class Programs:
    """The programs of one host. `log` and `counts` hold what was started, by command line and by name;
    `scripts` what came over SSH; `crashes` the simulation's own faults."""

    def __init__(self, tools: Mapping[str, Tool], *, before: Hook | None = None) -> None:
        # Imported here because the command-running tools need the shell, which needs this module.
        from vcrecon.sim.shell_tools import command_tools

        self.tools = {**tools, **command_tools(self)}
        self.before = before
        self.tasks: set[asyncio.Task[Any]] = set()
        self._locks: dict[str, int] = {}
        self._unlocked = asyncio.Event()
        self.log: deque[str] = deque(maxlen=LOG_ENTRIES_MAX)
        self.counts: Counter[str] = Counter()
        self.scripts: deque[str] = deque(maxlen=SCRIPTS_MAX)
        self.crashes: deque[str] = deque(maxlen=64)
        self._pids = itertools.count(1000)

    def next_pid(self) -> int:
        return next(self._pids)

    def find(self, name: str) -> Tool | None:
        """The program that `name` starts: a bare name, or a path in one of the usual directories."""
        if "/" in name:
            directory, _, name = name.rpartition("/")
            if directory not in _DIRECTORIES:
                return None
        return self.tools.get(name)

    def note_script(self, script: str) -> None:
        """Remember a script that came over SSH, for tests that ask what was sent."""
        self.scripts.append(script)

    async def run(self, tool: Tool, process: Process) -> int:
        """Run one process to its end; its exit status, 141 when it wrote to a closed pipe."""
        name = process.argv[0].rpartition("/")[2]
        self.counts[name] += 1
        self.log.append(" ".join(map(_quoted, process.argv)))
        try:
            if self.before is not None and (status := await self.before(process)) is not None:
                return status
            return await tool(process)
        except BrokenPipeError:
            return 141
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            with contextlib.suppress(OSError):
                await process.fail(f"{name}{where}: {error.strerror or error}")
            return 1
        except Exception as error:
            # A fault of the simulation, not of the simulated host: say so instead of looking like one.
            self.crashes.append(f"{shlex.join(process.argv)}: {error!r}")
            with contextlib.suppress(OSError):
                await process.fail(f"vcrecon.sim: {name} crashed in the simulation: {error!r}")
            return 70

    def spawn(self, work: Coroutine[Any, Any, int]) -> asyncio.Task[int]:
        """Run `work` as a task that `kill_all` ends."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    @property
    def held_locks(self) -> frozenset[str]:
        """The paths on which somebody holds a lock now."""
        return frozenset(self._locks)

    async def lock(self, path: str, *, shared: bool, wait: bool) -> bool:
        """Take the lock on `path` as flock(2) does; False when it is held and we should not wait."""
        while True:
            holders = self._locks.get(path, 0)
            if holders == 0 or (shared and holders > 0):
                self._locks[path] = holders + 1 if shared else -1
                return True
            if not wait:
                return False
            self._unlocked.clear()
            await self._unlocked.wait()

    def unlock(self, path: str, *, shared: bool) -> None:
        """Give up a lock taken with `lock`."""
        holders = self._locks.get(path, 0) - 1 if shared else 0
        if holders > 0:
            self._locks[path] = holders
        else:
            self._locks.pop(path, None)
        self._unlocked.set()

    def kill_all(self) -> None:
        """End every process at once, as a power failure does. Their locks go with them."""
        for task in list(self.tasks):
            task.cancel()
