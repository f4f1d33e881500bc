"""The port that --listen names: Prometheus, health checks and the web page read there. Made by `service`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from aiohttp import web

from vcrecon.errors import Refused
from vcrecon.shell.control import SHUTDOWN_S, Handler, explain_errors, os_reason

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class TcpServer:
    """An application on a TCP address, for `metrics_app`. Started and closed by `service`."""

    def __init__(self, app: web.Application, host: str, port: int) -> None:
        """Port 0 takes a free one; `url` tells which."""
        self._app = app
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        """Begin to listen. Raises Refused when the address cannot be had."""
        runner = web.AppRunner(self._app, access_log=None, shutdown_timeout=SHUTDOWN_S)
        await runner.setup()
        site = web.TCPSite(runner, self._host, self._port)
        try:
            await site.start()
        except (OSError, OverflowError) as error:
            await runner.cleanup()
            raise Refused(
                f"cannot listen on {_host_port(self._host, self._port)} for the page and metrics: "
                f"{os_reason(error)}; choose another address with --listen HOST:PORT, "
                "or switch them off with --listen none"
            ) from None
        self._runner = runner
        port = int(runner.addresses[0][1])
        self.url = f"http://{_host_port(self._host, port)}"

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


def metrics_app(
    render: Callable[[], bytes],
    healthy: Callable[[], tuple[bool, str]],
    ready: Callable[[], tuple[bool, str]],
    more: Iterable[web.RouteDef] = (),
) -> web.Application:
    """/metrics from `render`, which runs in a thread; /healthz and /readyz answer 200 or 503 with the sentence of each.

    `more` is what else is read there: the web page (`shell.page`).
    """

    async def metrics(request: web.Request) -> web.Response:
        # 10,000 guests take nearly half a second: the loop must not wait for that.
        body = await asyncio.to_thread(render)
        return web.Response(body=body, headers={"Content-Type": _METRICS_TYPE})

    def probe(judge: Callable[[], tuple[bool, str]]) -> Handler:
        async def answer(request: web.Request) -> web.Response:
            good, sentence = judge()
            return web.Response(status=200 if good else 503, text=sentence + "\n")

        return answer

    app = web.Application(middlewares=[explain_errors])
    app.add_routes(
        [
            web.get("/metrics", metrics),
            web.get("/healthz", probe(healthy)),
            web.get("/readyz", probe(ready)),
            *more,
        ]
    )
    return app


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
