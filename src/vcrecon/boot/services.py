"""All boot services as one object, by the mode of the spec: "managed" DHCP, TFTP and HTTP, "external" HTTP, "off" none.

Owned by `service`. Never raises for what is wrong with the machine: a port that is taken or a missing package is
`problem`, a sentence for `status`, and is tried again; the guests must not suffer for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from vcrecon.boot import dnsmasq, interface, ipxe, nginx
from vcrecon.boot.complaints import OnEvent
from vcrecon.boot.desk import Desk
from vcrecon.boot.dhcp_probe import Offer, other_servers
from vcrecon.boot.dnsmasq_process import Dnsmasq, tftp_directory
from vcrecon.boot.install_log import InstallLogs
from vcrecon.boot.job_secrets import job_secrets
from vcrecon.boot.neighbours import KernelNeighbours, Neighbours
from vcrecon.boot.server import BootServer, Listen
from vcrecon.core.mastery import UNCLEAR, Quiet
from vcrecon.errors import Refused
from vcrecon.spec.model import Provisioning, Spec

_log = structlog.get_logger("vcrecon")

RETRY_S = 15.0
PUBLIC = Path("/run/vcrecon")
Probe = Callable[[str, str], Awaitable[list[Offer]]]
"""(interface, own address) -> other DHCP servers."""


async def _probe(link: str, own: str) -> list[Offer]:
    return await other_servers(link, own=own)


class BootServices:
    """Start it with the first spec, let it `adopt` each further one, stop it at the end.

    The desk's own `adopt` is the controller's to call. `problem` says what does not work and what to do, or is None.
    """

    def __init__(
        self,
        spec: Spec,
        state_directory: Path,
        desk: Desk,
        site_secret: bytes,
        on_event: OnEvent,
        *,
        clock: Callable[[], float] = time.time,
        neighbours: Neighbours | None = None,
        public: Path | None = None,
        probe: Probe = _probe,
        retry_s: float = RETRY_S,
    ) -> None:
        """`public` is the directory that TFTP serves, reachable by everybody: the state directory is not, and dnsmasq
        reads it as a user without rights. `retry_s`: how often what did not work is tried again, in seconds.
        """
        self._spec, self._state, self._desk = spec, state_directory.absolute(), desk
        self._site_secret, self._on_event, self._clock = site_secret, on_event, clock
        self._neighbours, self._probe, self._retry_s = neighbours, probe, retry_s
        self._public = PUBLIC / spec.site.name if public is None else public
        self._dnsmasq = Dnsmasq(self._state / "dnsmasq")
        self._server: BootServer | None = None
        self._served: tuple[str, int, str] | None = None
        self._addresses: set[tuple[str, str]] = set()
        self._probed: tuple[str, str] | None = None
        self._problems: dict[str, str] = {}
        self._quiet: Quiet | None = None
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def problem(self) -> str | None:
        """What is wrong, in a sentence or two."""
        found = [*self._problems.values(), *([self._dnsmasq.trouble] if self._dnsmasq.trouble else [])]
        if self._quiet is not None and self._quiet is not UNCLEAR and self._spec.site.provisioning.mode != "off":
            found.insert(0, self._quiet.message)
        return "; ".join(found) or None

    async def start(self) -> None:
        """Begin. What takes time, or does not work yet, goes on by itself."""
        self._keeper = asyncio.create_task(self._keep(), name="boot services")

    async def adopt(self, spec: Spec) -> None:
        """Serve by this spec from now on; only what it changes is started anew."""
        self._spec = spec
        self._settled.clear()
        self._wake.set()

    def be_quiet(self, quiet: Quiet | None) -> None:
        """End DHCP, TFTP and router advertisements for this reason, or begin them again (None).

        HTTP goes on: the desk has an answer for machines that still come here.
        """
        self._quiet = quiet
        self._settled.clear()
        self._wake.set()

    async def settled(self) -> None:
        """Wait until everything was tried once since the start, or the last `adopt` or `be_quiet`."""
        await self._settled.wait()

    async def stop(self) -> None:
        """End everything, and wait for it."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        await self._end_dhcp()
        await self._end_http()
        self._problems.clear()

    async def _keep(self) -> None:
        while True:
            self._wake.clear()
            spec = self._spec
            await self._try("http", self._http, spec)
            await self._try("dhcp", self._dhcp, spec)
            if not self._wake.is_set():
                self._settled.set()
            # Not `wait_for`: before Python 3.12 it may lose a cancel.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._retry_s if self._problems else None):
                    await self._wake.wait()

    async def _try(self, name: str, work: Callable[[Spec], Awaitable[None]], spec: Spec) -> None:
        try:
            await work(spec)
        except Refused as error:
            self._note(name, str(error))
        except Exception as error:
            _log.exception("boot services", part=name)
            self._note(name, f"boot services: {name} failed ({type(error).__name__}); the log tells more")
        else:
            if self._problems.pop(name, None) is not None:
                self._on_event("site", "boot-services", f"{name} works again")

    def _note(self, name: str, problem: str) -> None:
        if self._problems.get(name) != problem:
            self._problems[name] = problem
            _log.error("boot services", part=name, problem=problem)
            self._on_event("site", "boot-services", problem)

    # --- HTTP ----------------------------------------------------------------------------------------------

    async def _http(self, spec: Spec) -> None:
        provisioning = spec.site.provisioning
        if provisioning.mode == "off":
            await self._end_http()
            return
        proxied = provisioning.nginx_port is not None
        address, port = nginx.proxied(provisioning) if proxied else (provisioning.address, provisioning.port)
        wanted = (address, port, provisioning.interface)
        if self._served == wanted:
            return
        await self._end_http()
        server = BootServer(
            self._desk,
            Listen(address, port, behind_proxy=proxied),
            site_secret=self._site_secret,
            secrets_of=lambda current: job_secrets(current, self._site_secret),
            neighbours=self._neighbours or KernelNeighbours(provisioning.interface),
            logs=InstallLogs(self._state / "installs"),
            on_event=self._on_event,
            clock=self._clock,
        )
        await server.start()
        self._server, self._served = server, wanted
        _log.info("boot server", address=address, port=port)

    async def _end_http(self) -> None:
        server, self._server, self._served = self._server, None, None
        if server is not None:
            await server.close()

    # --- DHCP, TFTP, router advertisements -----------------------------------------------------------------

    async def _dhcp(self, spec: Spec) -> None:
        provisioning = spec.site.provisioning
        if provisioning.mode != "managed" or self._quiet is not None:
            await self._end_dhcp()
            return
        tftp = self._public / "tftp"
        await asyncio.to_thread(tftp_directory, tftp, ipxe.bootstrap(ipxe.master(provisioning)))
        await self._look_for_others(provisioning)
        await self._advertise(provisioning.interface, f"{dnsmasq.ra_prefix(spec)}1/64")
        await self._dnsmasq.use(dnsmasq.render(spec, state=self._state / "dnsmasq", tftp=tftp))

    async def _look_for_others(self, provisioning: Provisioning) -> None:
        """Ask the wire once, before ours answers on it. Raises Refused when another server offers an address."""
        place = (provisioning.interface, provisioning.address)
        if self._probed == place:
            return
        await self._end_dhcp()
        others = await self._probe(*place)
        if others:
            named = " and ".join(str(other) for other in others)
            raise Refused(
                f"another DHCP server answers on {provisioning.interface}: {named}; vcrecon's own stays off. "
                "Switch that one off, or say `mode: external` under provisioning in site.yaml"
            )
        self._probed = place

    async def _advertise(self, link: str, address: str) -> None:
        for old in self._addresses - {(link, address)}:
            await interface.remove_address(*old)
            self._addresses.discard(old)
        if (link, address) not in self._addresses and await interface.add_address(link, address):
            self._addresses.add((link, address))

    async def _end_dhcp(self) -> None:
        self._probed = None
        await self._dnsmasq.stop()
        for old in self._addresses:
            await interface.remove_address(*old)
        self._addresses.clear()
