"""The simulated site of a soak: its processes of hosts, the spec files that lead to them, and ways to break them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
from tests.soak.lives import Lives
from tests.soak.specs import IMAGES, SpecFiles, container_names

from vcrecon.sim.control import SiteClient

HOSTS_IN_ONE = 100
READY_S = 120.0
END_S = 60.0
PLACEHOLDER = {"url": "http://127.0.0.1:9/images/x.tar.zst", "sha256": "0" * 64}


class Site:
    """Hosts by name. `files` are the specs that lead to them; `lives` who ran where, and when."""

    def __init__(self, files: SpecFiles, lives: Lives, clients: dict[str, SiteClient], reports: list[Path]) -> None:
        self.files = files
        self.lives = lives
        self.ports = {}
        self._clients = clients
        self._reports = reports

    ports: dict[str, int]

    def host(self, name: str) -> SiteClient:
        """Whoever plays this host."""
        return self._clients[name]

    def players(self) -> set[SiteClient]:
        """Whoever plays any host."""
        return set(self._clients.values())

    def report(self) -> dict[str, list[Any]]:
        """Once the processes have ended: what their witnesses saw that must not be."""
        found: dict[str, list[Any]] = {"violations": [], "crashes": [], "mounted": []}
        for path in self._reports:
            for key, entries in json.loads(path.read_text()).items():
                found[key] += entries
        return found


@contextlib.asynccontextmanager
async def serving(work: Path, containers: int, guests: int, speed: float) -> AsyncIterator[Site]:
    """The site, with its specs in `work`/specs, until the block ends; its `report` is there afterwards."""
    draft, specs = work / "draft", work / "specs"
    names = container_names(containers)
    key = asyncssh.generate_private_key("ssh-ed25519", comment="vcrecon soak")
    for directory in (draft, specs):
        directory.mkdir()
        key.write_private_key(directory / "client_key")
        (directory / "client_key").chmod(0o600)
    key.write_public_key(work / "client_key.pub")
    parts = ("root", "kernel", "initrd")
    images = {image: dict.fromkeys(parts, PLACEHOLDER) for image in IMAGES}
    SpecFiles(draft, {name: 20_000 + n for n, name in enumerate(names)}, images, guests).write_all()
    count = -(-containers // HOSTS_IN_ONE)
    reports = [work / f"report-{part}.json" for part in range(count)]
    lives = Lives([work / f"lives-{part}" for part in range(count)])
    async with contextlib.AsyncExitStack() as stack:
        starting = [
            stack.enter_async_context(_part(work, draft, part, count, speed, lives.logs[part], reports[part]))
            for part in range(count)
        ]
        ready = [await each for each in starting]
        ports = {name: port for answer in ready for name, port in answer["ports"].items()}
        files = SpecFiles(specs, {name: ports[name] for name in names}, ready[0]["images"], guests)
        files.write_all("".join(answer["known_hosts"] for answer in ready))
        clients: dict[str, SiteClient] = {}
        for part, answer in enumerate(ready):
            client = await stack.enter_async_context(SiteClient(work / f"site-{part}.sock"))
            clients |= dict.fromkeys(answer["ports"], client)
        site = Site(files, lives, clients, reports)
        site.ports = ports
        yield site


@contextlib.asynccontextmanager
async def _part(
    work: Path, draft: Path, part: int, parts: int, speed: float, lives: Path, report: Path
) -> AsyncIterator[dict[str, Any]]:
    """One process of hosts; what it says when it is ready."""
    log_path = work / f"hosts-{part}.log"
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.soak.hosts", "--specs", draft, "--client", work / "client_key.pub",
            "--control", work / f"site-{part}.sock", "--lives", lives, "--report", report,
            "--part", str(part), "--parts", str(parts), "--speed", str(speed),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log,
            limit=1 << 24,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), READY_S)
        assert line, f"the hosts did not start: {log_path.read_text()[-2000:]}"
        yield json.loads(line)
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), END_S)
            except TimeoutError:
                process.kill()
                await process.wait()
    assert "Traceback" not in log_path.read_text(), log_path.read_text()[-4000:]
