"""Join the local terminal, or local streams, to a command on a host. Called by `cli.rescue` and `cli.console`.

The local terminal is put into raw mode for as long as it takes, and put back whatever happens: the end of the
command, a lost connection, an exception, SIGTERM or SIGHUP.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import termios
import tty
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import asyncssh

from vcrecon.errors import Transient, Unreachable

READ_BYTES = 64 * 1024
LEAVING_S = 3.0
"""How long the other side may take to end once it was asked to; then the connection is closed."""
LINGER_S = 1.0
"""After the end of piped input: how long no more output must have come before the console is left."""
_RAW_MODES = {
    asyncssh.PTY_ECHO: 0,
    asyncssh.PTY_ICANON: 0,
    asyncssh.PTY_ISIG: 0,
    asyncssh.PTY_ICRNL: 0,
}
"""For a console: what is typed before its program has set up the terminal is kept as it is, and shown once."""


@dataclass(frozen=True, slots=True)
class Streams:
    """The file descriptors of the person's side."""

    stdin: int = 0
    stdout: int = 1
    stderr: int = 2


STANDARD = Streams()


class _Session(asyncssh.SSHClientSession[bytes]):
    """What the command writes goes straight to the person's streams."""

    def __init__(self, streams: Streams) -> None:
        self.channel: asyncssh.SSHClientChannel[bytes]
        self.status: int | None = None
        self.lost: Exception | None = None
        self.ended = asyncio.Event()
        self.heard = asyncio.Event()
        self._streams = streams
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self.channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self.heard.set()
        try:
            _write_all(self._streams.stdout if datatype is None else self._streams.stderr, data)
        except OSError:
            # Nobody reads any more, as with `| head`: the command is to see that too.
            self.leave(128 + signal.SIGPIPE)

    def eof_received(self) -> bool:
        return True

    def exit_status_received(self, status: int) -> None:
        self._ends(status)

    def exit_signal_received(self, name: str, core_dumped: bool, msg: str, lang: str) -> None:
        with contextlib.suppress(KeyError):
            self._ends(128 + signal.Signals[f"SIG{name}"].value)

    def _ends(self, status: int) -> None:
        if self.status is None:
            self.status = status

    def leave(self, status: int) -> None:
        """End it from this side; what the other side says of its own end does not matter any more."""
        self._ends(status)
        self.channel.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = exc
        self._writable.set()
        self.ended.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def send(self, data: bytes) -> None:
        await self._writable.wait()
        if not self.ended.is_set():
            self.channel.write(data)


async def interact(
    connection: asyncssh.SSHClientConnection,
    command: str,
    where: str,
    *,
    escape: bytes = b"",
    streams: Streams = STANDARD,
) -> int:
    """Run `command` on a pseudo-terminal joined to the local one; its exit status (128 + N for signal N).

    `escape` is a byte that makes the command end; when it does not, the connection is closed. Where standard
    input is no terminal, its bytes are passed on as they are, and at their end the command is asked to end.
    Raises Unreachable when the connection is lost, Transient when the host opens no session.
    """
    local = os.isatty(streams.stdin)
    session = await _open(
        connection,
        command,
        where,
        streams,
        request_pty="force",
        term_type=os.environ.get("TERM", "dumb") if local else "dumb",
        term_size=_size(streams.stdin),
        term_modes=_RAW_MODES if escape or not local else {},
    )
    with _raw(streams.stdin), _window(session, streams.stdin), _signals():
        pump = asyncio.create_task(_pump_terminal(session, streams.stdin, escape, local=local))
        return await _until_ended(session, pump, where)


async def stream(
    connection: asyncssh.SSHClientConnection,
    command: str,
    where: str,
    *,
    stdin: bytes | None = None,
    streams: Streams = STANDARD,
) -> int:
    """Run `command` without a terminal and pass its output on as it comes; its exit status.

    Its input is `stdin`, or the local one where that is no terminal. Raises as `interact` does.
    """
    session = await _open(connection, command, where, streams, request_pty=False)
    with _signals():
        pump = asyncio.create_task(_pump_plain(session, streams.stdin, stdin))
        return await _until_ended(session, pump, where)


async def _open(
    connection: asyncssh.SSHClientConnection, command: str, where: str, streams: Streams, **options: Any
) -> _Session:
    session = _Session(streams)
    try:
        await connection.create_session(lambda: session, command, encoding=None, **options)
    except asyncssh.ChannelOpenError as error:
        raise Transient(f"{where}: the host opens no session ({error.reason})", kind="channel-refused") from error
    except (asyncssh.DisconnectError, OSError) as error:
        raise Unreachable(f"{where}: the connection was lost ({error})", kind="connection-lost") from error
    return session


async def _until_ended(session: _Session, pump: asyncio.Task[None], where: str) -> int:
    try:
        await session.ended.wait()
    finally:
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)
        session.channel.abort()
    if session.status is None:
        reason = f" ({session.lost})" if session.lost else ""
        raise Unreachable(f"{where}: the connection was lost{reason}", kind="connection-lost")
    return session.status


async def _pump_plain(session: _Session, source: int, stdin: bytes | None) -> None:
    if stdin is not None:
        await session.send(stdin)
    elif not os.isatty(source):
        while data := await _read(source):
            await session.send(data)
    if not session.ended.is_set():
        session.channel.write_eof()


async def _pump_terminal(session: _Session, source: int, escape: bytes, *, local: bool) -> None:
    if not local:
        # A console throws away what came before it was attached (tcsetattr with TCSAFLUSH).
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                await session.heard.wait()
    while data := await _read(source):
        before, found, _ = data.partition(escape) if escape else (data, b"", b"")
        await session.send(before + found)
        if found:
            break
    else:
        await _quiet(session)
        await session.send(escape or b"\x04")
    await asyncio.sleep(LEAVING_S)
    if not session.ended.is_set():
        session.leave(0)  # it was left, as asked, though the other side does not answer


async def _quiet(session: _Session) -> None:
    """Until no output has come for a while: the answer to the last of piped input."""
    with contextlib.suppress(TimeoutError):
        while True:
            session.heard.clear()
            async with asyncio.timeout(LINGER_S):
                await session.heard.wait()


async def _read(source: int) -> bytes:
    """The next bytes of a file descriptor, without holding up the event loop; nothing at the end."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    try:
        loop.add_reader(source, readable.set)
    except PermissionError:  # a file, or /dev/null: never waits
        return os.read(source, READ_BYTES)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(source)
    try:
        return os.read(source, READ_BYTES)
    except OSError:  # the terminal is gone
        return b""


def _write_all(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]


@contextlib.contextmanager
def _raw(source: int) -> Iterator[None]:
    if not os.isatty(source):
        yield
        return
    before = termios.tcgetattr(source)
    try:
        tty.setraw(source)
        yield
    finally:
        termios.tcsetattr(source, termios.TCSADRAIN, before)


def _size(source: int) -> tuple[int, int]:
    """Columns and lines of the person's terminal; the usual ones where there is none."""
    try:
        size = os.get_terminal_size(source)
    except OSError:
        return 80, 24
    return size.columns, size.lines


@contextlib.contextmanager
def _window(session: _Session, source: int) -> Iterator[None]:
    """Tell the other side when the window changes its size."""
    loop = asyncio.get_running_loop()

    def tell() -> None:
        with contextlib.suppress(OSError, asyncssh.Error):
            session.channel.change_terminal_size(*_size(source))

    loop.add_signal_handler(signal.SIGWINCH, tell)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """End by way of the clean-up, not around it; the exit status says which signal it was."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    received: list[int] = []

    def end(number: int) -> None:
        received.append(number)
        if task is not None:
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end, number)
    try:
        yield
    except asyncio.CancelledError:
        if received:
            raise SystemExit(128 + received[0]) from None
        raise
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)
