"""The tree of a shell command. Built by `sim.shell_parse`, evaluated by `sim.shell`; immutable once built."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Literal:
    text: str
    quoted: bool


@dataclass(frozen=True, slots=True)
class Parameter:
    """`$name`, `${name<operator>word}`; `${#name}` has the operator "length"."""

    name: str
    operator: str
    word: tuple[Part, ...]
    quoted: bool


@dataclass(frozen=True, slots=True)
class Substitution:
    """`$(...)` or backquotes."""

    body: Command
    quoted: bool


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """`$((...))`."""

    parts: tuple[Part, ...]
    quoted: bool


Part = Literal | Parameter | Substitution | Arithmetic
Word = tuple[Part, ...]


@dataclass(slots=True)
class HereDoc:
    """A here-document; `body` is filled in when the parser passes the end of the line it began on."""

    delimiter: str
    literal: bool
    strip_tabs: bool
    body: Word = ()


@dataclass(frozen=True, slots=True)
class Redirect:
    fd: int
    operator: str
    target: Word | HereDoc


@dataclass(frozen=True, slots=True)
class Simple:
    assignments: tuple[tuple[str, Word], ...]
    words: tuple[Word, ...]
    redirects: tuple[Redirect, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Pipeline:
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Not:
    command: Command


@dataclass(frozen=True, slots=True)
class AndOr:
    left: Command
    operator: str
    right: Command


@dataclass(frozen=True, slots=True)
class Sequence:
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Background:
    command: Command


@dataclass(frozen=True, slots=True)
class Subshell:
    body: Command


@dataclass(frozen=True, slots=True)
class Redirected:
    """A compound command with redirections."""

    body: Command
    redirects: tuple[Redirect, ...]
    line: int


@dataclass(frozen=True, slots=True)
class If:
    branches: tuple[tuple[Command, Command], ...]
    otherwise: Command | None


@dataclass(frozen=True, slots=True)
class Loop:
    condition: Command
    body: Command
    until: bool


@dataclass(frozen=True, slots=True)
class For:
    name: str
    words: tuple[Word, ...] | None
    body: Command


@dataclass(frozen=True, slots=True)
class Case:
    word: Word
    branches: tuple[tuple[tuple[Word, ...], Command], ...]


@dataclass(frozen=True, slots=True)
class Function:
    name: str
    body: Command


Command = (
    Simple | Pipeline | Not | AndOr | Sequence | Background | Subshell | Redirected | If | Loop | For | Case | Function
)
