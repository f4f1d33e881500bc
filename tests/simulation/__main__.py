"""`python -m tests.simulation --seed N` plays one schedule; `--first-seed N --schedules M` plays many."""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import random
import sys
import time
from collections.abc import Iterator

from tests.simulation.entropy import require_fixed_hashes
from tests.simulation.schedule import Result, run, storm, told

REPLAY = "python -m tests.simulation --seed {}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this one, and say what happened")
    parser.add_argument("--first-seed", type=int, help="of many; drawn without it")
    parser.add_argument("--schedules", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--until-violation", action="store_true", help="stop at the first schedule with a violation")
    parser.add_argument("--trace", action="store_true", help="with --seed: every message")
    parser.add_argument("--story", default="", help="tell this one in every round (see stories.py)")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    return _one(asked) if asked.seed is not None else _many(asked)


def _one(asked: argparse.Namespace) -> int:
    result = run(asked.seed, storm, trace=asked.trace, prepare=functools.partial(told, asked.story))
    if asked.json:
        said = {
            "seed": result.seed,
            "trace_hash": result.trace_hash,
            "violations": [str(violation) for violation in result.violations],
            "virtual_seconds": round(result.virtual_seconds, 3),
            "seconds": round(result.seconds, 3),
        }
        print(json.dumps(said))
    else:
        print(*result.trace, *result.history, *result.violations, sep="\n")
        print(f"seed {result.seed}: trace {result.trace_hash[:16]}, {result.virtual_seconds:.0f} virtual seconds")
    return 1 if result.violations else 0


def _many(asked: argparse.Namespace) -> int:
    began_s = time.monotonic()
    first = asked.first_seed if asked.first_seed is not None else random.SystemRandom().randrange(10**9)
    seeds = range(first, first + asked.schedules)
    failing, violations, played, cpu_s = [], 0, 0, 0.0
    for result in _results(seeds, asked.jobs, asked.story):
        played += 1
        cpu_s += result.seconds
        if result.violations:
            failing.append(result.seed)
            violations += len(result.violations)
            print(f"seed {result.seed}: {result.violations[0]}   replay: {REPLAY.format(result.seed)}", flush=True)
            if asked.until_violation:
                break
    total = {
        "schedules": played,
        "violations": violations,
        "seconds": round(time.monotonic() - began_s, 2),
        "cpu_seconds": round(cpu_s, 2),
        "failing_seeds": sorted(failing),
    }
    print(json.dumps(total) if asked.json else total)
    return 1 if failing else 0


def _results(seeds: range, jobs: int, story: str) -> Iterator[Result]:
    # Functions of this module would not do: in a process of the pool it is not `__main__`.
    play = functools.partial(run, prepare=functools.partial(told, story))
    if jobs == 1:
        yield from map(play, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=200) as pool:
        yield from pool.imap_unordered(play, seeds)


if __name__ == "__main__":
    require_fixed_hashes()
    sys.exit(main())
