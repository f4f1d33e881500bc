"""A small Redfish service over TLS that misbehaves as asked: what real management controllers do, one at a time."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SYSTEM = "/redfish/v1/Systems/1"
USER, PASSWORD = "operator", "correct-horse"


@dataclass
class FakeBmc:
    """One service with one machine. The defaults behave well."""

    power: str | None = "On"
    boot_target: str = "None"
    boot_enabled: str = "Disabled"
    ignores_reset: bool = False
    ignores_boot: bool = False
    keeps_boot_pending: bool = False
    looks_until_effect: int = 0
    flickers: list[str] = field(default_factory=list)
    """States shown at the next looks, whatever is so."""
    failing_looks: int = 0
    failing_status: int = 503
    fails_after_order: int = 0
    """How many looks fail once it was told to switch."""
    refuses_reset: int = 0
    hangs: bool = False
    body: str | None = None
    """Answered instead of the system."""
    systems: tuple[str, ...] = ("1",)
    url: str = ""
    orders: list[tuple[str, Any]] = field(default_factory=list)
    looks: int = 0
    _wanted: str | None = None

    @contextlib.asynccontextmanager
    async def serving(self, tls: ssl.SSLContext) -> AsyncIterator[FakeBmc]:
        app = web.Application(middlewares=[self._admit])
        app.router.add_get("/redfish/v1/", self._root)
        app.router.add_get("/redfish/v1/Systems", self._systems)
        app.router.add_get("/redfish/v1/Systems/{name}", self._system)
        app.router.add_patch(SYSTEM, self._patch)
        app.router.add_get(f"{SYSTEM}/Settings", self._settings)
        app.router.add_patch(f"{SYSTEM}/Settings", self._patch)
        app.router.add_post(f"{SYSTEM}/Actions/ComputerSystem.Reset", self._reset)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        self.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    @web.middleware
    async def _admit(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.hangs:
            await asyncio.Event().wait()
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if request.path != "/redfish/v1/" and request.headers.get("Authorization") != expected:
            return web.json_response({"error": {"code": "Base.1.0.NoValidSession"}}, status=401)
        return await handler(request)

    async def _root(self, request: web.Request) -> web.Response:
        return web.json_response(
            {"Id": "RootService", "RedfishVersion": "1.6.0", "Systems": {"@odata.id": "/redfish/v1/Systems"}}
        )

    async def _systems(self, request: web.Request) -> web.Response:
        members = [{"@odata.id": f"/redfish/v1/Systems/{name}"} for name in self.systems]
        return web.json_response({"Name": "Systems", "Members": members, "Members@odata.count": len(members)})

    async def _system(self, request: web.Request) -> web.Response:
        if request.match_info["name"] not in self.systems:
            return web.json_response({"error": {"code": "Base.1.0.ResourceMissing"}}, status=404)
        self.looks += 1
        if self.failing_looks:
            self.failing_looks -= 1
            return web.Response(status=self.failing_status, text="busy")
        if self.body is not None:
            return web.Response(text=self.body, content_type="application/json")
        return web.json_response(self._document(), headers={"ETag": '"7"'})

    def _document(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "@odata.id": SYSTEM,
            "Id": "1",
            "Name": "machine",
            "PowerState": self._shown(),
            "Boot": self._boot(pending=False),
            "Actions": {
                "#ComputerSystem.Reset": {
                    "target": f"{SYSTEM}/Actions/ComputerSystem.Reset",
                    "ResetType@Redfish.AllowableValues": ["On", "ForceOff", "GracefulShutdown", "ForceRestart"],
                }
            },
        }
        if self.keeps_boot_pending:
            document["@Redfish.Settings"] = {"SettingsObject": {"@odata.id": f"{SYSTEM}/Settings"}}
        return document

    def _shown(self) -> str | None:
        if self.flickers:
            return self.flickers.pop(0)
        if self._wanted is not None and self.looks_until_effect:
            self.looks_until_effect -= 1
        elif self._wanted is not None:
            self.power, self._wanted = self._wanted, None
        return self.power

    def _boot(self, *, pending: bool) -> dict[str, Any]:
        hidden = self.keeps_boot_pending and not pending
        return {
            "BootSourceOverrideTarget": "None" if hidden else self.boot_target,
            "BootSourceOverrideEnabled": "Disabled" if hidden else self.boot_enabled,
            "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe", "Hdd"],
        }

    async def _settings(self, request: web.Request) -> web.Response:
        return web.json_response({"Id": "Settings", "Boot": self._boot(pending=True)})

    async def _patch(self, request: web.Request) -> web.Response:
        boot = (await request.json())["Boot"]
        self.orders.append(("boot", boot))
        if not self.ignores_boot:
            self.boot_target = boot["BootSourceOverrideTarget"]
            self.boot_enabled = boot["BootSourceOverrideEnabled"]
        return web.Response(status=204)

    async def _reset(self, request: web.Request) -> web.Response:
        asked = (await request.json())["ResetType"]
        self.orders.append(("reset", asked))
        if self.refuses_reset:
            error = {"code": "Base.1.0.GeneralError", "message": "the lid\nis open"}
            return web.json_response({"error": error}, status=self.refuses_reset)
        if not self.ignores_reset:
            self._wanted = {"On": "On", "ForceOff": "Off"}[asked]
            self.failing_looks = self.fails_after_order
        return web.Response(status=204)


def make_certificate(directory: Path, address: str = "127.0.0.1") -> tuple[Path, Path]:
    """A certificate that signs itself, for `address`, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bmc")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = directory / "bmc.pem", directory / "bmc.key"
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_path, key_path
