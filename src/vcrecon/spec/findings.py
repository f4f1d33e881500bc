"""Collects all that is wrong with a spec, with positions and suggestions. Used by loader and checks."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from vcrecon.errors import Problem
from vcrecon.spec.nodes import Path, Source

SAME_PLACE_MAX = 5
SUGGESTIONS_MAX = 50
FINDINGS_MAX = 1000
"""No more are told one by one: nobody reads on, and each costs memory."""


@dataclass(frozen=True, slots=True)
class At:
    """A place in the spec: a file and the path of a value in it; turned into line and column when needed."""

    file: str
    path: Path = ()
    key: bool = False

    def __truediv__(self, step: str | int) -> At:
        return At(self.file, (*self.path, step))

    def name(self) -> At:
        """The last key of the path rather than its value."""
        return At(self.file, self.path, key=True)


class Findings:
    """A list of problems that knows the files' positions. One mistake in a range is told only a few times."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = sources
        self._order = {file: index for index, file in enumerate(sources)}
        self._problems = [problem for source in sources.values() for problem in source.problems]
        self._seen = set(self._problems)
        self._counts: Counter[tuple[str, int, int, str]] = Counter()
        self._suggestions = 0
        self._untold: Counter[str] = Counter()
        self._has_errors = any(problem.severity == "error" for problem in self._problems)

    @property
    def has_errors(self) -> bool:
        return self._has_errors

    def error(self, at: At, message: str) -> None:
        self._add(at, message, "error")

    def warning(self, at: At, message: str) -> None:
        self._add(at, message, "warning")

    def where(self, at: At) -> str:
        """`file:line:column` of a place."""
        line, column = self._position(at)
        return f"{at.file}:{line}:{column}"

    def did_you_mean(self, word: str, known: Iterable[str]) -> str:
        """`; did you mean 'x'?`, or nothing. Bounded in number: difflib is slow on thousands of names."""
        if self._suggestions >= SUGGESTIONS_MAX or len(word) > 100:
            return ""
        self._suggestions += 1
        close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
        return f"; did you mean {close[0]!r}?" if close else ""

    def sorted(self) -> tuple[Problem, ...]:
        """All problems in file order, and for crowded places how many more there are."""
        extra = [
            Problem(file, line, column, f"and {count - SAME_PLACE_MAX} more like this here", _severity(severity))
            for (file, line, column, severity), count in self._counts.items()
            if count > SAME_PLACE_MAX
        ]
        for file, count in self._untold.items():
            severity: Literal["error", "warning"] = "error" if self._has_errors else "warning"
            extra.append(Problem(file, 0, 0, f"and {count:,} more findings in this file", severity))
        return tuple(sorted([*self._problems, *extra], key=self._rank))

    def _rank(self, problem: Problem) -> tuple[int, int, int]:
        return self._order.get(problem.file, -1), problem.line, problem.column

    def _position(self, at: At) -> tuple[int, int]:
        source = self._sources.get(at.file)
        if source is None or source.root is None:
            return 0, 0
        node = source.root.find(at.path, key=at.key)
        return node.line, node.column

    def _add(self, at: At, message: str, severity: Literal["error", "warning"]) -> None:
        line, column = self._position(at)
        problem = Problem(at.file, line, column, message, severity)
        if problem in self._seen:
            return
        self._has_errors = self._has_errors or severity == "error"
        if len(self._problems) >= FINDINGS_MAX:
            self._untold[at.file] += 1
            return
        place = (at.file, line, column, severity)
        self._counts[place] += 1
        if self._counts[place] <= SAME_PLACE_MAX:
            self._seen.add(problem)
            self._problems.append(problem)


def _severity(text: str) -> Literal["error", "warning"]:
    return "warning" if text == "warning" else "error"
