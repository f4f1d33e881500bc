"""How commands speak: text for people, one JSON document for scripts, errors without tracebacks.

Called by every module of `cli`. Results go to standard output, all else to standard error. Colour only on a
terminal, and never with NO_COLOR.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from vcrecon.core.phrases import count, duration, listed
from vcrecon.errors import Refused, SpecError, VcreconError

__all__ = [
    "columns",
    "confirm",
    "count",
    "duration",
    "err",
    "listed",
    "out",
    "say",
    "say_error",
    "say_json",
    "size",
    "state_text",
]

Cell = str | Text

_STATE_STYLES = {
    "running": "green",
    "vlan-ready": "green",
    "unknown": "yellow",
    "stopped": "yellow",
    "pending": "cyan",
    "imaged": "cyan",
    "contextualized": "cyan",
    "installing": "cyan",
    "installed": "cyan",
    "held": "magenta",
    "quarantined": "magenta",
}


def out() -> Console:
    """Standard output as it is now; lines are not wrapped and nothing is taken for markup."""
    return Console(soft_wrap=True, highlight=False, markup=False, emoji=False)


def err() -> Console:
    """Standard error, likewise."""
    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def say(lines: Iterable[Cell] | Cell, *, to_stderr: bool = False) -> None:
    """Print a line or lines."""
    console = err() if to_stderr else out()
    if isinstance(lines, str | Text):
        lines = [lines]
    for line in lines:
        console.print(line)


def say_json(value: Any) -> None:
    """Print `value` as the one JSON document of a command."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def say_error(error: VcreconError) -> None:
    """Print an expected error: the findings of a bad spec one by one, then `error: …`."""
    console = err()
    if isinstance(error, SpecError):
        for problem in error.problems:
            console.print(str(problem), style="yellow" if problem.severity == "warning" else "")
        found = sum(problem.severity == "error" for problem in error.problems)
        message = f"the spec is not usable: {count(found, 'error')}"
    else:
        message = str(error)
    console.print(Text.assemble(("error: ", "bold red"), message))


def confirm(question: str, *, yes: bool, what: str) -> None:
    """Ask a person, unless `yes` was given. Raises typer.Exit(1) on no, and Refused without a terminal."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused(f"{what} needs your word, and standard input is not a terminal; add --yes to give it")
    if not typer.confirm(question, default=False, err=True):
        say("Nothing was changed.", to_stderr=True)
        raise typer.Exit(1)


def size(number_bytes: float) -> str:
    """`512 MiB`, `4.0 GiB`."""
    value, units = float(number_bytes), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    unit = units[0]
    return f"{value:.1f} {unit}" if value < 10 and unit != "B" else f"{value:.0f} {unit}"


def state_text(state: str | None) -> Text:
    """A state in its colour; `unknown` for None."""
    word = state or "unknown"
    return Text(word, style=_STATE_STYLES.get(word, ""))


def columns(heads: Sequence[str], rows: Iterable[Sequence[Cell]], *, indent: str = "") -> list[Text]:
    """A table as lines: aligned, two blanks between columns, none at the end. Nothing for no rows.

    A column that is empty in every row is left out.
    """
    body = [[_cell(cell) for cell in row] for row in rows]
    filled = [index for index in range(len(heads)) if any(row[index].cell_len for row in body)]
    if not filled:
        return []
    heading = [Text(head, style="bold") for head in heads]
    table = [[row[index] for index in filled] for row in (heading, *body)]
    widths = [max(row[index].cell_len for row in table) for index in range(len(filled))]
    return [_row(row, widths, indent) for row in table]


def _cell(cell: Cell) -> Text:
    return cell if isinstance(cell, Text) else Text(cell)


def _row(row: Sequence[Text], widths: Sequence[int], indent: str) -> Text:
    filled = max((index for index, cell in enumerate(row) if cell.cell_len), default=0)
    line = Text(indent)
    for index, cell in enumerate(row[: filled + 1]):
        line.append_text(cell)
        if index < filled:
            line.append(" " * (widths[index] - cell.cell_len + 2))
    return line
