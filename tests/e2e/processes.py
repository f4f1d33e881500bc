"""A simulated site and `vcrecon run` as processes of their own, to be killed; used by test_restart.

Every process is ended by its own id. What a service prints is kept, and may hold no traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from running import SMALL, Status, until

from vcrecon.errors import VcreconError
from vcrecon.shell.control import ControlClient
from vcrecon.sim.control import SiteClient

QUICK_ENVIRONMENT = {
    "VCRECON_RELIST_S": "1",
    "VCRECON_POLL_S": "0.5",
    "VCRECON_RETRY_UNREACHABLE_S": "0.3",
    "VCRECON_LOOK_DEADLINE_S": "5",
    "VCRECON_CONNECT_DEADLINE_S": "3",
    "VCRECON_SETTLE_S": "0.01",
    "VCRECON_SHUTDOWN_S": "5",
    "NO_COLOR": "1",
    "COLUMNS": "120",
}


class ServiceProcess:
    """`vcrecon run` on `specs`, started again and again on the same state directory."""

    def __init__(self, specs: Path, state: Path, log: Path, environment: Mapping[str, str]) -> None:
        self.specs, self.state, self.log = specs, state, log
        self._environment = {**os.environ, **QUICK_ENVIRONMENT, **environment}
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "vcrecon", "run", str(self.specs), "--state", str(self.state),
                "--listen", "none", "--quiet", "--log-format", "json",
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment,
            )  # fmt: skip

    async def signal(self, number: signal.Signals, deadline_s: float = 30.0) -> int:
        """Send a signal to the service and return how it ended."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), deadline_s)

    async def kill(self) -> None:
        """SIGKILL: no time to finish or to write anything."""
        assert await self.signal(signal.SIGKILL) == -signal.SIGKILL, self.printed()[-2000:]

    async def status(self) -> Status | None:
        """What the service shows; None while it does not answer."""
        assert self.process is not None
        assert self.process.returncode is None, f"the service ended by itself: {self.printed()[-2000:]}"
        try:
            async with ControlClient(self.state / "control.sock") as control:
                return await control.status()
        except VcreconError:
            return None

    async def until(self, what: str, true: Any, deadline_s: float = 60.0) -> None:
        """Wait until the service answers and `true` holds for its status."""

        async def holds() -> bool:
            status = await self.status()
            return status is not None and bool(true(status))

        await until(what, holds, deadline_s)

    async def converged(self, deadline_s: float = 60.0) -> None:
        await self.until("converged", lambda s: s["converged"], deadline_s)

    def printed(self) -> str:
        return self.log.read_text(errors="replace")

    async def end(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        assert "Traceback" not in self.printed(), self.printed()[-4000:]


@contextlib.asynccontextmanager
async def site_and_service(
    tmp_path: Path, *, speed: float, environment: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[SiteClient, ServiceProcess]]:
    """A site of specs/small that outlives the service; checked at the end for what must never be."""
    specs, state = tmp_path / "specs", tmp_path / "state"
    site_log = (tmp_path / "site.log").open("wb")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "vcrecon.sim", "--specs", str(SMALL), "--out", str(specs),
        "--control", str(tmp_path / "site.sock"), "--speed", str(speed),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=site_log,
    )  # fmt: skip
    service = ServiceProcess(specs, state, tmp_path / "service.log", environment or {})
    try:
        assert process.stdout is not None
        assert json.loads(await asyncio.wait_for(process.stdout.readline(), 30))["specs"] == str(specs)
        async with SiteClient(tmp_path / "site.sock") as site:
            yield site, service
            assert (await site.audit())["violations"] == []
            for name in (await site.world())["hosts"]:
                assert (await site.commands(name))["crashes"] == [], name
    finally:
        await service.end()
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), 30)
        site_log.close()
    assert "Traceback" not in (tmp_path / "site.log").read_text()


async def progress(site: SiteClient) -> int:
    """How much there is on the site by now: bridges, volumes, their marks, running guests. Grows with the work."""
    hosts = (await site.world())["hosts"].values()
    volumes = [volume for host in hosts for volume in host["volumes"].values()]
    return sum(len(h["bridges"]) + len(h["domains"]) for h in hosts) + sum(1 + len(v["tags"]) for v in volumes)


async def vcrecon(*arguments: str) -> tuple[int, str]:
    """Run a vcrecon command to its end: exit status, and all that it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "vcrecon", *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **QUICK_ENVIRONMENT},
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, output.decode(errors="replace")
