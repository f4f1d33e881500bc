"""What a person types, run by the real commands against a service of the simulation.

The whole command line is there: its parsing, the commands, the control client and the control server's handlers. Only
the socket between the last two is left out, and `asyncio.run`, whose loop is the virtual one here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast
from unittest.mock import patch

from aiohttp import web
from tests.simulation.process import Process
from typer.testing import CliRunner

from vcrecon.cli.app import app
from vcrecon.cli.target import Target
from vcrecon.shell.control import ControlClient, ControlServer, _answer, explain_errors

PATIENCE_S = 600.0
"""Virtual seconds until the person presses Ctrl-C."""


@dataclass(frozen=True)
class Answer:
    """What the command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def refused(self) -> str:
        """The sentence of a refusal; nothing when the command was not refused."""
        return next((line.removeprefix("error: ") for line in self.err.splitlines() if line.startswith("error: ")), "")


def command(process: Process, *words: str) -> Answer:
    """Type `vcrecon WORDS`. An exception that is no refusal comes through."""
    with _on_virtual_loop(process):
        result = CliRunner().invoke(app, list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answer(result.exit_code, result.stdout, result.stderr)


@contextmanager
def _on_virtual_loop(process: Process) -> Iterator[None]:
    class Client(_Client):
        service = process

    async def patiently(work: Coroutine[Any, Any, Any]) -> Any:
        return await asyncio.wait_for(work, PATIENCE_S)

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return process.loop.run_until_complete(patiently(work))
        except TimeoutError:
            raise KeyboardInterrupt from None

    def socket(target: Target) -> Path | None:
        return process.state / "control.sock" if process.alive else None

    with ExitStack() as patches:
        for name, value in {
            "vcrecon.shell.control.ControlClient": Client,
            "asyncio.run": run,
            "vcrecon.cli.target.Target.find_socket": socket,
            "vcrecon.cli.rescue.run_there": _a_shell,
            "vcrecon.preview.Connector": lambda settings, pins: process.connect,
            "vcrecon.preview.time": SimpleNamespace(time=process.clock),
            "vcrecon.shell.log.configure": lambda **named: None,
        }.items():
            patches.enter_context(patch(name, value))
        yield


async def _a_shell(found: dict[str, Any], work: object) -> int:
    """The person looks around on the container, and leaves again."""
    await asyncio.sleep(1.0)
    return 0


class _Client(ControlClient):
    """Hands each request to the handlers of the service's own control server, as text."""

    service: Process

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def _call(
        self,
        method: str,
        route: str,
        body: dict[str, Any] | None = None,
        *,
        query: dict[str, str] | None = None,
        extra_s: float = 0.0,
    ) -> dict[str, Any]:
        request = cast(web.Request, _Request(method, f"/v1/{route}", json.dumps(body), query or {}))
        server = ControlServer(self.service.controls, self.path)
        routes = {(r.method, r.resource.canonical): r.handler for r in server._app().router.routes() if r.resource}
        handler = cast(Any, routes[method, request.path])
        response = await self.service.call(lambda: explain_errors(request, handler))
        return _answer(response.status, response.text or "", self.path)


@dataclass
class _Request:
    method: str
    path: str
    body: str
    query: dict[str, str] = field(default_factory=dict)

    async def text(self) -> str:
        return self.body
