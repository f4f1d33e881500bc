"""`python -m vcrecon.sim`: serve a simulated site in a process of its own, until SIGTERM.

Its own process lets the controller be killed while the site lives on. Prints one JSON line when ready.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path

from vcrecon.errors import VcreconError
from vcrecon.sim.control import ControlServer
from vcrecon.sim.site import Site
from vcrecon.sim.timing import Timing
from vcrecon.spec.load import load


async def serve(specs: Path, out: Path, control: Path, speed: float) -> None:
    """Serve the site of `specs`, with the bound copy in `out`, until SIGTERM or SIGINT.

    `speed` 0 makes simulated work take no time, 1 what the demo shows. Raises VcreconError, OSError.
    """
    spec = load(specs, require_placement=False).spec
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    timing = Timing.demo()
    timing.scale = speed
    async with Site(spec, timing=timing) as site:
        site.materialize(specs, out)
        server = ControlServer(site, control)
        await server.start()
        try:
            ready = {"specs": str(out), "control": str(control), "image_url": site.images.url}
            print(json.dumps(ready), flush=True)
            await stopping.wait()
        finally:
            await server.close()


def main() -> int:
    """The command line. Returns the exit status: 1 with a message when the site cannot be served."""
    parser = argparse.ArgumentParser(prog="python -m vcrecon.sim", description="Serve a simulated site.")
    parser.add_argument("--specs", type=Path, required=True, help="the spec directory to simulate")
    parser.add_argument("--out", type=Path, required=True, help="where to write the spec bound to this site")
    parser.add_argument("--control", type=Path, help="Unix socket of the breakage API (default: OUT/site.sock)")
    parser.add_argument("--speed", type=float, default=1.0, help="0: no waiting at all; 1: as the demo shows")
    options = parser.parse_args()
    control = options.control or options.out / "site.sock"
    try:
        asyncio.run(serve(options.specs.absolute(), options.out.absolute(), control.absolute(), options.speed))
    except (VcreconError, OSError) as error:
        print(f"vcrecon.sim: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
