"""What machines ask over HTTP: boot scripts, installer and images, and an installer's calls. Owned by `boot.services`.

Nothing is believed that does not come from the provisioning network, and a boot request or claim only when the
kernel's neighbour table knows its source address with the MAC that it names. Answers come from `boot.desk`; this
module only checks who asks, and writes installers' logs.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from vcrecon.boot import calls, ipxe
from vcrecon.boot.calls import Call, Garbage
from vcrecon.boot.complaints import Complaints, OnEvent
from vcrecon.boot.desk import Desk
from vcrecon.boot.install_log import InstallLogs
from vcrecon.boot.job import JobSecrets, consoles, install_token, job
from vcrecon.boot.neighbours import Neighbours
from vcrecon.boot.static import found_file
from vcrecon.core.boot_rules import container_of
from vcrecon.core.installs import BootAnswer, LocalBoot, Netboot, RunInstaller, Ticket
from vcrecon.core.mastery import UNCLEAR
from vcrecon.errors import Refused, VcreconError
from vcrecon.spec.model import Provisioning, Spec

_log = structlog.get_logger("vcrecon")

BODY_S_MAX = 30.0
"""A body that takes longer is given up: nobody holds a connection open for ever."""
_BUSY_S = 3
_SHUTDOWN_S = 2.0
_TEXT = "text/plain"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen. `behind_proxy`: on loopback, and the proxy there says in X-Real-IP who asks."""

    address: str
    port: int
    behind_proxy: bool = False


class BootServer:
    """Serves until closed. All it knows of the site it takes from the desk's spec, anew for each request."""

    def __init__(
        self,
        desk: Desk,
        listen: Listen,
        *,
        site_secret: bytes,
        secrets_of: Callable[[Spec], JobSecrets],
        neighbours: Neighbours,
        logs: InstallLogs,
        on_event: OnEvent,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`secrets_of` is called for each job, and may raise Refused. `clock` gives Unix seconds."""
        self._desk, self._listen = desk, listen
        self._site_secret, self._secrets_of = site_secret, secrets_of
        self._neighbours, self._logs, self._clock = neighbours, logs, clock
        self._complaints = Complaints(on_event, clock)
        self._runner: web.AppRunner | None = None
        self.port = listen.port
        """The port that is listened on; it differs from the one asked for when that was 0."""

    async def start(self) -> None:
        """Begin to listen. Raises Refused when the address cannot be had."""
        app = web.Application(middlewares=[self._guard], client_max_size=calls.LOG_BYTES_MAX)
        app.add_routes(
            [
                web.get("/boot.ipxe", self._boot),
                web.get("/installer/{name}", self._installer),
                web.get("/images/{name:.+}", self._image),
                web.post("/install/claim", self._claim),
                web.post("/install/report", self._report),
                web.post("/install/log", self._append),
                web.post("/install/ended", self._ended),
            ]
        )
        logger = logging.Logger("vcrecon.boot.http")
        logger.addFilter(self._trouble)
        runner = web.AppRunner(app, access_log=None, logger=logger, shutdown_timeout=_SHUTDOWN_S)
        await runner.setup()
        where = f"{self._listen.address}:{self._listen.port}"
        try:
            await web.TCPSite(runner, self._listen.address, self._listen.port).start()
        except OSError as error:
            await runner.cleanup()
            raise Refused(
                f"cannot serve boots on {where}: {error.strerror or error}; is that address on this machine "
                "(`ip -br address`), and the port free (`ss -ltnp`)? See 'provisioning' in site.yaml"
            ) from None
        self._runner, self.port = runner, int(runner.addresses[0][1])

    async def close(self) -> None:
        """Stop listening; answers under way get two seconds."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # --- who asks ------------------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Lets in whom the network allows; turns errors into short answers and events."""
        spec = self._desk.spec
        if spec is None:
            return _busy("the controller is starting")
        address = self._address(request)
        if not _inside(address, spec.site.provisioning):
            message = f"{address} is outside {spec.site.provisioning.network}: turned away"
            self._complaints.tell("site", "boot-outsider", message, about=address)
            return _refuse(403, "not from the provisioning network")
        try:
            return await handler(request)
        except Garbage as error:
            return self._complain(request, 400, str(error))
        except web.HTTPRequestEntityTooLarge:
            return self._complain(request, 413, "the body is too large")
        except web.HTTPException as error:
            return _refuse(error.status, error.reason)
        except TimeoutError:
            return self._complain(request, 408, "the body did not come")
        except VcreconError as error:
            _log.warning("a machine's call waits", path=request.path, address=address, error=str(error))
            return _busy(str(error))
        except (OSError, ConnectionError) as error:
            _log.warning("a machine's call failed", path=request.path, address=address, error=str(error))
            return _busy("the master cannot write")
        except Exception:
            _log.exception("a machine's call failed", path=request.path, address=address)
            return _refuse(500, "the master failed on this request; its log tells why")

    def _trouble(self, record: logging.LogRecord) -> bool:
        """What aiohttp would log itself: bytes that are not HTTP are a complaint, the rest a line without a trace."""
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, HttpProcessingError):
            address = str(record.args[0]) if isinstance(record.args, tuple) and record.args else "somebody"
            self._complaints.tell("site", "boot-garbage", f"{address} sent something that is not HTTP", about=address)
        else:
            _log.error("boot server", problem=record.getMessage(), error=type(error).__name__ if error else None)
        return False

    def _complain(self, request: web.Request, status: int, why: str) -> web.Response:
        address = self._address(request)
        message = f"{address} sent {request.path} something that is not of ours: {why}"
        self._complaints.tell("site", "boot-garbage", message, about=address)
        return _refuse(status, why)

    def _address(self, request: web.Request) -> str:
        # Only who is on this machine can reach a server on loopback, and nginx overwrites what a client claims.
        if self._listen.behind_proxy:
            return request.headers.get("X-Real-IP", "")
        return request.remote or ""

    def _call(self, request: web.Request) -> Call:
        return Call(self._address(request), self._clock())

    def _ticket(self, request: web.Request) -> Ticket | None:
        """The ticket, open or closed, whose token the request has, when the machine of that ticket sent it."""
        given = calls.token(request.headers.get("Authorization", ""))
        ticket = None if given is None else self._holder(given)
        address = self._address(request)
        if ticket is None:
            message = f"{address} called {request.path} with a token that is not valid: refused"
            self._complaints.tell("site", "token-refused", message, about=address)
            return None
        found = self._neighbours.mac_of(address)
        if found != ticket.mac:
            message = f"{address} ({found or 'MAC not known'}) used the token of {ticket.mac}: refused"
            self._complaints.tell(f"container/{ticket.container}", "token-refused", message, about=address)
            return None
        return ticket

    def _holder(self, given: str) -> Ticket | None:
        for ticket in (*self._desk.tickets.values(), *self._desk.closed.values()):
            if hmac.compare_digest(install_token(self._site_secret, ticket), given):
                return ticket
        return None

    # --- booting -------------------------------------------------------------------------------------------

    async def _boot(self, request: web.Request) -> web.Response:
        spec = self._spec()
        master = ipxe.master(spec.site.provisioning)
        if not request.query_string:
            return _script(ipxe.bootstrap(master))
        netboot = calls.netboot(tuple(request.query.items()), self._call(request))
        container = container_of(netboot.mac, spec)
        seen = self._neighbours.mac_of(netboot.address)
        if seen != netboot.mac:
            subject = "site" if container is None else f"container/{container}"
            message = f"{netboot.address} says it is {netboot.mac}, but its packets come from {seen or 'no neighbour'}"
            self._complaints.tell(subject, "mac-mismatch", f"{message}: told to boot its disk", about=netboot.address)
            return self._answer(LocalBoot("this machine is not at its address"), netboot, spec)
        if container is None:
            message = f"an unknown machine {netboot.mac} booted from the network ({netboot.address}): sent to its disk"
            hint = f"`vcrecon adopt {netboot.mac}` makes it a container"
            self._complaints.tell("site", "stranger", f"{message}; {hint}", about=netboot.mac)
        elif (ticket := self._desk.tickets.get(container)) is not None and self._desk.is_double(ticket, netboot):
            message = f"a second machine with the MAC {netboot.mac} (UUID {netboot.uuid}, {netboot.address}) booted"
            hint = "sent to its disk; give one of the two another MAC"
            self._complaints.tell(f"container/{container}", "mac-twice", f"{message}: {hint}", about=netboot.uuid)
        return self._answer(self._desk.answer(netboot), netboot, spec)

    def _answer(self, answer: BootAnswer, netboot: Netboot, spec: Spec) -> web.Response:
        provisioning = spec.site.provisioning
        token = words = ""
        if isinstance(answer, RunInstaller):
            token = install_token(self._site_secret, answer.ticket)
            words = f"{consoles(spec.systems[answer.ticket.system])} {provisioning.kernel_args}".strip()
        _log.debug("boot", mac=netboot.mac, address=netboot.address, answer=type(answer).__name__)
        master = ipxe.master(provisioning)
        return _script(ipxe.script(answer, url=master, token=token, platform=netboot.platform, kernel_args=words))

    async def _installer(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name not in ("vmlinuz", "initrd"):
            raise web.HTTPNotFound
        return await self._file(("installer", name))

    async def _image(self, request: web.Request) -> web.StreamResponse:
        return await self._file(request.match_info["name"].split("/"))

    async def _file(self, parts: Iterable[str]) -> web.StreamResponse:
        path = await asyncio.to_thread(found_file, Path(self._spec().site.provisioning.images), tuple(parts))
        if path is None:
            raise web.HTTPNotFound
        return web.FileResponse(path, headers={"Content-Type": "application/octet-stream"})

    # --- installers ----------------------------------------------------------------------------------------

    async def _claim(self, request: web.Request) -> web.Response:
        ticket = self._ticket(request)
        if ticket is None:
            return _refuse(403, "no valid token")
        spec, call = self._spec(), self._call(request)
        # Made first: a ticket whose job cannot be made stays unspent.
        secrets = await asyncio.to_thread(self._secrets_of, spec)
        archive = job(spec, ticket, secrets)
        match self._desk.claim(ticket, call.address):
            case "spent":
                message = f"{call.address} used the token of this install a second time: refused"
                self._complaints.tell(f"container/{ticket.container}", "token-spent", message, about=ticket.nonce)
                return _refuse(409, "this token is spent")
            case "expired":
                return _refuse(403, "this token is void")
            case "quiet":
                return self._not_ours()
            case "ok":
                heading = f"install {ticket.nonce} of {ticket.container} claimed by {ticket.mac} at {call.address}"
                await asyncio.to_thread(self._begin_log, ticket.container, heading)
                return web.Response(body=archive, content_type="application/x-tar")

    def _not_ours(self) -> web.Response:
        """Patience while it is not known who the master is; a word that ends the installer when it is another one."""
        quiet = self._desk.quiet
        if quiet is None or quiet is UNCLEAR:
            return _busy("the controller is starting")
        return _refuse(403, quiet.message)

    def _begin_log(self, container: str, heading: str) -> None:
        try:
            self._logs.begin(container, heading)
        except OSError as error:
            _log.warning("cannot begin the log of an install", container=container, error=str(error))

    def _caller(self, request: web.Request) -> Ticket | web.Response:
        """The claimed ticket that the caller speaks for, or how it is refused."""
        ticket = self._ticket(request)
        if ticket is None:
            return _refuse(403, "no valid token")
        if ticket.nonce in self._desk.closed or self._desk.is_late(ticket):
            return _refuse(410, "this install is closed: stop")
        address = self._address(request)
        if not self._desk.is_bound(ticket, address):
            message = f"{address} called {request.path} for an install that it did not claim: refused"
            self._complaints.tell(f"container/{ticket.container}", "token-refused", message, about=address)
            return _refuse(403, "this install was not claimed from here")
        return ticket

    async def _report(self, request: web.Request) -> web.Response:
        ticket = self._caller(request)
        if isinstance(ticket, web.Response):
            return ticket
        body = await _body(request, calls.FORM_BYTES_MAX)
        said = calls.progress(body, ticket.container, self._call(request))
        if self._desk.has_ended(ticket):
            return _refuse(410, "this install is closed: stop")
        self._desk.report(said)
        return _done()

    async def _append(self, request: web.Request) -> web.Response:
        ticket = self._caller(request)
        if isinstance(ticket, web.Response):
            return ticket
        text = calls.log_lines(await _body(request, calls.LOG_BYTES_MAX))
        await asyncio.to_thread(self._logs.append, ticket.container, text)
        return _done()

    async def _ended(self, request: web.Request) -> web.Response:
        ticket = self._caller(request)
        if isinstance(ticket, web.Response):
            return ticket
        body = await _body(request, calls.FORM_BYTES_MAX)
        self._desk.end(calls.ended(body, ticket.container, ticket.nonce, self._call(request)))
        return _done()

    def _spec(self) -> Spec:
        if self._desk.spec is None:
            raise Refused("the controller is starting")
        return self._desk.spec


def _inside(address: str, provisioning: Provisioning) -> bool:
    try:
        return ip_address(address) in ip_network(provisioning.network)
    except ValueError:
        return False


async def _body(request: web.Request, bytes_max: int) -> bytes:
    """The body. Raises HTTPRequestEntityTooLarge, and TimeoutError when it does not come."""
    if (request.content_length or 0) > bytes_max:
        raise web.HTTPRequestEntityTooLarge(bytes_max, request.content_length or 0)
    async with asyncio.timeout(BODY_S_MAX):
        body = await request.read()
    if len(body) > bytes_max:
        raise web.HTTPRequestEntityTooLarge(bytes_max, len(body))
    return body


def _script(text: str) -> web.Response:
    return web.Response(text=text, content_type=_TEXT, headers={"Cache-Control": "no-store"})


def _done() -> web.Response:
    return web.Response(status=204)


def _refuse(status: int, why: str) -> web.Response:
    return web.Response(status=status, text=f"{why}\n", content_type=_TEXT)


def _busy(why: str) -> web.Response:
    return web.Response(status=503, text=f"{why}\n", content_type=_TEXT, headers={"Retry-After": str(_BUSY_S)})
