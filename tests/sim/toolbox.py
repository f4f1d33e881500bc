"""A machine and a way to run one simulated tool on it; used by the tests of `sim.tools`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from vcrecon.sim.machine import Fetch, Machine, no_network
from vcrecon.sim.process import Process
from vcrecon.sim.timing import Timing
from vcrecon.sim.tools import TOOLS

GIB = 1 << 30


class Bytes:
    """Standard input from bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def read(self, count: int = -1) -> bytes:
        size = len(self.data) if count < 0 else count
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    async def readline(self) -> bytes:
        line, newline, self.data = self.data.partition(b"\n")
        return line + newline


class Sink:
    """Standard output into memory."""

    def __init__(self) -> None:
        self.data = b""

    async def write(self, data: bytes) -> None:
        self.data += data


@dataclass
class Outcome:
    status: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode()


def machine(hypervisor: str = "kvm", fetch: Fetch = no_network, **more: object) -> Machine:
    settings: dict = {
        "memory_bytes": 8 * GIB,
        "cores": 4,
        "disk_bytes": 100 * GIB,
        "timing": Timing.instant(),
    }
    return Machine("c01", hypervisor=hypervisor, fetch=fetch, **(settings | more))


async def run(host: Machine, command: str, stdin: bytes | str = b"") -> Outcome:
    """One command, split like a shell would, without a shell."""
    argv = tuple(shlex.split(command))
    out, err = Sink(), Sink()
    data = stdin.encode() if isinstance(stdin, str) else stdin
    status = await TOOLS[argv[0]](Process(host, argv, Bytes(data), out, err, {"PWD": "/root"}))
    return Outcome(status, out.data, err.data.decode())


async def ok(host: Machine, command: str, stdin: bytes | str = b"") -> str:
    """Run a command that must succeed; its output."""
    outcome = await run(host, command, stdin)
    assert outcome.status == 0, (command, outcome)
    return outcome.raw.decode("utf-8", "replace")
