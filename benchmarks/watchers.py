"""Benchmark: what it costs the service to be watched by a class, and how large its web page is.

    python -m benchmarks watchers [--json FILE] [--quick]

`vcrecon run` on a converged simulated site, in a process of its own: its CPU time while nobody looks, and while 100
browsers do what the page's script does, ask for `/view` every two seconds with the tag of the last answer. And one
rendering of a made-up site of 1,000 containers and 200 clusters. All on loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
from tests.cli.fake_site import a_container, a_guest, a_status

from benchmarks.converge import READY_DEADLINE_S, SPECS, Failed, child
from benchmarks.report import Report, Series
from vcrecon.errors import VcreconError
from vcrecon.shell.control import ControlClient
from vcrecon.shell.page import Viewer

EVERY_S = 2.0
"""As in page.js."""
CONVERGE_S = 600.0


def run(*, quick: bool) -> Report:
    """Called by `python -m benchmarks`."""
    browsers, watch_s, spec = (10, 5.0, "small") if quick else (100, 30.0, "tutorial")
    alone, watched, render = Series("nobody looks"), Series(f"{browsers} browsers look"), Series("one rendering")
    figures: dict[str, object] = {}
    parameters = {"spec": spec, "browsers": browsers, "seconds each": watch_s}
    try:
        figures |= asyncio.run(_watched(SPECS / spec, browsers, watch_s, alone, watched))
    except (Failed, VcreconError, OSError) as error:
        watched.failed = str(error)
    figures |= asyncio.run(_rendered(render, *((20, 10) if quick else (200, 1000))))
    return Report("watchers", parameters, [alone, watched, render], figures)


async def _watched(specs: Path, browsers: int, watch_s: float, alone: Series, watched: Series) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="vcb") as name:
        directory = Path(name)
        bound, state = directory / "specs", directory / "state"
        simulate = [sys.executable, "-m", "vcrecon.sim", "--specs", str(specs), "--out", str(bound)]
        simulate += ["--control", str(directory / "site.sock"), "--speed", "0"]
        serve = [sys.executable, "-m", "vcrecon", "run", str(bound), "--state", str(state), "--quiet"]
        with child("simulated-site", simulate, directory, talks=True) as site:
            site.wait_for_line(READY_DEADLINE_S)
            with child("service", [*serve, "--listen", "127.0.0.1:0"], directory) as service:
                url = await _converged(state)
                pid = service.process.pid
                await _measure(alone, pid, watch_s)
                async with aiohttp.ClientSession(url) as web:
                    asking = [asyncio.create_task(_browse(web, EVERY_S * n / browsers)) for n in range(browsers)]
                    await _measure(watched, pid, watch_s)
                    for task in asking:
                        task.cancel()
                    answers = await asyncio.gather(*asking, return_exceptions=True)
                    async with web.get("/") as answer:
                        document = await answer.read()
    failed = [answer for answer in answers if not isinstance(answer, asyncio.CancelledError)]
    if failed:
        raise Failed(f"{len(failed)} browsers had no answer: {failed[0]}")
    share = {series.name: series.cpu_s[0] / series.wall_s[0] for series in (alone, watched)}
    before, after = share.values()
    return {
        **{f"{name}: share of one core, %": value * 100 for name, value in share.items()},
        "CPU with browsers, times that without": after / before,
        "CPU for each answer, ms": (after - before) * EVERY_S / browsers * 1000,
        "page, bytes": len(document),
        "page, bytes compressed": len(gzip.compress(document)),
    }


async def _converged(state: Path) -> str:
    """Where the page is, once everything runs. Raises Failed."""
    end_s = time.monotonic() + CONVERGE_S
    while time.monotonic() < end_s:
        with contextlib.suppress(VcreconError):
            async with ControlClient(state / "control.sock") as control:
                status = await control.status()
                if status["converged"]:
                    return str(status["page_url"])
        await asyncio.sleep(1.0)
    raise Failed("the site did not converge")


async def _measure(series: Series, pid: int, seconds: float) -> None:
    began_s, before_s = time.monotonic(), _cpu_s(pid)
    await asyncio.sleep(seconds)
    series.cpu_s.append(_cpu_s(pid) - before_s)
    series.wall_s.append(time.monotonic() - began_s)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _browse(web: aiohttp.ClientSession, begin_s: float) -> None:
    """As the script of the page."""
    etag = ""
    await asyncio.sleep(begin_s)
    while True:
        async with web.get("/view", headers={"If-None-Match": etag}) as answer:
            await answer.read()
            if answer.status not in (200, 304):
                raise Failed(f"status {answer.status}")
            etag = answer.headers["ETag"]
        await asyncio.sleep(EVERY_S)


async def _rendered(series: Series, clusters: int, containers: int) -> dict[str, object]:
    names = [(k, n) for k in range(clusters) for n in range(5)]
    guests = [a_guest(f"k{k}-n{n}", f"c{(5 * k + n) % containers}", cluster=f"k{k}") for k, n in names]
    status: dict[str, Any] = a_status([a_container(f"c{n}") for n in range(containers)], guests)
    view = await Viewer(lambda: status).view()
    for _ in range(7):
        began_s, before_s = time.perf_counter(), time.process_time()
        view = await Viewer(lambda: status).view()
        series.wall_s.append(time.perf_counter() - began_s)
        series.cpu_s.append(time.process_time() - before_s)
    size = f"{containers} containers and {clusters} clusters"
    return {f"view of {size}, bytes": len(view.html), f"view of {size}, bytes compressed": len(view.packed)}
