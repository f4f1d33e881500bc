"""A real Prometheus on loopback, set up by `vcrecon dashboards --write`, and what our panels and alerts show on it.

Two things are changed in what is written, so that a test takes minutes: Prometheus scrapes and evaluates each second,
and an alert fires after two seconds at most (`hasten`). The expressions are those that a site gets.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from dashboards.boards import BOARDS
from dashboards.model import Board, Panel

DEADLINE_S = 180.0
VARIABLES = {"$__rate_interval": "20s", "$__range": "30m", "$container": ".+", "$cluster": ".+"}
"""What Grafana puts for its own variables, and for ours when all is chosen."""

Samples = list[tuple[dict[str, str], float]]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def hasten(directory: Path, every: str) -> None:
    """Make what `vcrecon dashboards --write` wrote fast enough for a test; the expressions stay as they are.

    Prometheus scrapes and evaluates `every` so often; an alert that waits fires after two seconds.
    """
    path = directory / "prometheus.yml"
    config = yaml.safe_load(path.read_text())
    config["global"] = {"scrape_interval": every, "evaluation_interval": every}
    path.write_text(yaml.safe_dump(config))
    path = directory / "rules" / "vcrecon.rules.yml"
    rules = yaml.safe_load(path.read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            if "alert" in rule and rule["for"] != "0s":
                rule["for"] = "2s"
    path.write_text(yaml.safe_dump(rules))


class Prometheus:
    """One that scrapes `target` (HOST:PORT); started and ended by its process id, on the same data each time."""

    def __init__(self, program: str, directory: Path, target: str, every: str) -> None:
        self._program, self._directory, self._target, self._every = program, directory, target, every
        self._port = free_port()
        self._process: asyncio.subprocess.Process | None = None
        self._http: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        if not (self._directory / "prometheus.yml").exists():
            command = ["-m", "vcrecon", "dashboards", "--write", self._directory, "--listen", self._target]
            await asyncio.to_thread(subprocess.run, [sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
            hasten(self._directory, self._every)
        with (self._directory / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                self._program,
                f"--config.file={self._directory}/prometheus.yml",
                f"--storage.tsdb.path={self._directory}/data",
                f"--web.listen-address=127.0.0.1:{self._port}",
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self._http = self._http or aiohttp.ClientSession()
        await self.until("vector(1)", bool, "Prometheus answers")

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            await asyncio.wait_for(self._process.wait(), 60)
            self._process = None

    async def close(self) -> None:
        await self.stop()
        if self._http is not None:
            await self._http.close()

    async def query(self, expr: str) -> Samples:
        """The samples of an instant query, without those that are not a number."""
        for variable, value in VARIABLES.items():
            expr = expr.replace(variable, value)
        assert self._http is not None
        async with self._http.get(f"http://127.0.0.1:{self._port}/api/v1/query", params={"query": expr}) as response:
            answer = await response.json()
        assert answer["status"] == "success", f"{expr}: {answer}"
        samples = [(sample["metric"], float(sample["value"][1])) for sample in answer["data"]["result"]]
        return [(labels, value) for labels, value in samples if not math.isnan(value)]

    async def until(self, expr: str, true: Callable[[Samples], Any], what: str) -> Samples:
        """Wait until `true` holds for the samples of `expr`; returns them."""
        end_s, found = time.monotonic() + DEADLINE_S, []
        while True:
            # Refused, or 503 in plain text, while it starts.
            with contextlib.suppress(aiohttp.ClientConnectionError, aiohttp.ContentTypeError):
                found = await self.query(expr)
                if true(found):
                    return found
            assert time.monotonic() < end_s, f"{what}: not within {DEADLINE_S:g} s: {expr}: {found}\n{self._said()}"
            await asyncio.sleep(0.3)

    def _said(self) -> str:
        return (self._directory / "log").read_text(errors="replace")[-1500:]

    async def value(self, expr: str, wanted: float, what: str = "") -> None:
        """Wait until `expr` has exactly one sample, of this value."""
        await self.until(expr, lambda found: [value for _, value in found] == [wanted], what or f"{expr} is {wanted}")

    async def fires(self, alert: str, **labels: str) -> None:
        """Wait until an alert fires."""
        await self.until(_alert(alert, labels), bool, f"{alert} fires")

    async def clears(self, alert: str, **labels: str) -> None:
        """Wait until an alert does not fire any more."""
        await self.until(_alert(alert, labels), lambda found: not found, f"{alert} clears")

    async def shown(self) -> Shown:
        """What every panel shows now, once all that is true now was scraped and the rules ran on it."""
        for series in ('up{job="vcrecon"}', "vcrecon:site_health"):
            since_s = time.time()
            await self.until(f"max(timestamp({series})) > {since_s:.3f}", bool, f"a newer {series}")
        found = Shown()
        for board in BOARDS:
            for panel in board.panels:
                found.panels[board.uid, panel.title] = [await self.query(query.expr) for query in panel.queries]
        return found


def _alert(name: str, labels: dict[str, str]) -> str:
    matchers = "".join(f',{label}="{value}"' for label, value in labels.items())
    return f'ALERTS{{alertname="{name}",alertstate="firing"{matchers}}}'


@dataclass(slots=True)
class Shown:
    """What all panels showed at one time: by dashboard and panel, the samples of each query."""

    panels: dict[tuple[str, str], list[Samples]] = field(default_factory=dict)

    def value(self, board: str, panel: str, query: int = 0, **labels: str) -> float | None:
        """The one value with these labels; None when there is none."""
        samples = self.panels[f"vcrecon-{board}", panel][query]
        found = [value for have, value in samples if labels.items() <= have.items()]
        assert len(found) <= 1, (board, panel, found)
        return found[0] if found else None

    def labels(self, board: str, panel: str, label: str, query: int = 0) -> list[str]:
        """The values of a label, sorted."""
        return sorted(have.get(label, "") for have, _ in self.panels[f"vcrecon-{board}", panel][query])

    def table(self) -> str:
        """One line a panel, for a person."""
        lines = []
        for (board, panel), queries in self.panels.items():
            texts = []
            for samples in queries:
                shown = [f"{_words(labels)}{value:.4g}" for labels, value in samples[:6]]
                texts.append(", ".join(shown) + (f", … ({len(samples)})" if len(samples) > 6 else "") or "empty")
            lines.append(f"{board} | {panel} | {' ; '.join(texts)}")
        return "\n".join(lines)


def _words(labels: dict[str, str]) -> str:
    plain = [value for name, value in sorted(labels.items()) if name not in ("__name__", "instance", "job") and value]
    return f"{'/'.join(plain)} " if plain else ""


def panels() -> list[tuple[Board, Panel]]:
    """Every panel of every dashboard."""
    return [(board, panel) for board in BOARDS for panel in board.panels]


@contextlib.asynccontextmanager
async def scraping(program: str, directory: Path, target: str, every: str = "1s") -> AsyncIterator[Prometheus]:
    """A Prometheus that scrapes `target`, ended at the end."""
    prometheus = Prometheus(program, directory, target, every)
    try:
        await prometheus.start()
        yield prometheus
    finally:
        await prometheus.close()
