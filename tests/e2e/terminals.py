"""A person at a terminal: runs a command on a pseudo-terminal, types, reads. Used by test_rescue_commands and
test_watch.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable

import pyte
from processes import QUICK_ENVIRONMENT


class Typist:
    """`shown` is everything the terminal showed since the text that was last waited for, `screen` what it shows now."""

    def __init__(self, process: asyncio.subprocess.Process, own: int, theirs: int) -> None:
        self.process = process
        self.shown = ""
        self.screen = pyte.Screen(*SIZE)
        self._drawing = pyte.ByteStream(self.screen)
        self._own, self._theirs = own, theirs
        self._news = asyncio.Event()
        asyncio.get_running_loop().add_reader(own, self._read)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            read = os.read(self._own, 65536)
            self.shown += read.decode(errors="replace")
            self._drawing.feed(read)
            self._news.set()

    def type(self, text: str) -> None:
        os.write(self._own, text.encode())

    async def sees(self, text: str, deadline_s: float = 60.0) -> None:
        """Until the terminal shows `text`, anywhere in what it showed since the last call that found its text."""
        try:
            async with asyncio.timeout(deadline_s):
                while text not in self.shown:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"never saw {text!r}, only: {self.shown!r}") from None
        self.shown = self.shown.partition(text)[2]

    async def until(self, true: Callable[[list[str]], bool], deadline_s: float = 60.0) -> None:
        """Until the lines that the screen shows now are as wanted."""
        try:
            async with asyncio.timeout(deadline_s):
                while not true([line.rstrip() for line in self.screen.display]):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError("never so, but:\n" + "\n".join(self.screen.display)) from None

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)  # the kernel tells a foreground group only

    def modes(self) -> list[object]:
        return termios.tcgetattr(self._theirs)

    async def ends(self, deadline_s: float = 60.0) -> int:
        status = await asyncio.wait_for(self.process.wait(), deadline_s)
        await asyncio.sleep(0)
        return status

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._own)
        os.close(self._own)
        os.close(self._theirs)


SIZE = (111, 33)
"""Columns and lines."""


@contextlib.asynccontextmanager
async def at_a_terminal(*arguments: str) -> AsyncIterator[Typist]:
    """`vcrecon ARGUMENTS` on a terminal of its own."""
    own, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
    environment = {**os.environ, **QUICK_ENVIRONMENT, "TERM": "xterm"}
    del environment["COLUMNS"]  # it would count more than the terminal's own size
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "vcrecon", *arguments,
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
    )  # fmt: skip
    typist = Typist(process, own, theirs)
    try:
        yield typist
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        typist.close()
