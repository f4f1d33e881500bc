"""Who looks at the service meanwhile: browsers on its page, `status --watch` on a terminal, `events --follow`.

They come and go, some politely and some in the middle of an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp

PAGE_EVERY_S = 2.0
"""As in page.js."""
POLITE = 0.5


class Watchers:
    """`seen` counts answers, by kind of watcher; `trouble` holds answers that nobody should get."""

    def __init__(self, url: str, state: Path, rng: random.Random, stay_s: float) -> None:
        self._url, self._state, self._rng, self._stay_s = url, state, rng, stay_s
        self.seen: Counter[str] = Counter()
        self.trouble: list[str] = []

    async def again_and_again(self, one: Callable[[], Awaitable[None]]) -> None:
        """One watcher after the other, each for a while; until cancelled."""
        while True:
            watcher = asyncio.ensure_future(one())
            try:
                await asyncio.wait({watcher}, timeout=self._stay_s * self._rng.uniform(0.5, 1.5))
            finally:
                watcher.cancel()
                (ended,) = await asyncio.gather(watcher, return_exceptions=True)
                if isinstance(ended, Exception):
                    self.trouble.append(f"{one.__name__}: {ended!r}")
            await asyncio.sleep(self._rng.uniform(0.0, 1.0))

    async def browser(self) -> None:
        """What the page's script does; at its end the connection is dropped, wherever it is."""
        etag = ""
        async with aiohttp.ClientSession(self._url, timeout=aiohttp.ClientTimeout(total=60)) as web:
            async with web.get("/") as answer:
                self._judge(answer.status, await answer.read())
            while True:
                async with web.get("/view", headers={"If-None-Match": etag}) as answer:
                    self._judge(answer.status, await answer.read())
                    etag = answer.headers.get("ETag", "")
                await asyncio.sleep(PAGE_EVERY_S)

    def _judge(self, status: int, body: bytes) -> None:
        self.seen["browser"] += 1
        if status not in (200, 304) or (status == 200 and not body):
            self.trouble.append(f"a browser was answered {status}, {len(body)} bytes")

    async def screen(self) -> None:
        """`vcrecon status --watch` on a terminal of its own."""
        own, theirs = pty.openpty()
        reader = asyncio.get_running_loop()
        reader.add_reader(own, self._drain, own)
        try:
            await self._command(theirs, "status", "--watch")
        finally:
            reader.remove_reader(own)
            os.close(own)
            os.close(theirs)

    def _drain(self, terminal: int) -> None:
        with contextlib.suppress(OSError):
            self.seen["screen"] += bool(os.read(terminal, 1 << 16))

    async def follower(self) -> None:
        """`vcrecon events --follow`."""
        read, write = os.pipe()
        loop = asyncio.get_running_loop()
        loop.add_reader(read, self._take, read)
        try:
            await self._command(write, "events", "--follow", "--json")
        finally:
            loop.remove_reader(read)
            os.close(read)
            os.close(write)

    def _take(self, pipe: int) -> None:
        self.seen["follower"] += bool(os.read(pipe, 1 << 16))

    async def _command(self, output: int, *words: str) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "vcrecon", *words, "--state", self._state,
            stdin=output if os.isatty(output) else asyncio.subprocess.DEVNULL, stdout=output,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "TERM": "xterm"},
        )  # fmt: skip
        try:
            code = await process.wait()
            self.trouble.append(f"vcrecon {words[0]} ended by itself with {code}")
        finally:
            if process.returncode is None:
                process.terminate() if self._rng.random() < POLITE else process.kill()
                await asyncio.shield(process.wait())


@contextlib.asynccontextmanager
async def watching(watchers: Watchers, browsers: int) -> AsyncIterator[None]:
    """Browsers, a screen and a follower until the block ends."""
    kinds = [watchers.browser] * browsers + [watchers.screen, watchers.follower]
    tasks = [asyncio.create_task(watchers.again_and_again(one)) for one in kinds]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
