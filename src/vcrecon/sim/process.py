"""What the simulated shell and the simulated tools agree on: a process, its streams, and the type of a tool.

`sim.shell` starts processes; `sim.tools` implements them; neither knows the other's inside.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vcrecon.sim.machine import Machine


class Reader(Protocol):
    """Standard input. `read(-1)` reads to the end; an empty result means the end."""

    async def read(self, count: int = -1) -> bytes: ...

    async def readline(self) -> bytes: ...


class Writer(Protocol):
    """Standard output or error. Writing to a closed reader raises BrokenPipeError."""

    async def write(self, data: bytes) -> None: ...


@dataclass(slots=True)
class Process:
    """One running command on a simulated host. `argv[0]` is the name it was called by."""

    machine: Machine
    argv: tuple[str, ...]
    stdin: Reader
    stdout: Writer
    stderr: Writer
    env: dict[str, str] = field(default_factory=dict)

    async def fail(self, message: str, status: int = 1) -> int:
        """Write `message` and a newline to standard error and return `status`, as tools end when they fail."""
        await self.stderr.write(message.encode() + b"\n")
        return status

    async def say(self, text: str) -> None:
        """Write `text` (with its newlines) to standard output."""
        await self.stdout.write(text.encode())


Tool = Callable[[Process], Awaitable[int]]
"""A simulated program: runs one process to its end and returns its exit status."""
