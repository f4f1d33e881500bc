"""`python -m tests.faults --runs N [--first-seed N] [--at-once N] [--json]`, or `--seed N` for one run again."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys

from tests.faults import campaign
from tests.faults.box import can_slow_a_disk
from tests.faults.campaign import Result


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=None, help="of consecutive ones; a fresh one by default")
    parser.add_argument("--seed", type=int, default=None, help="make this one run, and show all of it")
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one line for each run, and one for all")
    options = parser.parse_args()
    if os.geteuid() or campaign.missing():
        parser.error(f"needs root, and: {' '.join(campaign.missing()) or 'nothing else'}")
    if not can_slow_a_disk():
        print("no slow disks here: they take cgroups of version 1 (blkio) and mkfs.ext4", file=sys.stderr)
    first = secrets.randbelow(1 << 31) if options.first_seed is None else options.first_seed
    seeds = range(first, first + options.runs) if options.seed is None else [options.seed]

    def show(result: Result) -> None:
        if options.json:
            print(json.dumps(result), flush=True)
            return
        print(f"seed {result['seed']}: {result['calls']} calls, {result['seconds']} s", flush=True)
        for spell in result.get("spells", []) if options.seed is not None else []:
            print(f"    {spell}")
        for words in result["violations"]:
            print(f"  VIOLATION {words}")
        if result["violations"]:
            print(f"  again: {campaign.replay(result['seed'])}", flush=True)

    total = campaign.many(seeds, at_once=options.at_once, ended=show)
    print(json.dumps(total, indent=None if options.json else 2))
    return 1 if total["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
