"""The control socket: how commands talk to a running service.

`service` makes a `ControlServer` over its `Controls`; `cli` talks through `ControlClient`. HTTP with JSON bodies under
/v1/ on a Unix socket that only its owner (and root) may open.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import stat
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self, cast

import aiohttp
import structlog
from aiohttp import web

from vcrecon.errors import Refused, VcreconError
from vcrecon.paths import listener_pid

_log = structlog.get_logger("vcrecon")

EVENTS_MAX = 10_000
WAIT_S_MAX = 60.0
POWER_S_MAX = 180.0
BODY_BYTES_MAX = 1 << 20
SHUTDOWN_S = 2.0
_ANSWER_S = 30.0

Consentable = Literal["rebuild", "prune"]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Controls(Protocol):
    """What a person can ask a running service. Methods raise Refused with a sentence for that person."""

    def status(self) -> dict[str, Any]:
        """The whole site as it is known now."""

    def events(self, subject: str | None, after_id: int | None, limit: int) -> list[dict[str, Any]]:
        """At most `limit` events, oldest first: the newest ones, or the first ones after `after_id`."""

    def plans(self) -> list[dict[str, Any]]:
        """The last decision on every object."""

    def pause(self, subject: str) -> str:
        """Keep hands off `site`, `container/NAME`, `cluster/NAME` or `guest/NAME`."""

    def resume(self, subject: str) -> str:
        """End a pause."""

    def consent(self, kind: Consentable, names: list[str]) -> list[str]:
        """Note a person's word that these guests' disks may be given up (S2, S3). One sentence for each."""

    def fence(self, container: str, by: str) -> dict[str, Any]:
        """Note the word of `by` that a container is powered off (S1)."""

    async def power_fence(self, container: str, by: str) -> dict[str, Any]:
        """Switch a silent container off by its power control, prove it, and count it as off (S1)."""

    def container(self, name: str) -> dict[str, Any]:
        """What is on a container, and what can be done to it as a machine."""

    def reinstall(self, name: str, give_up: list[str], by: str) -> str:
        """Note a person's word that a container's disks, and these guests' work on them, may be lost (S2)."""

    def cancel_reinstall(self, name: str, by: str) -> str:
        """Take that word back, while nothing has begun."""

    def guest(self, name: str) -> dict[str, Any]:
        """Where a guest is, how to get there, and how far a wish for its disk is."""

    def rescue(self, name: str, by: str) -> str:
        """Note the wish of `by` to work on a guest's disk."""

    def release(self, name: str, by: str) -> str:
        """Note that the disk is given back."""

    def confirm(self) -> str:
        """The word that a large change waits for (S3)."""

    def refresh(self) -> str:
        """Look at every container now."""


class ControlServer:
    """Serves `controls` on a Unix socket of mode 0600 until closed. Call it from the event loop's thread."""

    def __init__(self, controls: Controls, path: Path, *, poll_s: float = 0.2) -> None:
        """`poll_s` is how often (seconds) the history is asked while a client waits for new events."""
        self._controls = controls
        self._path = path
        self._poll_s = poll_s
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._inode = 0

    async def start(self) -> None:
        """Begin to listen. Raises Refused when another process does already, or the path cannot be used."""
        listener = _bind(self._path)
        self._inode = self._path.stat().st_ino
        self._runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def close(self) -> None:
        """Answer those who wait, and take the socket away."""
        self._closing.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        with suppress(OSError):
            # Another service may have taken the place of a socket that somebody removed.
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[explain_errors], client_max_size=BODY_BYTES_MAX)
        app.add_routes(
            [
                web.get("/v1/status", self._status),
                web.get("/v1/events", self._events),
                web.get("/v1/plans", self._plans),
                web.post("/v1/pause", self._pause),
                web.post("/v1/resume", self._resume),
                web.post("/v1/consent", self._consent),
                web.post("/v1/fence", self._fence),
                web.post("/v1/power-fence", self._power_fence),
                web.get("/v1/container", self._container),
                web.post("/v1/reinstall", self._reinstall),
                web.post("/v1/cancel-reinstall", self._cancel_reinstall),
                web.get("/v1/guest", self._guest),
                web.post("/v1/rescue", self._rescue),
                web.post("/v1/release", self._release),
                web.post("/v1/confirm", self._confirm),
                web.post("/v1/refresh", self._refresh),
            ]
        )
        return app

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response(self._controls.status())

    async def _plans(self, request: web.Request) -> web.Response:
        return web.json_response({"plans": self._controls.plans()})

    async def _events(self, request: web.Request) -> web.Response:
        subject = request.query.get("subject") or None
        after_id = _number(request, "after", None, 0, 2**62)
        limit = _number(request, "limit", 1000, 1, EVENTS_MAX) or 1
        wait_s = float(_number(request, "wait", 0, 0, int(WAIT_S_MAX)) or 0)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + wait_s
        found = self._controls.events(subject, after_id, limit)
        while not found and not self._closing.is_set() and (left_s := deadline_s - loop.time()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), min(self._poll_s, left_s))
            found = self._controls.events(subject, after_id, limit)
        return web.json_response({"events": found})

    async def _pause(self, request: web.Request) -> web.Response:
        return _message(self._controls.pause(_text(await _body(request), "subject")))

    async def _resume(self, request: web.Request) -> web.Response:
        return _message(self._controls.resume(_text(await _body(request), "subject")))

    async def _consent(self, request: web.Request) -> web.Response:
        body = await _body(request)
        kind, names = body.get("kind"), body.get("names")
        if kind not in ("rebuild", "prune"):
            raise _BadInput("'kind' must be 'rebuild' or 'prune'")
        if not isinstance(names, list) or not names or not all(isinstance(n, str) and n for n in names):
            raise _BadInput("'names' must be a list of guest names, with at least one in it")
        told = self._controls.consent(cast(Consentable, kind), names)
        return web.json_response({"messages": told})

    async def _fence(self, request: web.Request) -> web.Response:
        body = await _body(request)
        return web.json_response(self._controls.fence(_text(body, "container"), _text(body, "by")))

    async def _power_fence(self, request: web.Request) -> web.Response:
        body = await _body(request)
        return web.json_response(await self._controls.power_fence(_text(body, "container"), _text(body, "by")))

    async def _container(self, request: web.Request) -> web.Response:
        return web.json_response(self._controls.container(request.query.get("name", "")))

    async def _reinstall(self, request: web.Request) -> web.Response:
        body = await _body(request)
        give_up = body.get("give_up")
        if not isinstance(give_up, list) or not all(isinstance(name, str) and name for name in give_up):
            raise _BadInput("'give_up' must be a list of guest names")
        return _message(self._controls.reinstall(_text(body, "container"), give_up, _text(body, "by")))

    async def _cancel_reinstall(self, request: web.Request) -> web.Response:
        body = await _body(request)
        return _message(self._controls.cancel_reinstall(_text(body, "container"), _text(body, "by")))

    async def _guest(self, request: web.Request) -> web.Response:
        return web.json_response(self._controls.guest(request.query.get("name", "")))

    async def _rescue(self, request: web.Request) -> web.Response:
        body = await _body(request)
        return _message(self._controls.rescue(_text(body, "guest"), _text(body, "by")))

    async def _release(self, request: web.Request) -> web.Response:
        body = await _body(request)
        return _message(self._controls.release(_text(body, "guest"), _text(body, "by")))

    async def _confirm(self, request: web.Request) -> web.Response:
        return _message(self._controls.confirm())

    async def _refresh(self, request: web.Request) -> web.Response:
        return _message(self._controls.refresh())


class ControlClient:
    """Talks to the service behind a control socket. Use it as `async with ControlClient(path) as client:`.

    Every method raises Refused when no service answers there, or when the service refuses; and VcreconError
    when the service fails to answer as it should.
    """

    def __init__(self, path: Path, *, answer_s: float = _ANSWER_S) -> None:
        """`answer_s` is how long (seconds) the service may take to answer."""
        self.path = path
        self._answer_s = answer_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.UnixConnector(os.fspath(self.path))
        self._session = aiohttp.ClientSession("http://vcrecon", connector=connector)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def status(self) -> dict[str, Any]:
        return await self._call("GET", "status")

    async def plans(self) -> list[dict[str, Any]]:
        return cast(list[dict[str, Any]], (await self._call("GET", "plans"))["plans"])

    async def events(
        self,
        subject: str | None = None,
        *,
        after_id: int | None = None,
        limit: int = 1000,
        wait_s: float = 0,
    ) -> list[dict[str, Any]]:
        """Events, oldest first. With `wait_s`, an empty answer comes only after that many whole seconds."""
        query = {"limit": str(limit), "wait": str(int(wait_s))}
        if subject is not None:
            query["subject"] = subject
        if after_id is not None:
            query["after"] = str(after_id)
        answer = await self._call("GET", "events", query=query, extra_s=wait_s)
        return cast(list[dict[str, Any]], answer["events"])

    async def pause(self, subject: str) -> str:
        return str((await self._call("POST", "pause", {"subject": subject}))["message"])

    async def resume(self, subject: str) -> str:
        return str((await self._call("POST", "resume", {"subject": subject}))["message"])

    async def consent(self, kind: Consentable, names: Sequence[str]) -> list[str]:
        answer = await self._call("POST", "consent", {"kind": kind, "names": list(names)})
        return cast(list[str], answer["messages"])

    async def fence(self, container: str, by: str) -> dict[str, Any]:
        return await self._call("POST", "fence", {"container": container, "by": by})

    async def power_fence(self, container: str, by: str) -> dict[str, Any]:
        """May take minutes: power controllers are slow."""
        return await self._call("POST", "power-fence", {"container": container, "by": by}, extra_s=POWER_S_MAX)

    async def container(self, name: str) -> dict[str, Any]:
        return await self._call("GET", "container", query={"name": name})

    async def reinstall(self, container: str, give_up: Sequence[str], by: str) -> str:
        body = {"container": container, "give_up": list(give_up), "by": by}
        return str((await self._call("POST", "reinstall", body))["message"])

    async def cancel_reinstall(self, container: str, by: str) -> str:
        return str((await self._call("POST", "cancel-reinstall", {"container": container, "by": by}))["message"])

    async def guest(self, name: str) -> dict[str, Any]:
        return await self._call("GET", "guest", query={"name": name})

    async def rescue(self, guest: str, by: str) -> str:
        return str((await self._call("POST", "rescue", {"guest": guest, "by": by}))["message"])

    async def release(self, guest: str, by: str) -> str:
        return str((await self._call("POST", "release", {"guest": guest, "by": by}))["message"])

    async def confirm(self) -> str:
        return str((await self._call("POST", "confirm", {}))["message"])

    async def refresh(self) -> str:
        return str((await self._call("POST", "refresh", {}))["message"])

    async def _call(
        self,
        method: str,
        route: str,
        body: dict[str, Any] | None = None,
        *,
        query: dict[str, str] | None = None,
        extra_s: float = 0.0,
    ) -> dict[str, Any]:
        if self._session is None:
            raise RuntimeError("use ControlClient with `async with`")
        timeout = aiohttp.ClientTimeout(total=self._answer_s + extra_s)
        try:
            async with self._session.request(
                method, f"/v1/{route}", json=body, params=query, timeout=timeout
            ) as response:
                text = await response.text()
                return _answer(response.status, text, self.path)
        except TimeoutError:
            raise VcreconError(
                f"{self.path}: the service did not answer within {self._answer_s + extra_s:.0f} s; "
                "its log says what keeps it busy"
            ) from None
        except aiohttp.ClientConnectorError as error:
            raise Refused(_no_service(self.path, error.os_error)) from None
        except (aiohttp.ClientError, OSError):
            raise VcreconError(f"{self.path}: the service ended while it answered; its log says why") from None


class _BadInput(Exception):
    """The request itself is wrong; becomes a 400."""


@web.middleware
async def explain_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as {"error": sentence}; a traceback goes to the log and never to the client."""
    try:
        return await handler(request)
    except Refused as error:
        return _error(409, str(error))
    except _BadInput as error:
        return _error(400, str(error))
    except web.HTTPException as error:
        return _error(error.status, f"{request.method} {request.path}: {error.reason.lower()}")
    except VcreconError as error:
        return _error(503, str(error))
    except Exception:
        request_id = secrets.token_hex(4)
        _log.exception("a request failed", request=request_id, method=request.method, path=request.path)
        return _error(500, f"the service failed on this request; its log tells more under request={request_id}")


def _error(status: int, sentence: str) -> web.Response:
    return web.json_response({"error": sentence}, status=status)


def _message(sentence: str) -> web.Response:
    return web.json_response({"message": sentence})


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.text())
    except (ValueError, RecursionError):
        raise _BadInput("the body is not JSON") from None
    if not isinstance(body, dict):
        raise _BadInput("the body must be a JSON object")
    return body


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise _BadInput(f"'{key}' must be a text that is not empty")
    return value


def _number(request: web.Request, key: str, default: int | None, least: int, most: int) -> int | None:
    text = request.query.get(key)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 20 or not least <= int(text) <= most:
        raise _BadInput(f"'{key}' must be a whole number from {least} to {most}")
    return int(text)


def _answer(status: int, text: str, path: Path) -> dict[str, Any]:
    """The body of a good answer; a bad one is raised."""
    try:
        body = json.loads(text)
        if not isinstance(body, dict):
            raise ValueError
    except ValueError:
        raise VcreconError(f"{path}: what answers there is not a vcrecon service") from None
    if status == 200:
        return body
    sentence = str(body.get("error", f"status {status}"))
    raise Refused(sentence) if status in (400, 409) else VcreconError(sentence)


def _bind(path: Path) -> socket.socket:
    """A listening socket at `path`, private from its first moment. Raises Refused."""
    pid = listener_pid(path)
    if pid is not None:
        raise Refused(
            f"{path}: a service{f' (pid {pid})' if pid else ''} listens there already; stop it first, "
            "or name another state directory with --state"
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    mask = os.umask(0o177)
    try:
        if os.path.lexists(path):
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise Refused(f"{path}: is not a socket; remove it, or name another directory with --state")
            path.unlink()
        listener.bind(os.fspath(path))
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise Refused(
            f"{path}: cannot make the control socket: {os_reason(error)}; name a writable directory with --state"
        ) from None
    except Refused:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener


def _no_service(path: Path, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return (
            f"{path}: this socket belongs to another user; run the command as the user that runs the "
            "service (often: with sudo)"
        )
    return f"no running service answers at {path}; start one with `vcrecon run SPECS`"


def os_reason(error: BaseException) -> str:
    """Why a call of the operating system failed, in its words."""
    number = getattr(error, "errno", None)
    return os.strerror(number).lower() if number and number > 0 else str(error)
