"""What `run` and `apply` show while they work: a calm live summary on a terminal, else a line when it changes.

Called by `cli.serve`, and by the demo. The service hands in its status document as often as it likes.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from vcrecon.cli.output import duration
from vcrecon.cli.status_view import summary
from vcrecon.core.overview import Status

LINE_EVERY_S = 1.0
BLOCKED_SHOWN = 3


class SteadyConsole(Console):
    """Falls silent when its reader has left (`vcrecon run specs | head`): the work goes on."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        # What is still buffered is flushed at exit and must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


class Progress:
    """Shows the last status given to `update`, until the `with` block ends. `last` is that status."""

    def __init__(
        self,
        console: Console,
        *,
        live: bool | None = None,
        line_every_s: float = LINE_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`live` says whether to redraw in place; by default on a terminal. `line_every_s`: at most so often."""
        self._console = console
        self._clock = clock
        self._line_every_s = line_every_s
        self._began_s = clock()
        self._said = ""
        self._said_at_s = -line_every_s
        self._lines: list[Text] = []
        self.last: dict[str, Any] | None = None
        wants_live = console.is_terminal if live is None else live
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4) if wants_live else None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the work began."""
        return self._clock() - self._began_s

    def update(self, status: dict[str, Any]) -> None:
        """Take the newest status. Cheap enough to be called on each change."""
        self.last = status
        if self._live is not None:
            self._lines = [summary(status), *_states(status), *_trouble(status)]
            return
        if self._clock() - self._said_at_s >= self._line_every_s:
            self._say()

    def _say(self) -> None:
        """Print the status as one line if it says something new."""
        if self.last is None:
            return
        line = Text("; ").join([summary(self.last), *_states(self.last)])
        if line.plain == self._said:
            return
        self._said, self._said_at_s = line.plain, self._clock()
        self._console.print(Text(f"{duration(self.elapsed_s):>9}  ").append_text(line))
        self._console.file.flush()

    def _render(self) -> Group:
        lines = self._lines or [Text("Reading the spec and looking at the containers …")]
        return Group(*lines, Text(f"{duration(self.elapsed_s)} since the start; Ctrl-C ends it", style="dim"))

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        else:
            self._say()


def _states(status: Status) -> list[Text]:
    """The states of guests that do not run yet, and what waits for its turn."""
    states = Counter(guest["state"] or "unknown" for guest in status["guests"])
    states.pop("running", None)
    parts = [f"{number} {state}" for state, number in sorted(states.items())]
    queues = [f"{name} {length}" for name, length in status["queues"].items() if length]
    lines = [Text(", ".join(parts))] if parts else []
    return [*lines, Text(f"waiting: {', '.join(queues)}")] if queues else lines


def _trouble(status: Status) -> list[Text]:
    """The first few blocks; `vcrecon status` tells all."""
    blocks = [
        f"{entry['name']}: {block['message']}"
        for entry in (*status["containers"], *status["guests"])
        for block in entry["blocked"]
    ]
    if status["spec"]["held_back"]:
        blocks.insert(0, str(status["spec"]["held_back"]))
    lines = [Text(f"  {text}", style="yellow") for text in blocks[:BLOCKED_SHOWN]]
    if len(blocks) > BLOCKED_SHOWN:
        lines.append(Text(f"  and {len(blocks) - BLOCKED_SHOWN} more: vcrecon status", style="yellow"))
    return lines
