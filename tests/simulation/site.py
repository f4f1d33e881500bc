"""The simulated site of the demo without sockets: the same hosts and tools, reached over `wire`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast
from urllib.parse import urlsplit

from tests.simulation.wire import Network, WireServer

from vcrecon.sim.machine import Machine
from vcrecon.sim.programs import Programs
from vcrecon.sim.server import HostServer
from vcrecon.sim.site import Site
from vcrecon.sim.timing import Timing
from vcrecon.spec.model import Spec

IMAGES_URL = "http://images.test"
_PIECE_BYTES = 16 * 1024
EPOCH_S = 1_800_000_000.0


class Clock:
    """Unix seconds on virtual time. `jump_s` is how far somebody has set it forward or back."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.jump_s = 0.0

    def __call__(self) -> float:
        return EPOCH_S + self._loop.time() + self.jump_s


class VirtualSite(Site):
    """`start` and `close` of a Site do nothing of note here: there are no sockets."""

    def __init__(self, spec: Spec, network: Network, *, scale: float = 1.0) -> None:
        self.network = network
        clock = Clock(network.loop)
        timing = Timing(scale=scale, sleeper=asyncio.sleep, now=network.loop.time, wall=clock)
        super().__init__(spec, timing=timing)
        self.images.url = IMAGES_URL
        self._offer_images()

    @property
    def servers(self) -> dict[str, WireServer]:
        return {name: cast(WireServer, host.server) for name, host in self.hosts.items()}

    def make_server(self, machine: Machine, programs: Programs) -> HostServer:
        return cast(HostServer, WireServer(machine, programs, self.network))

    async def change_host_key(self, host: str) -> None:
        server = self.servers[host]
        server.key_number += 1
        await server.restart()

    async def fetch(self, url: str, offset: int) -> tuple[int, AsyncIterator[bytes]]:
        if not url.startswith(IMAGES_URL):
            raise ConnectionRefusedError(url)
        offered = self.images.files.get(urlsplit(url).path)
        if offered is None:
            return 404, _pieces(b"", None)
        offered.requests += 1
        await asyncio.sleep(self.images.delay_s)
        if offset >= len(offered.body) > 0:
            return 416, _pieces(b"", None)
        end = len(offered.body) // 2 if offered.truncated else len(offered.body)
        return 206 if offset else 200, _pieces(offered.body[offset:end], url if offered.truncated else None)


async def _pieces(data: bytes, lost: Any) -> AsyncIterator[bytes]:
    for start in range(0, len(data), _PIECE_BYTES):
        await asyncio.sleep(0.001)
        yield data[start : start + _PIECE_BYTES]
    if lost is not None:
        raise ConnectionResetError(lost)
