"""A whole simulated site in one process: hosts with SSH servers, an image server, and ways to break them.

Made by `python -m vcrecon.sim`, by `vcrecon demo` and by tests. It is built from a Spec, and `materialize`
writes a copy of the spec directory that leads to it; nothing else about the spec differs from a real site's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import aiohttp
import asyncssh

from vcrecon.sim.audit import Audit, guest_of, live_volume
from vcrecon.sim.breakage import Breakage
from vcrecon.sim.faults import Faults
from vcrecon.sim.images import ImageServer, Part, boot_file, root_archive
from vcrecon.sim.machine import Machine
from vcrecon.sim.materialize import CLIENT_KEY, KNOWN_HOSTS, write_specs
from vcrecon.sim.process import Tool
from vcrecon.sim.programs import Programs
from vcrecon.sim.server import LOOPBACK, HostServer
from vcrecon.sim.timing import Timing
from vcrecon.sim.tools import TOOLS
from vcrecon.spec.model import Container, Spec

_FETCH_BYTES = 64 * 1024
# The spec says what a container has for guests; the host itself and the pool's own needs come on top.
_HOST_MEMORY_BYTES = 2 << 30
_DISK_FACTOR = 1.2


class Host:
    """One container of the site: the machine, its programs, its SSH server and its faults."""

    def __init__(self, site: Site, container: Container, tools: Mapping[str, Tool]) -> None:
        self.container = container
        self.machine = Machine(
            container.name,
            hypervisor=container.hypervisor,
            memory_bytes=container.memory_bytes + _HOST_MEMORY_BYTES,
            cores=container.cores,
            disk_bytes=int(container.disk_bytes * _DISK_FACTOR),
            trunk=container.trunk,
            volume_group=container.volume_group,
            pool=container.pool,
            timing=site.timing,
            fetch=self.fetch,
            address=f"{container.address}/24",
        )
        self.faults = Faults()
        self.programs = Programs(tools, before=self.faults.before)
        self.server = site.make_server(self.machine, self.programs)
        self._site = site
        release = f"generation={container.generation}\nhypervisor={container.hypervisor}\n"
        self.machine.files.write("/etc/vcrecon/release", release.encode())
        if not self.machine.files.exists("/root"):
            self.machine.files.mkdir("/root", mode=0o700)
        self.machine.on_down(self._down)
        self.machine.on_up(self._up)

    def _down(self) -> None:
        self.programs.kill_all()
        self.server.stop()

    def _up(self) -> None:
        self._site.spawn(self.server.start())

    async def fetch(self, url: str, offset: int) -> tuple[int, AsyncIterator[bytes]]:
        """What curl on this host sees of the network, in `machine.Fetch`'s terms."""
        if self.server.cut:
            raise TimeoutError(url)
        return await self._site.fetch(url, offset)


class Site(Breakage):
    """All hosts of `spec`, by name in `hosts`. Use as `async with Site(spec) as site`.

    The breakage methods are those of `Breakage`. Unknown names raise LookupError that says what there is.
    """

    def __init__(self, spec: Spec, *, timing: Timing | None = None, tools: Mapping[str, Tool] = TOOLS) -> None:
        self.spec = spec
        self.timing = timing if timing is not None else Timing.demo()
        self.client_key = asyncssh.generate_private_key("ssh-ed25519", comment=f"vcrecon sim {spec.site.name}")
        self.images = ImageServer()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._http: aiohttp.ClientSession | None = None
        self.hosts = {name: Host(self, container, tools) for name, container in spec.containers.items()}
        machines = {name: host.machine for name, host in self.hosts.items()}
        self.witness = Audit(machines, preparing=spec.site.session == "preparing")

    def make_server(self, machine: Machine, programs: Programs) -> HostServer:
        """What the controller talks to on a host."""
        return HostServer(machine, programs, self.client_key.convert_to_public())

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Start the image server and every host's SSH server."""
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64))
        await self.images.start()
        self._offer_images()
        for host in self.hosts.values():
            await host.server.start()

    def _offer_images(self) -> None:
        for name, image in self.spec.images.items():
            suffix = next((s for s in ("tar.gz", "tar.xz", "tar.zst") if image.root.url.endswith(s)), "tar")
            self.images.offer(f"/images/{name}.{suffix}", root_archive(name, suffix))
            if image.kernel is not None:
                self.images.offer(f"/images/{name}.kernel", boot_file(name, "kernel"))
            if image.initrd is not None:
                self.images.offer(f"/images/{name}.initrd", boot_file(name, "initrd"))

    async def close(self) -> None:
        """Stop everything and give up all ports."""
        for host in self.hosts.values():
            host.machine.power_off()
            host.server.close()
        for task in list(self._tasks):
            task.cancel()
        running = [task for host in self.hosts.values() for task in host.programs.tasks]
        await asyncio.gather(*self._tasks, *running, return_exceptions=True)
        if self._http is not None:
            await self._http.close()
        await self.images.close()

    def spawn(self, work: Any) -> None:
        """Run something that belongs to the site and ends with it."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def fetch(self, url: str, offset: int) -> tuple[int, AsyncIterator[bytes]]:
        """GET `url` from byte `offset`, with the errors that `machine.Fetch` promises."""
        if self._http is None:
            raise ConnectionRefusedError(url)
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            response = await self._http.get(url, headers=headers, allow_redirects=True)
        except aiohttp.ClientConnectorDNSError as error:
            raise LookupError(url) from error
        except TimeoutError:
            raise
        except (aiohttp.ClientError, ValueError) as error:
            raise ConnectionRefusedError(url) from error

        async def body() -> AsyncIterator[bytes]:
            try:
                async for data in response.content.iter_chunked(_FETCH_BYTES):
                    yield data
            except (aiohttp.ClientError, OSError) as error:
                raise ConnectionResetError(url) from error
            finally:
                response.close()

        return response.status, body()

    def materialize(self, spec_dir_source: Path, spec_dir_target: Path) -> None:
        """Copy the spec directory, bound to this site: addresses, ports, keys, image URLs and digests.

        The site must be started, for its ports to be known. Raises OSError when the target is not writable.
        """
        write_specs(
            spec_dir_source,
            spec_dir_target,
            containers=[(host.container, LOOPBACK, host.server.port) for host in self.hosts.values()],
            images={name: self._artifacts(name) for name in self.spec.images},
        )
        self.client_key.write_private_key(str(spec_dir_target / CLIENT_KEY))
        (spec_dir_target / CLIENT_KEY).chmod(0o600)
        pins = "".join(host.server.known_host() for host in self.hosts.values())
        (spec_dir_target / KNOWN_HOSTS).write_text(pins)

    def _artifacts(self, image: str) -> dict[str, tuple[str, str]]:
        """Part to (URL, sha256) of what the image server offers for `image`."""
        result: dict[str, tuple[str, str]] = {}
        parts: tuple[Part, ...] = ("root", "kernel", "initrd")
        for part in parts:
            path = self.image_path(image, part)
            if path is not None:
                result[part] = (self.images.url + path, self.images.files[path].sha256)
        return result

    def image_path(self, image: str, part: str) -> str | None:
        """The path of one part of an image on the image server; None when the image has no such part."""
        extensions = ("tar.zst", "tar.gz", "tar.xz", "tar") if part == "root" else (part,)
        paths = [f"/images/{image}.{extension}" for extension in extensions]
        return next((path for path in paths if path in self.images.files), None)

    # -- the truth ------------------------------------------------------------------------------------

    async def world(self) -> dict[str, Any]:
        """The truth about the site as JSON: per host and per guest."""
        guests: dict[str, dict[str, Any]] = {
            name: {"hosts": self.witness.live(name), "boots": self.witness.boots[name], "disks": []}
            for name in sorted({*self.spec.guests, *self.witness.boots})
        }
        hosts = {}
        for name, host in self.hosts.items():
            hosts[name] = self._host_truth(host)
            for volume in host.machine.all_volumes():
                guest = guest_of(volume.tags)
                if guest in guests:
                    guests[guest]["disks"].append(f"{name}:{volume.full_name}")
        return {"hosts": hosts, "guests": guests, "running": sum(len(g["hosts"]) for g in guests.values())}

    def _host_truth(self, host: Host) -> dict[str, Any]:
        machine = host.machine
        state: Literal["up", "cut", "off"] = "off" if not machine.up else "cut" if host.server.cut else "up"
        links = machine.network.links.values()
        return {
            "state": state,
            "port": host.server.port,
            "boot_id": machine.boot_id,
            "domains": {
                domain.name: {
                    "boots": domain.boots,
                    "started_at": self.witness.started_at_s.get((machine.name, domain.name)),
                    "answers": domain.answers_at <= machine.timing.now(),
                }
                for domain in machine.domains.live()
            },
            "volumes": {
                volume.full_name: {
                    "tags": sorted(volume.tags),
                    "kind": volume.kind,
                    "booted": volume.ever_booted,
                }
                for volume in machine.all_volumes()
            },
            "bridges": sorted(link.name for link in links if link.kind == "bridge"),
            "vlans": sorted(link.vlan_id for link in links if link.kind == "vlan"),
        }

    def volume_files(self, guest: str) -> Any:
        """The file system on the guest's live disk. Raises LookupError when there is none."""
        found = live_volume([host.machine for host in self.hosts.values()], guest)
        filesystem = found[1].look() if found is not None else None
        if filesystem is None:
            raise LookupError(f"guest {guest} has no disk with a file system on any host")
        return filesystem
