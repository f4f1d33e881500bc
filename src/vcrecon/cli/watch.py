"""`status --watch`: the site on the whole terminal, until q or Ctrl-C. Called by `cli.status`.

Two tasks: one asks the service every second, the other draws whenever there is news, a key, or a second has passed.
Only lines that changed are written. The terminal is given back as it was, whatever ends the command.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from vcrecon.cli.output import out
from vcrecon.cli.watch_view import Screen, frame
from vcrecon.core.overview import Overview, overview
from vcrecon.errors import VcreconError
from vcrecon.shell.control import ControlClient

WATCH_S = 1.0
ANSWER_S = 5.0
"""A service that is silent for so long is said not to answer."""

Select = Callable[[dict[str, Any]], dict[str, Any]]

_KEY = re.compile(r"\x1b[\[O]([A-Z]|[0-9]+~)|.", re.DOTALL)
_PAGE = {"\x1b[5~": -1, "b": -1, "\x1b[6~": 1, " ": 1}
_LINE = {"\x1b[A": -1, "\x1bOA": -1, "k": -1, "\x1b[B": 1, "\x1bOB": 1, "j": 1}
_TOP = {"g", "\x1b[H", "\x1bOH", "\x1b[1~"}
_BOTTOM = {"G", "\x1b[F", "\x1bOF", "\x1b[4~"}


def can_draw(console: Console) -> bool:
    """Whether there is a screen to draw on; else lines must do."""
    return sys.stdout.isatty() and not console.is_dumb_terminal


async def watch(socket: Path, select: Select, *, every: bool) -> None:
    """Show the site until the person has seen enough. `select` picks what a person asked for.

    Raises Refused or VcreconError when the service does not answer at first; later that is shown, and asked again.
    """
    async with ControlClient(socket, answer_s=ANSWER_S) as client:
        first = overview(select(await client.status()))
        await _Watcher(client, select, first, every).run()


class _Watcher:
    def __init__(self, client: ControlClient, select: Select, site: Overview, every: bool) -> None:
        self._client, self._select, self._site, self._every = client, select, site, every
        self._console = out()
        self._ascii_only = "utf" not in self._console.encoding.lower()
        self._news, self._ended = asyncio.Event(), asyncio.Event()
        self._heard_s = self._now_s()
        self._trouble = ""
        self._scroll = self._scroll_max = 0
        self._drawn: list[str] = []

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGWINCH: self._redraw,
            signal.SIGTERM: self._end,
            signal.SIGHUP: self._end,
            signal.SIGTSTP: self._suspend,
        }
        asking = asyncio.create_task(self._ask())
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            with self._terminal():
                while not self._ended.is_set():
                    self._draw()
                    self._news.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(WATCH_S):
                            await self._news.wait()
        finally:
            asking.cancel()
            for number in handlers:
                loop.remove_signal_handler(number)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def _ask(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                self._site = overview(self._select(await self._client.status()))
            except VcreconError as error:
                self._trouble = str(error)
            else:
                self._trouble, self._heard_s = "", self._now_s()
            self._news.set()

    # --- the screen ----------------------------------------------------------------------------------------

    def _draw(self) -> None:
        width, height = self._console.size
        screen = Screen(width, height, self._scroll, self._every, self._ascii_only)
        found = frame(self._site, screen, age_s=self._now_s() - self._heard_s, trouble=self._trouble)
        self._scroll_max = found.scroll_max
        self._scroll = min(self._scroll, found.scroll_max)
        lines = []
        for line in found.lines:
            with self._console.capture() as captured:
                self._console.print(line, end="", no_wrap=True, overflow="crop")
            lines.append(captured.get())
        before = self._drawn if len(self._drawn) == len(lines) else [""] * len(lines)
        # The last column is left to the terminal: erased first, so that a full line loses nothing.
        changed = (
            f"\x1b[{row};1H\x1b[2K{line}"
            for row, (line, old) in enumerate(zip(lines, before, strict=True), 1)
            if line != old or not self._drawn
        )
        self._write("".join(changed))
        self._drawn = lines

    def _write(self, text: str) -> None:
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()

    def _redraw(self) -> None:
        self._drawn = []
        self._write("\x1b[2J")
        self._news.set()

    def _end(self) -> None:
        self._ended.set()
        self._news.set()

    @contextlib.contextmanager
    def _terminal(self) -> Iterator[None]:
        """The alternate screen without a cursor, and keys as they are typed; given back at the end."""
        keys = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._modes = termios.tcgetattr(keys) if keys is not None else None
        self._enter()
        if keys is not None:
            asyncio.get_running_loop().add_reader(keys, self._read_keys, keys)
        try:
            yield
        finally:
            if keys is not None:
                asyncio.get_running_loop().remove_reader(keys)
            self._leave()

    def _enter(self) -> None:
        if self._modes is not None:
            tty.setcbreak(sys.stdin.fileno(), termios.TCSANOW)
        self._write("\x1b[?1049h\x1b[?25l\x1b[2J")

    def _leave(self) -> None:
        # A terminal that was closed meanwhile takes nothing back.
        with contextlib.suppress(OSError, termios.error):
            if self._modes is not None:
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, self._modes)
            self._write("\x1b[0m\x1b[?25h\x1b[?1049l")

    def _suspend(self) -> None:
        """Ctrl-Z: the shell gets its terminal back until `fg`."""
        self._leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._enter()
        self._redraw()

    # --- keys ----------------------------------------------------------------------------------------------

    def _read_keys(self, keys: int) -> None:
        try:
            typed = os.read(keys, 1024).decode(errors="replace")
        except OSError:
            typed = ""
        if not typed:  # the terminal is gone
            self._end()
        for match in _KEY.finditer(typed):
            self._press(match[0])
        self._news.set()

    def _press(self, key: str) -> None:
        page = max(1, self._console.size.height - 6)
        if key in ("q", "Q"):
            self._end()
        elif key == "a":
            self._every, self._scroll = not self._every, 0
        elif key in _TOP:
            self._scroll = 0
        elif key in _BOTTOM:
            self._scroll = self._scroll_max
        else:
            by = _LINE.get(key, 0) + page * _PAGE.get(key, 0)
            self._scroll = max(0, min(self._scroll_max, self._scroll + by))
