"""Stands in for `tests.simulation` in the tests of the runner: asks the product at hand about each seed, at once."""

from __future__ import annotations

import argparse
import json
import sys

from vcrecon import rule  # type: ignore[attr-defined]  # the tests' own small product


def main() -> int:
    """The same arguments and the same last line as the real one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--first-seed", type=int, required=True)
    parser.add_argument("--schedules", type=int, required=True)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--until-violation", action="store_true")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.schedules)
    failing = [seed for seed in seeds if not rule.keeps(seed)]
    print("a line that is no report")
    print(json.dumps({"schedules": len(seeds), "violations": len(failing), "seconds": 0, "failing_seeds": failing}))
    print("a last word on standard error", file=sys.stderr)
    return int(bool(failing))


if __name__ == "__main__":
    raise SystemExit(main())
