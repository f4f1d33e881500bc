"""A simulated container in the shape of a real one: the same hypervisor, group, pool and trunk names."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from tests.lab.conformance.hosts import SshHost
from tests.lab.conformance.place import Place

from vcrecon.sim.server import LOOPBACK
from vcrecon.sim.site import Site
from vcrecon.sim.timing import Timing


@contextlib.asynccontextmanager
async def simulated(place: Place) -> AsyncIterator[tuple[SshHost, Site]]:
    """The container `here` of the place's spec, as an SSH server on loopback, with nothing on it."""
    spec = replace(place.spec, images={}, containers={"here": place.container}, deployment={"here": ()})
    async with Site(spec, timing=Timing.instant()) as site:
        server = site.hosts["here"].server
        with tempfile.TemporaryDirectory() as directory:
            key, known_hosts = Path(directory, "key"), Path(directory, "known_hosts")
            _write_keys(site, key, known_hosts)
            async with SshHost(LOOPBACK, server.port, "root", key, known_hosts) as host:
                site.hosts["here"].machine.files.remove("/etc/vcrecon/release")
                yield host, site


def _write_keys(site: Site, key: Path, known_hosts: Path) -> None:
    site.client_key.write_private_key(str(key))
    known_hosts.write_text(site.hosts["here"].server.known_host(), encoding="ascii")
