"""The console script `vcrecon`, and `python -m vcrecon`: calls `cli.app` and turns its end into an exit code."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper

INTERRUPTED = 130


def main() -> None:
    """Exit codes: 0 done, 1 error, 2 wrong usage (of `plan`: changes are pending), 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a character shows a question mark instead of a traceback.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        from vcrecon.cli.app import app

        app(prog_name="vcrecon")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python flushes once more at exit, so give it somewhere to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
