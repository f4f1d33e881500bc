"""One simulated host's SSH server on loopback, and the ways its network can fail. Made by `sim.site`.

A command runs as it does under OpenSSH without a terminal: when the client vanishes it runs on, its input
ends, and it dies only when it writes. A *cut* host keeps its TCP connections and says nothing, as when
packets vanish; a host *without power* refuses connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from typing import Any, cast

import asyncssh

from vcrecon.sim.machine import Machine
from vcrecon.sim.programs import Programs
from vcrecon.sim.shell import Shell, run_script
from vcrecon.sim.streams import Pipe, PipeReader, Stream
from vcrecon.sim.terminal import Terminal

LOOPBACK = "127.0.0.1"
INPUT_BYTES_MAX = 1 << 20
GARBAGE = b"\x00\xff{]]>\x1b[2J%n\nnot json, not a table \xc3\x28\n"
_TERMINATING = frozenset({"HUP", "INT", "KILL", "TERM"})


class HostServer:
    """The SSH server of `machine`. Accepts only `client_key` (an OpenSSH public key) for any user name.

    `refuses_key` makes log-ins fail; `garbage` is None, "output" (commands answer rubbish) or
    "banner" (rubbish instead of SSH). `cut` is True while packets vanish.
    """

    def __init__(self, machine: Machine, programs: Programs, client_key: asyncssh.SSHKey) -> None:
        self.machine = machine
        self.programs = programs
        self.client_key = client_key.public_data
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.refuses_key = False
        self.garbage: str | None = None
        self.cut = False
        self.connections = 0
        self._wires: set[_Wire] = set()
        self._listener: Any = None
        self._starting = asyncio.Lock()
        # Bound but never listening: keeps the port ours while the host has no power.
        self._port_holder = _bound_socket(0)
        self.port: int = self._port_holder.getsockname()[1]

    def known_host(self) -> str:
        """The line that pins this host's key in a known_hosts file."""
        key = self.host_key.export_public_key("openssh").decode().split()[:2]
        return f"[{LOOPBACK}]:{self.port} {' '.join(key)}\n"

    async def start(self) -> None:
        """Listen. Does nothing when it already does, or when the host has no power."""
        # Power may come back twice at once: from the machine itself and from whoever asked for it.
        async with self._starting:
            if self._listener is None and self.machine.up:
                self._listener = await self._listen()
            if not self.machine.up:
                self.stop()

    async def _listen(self) -> Any:
        listening = _bound_socket(self.port)
        if self.garbage == "banner":
            loop = asyncio.get_running_loop()
            return await loop.create_server(_GarbageProtocol, sock=listening)
        return await asyncssh.listen(
            sock=listening,
            server_factory=lambda: _Login(self),
            server_host_keys=[self.host_key],
            backlog=128,
            encoding=None,
            config=[],
            # The cheapest strong choices: a thousand of these servers share one process.
            kex_algs=["curve25519-sha256"],
            encryption_algs=["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr"],
            compression_algs=["none"],
            password_auth=False,
            kbdint_auth=False,
            gss_host=None,
            allow_pty=True,
            line_editor=False,
            agent_forwarding=False,
            allow_scp=False,
            login_timeout=600,
        )

    def stop(self) -> None:
        """Stop listening and reset every connection, at once."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        for wire in list(self._wires):
            wire.reset()
        self._wires.clear()

    def close(self) -> None:
        """Stop for good and give the port up."""
        self.stop()
        self._port_holder.close()

    async def restart(self) -> None:
        """Reset every connection and listen anew, with the present host key and garbage setting."""
        self.stop()
        await self.start()

    def cut_off(self) -> None:
        """Let packets vanish in both directions; connections stay open and new ones get no answer."""
        self.cut = True
        for wire in self._wires:
            wire.pause()

    def mend(self) -> None:
        """End a cut: what was held back arrives, as TCP would retransmit it."""
        self.cut = False
        for wire in list(self._wires):
            wire.resume()

    def attach(self, connection: asyncssh.SSHServerConnection) -> _Wire:
        """Put a wire that can be cut between `connection` and its socket."""
        # asyncssh has no public hook between a connection and its transport.
        transport = connection._transport
        wire = _Wire(self, cast(asyncio.Transport, transport))
        connection._transport = cast(asyncio.Transport, wire)
        self._wires.add(wire)
        self.connections += 1
        if self.cut:
            wire.pause()
        return wire

    def detach(self, wire: _Wire) -> None:
        """The connection behind `wire` is gone."""
        self._wires.discard(wire)


def _bound_socket(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((LOOPBACK, port))
    return bound


class _Wire:
    """A transport that can be cut: while it is, nothing is read, and what is written or closed waits."""

    def __init__(self, host: HostServer, transport: asyncio.Transport) -> None:
        self._host = host
        self._transport = transport
        self._held: list[bytes] = []
        self._abort_held = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._host.cut:
            self._held.append(bytes(data))
        elif not self._transport.is_closing():
            self._transport.write(data)

    def abort(self) -> None:
        if self._host.cut:
            self._abort_held = True
        else:
            self._transport.abort()

    close = abort

    def pause(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._abort_held:
            self.reset()
            return
        held, self._held = self._held, []
        with contextlib.suppress(RuntimeError):
            self._transport.resume_reading()
        for data in held:
            self._transport.write(data)

    def reset(self) -> None:
        self._transport.abort()


class _GarbageProtocol(asyncio.Protocol):
    """Answers every connection with bytes that are no SSH."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)
        stream.write(GARBAGE * 20)
        stream.close()


class _Login(asyncssh.SSHServer):
    """One connection: the host's own key check, then sessions."""

    def __init__(self, host: HostServer) -> None:
        self._host = host
        self._wire: _Wire | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._wire = self._host.attach(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._wire is not None:
            self._host.detach(self._wire)

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return not self._host.refuses_key and key.public_data == self._host.client_key

    def session_requested(self) -> asyncssh.SSHServerSession[bytes]:
        return _Session(self._host)


class _Session(asyncssh.SSHServerSession[bytes]):
    """One exec or shell request: a script, its streams, and its exit status."""

    def __init__(self, host: HostServer) -> None:
        self._host = host
        self._command: str | None = None
        self._input = Pipe(INPUT_BYTES_MAX)
        self._input_open = True
        self._terminal: Terminal | None = None
        self._output: _Output
        self._channel: asyncssh.SSHServerChannel[bytes]

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan
        self._output = _Output(chan)

    def pty_requested(self, term_type: str, term_size: Any, term_modes: Any) -> bool:
        self._terminal = Terminal(term_modes, term_size[:2], f"/dev/pts/{self._host.programs.next_pid() % 1000}")
        self._output.terminal = self._terminal
        return True

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        if self._terminal is not None:
            self._terminal.size = (width, height)

    def shell_requested(self) -> bool:
        return True

    def exec_requested(self, command: str) -> bool:
        self._command = command
        return True

    def session_started(self) -> None:
        self._task = self._host.programs.spawn(self._run())
        # Not in `_run`: a process that is killed before it took its first step still ends its channel.
        self._task.add_done_callback(lambda task: self._end(None) if task.cancelled() else None)

    async def _run(self) -> int:
        reader = _ChannelReader(self._input, self._channel, self._terminal)
        # A terminal has one way out for both.
        stderr = _Stderr(self._output) if self._terminal is None else self._output
        machine, programs = self._host.machine, self._host.programs
        try:
            if self._host.garbage == "output":
                await self._output.write(GARBAGE)
                status = 0
            elif self._command is None:
                fds = {0: reader, 1: self._output, 2: stderr}
                status = await Shell(machine, programs, fds).main()
            else:
                programs.note_script(self._command)
                status = await run_script(machine, self._command, reader, self._output, stderr, programs)
        except BrokenPipeError:
            status = 141
        self._input.hold_reader(-1)
        # A background job that kept the output open keeps the channel open too, as with OpenSSH.
        self._output.release()
        await self._output.wait_released()
        self._end(status)
        return status

    def _end(self, status: int | None) -> None:
        with contextlib.suppress(OSError, asyncssh.Error):
            if status is None:
                self._channel.exit_with_signal("TERM")
            elif status == 141:
                self._channel.exit_with_signal("PIPE")
            else:
                self._channel.exit(status)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if self._terminal is not None:
            data, shown, ended = self._terminal.typed(data)
            if shown:
                with contextlib.suppress(OSError):
                    self._channel.write(shown)
            if ended:
                self._end_input()
        self._input.feed(data)
        if len(self._input) >= INPUT_BYTES_MAX:
            self._channel.pause_reading()

    def eof_received(self) -> bool:
        self._end_input()
        return True

    def _end_input(self) -> None:
        if self._input_open:
            self._input_open = False
            self._input.writer.release()

    def signal_received(self, signal: str) -> None:
        if signal in _TERMINATING:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._output.paused()

    def resume_writing(self) -> None:
        self._output.resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_input()
        self._output.break_()


class _ChannelReader(PipeReader):
    """Standard input from a channel, which is told to go on once the pipe has room again."""

    def __init__(self, pipe: Pipe, channel: asyncssh.SSHServerChannel[bytes], terminal: Terminal | None = None) -> None:
        super().__init__(pipe)
        self._channel = channel
        self.terminal = terminal

    async def read(self, count: int = -1) -> bytes:
        parts = []
        while True:
            data = await self.pipe.take(count if count >= 0 else INPUT_BYTES_MAX)
            parts.append(data)
            self._go_on()
            if count >= 0 or not data:
                return b"".join(parts)

    async def readline(self) -> bytes:
        data = await self.pipe.take_line()
        self._go_on()
        return data

    def _go_on(self) -> None:
        if len(self.pipe) < INPUT_BYTES_MAX // 2:
            with contextlib.suppress(OSError):
                self._channel.resume_reading()


class _Output(Stream):
    """Standard output and error of a session, with the channel's flow control."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = channel
        self.terminal: Terminal | None = None
        self._holders = 1
        self._broken = False
        self._ready = asyncio.Event()
        self._ready.set()
        self._released = asyncio.Event()

    async def write(self, data: bytes) -> None:
        await self.send(data, None)

    async def send(self, data: bytes, datatype: int | None) -> None:
        if not self._ready.is_set():
            await self._ready.wait()
        if self._broken:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        try:
            self._channel.write(self.terminal.printed(data) if self.terminal else data, datatype)
        except OSError:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None

    def paused(self) -> None:
        self._ready.clear()

    def resumed(self) -> None:
        self._ready.set()

    def break_(self) -> None:
        """The client is gone: whoever writes from now on gets BrokenPipeError."""
        self._broken = True
        self._ready.set()
        self._released.set()

    async def wait_released(self) -> None:
        await self._released.wait()

    def retain(self) -> None:
        self._holders += 1

    def release(self) -> None:
        self._holders -= 1
        if self._holders == 0:
            self._released.set()


class _Stderr(Stream):
    """The error half of a session's output."""

    def __init__(self, output: _Output) -> None:
        self._output = output

    async def write(self, data: bytes) -> None:
        await self._output.send(data, asyncssh.EXTENDED_DATA_STDERR)

    def retain(self) -> None:
        self._output.retain()

    def release(self) -> None:
        self._output.release()
