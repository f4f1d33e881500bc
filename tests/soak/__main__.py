"""`python -m tests.soak --containers N --guests N --minutes N [--seed N] [--json]`: is the service flat under churn?"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
import time
from pathlib import Path

from tests.soak.churn import Pace
from tests.soak.run import Plan, soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--containers", type=int, default=200)
    parser.add_argument("--guests", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None, help="a fresh one by default; printed")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two acts of the churn")
    parser.add_argument("--profile", type=Path, default=None, help="run the service under cProfile; where to write")
    parser.add_argument("--keep", type=Path, default=None, help="an empty directory to work in, kept at the end")
    parser.add_argument("--json", action="store_true", help="one object on standard output, and nothing else")
    options = parser.parse_args()
    seed = secrets.randbelow(1 << 31) if options.seed is None else options.seed
    began_s = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began_s:7.0f} s  {text}", file=sys.stderr, flush=True)

    say(f"seed {seed}")
    plan = Plan(
        options.containers, options.guests, options.minutes, seed, Pace(every_s=options.every), profile=options.profile
    )
    with tempfile.TemporaryDirectory(prefix="vcs") as made:
        work = options.keep or Path(made)
        work.mkdir(parents=True, exist_ok=True)
        found = asyncio.run(soak(plan, work.absolute(), say))
    print(json.dumps(found, indent=None if options.json else 2))
    return 1 if found["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
