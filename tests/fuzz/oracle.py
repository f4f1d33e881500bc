"""Judges one input: the loader gives a spec or findings that a person can read, and the planner loses nothing.

Called by `run` in a worker process, whose memory is bounded, and by `shrink`. The hard deadline, for what no signal
ends, is the parent's (`run`).
"""

from __future__ import annotations

import os
import re
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import FrameType

from tests.fuzz.bases import BASES, Case, Workshop
from tests.fuzz.plans import Planner, Safety

import vcrecon
from vcrecon.core.plan import plan_container
from vcrecon.errors import Problem, SpecError
from vcrecon.spec.load import Loaded, load
from vcrecon.spec.text import FILES

CHARACTERS_MAX = 500
"""The longest finding that one can read: three or four lines of a terminal."""
PROBLEMS_MAX = 2000
_INTERNALS = re.compile(
    r"NoneType|object at 0x|Traceback|<class|<function|<built-in|pydantic|Errno \d|ValidationError|\w+Error:|"
    r"\b__\w+__\b|for further information|input_value|input_type|mappingproxy"
)

_PRODUCT = str(Path(vcrecon.__file__).parent)

Loader = Callable[[Path], Loaded]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with how an input was taken. Two faults with one `signature` are the same bug, as it seems."""

    kind: str  # crash, hang, message, leak, deletion
    signature: str
    detail: str


@dataclass(frozen=True, slots=True)
class Verdict:
    accepted: bool
    faults: tuple[Fault, ...] = ()


class Overdue(BaseException):
    """The deadline of one input. No `except Exception` on the way takes it for something else."""


RINGS = 4
IDLE_S = 0.001
"""A deadline is looked at so often. Who computes for less than this from ring to ring until then waits for something:
a busy machine gives little, not nothing."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise Overdue inside when this process has computed for so long, or has done nothing for so long.

    Not after so long by the clock alone: what else the machine has to do is not the input's fault. For the main thread.
    """
    began_s = used_s = time.process_time()
    idle_rings = 0

    def ring(_signal: int, _frame: FrameType | None) -> None:
        nonlocal used_s, idle_rings
        before_s, used_s = used_s, time.process_time()
        idle_rings = idle_rings + 1 if used_s - before_s < IDLE_S else 0
        if used_s - began_s > seconds or idle_rings >= RINGS:
            raise Overdue

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds / RINGS, seconds / RINGS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass
class Oracle:
    """`loader` and `planner` are what is tested: others are given by the fuzzer's own tests."""

    workshop: Workshop
    deadline_s: float
    loader: Loader = load
    planner: Planner = plan_container
    _safety: dict[str, Safety] = field(default_factory=dict)
    _judged: dict[tuple[str, str], tuple[Fault, ...]] = field(default_factory=dict)

    def judge(self, case: Case) -> Verdict:
        """Load `case` and say what is wrong with the way it was taken."""
        with self.workshop.laid_out(case) as directory:
            open_before = len(os.listdir("/proc/self/fd"))
            try:
                with deadline(self.deadline_s):
                    verdict = self._take(case, directory)
            except Overdue as error:
                where = _where(error)
                return Verdict(
                    False, (Fault("hang", f"hang {where}", f"not done after {self.deadline_s:g} s, in {where}"),)
                )
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                where = _where(error)
                words = "".join(traceback.format_exception(error, limit=-8))
                return Verdict(False, (Fault("crash", f"{type(error).__name__} {where}", words[-3000:]),))
            leaked = len(os.listdir("/proc/self/fd")) - open_before
        if leaked:
            fault = Fault("leak", "files left open", f"{leaked} files are left open")
            return Verdict(verdict.accepted, (*verdict.faults, fault))
        return verdict

    def _take(self, case: Case, directory: Path) -> Verdict:
        try:
            loaded = self.loader(directory)
        except SpecError as error:
            faults = tuple(_unreadable(error.problems, case, directory))
            if not any(problem.severity == "error" for problem in error.problems):
                faults = (*faults, Fault("message", "refused without an error", str(error)[:500]))
            return Verdict(False, faults)
        faults = tuple(_unreadable(loaded.warnings, case, directory))
        if any(problem.severity == "error" for problem in loaded.warnings):
            faults = (*faults, Fault("message", "accepted with an error", str(loaded.warnings)[:500]))
        return Verdict(True, faults + self._deletions(case, loaded))

    def _deletions(self, case: Case, loaded: Loaded) -> tuple[Fault, ...]:
        key = case.base, loaded.spec.digest
        if key not in self._judged:
            if case.base not in self._safety:
                self._safety[case.base] = Safety(load(BASES[case.base].path).spec, self.planner)
            found = dict.fromkeys(self._safety[case.base].faults(loaded.spec))
            self._judged[key] = tuple(Fault("deletion", re.sub(r"[\w.-]*\d[\w.-]*", "N", text), text) for text in found)
        return self._judged[key]


def _unreadable(problems: tuple[Problem, ...], case: Case, directory: Path) -> Iterator[Fault]:
    """What a person could not read, or would not."""
    if len(problems) > PROBLEMS_MAX:
        yield Fault("message", "very many findings", f"{len(problems)} findings; the last is {str(problems[-1])[:200]}")
    for problem in problems:
        text, trouble = problem.message, ""
        if not text.isprintable():
            trouble = "not one line of printable text"
        elif len(text) > CHARACTERS_MAX:
            trouble = f"{len(text)} characters long"
        elif not text.strip() or text != text.strip():
            trouble = "empty, or with blanks at an end"
        elif found := _INTERNALS.search(text):
            trouble = f"Python shows through: {found[0]}"
        elif not _lies_in(problem, case, directory):
            trouble = "points at no place of a spec file"
        if trouble:
            pattern = re.sub(r"\d+", "N", re.sub(r"'[^']*'|\"[^\"]*\"", "Q", text.splitlines()[0] if text else ""))
            kind = re.sub(r"\d+", "N", trouble)
            yield Fault("message", f"{kind}: {pattern[-60:]}", f"{trouble}: {str(problem)[:400]!r}")


def _lies_in(problem: Problem, case: Case, directory: Path) -> bool:
    if problem.file == str(directory):
        return problem.line == problem.column == 0
    if problem.file not in FILES:
        return False
    if problem.line == 0:
        return problem.column == 0
    content = case.changes.get(problem.file, BASES[case.base].files[problem.file])
    if not isinstance(content, bytes):
        return False
    lines, longest = _size(content)
    return 1 <= problem.line <= lines + 1 and 0 <= problem.column <= longest + 2


@lru_cache(maxsize=4)
def _size(content: bytes) -> tuple[int, int]:
    """How many lines there are, and how long the longest is: once for all findings, since a file may have megabytes."""
    lines = re.split("\r\n|[\r\n\x85\u2028\u2029]", content.decode("utf-8", "replace"))
    return len(lines), len(max(lines, key=len))


def _where(error: BaseException) -> str:
    """The innermost place in the product that the exception came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(_PRODUCT)]
    others = [frame for frame in frames if frame.filename != __file__]
    frame = (ours or others or frames)[-1]
    return f"{Path(frame.filename).name}:{frame.name}"
