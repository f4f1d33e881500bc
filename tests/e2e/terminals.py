"""A person at a terminal: runs a command on a pseudo-terminal, types, reads. Used by test_rescue_commands."""

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
from collections.abc import AsyncIterator

from processes import QUICK_ENVIRONMENT


class Typist:
    """`shown` is everything the terminal showed so far."""

    def __init__(self, process: asyncio.subprocess.Process, own: int, theirs: int) -> None:
        self.process = process
        self.shown = ""
        self._own, self._theirs = own, theirs
        self._news = asyncio.Event()
        asyncio.get_running_loop().add_reader(own, self._read)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            self.shown += os.read(self._own, 65536).decode(errors="replace")
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

    def resize(self, columns: int, lines: int) -> None:
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


@contextlib.asynccontextmanager
async def at_a_terminal(*arguments: str) -> AsyncIterator[Typist]:
    """`vcrecon ARGUMENTS` on a terminal of its own."""
    own, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "vcrecon", *arguments,
        stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, **QUICK_ENVIRONMENT, "TERM": "xterm"},
    )  # fmt: skip
    typist = Typist(process, own, theirs)
    try:
        yield typist
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        typist.close()
