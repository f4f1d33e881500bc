"""SSH without its packets: the product's own transport at one end, the simulated host's own sessions at the other.

Between `vcrecon.shell.transport.SshHost` and `vcrecon.sim.server._Session` only asyncssh's protocol is replaced. What
TCP promises holds: bytes arrive in order or not at all; a connection that dies takes what was under way with it, while
the command runs on. What it does not promise is drawn from the seed: how long each message takes.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

import asyncssh
from tests.simulation.loop import OWNER

from vcrecon.errors import Permanent, Unreachable
from vcrecon.shell.transport import SshHost
from vcrecon.sim.machine import Machine
from vcrecon.sim.programs import Programs
from vcrecon.sim.server import LOOPBACK, _Session

_OPEN_CONNECT_FAILED = 2
_SEGMENT_BYTES = 32 * 1024
"""What a host writes at one moment to one channel travels together, up to so much: TCP does not keep writes apart."""
_TORN = 1 / 16
"""How much of the output arrives in two pieces, torn anywhere."""
_TICK_S = 1e-6
"""Two messages of one connection are at least so far apart: that keeps their order."""
_TEAR_S = _TICK_S / 2
REFUSED_S = 0.001

Direction = Literal["request", "reply"]
Arrive = Callable[[bytes], None]
"""What a message does at its destination, given as much of it as arrives."""


@dataclass(slots=True)
class Trap:
    """What happens to a message: the `after`-th from now in this direction (0: the next).

    cut: the connection is lost instead, and the message with it. half: half of it arrives first. late: it takes
    `seconds` more, and so does all that follows it.
    """

    direction: Direction
    after: int
    what: Literal["cut", "half", "late"]
    seconds: float = 0.0


class Network:
    """How long messages take on the whole site, and who counts them. `on_message` is told of each that arrives."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rng: random.Random) -> None:
        self.loop = loop
        self.rng = rng
        self.latency_s = (0.0002, 0.002)
        self.keepalive_s = 30.0
        self.on_message: Callable[[str, Direction, str, bytes], None] = lambda host, direction, kind, data: None
        self.on_start: Callable[[str, Ends], None] = lambda host, ends: None
        """Told of each command that begins on a host."""
        self.on_end: Callable[[str, str, int], None] = lambda host, script, status: None
        """Told of each command that ended, and how."""
        self.deliver: Callable[[Link, Direction, str, Callable[[], None]], None] = lambda link, way, kind, arrive: (
            arrive()
        )
        """Lets each message arrive that reached its end of the wire."""
        self.asked: Callable[[Ends, bytes], None] = lambda ends, data: None
        """Told of all input of a command, when it is there."""
        self.answered: Callable[[Ends, bytes], bytes] = lambda ends, data: data
        """What the controller gets of all output of a command."""
        self.world_context = contextvars.copy_context()
        """What the hosts do is nobody's process, whoever asked for it."""
        self._ports = iter(range(20_000, 60_000))

    def delay_s(self) -> float:
        low, high = self.latency_s
        return low + (high - low) * self.rng.random()

    def next_port(self) -> int:
        return next(self._ports)


class WireServer:
    """The SSH server of a simulated host, in the terms of `sim.server.HostServer`."""

    def __init__(self, machine: Machine, programs: Programs, network: Network) -> None:
        self.machine = machine
        self.programs = programs
        self.network = network
        self.port = network.next_port()
        self.key_number = 0
        self.refuses_key = False
        self.garbage: str | None = None
        self.cut = False
        self.full = False
        """No more channels: MaxSessions."""
        self.silent_death = False
        """Losing power says nothing on the wire; without it connections are reset."""
        self.connections = 0
        self.traps: list[Trap] = []
        self.links: list[Link] = []
        self._own_key = ""

    @property
    def host_key(self) -> str:
        return self._own_key or f"ssh-ed25519 {self.machine.name}/{self.key_number}"

    @host_key.setter
    def host_key(self, key: str) -> None:
        self._own_key = key

    def known_host(self) -> str:
        return f"[{LOOPBACK}]:{self.port} {self.host_key}\n"

    @property
    def listening(self) -> bool:
        return self.machine.up

    async def start(self) -> None:
        """Power makes it listen; nothing else is needed."""

    def stop(self) -> None:
        """The host loses its power: whoever is connected is reset, or never hears of it again."""
        links, self.links = self.links, []
        for link in links:
            if self.silent_death:
                link.fall_silent()
            else:
                link.reset()

    def close(self) -> None:
        self.stop()

    async def restart(self) -> None:
        links, self.links = self.links, []
        for link in links:
            link.reset()

    def cut_off(self) -> None:
        self.cut = True
        for link in self.links:
            link.hold()

    def mend(self) -> None:
        self.cut = False
        for link in list(self.links):
            link.resume()

    def sprung(self, direction: Direction) -> Trap | None:
        """The trap that this message springs; each message brings all traps of its direction nearer."""
        sprung = None
        for trap in list(self.traps):
            if trap.direction == direction:
                if trap.after == 0 and sprung is None:
                    sprung = trap
                    self.traps.remove(trap)
                else:
                    trap.after = max(0, trap.after - 1)
        return sprung


class Link:
    """One connection between a process and a host, with all its channels."""

    def __init__(self, server: WireServer) -> None:
        self.server = server
        self.network = server.network
        self.loop = server.network.loop
        self.client_context = contextvars.copy_context()
        self.client_owner = OWNER.get()
        self.open = True
        """The client believes in it."""
        self.channels: list[Ends] = []
        self._closed: asyncio.Future[None] = self.loop.create_future()
        self._arrives_s = {"request": 0.0, "reply": 0.0}
        self._held: list[tuple[Direction, str, bytes | bytearray, Arrive]] = []
        self._segment: tuple[ServerEnd, int | None, float, bytearray] | None = None
        """The output that was sent last, as long as nothing was sent after it: from whom, its type, when."""
        self._silent = False
        self._server_open = True
        self._tired: asyncio.TimerHandle | None = None
        server.links.append(self)
        server.connections += 1
        if server.cut:
            self.hold()

    # What transport and channel ask of asyncssh's connection.

    def is_closed(self) -> bool:
        return not self.open

    def abort(self) -> None:
        """The client hangs up; the host hears of it a moment later."""
        if self.open:
            self._client_loses(None)
            self.send("request", "hang-up", b"", lambda _: self._server_loses())

    async def wait_closed(self) -> None:
        await asyncio.shield(self._closed)

    async def create_session(self, factory: Callable[[], Any], command: str | None, **_: Any) -> tuple[Any, Any]:
        """As asyncssh: the channel opens, then the command is asked for; each is a round trip."""
        if not self.open:
            raise asyncssh.ChannelOpenError(_OPEN_CONNECT_FAILED, "SSH connection closed")
        ends = Ends(self)
        self.channels.append(ends)
        opened: asyncio.Future[None] = self.loop.create_future()
        ends.waiting = opened
        self.send("request", "open", b"", lambda _: self._server_opens(ends, opened))
        await opened
        session = factory()
        ends.client = session
        session.connection_made(ends.client_end)
        started: asyncio.Future[None] = self.loop.create_future()
        ends.waiting = started
        self.send("request", "exec", (command or "").encode(), lambda _: ends.server_starts(command, started))
        await started
        ends.waiting = None
        return ends.client_end, session

    def _server_opens(self, ends: Ends, opened: asyncio.Future[None]) -> None:
        if self.server.full:
            refusal = asyncssh.ChannelOpenError(4, "open failed")
            self.send("reply", "refused", b"", lambda _: _fail(opened, refusal))
        else:
            self.send("reply", "opened", b"", lambda _: _set(opened))

    # Messages.

    def pour(self, end: ServerEnd, data: bytes, datatype: int | None) -> None:
        """Send output, with what was written before it if that is still at the socket."""
        now_s = self.loop.time()
        if self._segment is not None:
            last, kind, sent_s, segment = self._segment
            if last is end and kind == datatype and sent_s == now_s and len(segment) < _SEGMENT_BYTES:
                segment += data
                return
        segment = bytearray(data)
        self.send("reply", "data", segment, lambda found: end.ends.client_end.deliver(found, datatype))
        self._segment = end, datatype, now_s, segment

    def send(self, direction: Direction, kind: str, data: bytes | bytearray, arrive: Arrive) -> None:
        """Deliver in order after a while, unless the wire is dead by then."""
        if direction == "reply":
            self._segment = None
        if direction == "reply" and not self._server_open:
            return
        if self._silent:
            return
        if self.server.cut:
            self._held.append((direction, kind, data, arrive))
            return
        trap = self.server.sprung(direction) if kind != "hang-up" else None
        later_s = trap.seconds if trap is not None and trap.what == "late" else 0.0
        when_s = max(self.loop.time() + self.network.delay_s() + later_s, self._arrives_s[direction] + _TICK_S)
        self._arrives_s[direction] = when_s
        context = self.client_context if direction == "reply" else self.network.world_context
        if trap is not None and trap.what in ("cut", "half"):
            self._note(kind, direction, b"", f"{trap.what}!")
            if trap.what == "half" and kind == "data":
                self.loop.call_at(when_s, self._half_arrives, direction, data, arrive, context=context)
            self.loop.call_at(when_s + _TEAR_S, self._dies, context=self.network.world_context)
            return
        self.loop.call_at(when_s, self._arrives, direction, kind, data, arrive, context=context)

    def _note(self, kind: str, direction: Direction, data: bytes, mark: str = "") -> None:
        self.network.on_message(self.server.machine.name, direction, f"{kind}{mark}", data)

    def _arrives(self, direction: Direction, kind: str, data: bytes | bytearray, arrive: Arrive) -> None:
        alive = self.open if direction == "reply" else self._server_open and self.server.machine.up
        if not alive and kind != "hang-up":
            return
        if self.server.cut:  # it was on its way when the cable was cut
            self._held.append((direction, kind, data, arrive))
            return
        found = bytes(data)
        if isinstance(data, bytearray) and len(found) > 1 and self.network.rng.random() < _TORN:
            at = self.network.rng.randrange(1, len(found))
            self.loop.call_at(self.loop.time() + _TEAR_S, self._arrives, direction, kind, found[at:], arrive)
            found = found[:at]
        self._note(kind, direction, found)
        self.network.deliver(self, direction, kind, lambda: arrive(found))

    def _half_arrives(self, direction: Direction, data: bytes | bytearray, arrive: Arrive) -> None:
        self._arrives(direction, "data", bytes(data[: len(data) // 2]), arrive)

    # The ways it ends.

    def _dies(self) -> None:
        """The connection is lost for both sides."""
        self._server_loses()
        self.loop.call_at(
            self.loop.time() + self.network.delay_s(),
            self._client_loses,
            asyncssh.ConnectionLost("Connection lost"),
            context=self.client_context,
        )

    def reset(self) -> None:
        self._dies()

    def fall_silent(self) -> None:
        """Nothing arrives any more, and nobody says so: keepalives find out."""
        self._silent = True
        self._server_loses()
        self._grow_tired()

    def hold(self) -> None:
        """The cable is cut; TCP keeps what was sent."""
        self._grow_tired()

    def resume(self) -> None:
        if self._tired is not None:
            self._tired.cancel()
            self._tired = None
        held, self._held = self._held, []
        for direction, kind, data, arrive in held:
            self.send(direction, kind, data, arrive)

    def _grow_tired(self) -> None:
        if self._tired is None:
            self._tired = self.loop.call_at(
                self.loop.time() + self.network.keepalive_s,
                self._client_loses,
                asyncssh.ConnectionLost("Server not responding to keepalive messages"),
                context=self.client_context,
            )

    def _client_loses(self, error: Exception | None) -> None:
        if not self.open:
            return
        self.open = False
        for ends in list(self.channels):
            ends.client_loses(error)
        _set(self._closed)

    def _server_loses(self) -> None:
        if self._server_open:
            self._server_open = False
            if self in self.server.links:
                self.server.links.remove(self)
            for ends in list(self.channels):
                if OWNER.get():
                    self.loop.call_soon(ends.server_loses, context=self.network.world_context)
                else:
                    ends.server_loses()


class Ends:
    """One channel: what its two sessions hold in their hands."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.client: Any = None
        self.waiting: asyncio.Future[None] | None = None
        self.session: _Session | None = None
        self.command = ""
        self.client_end = ClientEnd(self)
        self.server_end = ServerEnd(self)
        self.client_over = False
        self.server_over = False
        self.heard = False
        """Whether the client was told that the command ended."""

    def server_starts(self, command: str | None, started: asyncio.Future[None]) -> None:
        if self.server_over:
            return
        self.command = command or ""
        self.link.network.on_start(self.link.server.machine.name, self)
        self.session = session = _Session(cast(Any, self.link.server))
        session.connection_made(cast(Any, self.server_end))
        if command is None:
            session.shell_requested()
        else:
            session.exec_requested(command)
        self.link.send("reply", "started", b"", lambda _: _set(started))
        session.session_started()

    def client_loses(self, error: Exception | None) -> None:
        if self.client_over:
            return
        self.client_over = True
        if self in self.link.channels:
            self.link.channels.remove(self)
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(error or asyncssh.ConnectionLost("Connection lost"))
        elif self.client is not None:
            self.client.connection_lost(error)

    def server_loses(self) -> None:
        if not self.server_over:
            self.server_over = True
            if self.session is not None:
                self.session.connection_lost(None)

    def both_close(self) -> None:
        """The server has ended the channel and the client hears of it."""
        self.heard = self.heard or not self.client_over
        self.client_loses(None)


class ClientEnd:
    """What `shell.channel.Channel` asks of asyncssh's channel."""

    def __init__(self, ends: Ends) -> None:
        self._ends = ends
        self._paused = False
        self._waiting: list[tuple[bytes, int | None]] = []

    def _send(self, kind: str, data: bytes, arrive: Callable[[_Session, bytes], None]) -> None:
        ends = self._ends

        def arrives(found: bytes) -> None:
            if ends.session is not None and not ends.server_over:
                arrive(ends.session, found)

        if not ends.client_over:
            ends.link.send("request", kind, data, arrives)

    def write(self, data: bytes) -> None:
        def arrive(session: _Session, found: bytes) -> None:
            self._ends.link.network.asked(self._ends, found)
            session.data_received(found, None)

        self._send("data", data, arrive)

    def write_eof(self) -> None:
        self._send("eof", b"", lambda session, _: cast(None, session.eof_received()))

    def send_signal(self, signal: str) -> None:
        self._send("signal", signal.encode(), lambda session, _: session.signal_received(signal))

    def abort(self) -> None:
        ends = self._ends
        if not ends.client_over:
            ends.link.send("request", "close", b"", lambda _: ends.server_loses())
            ends.link.loop.call_soon(ends.client_loses, None, context=ends.link.client_context)

    close = abort

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        waiting, self._waiting = self._waiting, []
        for data, kind in waiting:
            self.deliver(data, kind)

    def deliver(self, data: bytes, kind: int | None) -> None:
        if self._paused:
            self._waiting.append((data, kind))
        elif self._ends.client is not None and not self._ends.client_over:
            data = self._ends.link.network.answered(self._ends, data)
            if data and not self._ends.client_over:
                self._ends.client.data_received(data, kind)


class ServerEnd:
    """What `sim.server` asks of asyncssh's channel."""

    def __init__(self, ends: Ends) -> None:
        self.ends = ends

    def write(self, data: bytes, datatype: int | None = None) -> None:
        ends = self.ends
        if ends.server_over:
            raise BrokenPipeError
        ends.link.pour(self, data, datatype)

    def exit(self, status: int) -> None:
        ends = self.ends
        ends.link.network.on_end(ends.link.server.machine.name, ends.command, status)
        self._end(lambda client: client.exit_status_received(status), str(status))

    def exit_with_signal(self, signal: str) -> None:
        self._end(lambda client: client.exit_signal_received(signal, False, "", ""), signal)

    def _end(self, tell: Callable[[Any], None], what: str) -> None:
        ends = self.ends
        if ends.server_over:
            return

        def arrives(_: bytes) -> None:
            if ends.client is not None and not ends.client_over:
                ends.client_end.resume_reading()
                tell(ends.client)
                ends.client.eof_received()
                ends.both_close()

        ends.link.send("reply", "exit", what.encode(), arrives)
        ends.server_loses()

    def pause_reading(self) -> None:
        """The product writes little at a time; a pipe that is full holds it back by its own size."""

    def resume_reading(self) -> None:
        """See `pause_reading`."""


class WireHost(SshHost):
    """The product's transport, on a simulated wire."""

    def __init__(self, *arguments: Any, servers: dict[str, WireServer], **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._servers = servers

    async def _connect(self) -> Any:
        try:
            async with self._limiter:
                self._connection = cast(Any, await self._log_in())
            return self._connection
        finally:
            self._connecting = None

    async def _log_in(self) -> Link:
        """What `shell.connect.connect` finds out, by the same names."""
        server = self._servers[self.name]
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self._patience.connect_deadline_s
        network = server.network
        await asyncio.sleep(network.delay_s())
        if not server.listening and not server.silent_death:
            raise Unreachable(f"{self.endpoint}: connection refused", kind="refused")
        if server.cut or not server.listening:
            await asyncio.sleep(end_s - loop.time())
            raise Unreachable(f"{self.endpoint}: no answer", kind="timeout")
        if server.garbage == "banner":
            raise Unreachable(f"{self.endpoint}: answers garbage, which is not SSH", kind="protocol")
        if server.known_host() not in self._lines():
            raise Permanent(f"{self.endpoint}: the host key changed", kind="host-key-changed")
        if server.refuses_key:
            raise Permanent(f"{self.endpoint}: refuses the key", kind="permission-denied")
        await asyncio.sleep(2 * network.delay_s())
        if server.cut or not server.listening:
            raise Unreachable(f"{self.endpoint}: the connection was lost during login", kind="connection-lost")
        return Link(server)

    def _lines(self) -> Iterator[str]:
        for line in self._pinned_keys.splitlines():
            yield " ".join(line.split()[:3]) + "\n"


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
