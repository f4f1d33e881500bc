"""The errors that vcrecon raises on purpose. Every layer may import this module; it imports none.

    VcreconError                 a message for the person at the keyboard; never a traceback
    ├── SpecError                the spec files are wrong; carries every Problem found (spec/)
    ├── Refused                  a command cannot run as asked: lock held, port taken, no such guest (cli/, shell/)
    └── HostError                something on, or on the way to, a host
        ├── Unreachable          no answer: nothing is known about the host, nothing may be concluded
        ├── Transient            it failed and the same call may work after `delay_s`
        └── Permanent            it failed and will fail again until somebody changes something

tenacity retries `Transient` and `Unreachable` inside one idempotent call only; across passes the record
counts attempts and backs off (design rule S8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


class VcreconError(Exception):
    """Base of all expected errors. `str(error)` says what, where and what to do next."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding about the spec, printed as `file:line:col: severity: message`.

    `line` and `column` count from 1; 0 means the finding is about the whole file.
    """

    file: str
    line: int
    column: int
    message: str
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.severity}: {self.message}"


class SpecError(VcreconError):
    """The spec is not usable. `problems` holds all findings, warnings included, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in problems))


class Refused(VcreconError):
    """A command cannot be carried out as asked; the message says why and what would make it possible."""


class HostError(VcreconError):
    """Something went wrong on a host or on the way to it. `kind` is the metric label for it."""

    kind = "host"

    def __init__(self, message: str, *, kind: str | None = None) -> None:
        super().__init__(message)
        if kind is not None:
            self.kind = kind


class Unreachable(HostError):
    """The host did not answer. Says nothing about what runs there (S1)."""

    kind = "unreachable"


class Transient(HostError):
    """Failed now, may work later. `delay_s` is the shortest wait that makes sense, in seconds."""

    kind = "transient"

    def __init__(self, message: str, *, delay_s: float = 5.0, kind: str | None = None) -> None:
        super().__init__(message, kind=kind)
        self.delay_s = delay_s


class Permanent(HostError):
    """Fails until a person or a new spec changes something (a wrong key, a missing volume group)."""

    kind = "permanent"
