"""Byte streams between simulated processes: bounded pipes, files, constants, and nothing at all.

Used by `sim.shell` for pipelines and redirections and by `sim.server` for SSH channels. A stream that
several processes hold is counted, so that a pipe ends only when its last writer is gone, as in a kernel.
"""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vcrecon.sim.machine import Machine

PIPE_BYTES = 256 * 1024


class Stream:
    """Base of the streams here. `retain` and `release` count holders; most streams need no count."""

    def retain(self) -> None:
        """One more process holds this end."""

    def release(self) -> None:
        """One process less holds this end; the last one closes it."""


def retain(stream: object) -> None:
    """Count one more holder, if `stream` is one that counts."""
    if isinstance(stream, Stream):
        stream.retain()


def release(stream: object) -> None:
    """Count one holder less, if `stream` is one that counts."""
    if isinstance(stream, Stream):
        stream.release()


class Pipe:
    """A bounded pipe. `reader` and `writer` are its two ends, each held once when it is made.

    A writer waits while `capacity_bytes` are unread; a single larger write goes through whole.
    """

    def __init__(self, capacity_bytes: int = PIPE_BYTES) -> None:
        self.capacity_bytes = capacity_bytes
        self.reader = PipeReader(self)
        self.writer = PipeWriter(self)
        self._buffer = bytearray()
        self._readers = 1
        self._writers = 1
        self._changed: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._buffer)

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
        self._changed = None

    async def _wait(self) -> None:
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        # Both ends may wait on one future, and cancelling one of them must not cancel it for the other.
        await asyncio.shield(self._changed)

    def feed(self, data: bytes) -> None:
        """Put `data` in without waiting (for an SSH channel, which has its own flow control)."""
        self._buffer += data
        self._wake()

    async def put(self, data: bytes) -> None:
        """Write `data`; raises BrokenPipeError when no reader is left."""
        while self._readers and len(self._buffer) >= self.capacity_bytes:
            await self._wait()
        if not self._readers:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        if data:
            self.feed(data)

    async def take(self, count: int) -> bytes:
        """Up to `count` bytes as soon as there are any; all to the end for -1; nothing means the end."""
        while self._writers and (count < 0 or (not self._buffer and count)):
            if count < 0 and len(self._buffer) >= self.capacity_bytes:
                return await self._take_all()
            await self._wait()
        return self._cut(len(self._buffer) if count < 0 else count)

    async def _take_all(self) -> bytes:
        parts = []
        while self._writers or self._buffer:
            parts.append(self._cut(len(self._buffer)))
            if self._writers and not self._buffer:
                await self._wait()
        return b"".join(parts)

    async def take_line(self) -> bytes:
        """One line with its newline; what is left without one at the end; nothing at the end."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            if not self._writers:
                return self._cut(len(self._buffer))
            searched = len(self._buffer)
            if searched >= self.capacity_bytes:
                return self._cut(searched)
            await self._wait()
        return self._cut(end + 1)

    def take_lines_now(self) -> bytes:
        """All whole lines that wait, without waiting; after the end also an unfinished last one."""
        end = self._buffer.rfind(b"\n") + 1 if self._writers else len(self._buffer)
        return self._cut(end)

    def _cut(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        self._wake()
        return data

    def hold_writer(self, by: int) -> None:
        self._writers += by
        if self._writers == 0:
            self._wake()

    def hold_reader(self, by: int) -> None:
        self._readers += by
        if self._readers == 0:
            self._buffer.clear()
            self._wake()


class PipeReader(Stream):
    """The reading end of a Pipe."""

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe

    async def read(self, count: int = -1) -> bytes:
        return await self.pipe.take(count)

    async def readline(self) -> bytes:
        return await self.pipe.take_line()

    def retain(self) -> None:
        self.pipe.hold_reader(1)

    def release(self) -> None:
        self.pipe.hold_reader(-1)


class PipeWriter(Stream):
    """The writing end of a Pipe."""

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe

    async def write(self, data: bytes) -> None:
        await self.pipe.put(data)

    def retain(self) -> None:
        self.pipe.hold_writer(1)

    def release(self) -> None:
        self.pipe.hold_writer(-1)


class BytesReader(Stream):
    """Reads constant bytes: a here-document, the file at `path`, or nothing."""

    def __init__(self, data: bytes = b"", path: str = "") -> None:
        self._data = data
        self.path = path
        self._position = 0

    async def read(self, count: int = -1) -> bytes:
        end = len(self._data) if count < 0 else self._position + count
        data = self._data[self._position : end]
        self._position += len(data)
        return data

    async def readline(self) -> bytes:
        end = self._data.find(b"\n", self._position) + 1
        return await self.read((end or len(self._data)) - self._position)


class BytesWriter(Stream):
    """Collects what is written, for `$(...)` and tests."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    async def write(self, data: bytes) -> None:
        self._parts.append(data)

    @property
    def data(self) -> bytes:
        return b"".join(self._parts)


class NullWriter(Stream):
    """`/dev/null`."""

    async def write(self, data: bytes) -> None:
        return None


class FullWriter(Stream):
    """`/dev/full`: every write fails with ENOSPC."""

    async def write(self, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FileWriter(Stream):
    """An open file of a simulated host; raises OSError as `Files.write` does (ENOSPC, ...)."""

    def __init__(self, machine: Machine, path: str, *, append: bool, mode: int = 0o644) -> None:
        self._files = machine.files
        self.path = path
        # Opening a file empties it even when nothing is ever written; a device only starts at its beginning.
        self._fresh = self._files.is_block_device(path)
        if not self._fresh:
            self._files.write(path, b"", append, mode)

    async def write(self, data: bytes) -> None:
        if data:
            self._files.write(self.path, data, not self._fresh)
            self._fresh = False
