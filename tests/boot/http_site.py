"""A boot server on loopback, where every address of 127.0.0.0/8 can be a machine, and a client for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from boot_site import MAC, NOW_S, a_boot_spec, a_ticket
from yarl import URL

from vcrecon.boot.desk import Desk
from vcrecon.boot.install_log import InstallLogs
from vcrecon.boot.job import JobSecrets, install_token
from vcrecon.boot.server import BootServer, Listen
from vcrecon.core.installs import Ticket
from vcrecon.errors import Refused, Transient
from vcrecon.spec.model import Spec

SECRET = b"s" * 32
MACHINE, OTHER, MASTER = "127.0.0.11", "127.0.0.12", "127.0.0.1"
STRANGER_MAC = "52:54:00:aa:00:99"


class Table:
    """A neighbour table that is written by hand."""

    def __init__(self) -> None:
        self.macs = {MACHINE: MAC}

    def mac_of(self, address: str) -> str | None:
        return self.macs.get(address)


@dataclass
class Answer:
    status: int
    body: bytes
    headers: Any

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class Site:
    state: Path
    images: Path
    now_s: float = NOW_S
    behind_proxy: bool = False
    record_fails: bool = False
    password_fails: bool = False
    neighbours: Table = field(default_factory=Table)
    events: list[tuple[str, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.desk = Desk(clock=lambda: self.now_s, claim=self._claim, on_change=lambda name: None)
        self.desk.adopt(a_boot_spec(network="127.0.0.0/8", address=MASTER, port=8067, images=self.images))
        self.log = self.state / "installs" / "c1.log"
        self.server = BootServer(
            self.desk,
            Listen(MASTER, 0, self.behind_proxy),
            site_secret=SECRET,
            secrets_of=self._secrets,
            neighbours=self.neighbours,
            logs=InstallLogs(self.state / "installs"),
            on_event=lambda subject, reason, message: self.events.append((subject, reason, message)),
            clock=lambda: self.now_s,
        )

    def _claim(self, ticket: Ticket) -> None:
        if self.record_fails:
            raise Transient("the record cannot be written")

    def _secrets(self, spec: Spec) -> JobSecrets:
        if self.password_fails:
            raise Refused("cannot read secrets/root.hash")
        return JobSecrets(SECRET, ("ssh-ed25519 KEY",), "$6$salt$hash")

    @property
    def reasons(self) -> list[tuple[str, str]]:
        return [(subject, reason) for subject, reason, _ in self.events]

    async def ask(
        self,
        method: str,
        path: str,
        *,
        address: str = MACHINE,
        token: str | None = None,
        headers: dict[str, str] | None = None,
        at: tuple[str, int] | None = None,
        **options: Any,
    ) -> Answer:
        """One request from an address of its own, to the boot server or to `at`; the path goes out as it is."""
        host, port = at or (MASTER, self.server.port)
        named = {**({} if token is None else {"Authorization": f"Bearer {token}"}), **(headers or {})}
        url = URL(f"http://{host}:{port}{path}", encoded=True)
        connector = aiohttp.TCPConnector(local_addr=(address, 0))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, url, headers=named, **options) as answer,
        ):
            return Answer(answer.status, await answer.read(), answer.headers)

    async def boots(self, mac: str = MAC, **options: Any) -> Answer:
        return await self.ask("GET", f"/boot.ipxe?mac={mac.replace(':', '%3A')}&platform=pcbios", **options)

    async def claims(self, token: str | None = None, **options: Any) -> Answer:
        return await self.ask("POST", "/install/claim", token=token or install_token(SECRET, a_ticket()), **options)

    async def calls(self, what: str, body: str | bytes, **options: Any) -> Answer:
        token = options.pop("token", install_token(SECRET, a_ticket()))
        return await self.ask("POST", f"/install/{what}", token=token, data=body, **options)


@asynccontextmanager
async def running(tmp_path: Path, **changes: Any) -> AsyncIterator[Site]:
    images = tmp_path / "images"
    (images / "installer").mkdir(parents=True)
    (images / "installer" / "vmlinuz").write_bytes(b"kernel")
    (images / "installer" / "notes").write_bytes(b"notes")
    (images / "base.tar.zst").write_bytes(bytes(range(256)) * 40)
    (images / ".key").write_bytes(b"secret")
    (tmp_path / "outside").write_bytes(b"outside")
    site = Site(tmp_path / "state", images, **changes)
    await site.server.start()
    try:
        yield site
    finally:
        await site.server.close()
