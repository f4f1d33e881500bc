"""Runs a module as `python -m` does, once it is sure that `vcrecon` is the copy that was meant.

`python -m tests.seeded_bugs.inside COPY MODULE ARGUMENT …`: without the check a path that is set wrongly would try
the sound product, and every bug would seem to be missed.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import vcrecon

WRONG_COPY = 97
"""The exit status when another vcrecon would be tried."""


def main(copy: str, module: str, *arguments: str) -> None:
    """Hand over to `module`; its exit is ours."""
    found = Path(vcrecon.__file__).resolve()
    if not found.is_relative_to(Path(copy).resolve()):
        print(f"{found} would be tried, and not the copy in {copy}", file=sys.stderr)
        raise SystemExit(WRONG_COPY)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
