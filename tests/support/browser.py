"""A headless Chromium that tests look through, driven over its DevTools protocol. Used by tests/shell, tests/e2e.

https://chromedevtools.github.io/devtools-protocol/ has the commands. Its profile is a directory of its own, and it
is ended by its process id.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

START_S = 120.0
ANSWER_S = 120.0
"""Deadlines for a machine that is busy with other tests."""


class Tab:
    """One page. `errors` holds what it complained of: exceptions, and what its security policy refused."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self.errors: list[str] = []

    async def read(self) -> None:
        """Take in what the browser sends, until it ends."""
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
            elif said["method"] == "Page.loadEventFired":
                self._loaded.set()
            elif said["method"] == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(said["params"]["exceptionDetails"]))
            elif said["method"] == "Log.entryAdded" and said["params"]["entry"]["source"] == "security":
                self.errors.append(said["params"]["entry"]["text"])

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One DevTools command. Raises AssertionError when the browser refuses it."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        said = await asyncio.wait_for(answer, ANSWER_S)
        assert "error" not in said, f"{method}: {said['error']}"
        result: dict[str, Any] = said["result"]
        return result

    async def open(self, url: str) -> None:
        """Go there, and wait until it is loaded."""
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), ANSWER_S)

    async def js(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        said = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    async def text(self, selector: str = "main") -> str:
        """The text that a person sees in the first element that matches; "" when there is none."""
        return str(await self.js(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    async def until(self, expression: str, deadline_s: float = 60.0) -> None:
        """Wait until a JavaScript expression is true."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + deadline_s
        while not await self.js(expression):
            assert loop.time() < end_s, f"never true: {expression}\n{await self.text('body')}"
            await asyncio.sleep(0.05)

    async def screen(self, width: int, height: int, *, scale: float = 1, phone: bool = False) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )

    async def scheme(self, name: str) -> None:
        """`light` or `dark`, as a person's system prefers."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def picture(self) -> bytes:
        """What the screen shows, as PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])


@contextlib.asynccontextmanager
async def browsing(chromium: str) -> AsyncIterator[Tab]:
    """A browser with one empty tab, in a process group of its own that ends with the block."""
    with tempfile.TemporaryDirectory(prefix="vc-chromium-", ignore_cleanup_errors=True) as profile:
        with (Path(profile) / "stderr").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--remote-debugging-port=0", f"--user-data-dir={profile}", "--no-first-run", "--hide-scrollbars",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--force-color-profile=srgb", "about:blank",
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            port = await _port(Path(profile), process)
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as web:
                async with web.get("/json/list") as answer:
                    address = next(tab["webSocketDebuggerUrl"] for tab in await answer.json() if tab["type"] == "page")
                async with web.ws_connect(address, max_msg_size=0) as socket:
                    tab = Tab(socket)
                    reader = asyncio.create_task(tab.read())
                    for domain in ("Page", "Runtime", "Log"):
                        await tab.call(f"{domain}.enable")
                    yield tab
                    reader.cancel()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _port(profile: Path, process: asyncio.subprocess.Process) -> int:
    """Where it listens; it writes that into its profile once it does."""
    loop, path = asyncio.get_running_loop(), profile / "DevToolsActivePort"
    end_s = loop.time() + START_S
    while not (path.exists() and "\n" in path.read_text()):
        assert process.returncode is None, f"chromium ended: {(profile / 'stderr').read_text()[-2000:]}"
        assert loop.time() < end_s, f"chromium did not start: {(profile / 'stderr').read_text()[-2000:]}"
        await asyncio.sleep(0.05)
    return int(path.read_text().partition("\n")[0])
