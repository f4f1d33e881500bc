"""The image server of a run: serves files by name, and serves them wrong when told to. Used by `one` and `work`."""

from __future__ import annotations

import asyncio
import hashlib
import random

from aiohttp import web

from vcrecon.spec.model import Artifact, Image

SIZES = {"small": 2_000, "middle": 300_000, "large": 2_500_000}


class Images:
    """`mode` is what is wrong with answers: nothing, or `corrupt`, `short` or `slow`."""

    def __init__(self, rng: random.Random) -> None:
        self._data = {name: rng.randbytes(size) for name, size in SIZES.items()}
        self.sha256 = {name: hashlib.sha256(data).hexdigest() for name, data in self._data.items()}
        self.mode = ""
        self.turns = 0
        """How often the mode changed."""
        self.port = 0

    def turn(self, mode: str) -> None:
        self.mode = mode
        self.turns += 1

    async def __aenter__(self) -> Images:
        app = web.Application()
        app.router.add_get("/{name}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "0.0.0.0", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def image(self, name: str, address: str) -> Image:
        """An image whose kernel is the file; its root is never asked for."""
        kernel = Artifact(f"http://{address}:{self.port}/{name}", self.sha256[name])
        return Image(name, Artifact("http://nowhere.invalid/root", "0" * 64), 1 << 30, kernel)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        data, mode = self._data[request.match_info["name"]], self.mode
        start = request.http_range.start or 0
        if start >= len(data):
            raise web.HTTPRequestRangeNotSatisfiable
        if mode == "corrupt":
            data = data[:-1] + bytes([data[-1] ^ 1])
        body = data[start:]
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = len(body)
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        await response.prepare(request)
        if mode == "short":
            await response.write(body[: len(body) // 2])
            assert request.transport is not None
            request.transport.close()
            return response
        if mode == "slow":
            await response.write(body[:1000])
            await asyncio.sleep(1.0)
            body = body[1000:]
        await response.write(body)
        return response
