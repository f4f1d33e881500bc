"""`python -m tests.fuzz`: many inputs from one seed, or one of them again. Exits 1 when one was taken badly."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.bases import Case
from tests.fuzz.inputs import CUT_EVERY, cuts, make
from tests.fuzz.oracle import Fault
from tests.fuzz.run import Settings, Tally, commands, failing, run
from tests.fuzz.shrink import show, shrink

SHRUNK_MAX = 20
FAILING_SHOWN_MAX = 100
_KINDS = {"crash": "crashes", "hang": "hangs", "message": "bad_messages", "leak": "leaks", "deletion": "deletions"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="how many")
    parser.add_argument("--seed", type=int, default=None, help="drawn anew when left out")
    parser.add_argument("--only", type=int, default=None, metavar="INDEX", help="this input alone, and what it is")
    parser.add_argument("--jobs", type=int, default=1, help="worker processes")
    parser.add_argument("--deadline", type=float, default=20.0, metavar="SECONDS", help="for one input")
    parser.add_argument("--save", type=Path, default=None, metavar="DIR", help="where reproductions go")
    parser.add_argument("--json", action="store_true", help="one line at the end")
    options = parser.parse_args()
    seed = secrets.randbelow(10**9) if options.seed is None else options.seed
    settings = Settings(seed, options.deadline)
    if options.only is not None:
        indexes = range(options.only, options.only + 1)
        print(show(make(seed, options.only)))
    else:
        indexes = range(options.inputs)
        print(f"seed {seed}: {options.inputs} inputs, of them {_cut_count(options.inputs)} of {cuts()} truncations")
    tally = run(settings, indexes, max(1, options.jobs), _Progress())
    _explain(settings, tally, options.save)
    numbers = {
        "seed": seed, "inputs": tally.inputs, "accepted": tally.accepted, "refused": tally.refused,
        **{name: tally.count(kind) for kind, name in _KINDS.items()},
        "seconds": round(tally.seconds, 1), "computed_s": round(tally.computed_s, 1),
        "failing": failing(tally)[:FAILING_SHOWN_MAX],
    }  # fmt: skip
    print(json.dumps(numbers) if options.json else "\n".join(f"{key:>13} {value}" for key, value in numbers.items()))
    return 1 if tally.faults else 0


def _cut_count(inputs: int) -> int:
    return min(cuts(), -(-inputs // CUT_EVERY))


class _Progress:
    """A line about every half a minute."""

    def __init__(self) -> None:
        self._next_s = time.monotonic() + 30

    def __call__(self, tally: Tally) -> None:
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + 30
            print(f"{tally.seconds:6.0f} s: {tally.inputs} inputs, {len(failing(tally))} taken badly", flush=True)


def _explain(settings: Settings, tally: Tally, save: Path | None) -> None:
    """Each bug once: what was wrong, how to see it again, and the smallest input that shows it."""
    for name, (index, fault) in list(tally.distinct().items())[:SHRUNK_MAX]:
        same = len({i for i, other in tally.faults if f"{other.kind} {other.signature}" == name})
        print(f"\n=== {fault.kind}, {same} times: {fault.signature}\n{fault.detail}")
        print(f"  again: {commands(tally, [index])[0]}")
        case = shrink(settings, make(settings.seed, index), fault)
        print(f"  {show(case)}\n  saved in {_save(case, fault, settings.seed, index, save)}", flush=True)


def _save(case: Case, fault: Fault, seed: int, index: int, directory: Path | None) -> Path:
    place = (directory or Path(tempfile.gettempdir()) / "vcrecon-fuzz-found") / f"{seed}-{index}-{fault.kind}"
    place.mkdir(parents=True, exist_ok=True)
    for file, content in case.changes.items():
        if isinstance(content, bytes):
            (place / file).parent.mkdir(exist_ok=True)
            (place / file).write_bytes(content)
    (place / "about.txt").write_text(f"{show(case)}\n\n{fault.kind}: {fault.detail}\n", encoding="utf-8")
    return place


if __name__ == "__main__":
    sys.exit(main())
