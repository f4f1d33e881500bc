"""`vcrecon run` as a process of its own, and what can be seen of it from outside: /proc, /metrics, its record."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp

from vcrecon.errors import VcreconError
from vcrecon.shell.control import ControlClient

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
START_S = 120.0
END_S = 90.0
ESTABLISHED = "01"


@dataclass(frozen=True, slots=True)
class Sample:
    """The service at one moment. `*_ms` and `cpu_share` are since the sample before; `rows` are the record's, without
    its history, which may grow up to its limit; `claims` are those of them that say where a guest's disk is."""

    at_s: float
    rss_bytes: int
    descriptors: int
    threads: int
    tasks: int
    connections: int
    zombies: int
    rows: int
    claims: int
    events: int
    record_bytes: int
    wal_bytes: int
    pass_ms: float
    passes: float
    loop_lag_ms: float
    cpu_share: float
    scrape_ms: float

    def as_json(self) -> dict[str, Any]:
        return {name: round(value, 4) for name, value in asdict(self).items()}


class Service:
    """One that runs. `ports` are those of the hosts' SSH servers, to know its connections by."""

    def __init__(self, process: asyncio.subprocess.Process, state: Path, log: Path, ports: Collection[int]) -> None:
        self.process, self.state, self.log = process, state, log
        self.pid = process.pid
        self.url = ""
        self._ports = frozenset(ports)
        self._http: aiohttp.ClientSession | None = None
        self._before: dict[str, float] = {}

    def printed(self) -> str:
        return self.log.read_text(errors="replace")

    async def status(self) -> dict[str, Any]:
        """What the service shows of the whole site. Raises VcreconError when it does not answer."""
        async with ControlClient(self.state / "control.sock", answer_s=60.0) as control:
            return await control.status()

    async def refresh(self) -> None:
        """Ask for a look at everything."""
        async with ControlClient(self.state / "control.sock", answer_s=60.0) as control:
            await control.refresh()

    async def until_it_answers(self) -> None:
        end_s = time.monotonic() + START_S
        while not self.url:
            assert self.process.returncode is None, f"the service ended by itself: {self.printed()[-4000:]}"
            assert time.monotonic() < end_s, f"the service does not answer: {self.printed()[-4000:]}"
            with contextlib.suppress(VcreconError):
                self.url = (await self.status())["page_url"].rstrip("/")
            await asyncio.sleep(0.1)
        self._http = aiohttp.ClientSession()

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    # --- looking -------------------------------------------------------------------------------------------

    async def metrics(self) -> dict[str, float]:
        """The metrics without labels, by name."""
        assert self._http is not None
        timeout = aiohttp.ClientTimeout(total=60)
        async with self._http.get(f"{self.url}/metrics", timeout=timeout) as answer:
            text = await answer.text()
        lines = (line.split(" ") for line in text.splitlines() if line[0] != "#" and "{" not in line)
        return {words[0]: float(words[1]) for words in lines}

    async def sample(self) -> Sample:
        """Everything as it is now. Raises when the service is gone."""
        began_s = time.monotonic()
        metrics = await self.metrics()
        now_s = time.monotonic()
        inodes = _sockets(self.pid)
        rows, claims, events = await asyncio.to_thread(_rows, self.state / "record.sqlite")
        since = {"at_s": now_s, "cpu_s": _cpu_s(self.pid), **metrics}

        def grown(name: str) -> float:
            return since[name] - self._before.get(name, since[name])

        def mean_ms(name: str) -> float:
            return 1000 * grown(f"{name}_sum") / max(1.0, grown(f"{name}_count"))

        span_s = max(grown("at_s"), 0.001)
        found = Sample(
            at_s=now_s,
            rss_bytes=_resident_bytes(self.pid),
            descriptors=len(os.listdir(f"/proc/{self.pid}/fd")),
            threads=len(os.listdir(f"/proc/{self.pid}/task")),
            tasks=int(metrics["vcrecon_tasks"]),
            connections=_connections(inodes, self._ports),
            zombies=zombies(self.pid),
            rows=rows,
            claims=claims,
            events=events,
            record_bytes=(self.state / "record.sqlite").stat().st_size,
            wal_bytes=_size(self.state / "record.sqlite-wal"),
            pass_ms=mean_ms("vcrecon_pass_seconds"),
            passes=grown("vcrecon_pass_seconds_count") / span_s,
            loop_lag_ms=mean_ms("vcrecon_loop_lag_seconds"),
            cpu_share=grown("cpu_s") / span_s,
            scrape_ms=1000 * (now_s - began_s),
        )
        self._before = since
        return found


def zombies(parent: int) -> int:
    """How many children of a process have ended and were not waited for."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, ppid = path.read_text().rpartition(")")[2].split()[:2]
            found += state == "Z" and int(ppid) == parent
    return found


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _sockets(pid: int) -> set[str]:
    """The inodes of a process' sockets."""
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = os.readlink(path)
            if target.startswith("socket:["):
                found.add(target[8:-1])
    return found


def _connections(inodes: Collection[str], ports: Collection[int]) -> int:
    """How many of these sockets are connected to one of these ports."""
    found = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        port = int(fields[2].rpartition(":")[2], 16)
        found += fields[3] == ESTABLISHED and port in ports and fields[9] in inodes
    return found


def _rows(database: Path) -> tuple[int, int, int]:
    """Rows of the record without its history, the claims among them, and the history's."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as record:
        tables = [name for (name,) in record.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        counts = {name: record.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}
        (claims,) = record.execute("SELECT count(*) FROM memory WHERE kind = 'claims'").fetchone()
    events = counts.pop("events")
    return sum(count for name, count in counts.items() if not name.startswith("sqlite_")), claims, events


@contextlib.asynccontextmanager
async def running(
    work: Path, ports: Collection[int], environment: Mapping[str, str], profile: Path | None = None
) -> AsyncIterator[Service]:
    """`vcrecon run` on `work`/specs; with `profile` under cProfile, which writes there. It ends by SIGTERM, with 0."""
    log_path, state = work / "service.log", work / "state"
    profiler = ["-m", "cProfile", "-o", str(profile)] if profile else []
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *profiler, "-m", "vcrecon", "run", work / "specs", "--state", state,
            "--listen", "127.0.0.1:0", "--quiet", "--log-format", "json",
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, "NO_COLOR": "1", **environment},
        )  # fmt: skip
    service = Service(process, state, log_path, ports)
    try:
        await service.until_it_answers()
        yield service
        process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(process.wait(), END_S)
        assert code == 0, f"the service ended with {code}: {service.printed()[-4000:]}"
    finally:
        await service.close()
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert "Traceback" not in service.printed(), service.printed()[-4000:]
