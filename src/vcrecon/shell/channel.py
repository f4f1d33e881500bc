"""One SSH channel with a command behind it: bytes in, bytes out, bounded, with back-pressure.

Used by `shell.transport` for single commands and copies, and by `shell.resident` for shells and tools that
stay. It reads through a session object of its own: asyncssh's process streams cost several times the CPU.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import dataclass
from typing import Any

import asyncssh

from vcrecon.errors import Permanent, Transient, Unreachable

_READ_HIGH_BYTES = 512 * 1024
_STDERR_BYTES_MAX = 1024 * 1024
# OpenSSH confirms a command before the command leads a process group; a signal that early would be lost.
_SIGNAL_AGE_S = 0.2
_WRITE_CHUNK_BYTES = 128 * 1024
# RFC 4254 section 5.1, and the code asyncssh itself uses when the channel opened but the exec was refused.
_OPEN_CONNECT_FAILED = 2


@dataclass(frozen=True, slots=True)
class Reply:
    """What a command left behind. `status` is its exit status; death by signal N is 128 + N."""

    stdout: bytes
    stderr: bytes
    status: int


class Gone(Exception):
    """The connection was closed before the command was handed over. Never leaves `shell`."""


class Channel(asyncssh.SSHClientSession[bytes]):
    """A running command. Made by `open_channel`; not shared between tasks except as its owner arranges.

    `stdout_bytes_max` bounds what is kept when nobody reads; None means that a reader drains it and the
    sender is held back instead.
    """

    def __init__(self, where: str, stdout_bytes_max: int | None) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.status: int | None = None
        self.ended = False
        self.eof = False
        self._where = where
        self._stdout_bytes_max = stdout_bytes_max
        self._chan: asyncssh.SSHClientChannel[bytes] | None = None
        self._lost: Exception | None = None
        self._aborted = False
        self._opened_at_s = 0.0
        self._overflow = False
        self._reading_paused = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._waiters: list[asyncio.Future[None]] = []

    # Called by asyncssh.

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._chan = chan
        self._opened_at_s = asyncio.get_running_loop().time()
        if self._aborted:
            chan.abort()  # before the command is sent: nothing is started

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype is not None:
            room = _STDERR_BYTES_MAX - len(self.stderr)
            self.stderr += data[: max(room, 0)]
            return
        self.stdout += data
        if self._stdout_bytes_max is None:
            if len(self.stdout) > _READ_HIGH_BYTES and self._chan is not None:
                self._reading_paused = True
                self._chan.pause_reading()
        elif len(self.stdout) > self._stdout_bytes_max:
            self._overflow = True
            self.abort()
        self._wake()

    def eof_received(self) -> bool:
        self.eof = True
        self._wake()
        return True  # keep our sending side open: `copy` may still be writing

    def exit_status_received(self, status: int) -> None:
        self.status = status

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self.status = _signal_status(signal)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = exc
        self.ended = self.eof = True
        self._writable.set()
        self._wake()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # Called by the owner.

    async def write(self, data: bytes) -> None:
        """Send all of `data`, as fast as the other side reads. Raises BrokenPipeError when it has ended."""
        view = memoryview(data)
        for start in range(0, len(view), _WRITE_CHUNK_BYTES):
            self.write_now(bytes(view[start : start + _WRITE_CHUNK_BYTES]))
            await self._writable.wait()

    def write_now(self, data: bytes) -> None:
        """Send a small message without waiting. Raises BrokenPipeError when the command has ended."""
        if not self.usable or self._chan is None:
            raise BrokenPipeError(self._where)
        self._chan.write(data)

    def write_eof(self) -> None:
        """Close the command's standard input."""
        if not self.ended and self._chan is not None:
            self._chan.write_eof()

    async def read(self) -> bytes:
        """What has arrived since the last read; empty at the end. Raises Unreachable if cut."""
        while not self.stdout:
            if self.eof:
                self._raise_if_lost()
                return b""
            await self.changed()
        data = bytes(self.stdout)
        self.stdout.clear()
        if self._reading_paused and self._chan is not None:
            self._reading_paused = False
            self._chan.resume_reading()
        return data

    async def changed(self) -> None:
        """Wait for more output, end of output, or the end of the command."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    async def finish(self) -> Reply:
        """Wait for the end of the command. Raises Unreachable (cut) or Permanent (too much output)."""
        while not (self.ended or self._overflow):
            await self.changed()
        self.raise_if_overflowed()
        self._raise_if_lost()
        if self.status is None:
            raise Unreachable(
                f"{self._where}: the command ended without an exit status, so its outcome is unknown; "
                "the host's SSH server was probably stopped",
                kind="connection-lost",
            )
        return Reply(bytes(self.stdout), bytes(self.stderr), self.status)

    def abort(self) -> None:
        """Close, dropping what is under way; the command sees its pipes closed, and SIGTERM where possible.

        OpenSSH does not pass signals on in root's sessions: there a command that neither reads nor writes
        lives on and counts against MaxSessions until it ends, so commands that can hang need `timeout`.
        """
        if self._aborted:
            return
        self._aborted = True
        if self._chan is not None and not self.ended:
            self._chan.pause_reading()
            loop = asyncio.get_running_loop()
            loop.call_later(max(self._opened_at_s + _SIGNAL_AGE_S - loop.time(), 0.0), self._end)
        self._wake()

    def _end(self) -> None:
        if self._chan is not None and not self.ended:
            with contextlib.suppress(OSError):
                self._chan.send_signal("TERM")
            self._chan.abort()

    @property
    def usable(self) -> bool:
        """Whether the command is believed to run and to listen. False at once after `abort`."""
        return not (self.ended or self._aborted)

    def raise_if_overflowed(self) -> None:
        """Raise Permanent when the command wrote more than the limit."""
        if self._overflow:
            raise Permanent(
                f"{self._where}: a command wrote more than {self._stdout_bytes_max} bytes and was cut off; "
                "narrow what it prints",
                kind="output-too-large",
            )

    def _raise_if_lost(self) -> None:
        if self._lost is not None:
            raise Unreachable(
                f"{self._where}: the connection was lost while a command ran ({self._lost}); "
                "its outcome is unknown until the host is seen again",
                kind="connection-lost",
            )

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


async def open_channel(
    connection: asyncssh.SSHClientConnection, command: str, where: str, stdout_bytes_max: int | None
) -> Channel:
    """Start `command` on an open connection. `where` begins its error messages.

    Raises Gone when the connection was already closed (nothing was started), Transient when the host
    refuses one more channel, Unreachable when the connection died with the outcome unknown.
    """

    channel = Channel(where, stdout_bytes_max)
    opening = asyncio.ensure_future(connection.create_session(lambda: channel, command, encoding=None))
    try:
        await asyncio.shield(opening)
    except asyncio.CancelledError:
        # A half-open channel would count against the host's MaxSessions for ever: close it when it opens.
        channel.abort()
        opening.add_done_callback(_retrieve)
        raise
    except asyncssh.ChannelOpenError as error:
        if connection.is_closed():
            if error.code == _OPEN_CONNECT_FAILED:
                raise Gone(where) from error
            raise _lost_while_starting(where, error) from error
        raise Transient(
            f"{where}: the host refused one more channel ({error.reason}); if it repeats, raise MaxSessions "
            "in the host's sshd_config",
            kind="channel-refused",
        ) from error
    except (asyncssh.DisconnectError, OSError) as error:
        raise _lost_while_starting(where, error) from error
    return channel


def _lost_while_starting(where: str, error: Exception) -> Unreachable:
    return Unreachable(
        f"{where}: the connection was lost while a command was started ({error}); its outcome is unknown "
        "until the host is seen again",
        kind="connection-lost",
    )


def _retrieve(opening: asyncio.Task[Any]) -> None:
    """Mark a failure as seen: nobody waits for this channel any more."""
    if not opening.cancelled():
        opening.exception()


def _signal_status(name: str) -> int:
    try:
        return 128 + signal.Signals[f"SIG{name}"].value
    except KeyError:
        return 128
