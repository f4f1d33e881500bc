"""`python -m tests.seeded_bugs`: put each seeded bug into a copy of the product, and see how soon it is caught.

Prints a line for each as it ends and a table at the end; the exit status is 1 when one was not caught. What it
runs, and for how long, is in `trial.py`; the bugs are in `bugs/`.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from tests.seeded_bugs import catalogue
from tests.seeded_bugs.catalogue import Bug
from tests.seeded_bugs.trial import Outcome, Plan, attempt, end_all


def main(arguments: Sequence[str]) -> int:
    """The command line. Returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    bugs = catalogue.load()
    unknown = set(options.names) - {bug.name for bug in bugs} - {bug.rule for bug in bugs}
    if unknown:
        parser.error(f"no bug and no rule is called {', '.join(sorted(unknown))}; --list shows them")
    chosen = [bug for bug in bugs if not options.names or {bug.name, bug.rule} & set(options.names)]
    if options.list:
        print(listing(chosen))
        return 0
    plan = replace(Plan(), first_seed=options.first_seed, schedules_max=options.schedules_max, batch=options.batch)
    # A run that is stopped early unwinds, and so ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    outcomes = []
    with ThreadPoolExecutor(options.jobs) as pool:
        try:
            for outcome in pool.map(lambda bug: attempt(bug, plan), chosen):
                outcomes.append(outcome)
                print(_line(outcome), file=sys.stderr, flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            end_all()
            raise
    print(report_json(outcomes) if options.json else table(outcomes))
    return int(any(outcome.result != "caught" for outcome in outcomes))


def _parser() -> argparse.ArgumentParser:
    default = Plan()
    parser = argparse.ArgumentParser(
        prog="python -m tests.seeded_bugs", description="Are the tests good enough to catch plausible mistakes?"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="bugs, or rules such as S1 (all when none given)")
    parser.add_argument("--schedules-max", type=_positive, default=default.schedules_max, help="for each bug")
    parser.add_argument("--batch", type=_positive, default=default.batch, help="schedules in one process")
    parser.add_argument("--first-seed", type=int, default=default.first_seed)
    parser.add_argument("--jobs", type=_positive, default=1, help="bugs at the same time")
    parser.add_argument("--json", action="store_true", help="the table as one JSON object")
    parser.add_argument("--list", action="store_true", help="show the catalogue and try nothing")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def listing(bugs: Sequence[Bug]) -> str:
    """The catalogue in Markdown: what is wrong, and what brings it to light."""
    lines = []
    for bug in bugs:
        by = f" Caught by `{bug.test}`." if bug.test else ""
        lines.append(f"- {bug.rule} **{bug.name}** (`{bug.file}`): {bug.mistake} *Seen by* {bug.seen_by}.{by}")
    return "\n".join(lines)


def median(outcomes: Sequence[Outcome]) -> float | None:
    """Of the schedules that the simulation took; a bug that it missed counts as all that it ran."""
    counts = [outcome.schedules for outcome in outcomes if outcome.schedules]
    return statistics.median(counts) if counts else None


def table(outcomes: Sequence[Outcome]) -> str:
    """One row a bug, and a line that sums up."""
    rows = [("rule", "bug", "result", "schedules", "first seed")]
    rows += [(o.bug.rule, o.bug.name, o.result, str(o.schedules or "test"), str(o.seed or "")) for o in outcomes]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    caught = sum(outcome.result == "caught" for outcome in outcomes)
    middle = median(outcomes)
    by_schedules = "" if middle is None else f"; median {middle:g} schedules"
    return "\n".join([*lines, "", f"{caught} of {len(outcomes)} caught{by_schedules}"])


def report_json(outcomes: Sequence[Outcome]) -> str:
    """The same as one JSON object."""
    return json.dumps(
        {
            "bugs": [
                {
                    "rule": o.bug.rule,
                    "name": o.bug.name,
                    "result": o.result,
                    "by": o.bug.test or "simulation",
                    "schedules": o.schedules,
                    "first_seed": o.seed,
                    "why": o.why,
                }
                for o in outcomes
            ],
            "caught": sum(outcome.result == "caught" for outcome in outcomes),
            "total": len(outcomes),
            "median_schedules": median(outcomes),
        }
    )


def _line(outcome: Outcome) -> str:
    seed = f" by seed {outcome.seed}, schedule {outcome.schedules}" if outcome.seed is not None else ""
    why = f": {outcome.why}" if outcome.why else ""
    return f"{outcome.bug.rule} {outcome.bug.name}: {outcome.result}{seed}{why}"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
