"""A real nginx in front of the boot server, by the generated configuration."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from boot_site import a_boot_spec, a_ticket
from http_site import MACHINE, OTHER, SECRET, Site, running

from vcrecon.boot import nginx
from vcrecon.boot.job import install_token

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from sshd import free_port

pytestmark = pytest.mark.root
NGINX = "127.0.0.9"
"""An address that no other test listens on."""


@asynccontextmanager
async def served(tmp_path: Path, program: str) -> AsyncIterator[tuple[Site, tuple[str, int]]]:
    """A boot server behind nginx, and where nginx listens."""
    async with running(tmp_path, behind_proxy=True) as site:
        port = free_port(NGINX)
        behind = {"images": site.images, "nginx_port": site.server.port}
        spec = a_boot_spec(network="127.0.0.8/29", address=NGINX, port=port, **behind)
        text = nginx.render(spec)
        configuration = tmp_path / "nginx.conf"
        configuration.write_text(
            f"user root; daemon off; master_process off; pid {tmp_path}/nginx.pid; error_log {tmp_path}/error.log;\n"
            f"events {{}}\nhttp {{ client_body_temp_path {tmp_path}/body; proxy_temp_path {tmp_path}/proxy;\n{text}}}\n"
        )
        test = await asyncio.create_subprocess_exec(
            program, "-t", "-c", str(configuration), stderr=asyncio.subprocess.PIPE
        )
        _, said = await test.communicate()
        assert test.returncode == 0, said.decode()
        process = await asyncio.create_subprocess_exec(program, "-c", str(configuration))
        try:
            await until_open(port)
            yield site, (NGINX, port)
        finally:
            process.terminate()
            await process.wait()


async def until_open(port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(ConnectionError):
                _, writer = await asyncio.open_connection(NGINX, port)
                writer.close()
                return
            await asyncio.sleep(0.05)


async def test_nginx_serves_files_and_passes_the_rest_on(tmp_path: Path, program: Callable[[str], str]) -> None:
    async with served(tmp_path, program("nginx")) as (site, nginx_at):
        await site.server.close()
        part = await site.ask("GET", "/images/base.tar.zst", at=nginx_at, headers={"Range": "bytes=10000-"})
        assert (part.status, len(part.body)) == (206, 240)
        assert (await site.ask("GET", "/installer/vmlinuz", at=nginx_at)).body == b"kernel"
        assert (await site.ask("GET", "/boot.ipxe", at=nginx_at)).status == 502


async def test_behind_nginx_a_machine_is_known_by_its_own_address(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    async with served(tmp_path, program("nginx")) as (site, nginx_at):
        site.desk.open(a_ticket())
        lie = {"X-Real-IP": MACHINE}
        assert (await site.claims(at=nginx_at, address=OTHER, headers=lie)).status == 403
        assert (await site.claims(at=nginx_at, headers={"X-Real-IP": OTHER})).status == 200
        assert f"at {MACHINE}" in site.log.read_text()
        too_large = b"x" * (65 << 10)
        token = install_token(SECRET, a_ticket())
        assert (await site.calls("log", too_large, token=token, at=nginx_at)).status == 413


async def test_nginx_gives_nothing_else_away(tmp_path: Path, program: Callable[[str], str]) -> None:
    async with served(tmp_path, program("nginx")) as (site, nginx_at):
        (site.images / "link").symlink_to("../outside")
        paths = [
            "/images/",
            "/images/.key",
            "/images/..%2foutside",
            "/images/../outside",
            "/images/link",
            "/installer/notes",
        ]
        answers = [await site.ask("GET", path, at=nginx_at) for path in paths]
        assert {answer.status for answer in answers} <= {400, 403, 404}
        assert (await site.ask("GET", "/images/base.tar.zst", at=nginx_at, address="127.0.1.1")).status == 403
