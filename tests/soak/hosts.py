"""`python -m tests.soak.hosts`: some of the simulated hosts of a soak, in a process of their own until SIGTERM.

One interpreter cannot play 200 busy hosts and leave anything to measure, so each plays a part. Prints one JSON line
when ready: ports, host keys and images. What is checked at the end is written to `--report`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
from tests.soak.lives import write_lives

from vcrecon.sim.control import ControlServer
from vcrecon.sim.machine import Machine
from vcrecon.sim.programs import Programs
from vcrecon.sim.server import HostServer
from vcrecon.sim.site import Site
from vcrecon.sim.timing import Timing
from vcrecon.spec.load import load
from vcrecon.spec.model import Spec


class Part(Site):
    """The hosts of `spec`; all parts of a site admit the same client."""

    def __init__(self, spec: Spec, client: asyncssh.SSHKey, timing: Timing) -> None:
        self._client = client
        super().__init__(spec, timing=timing)

    def make_server(self, machine: Machine, programs: Programs) -> HostServer:
        return HostServer(machine, programs, self._client)

    def ready(self) -> dict[str, Any]:
        """What the spec files need to know."""
        return {
            "ports": {name: host.server.port for name, host in self.hosts.items()},
            "known_hosts": "".join(host.server.known_host() for host in self.hosts.values()),
            "images": {
                image: {part: {"url": url, "sha256": sha256} for part, (url, sha256) in self._artifacts(image).items()}
                for image in self.spec.images
            },
        }

    async def report(self) -> dict[str, Any]:
        """What must be empty at the end."""
        found = (await self.audit())["violations"]
        machines = [host.machine for host in self.hosts.values()]
        return {
            "violations": found,
            "crashes": [crash for host in self.hosts.values() for crash in host.programs.crashes],
            "mounted": [
                f"{machine.name}: {volume.full_name} at {', '.join(volume.mounted_at)}"
                for machine in machines
                for volume in machine.all_volumes()
                if volume.mounted_at
            ],
        }


async def serve(options: argparse.Namespace) -> None:
    whole = load(options.specs).spec
    names = sorted(whole.containers)[options.part :: options.parts]
    spec = replace(whole, containers={name: whole.containers[name] for name in names})
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    timing = Timing.demo()
    timing.scale = options.speed
    async with Part(spec, asyncssh.read_public_key(options.client), timing) as site:
        with options.lives.open("a") as log:
            write_lives([host.machine for host in site.hosts.values()], log)
            control = ControlServer(site, options.control)
            await control.start()
            print(json.dumps(site.ready()), flush=True)
            await stopping.wait()
            await control.close()
            options.report.write_text(json.dumps(await site.report()))
            await site.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.hosts", description=__doc__)
    for name in ("specs", "client", "control", "lives", "report"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--part", type=int, required=True)
    parser.add_argument("--parts", type=int, required=True)
    parser.add_argument("--speed", type=float, required=True)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
