"""`python -m benchmarks`: run the benchmarks named, or all; print a table each and write one JSON file.

Called by `make bench`. Everything stays on loopback or in namespaces made for it, and every process
started here is ended by its id, also when the run is stopped early.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import boot, converge, lab_events, planner, ssh_fleet, watchers
from benchmarks.report import Report, show

NAMES = ("ssh", "planner", "converge", "watchers", "boot")
ON_DEMAND = ("lab-events",)
"""Only when named: it needs a lab that is up and converged."""


def main() -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What vcrecon costs, measured.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (all when none given), lab-events"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results there as well")
    parser.add_argument("--quick", action="store_true", help="small and short: does it run at all")
    parser.add_argument(
        "--ansible", default=shutil.which("ansible"), metavar="PATH", help="the ansible command to compare with"
    )
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in (*NAMES, *ON_DEMAND)]
    if unknown:
        parser.error(f"no benchmark is called {unknown[0]!r}; there are {', '.join((*NAMES, *ON_DEMAND))}")
    # A run that is stopped early unwinds, and so ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    benchmarks: dict[str, Callable[[], Report]] = {
        "ssh": lambda: ssh_fleet.run(quick=options.quick, ansible=options.ansible),
        "planner": lambda: planner.run(quick=options.quick),
        "converge": lambda: converge.run(quick=options.quick),
        "watchers": lambda: watchers.run(quick=options.quick),
        "boot": lambda: boot.run(quick=options.quick),
        "lab-events": lambda: lab_events.run(quick=options.quick),
    }
    reports = []
    for name in (*NAMES, *ON_DEMAND):
        if name in (options.names or NAMES):
            report = benchmarks[name]()
            show(report)
            reports.append(report.as_data())
            if options.json is not None:
                # After each, so that a later failure loses nothing.
                options.json.write_text(json.dumps(reports, indent=2, default=str) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
