"""Makes an input that was taken badly as small as it gets with a few hundred tries. Called by `__main__`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.fuzz.bases import BASES, Case
from tests.fuzz.oracle import Fault
from tests.fuzz.run import Settings, judge_apart

TRIES_MAX = 400


@dataclass
class _Search:
    """Smaller and smaller cases that still show the same fault."""

    holds: Callable[[Case], bool]
    best: Case
    tries: int
    until_s: float

    @property
    def spent(self) -> bool:
        return self.tries <= 0 or time.monotonic() > self.until_s

    def better(self, changes: dict[str, object]) -> bool:
        """Whether the fault is still there with these changes only; then they are the best so far."""
        if self.spent:
            return False
        self.tries -= 1
        case = Case(self.best.base, changes, self.best.how)  # type: ignore[arg-type]
        if not self.holds(case):
            return False
        self.best = case
        return True


def shrink(settings: Settings, case: Case, fault: Fault, *, tries: int = TRIES_MAX, seconds: float = 60.0) -> Case:
    """The smallest case found that shows `fault`: fewer files, fewer lines, fewer bytes."""

    def holds(smaller: Case) -> bool:
        return any(f.signature == fault.signature for f in judge_apart(settings, smaller))

    search = _Search(holds, case, tries, time.monotonic() + seconds)
    for file in list(case.changes):
        rest = {name: content for name, content in search.best.changes.items() if name != file}
        if rest:
            search.better(rest)
    for file, content in list(search.best.changes.items()):
        if isinstance(content, bytes):
            _shorten(search, file, content.splitlines(keepends=True))
            shorter = search.best.changes[file]
            assert isinstance(shorter, bytes)
            _shorten(search, file, shorter)
    return search.best


def _shorten(search: _Search, file: str, pieces: list[bytes] | bytes) -> None:
    """Leave out runs of lines, or of bytes, long ones first, as long as the fault stays."""
    length = max(1, len(pieces) // 2)
    while length:
        at = 0
        while at < len(pieces) and not search.spent:
            fewer = pieces[:at] + pieces[at + length :]  # type: ignore[operator]
            content = fewer if isinstance(fewer, bytes) else b"".join(fewer)
            if search.better({**search.best.changes, file: content}):
                pieces = fewer
            else:
                at += length
        length //= 2


def show(case: Case) -> str:
    """A case as a person can read it, and put into a test."""
    lines = [str(case)]
    for file, content in case.changes.items():
        if not isinstance(content, bytes):
            lines.append(f"  {file} is {content}")
        elif len(content) <= 2000:
            lines.append(f"  {file} is {content!r}")
        else:
            was = BASES[case.base].files.get(file, b"")
            lines.append(f"  {file} is {content[:300]!r}… ({len(content)} bytes; {len(was)} before)")
    return "\n".join(lines)
