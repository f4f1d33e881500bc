"""The breakage API of a simulated site over a Unix socket, as JSON. Served by `python -m vcrecon.sim`.

`POST /call` with `{"method": ..., "arguments": {...}}` answers `{"result": ...}`, or `{"error": ...}` with
status 400. `SiteClient` is the other end, for tests and the demo.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from aiohttp import web

from vcrecon.errors import Refused
from vcrecon.sim.breakage import Breakage

if TYPE_CHECKING:
    from vcrecon.sim.site import Site

CALLS = frozenset(
    name for name, value in vars(Breakage).items() if inspect.iscoroutinefunction(value) and name[0] != "_"
) | {"world"}


class ControlServer:
    """Serves `site`'s breakage methods on a Unix socket until `close`."""

    def __init__(self, site: Site, socket: Path) -> None:
        self._site = site
        self._socket = socket
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen. Raises Refused when the socket cannot be made."""
        application = web.Application()
        application.router.add_post("/call", self._call)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        try:
            self._socket.unlink(missing_ok=True)
            await web.UnixSite(self._runner, str(self._socket)).start()
            self._socket.chmod(0o600)
        except OSError as error:
            why = error.strerror or error
            raise Refused(f"{self._socket}: cannot listen there: {why}; give another with --control") from None

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        self._socket.unlink(missing_ok=True)

    async def _call(self, request: web.Request) -> web.Response:
        try:
            message = await request.json()
            method, arguments = message["method"], message.get("arguments", {})
            if method not in CALLS:
                raise LookupError(f"no call {method!r}; there are {', '.join(sorted(CALLS))}")
            result = await getattr(self._site, method)(**arguments)
        except (LookupError, TypeError, ValueError, OSError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"result": result})


class SiteClient:
    """Calls the breakage methods of a site in another process.

    `await client.call("kill_guest", guest="a-n1")`.

    Any method of Breakage is also a method here: `await client.kill_guest("a-n1")`.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    async def call(self, method: str, **arguments: Any) -> Any:
        """Raises Refused with the site's own words, or when no site answers on the socket."""
        if self._http is None:
            self._http = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self._socket)))
        try:
            async with self._http.post("http://site/call", json={"method": method, "arguments": arguments}) as response:
                answer = await response.json()
        except aiohttp.ClientError as error:
            raise Refused(f"{self._socket}: no simulated site answers there: {error}") from None
        if "error" in answer:
            raise Refused(f"{method}: {answer['error']}")
        return answer["result"]

    def __getattr__(self, name: str) -> Any:
        if name not in CALLS:
            raise AttributeError(name)
        if name == "world":
            return lambda: self.call("world")
        signature = inspect.signature(getattr(Breakage, name))

        async def method(*positional: Any, **named: Any) -> Any:
            bound = signature.bind(None, *positional, **named)
            arguments = {key: value for key, value in bound.arguments.items() if key != "self"}
            return await self.call(name, **arguments)

        return method
