"""The demo as a person runs it: real processes, the simulated site, and what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

DEADLINE_S = 240.0
POLL_S = 0.2


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory with a short name: the demo keeps Unix sockets in it, whose paths have at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="vc-") as directory:
        yield Path(directory)


def demo(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`vcrecon demo`, with its working directory below `tmp_path`."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    return subprocess.run(
        [sys.executable, "-m", "vcrecon", "demo", *arguments],
        capture_output=True, text=True, check=False, timeout=DEADLINE_S, stdin=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(temporary)},
    )  # fmt: skip


def until(true: Callable[[], Any], deadline_s: float = 60.0) -> None:
    """Wait for a condition; fail with its source when it does not come true."""
    end_s = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < end_s, f"not true after {deadline_s:.0f} s"
        time.sleep(POLL_S)


def lives(pid: int) -> bool:
    """Whether a process runs: one that ended and was not collected by its parent does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def status(state: Path) -> dict[str, Any]:
    from vcrecon.shell.control import ControlClient

    async def ask() -> dict[str, Any]:
        async with ControlClient(state / "control.sock") as client:
            return await client.status()

    return asyncio.run(ask())


class TestJson:
    def test_the_tutorial_comes_true_and_says_so_in_one_json_object(self, tmp_path: Path) -> None:
        done = demo(tmp_path, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        found = json.loads(done.stdout)
        assert (found["containers"], found["guests"], found["running"]) == (64, 131, 131)
        assert (found["violations"], found["problems"]) == (0, [])
        assert len(found["heal_seconds"]) == 3
        assert found["moved"] >= 2
        assert found["converge_seconds"] > 0
        assert found["move_seconds"] > 0

    def test_nothing_of_it_is_left_behind(self, tmp_path: Path) -> None:
        done = demo(tmp_path, "--json", "--spec", "small")
        assert json.loads(done.stdout)["running"] == 6, done.stderr
        assert list((tmp_path / "tmp").iterdir()) == []


class TestKeep:
    @pytest.fixture
    def kept(self, tmp_path: Path) -> Iterator[str]:
        """What `vcrecon demo --keep` printed; its two processes are ended afterwards, whatever happened."""
        done = demo(tmp_path, "--keep", "--spec", "small")
        try:
            assert done.returncode == 0, done.stdout + done.stderr
            # Long paths are wrapped by the console's width.
            yield " ".join(done.stdout.split())
        finally:
            for file in (tmp_path / "tmp").glob("*/*.pid"):
                with suppress(ProcessLookupError):
                    os.kill(int(file.read_text()), signal.SIGKILL)

    def test_it_leaves_a_site_to_play_with_and_says_how_to_end_it(self, kept: str, tmp_path: Path) -> None:
        metrics = re.search(r"metrics (http://\S+/metrics)", kept)
        stop = re.search(r"stop kill (\d+) (\d+); rm -r", kept)
        assert metrics is not None, kept
        assert stop is not None, kept
        work = next((tmp_path / "tmp").iterdir())
        assert f"spec directory {work}/specs" in kept

        with urllib.request.urlopen(metrics[1], timeout=10) as answer:
            assert 'vcrecon_guests{state="running"} 6.0' in answer.read().decode()

        deployment = work / "specs" / "deployment.yaml"
        before = next(g for g in status(work / "state")["guests"] if g["name"] == "a-head")
        target = next(c for c in ("c01", "c03") if c != before["container"])
        text = deployment.read_text().replace("a-head, ", "").replace(", a-head", "")
        deployment.write_text(text.replace(f"{target}: [", f"{target}: [a-head, "))

        def moved() -> bool:
            head = next(g for g in status(work / "state")["guests"] if g["name"] == "a-head")
            return bool(head["state"] == "running" and head["seen_on"] == [target])

        until(moved)

        processes = [int(stop[1]), int(stop[2])]
        for pid in processes:
            os.kill(pid, signal.SIGTERM)
        until(lambda: not any(map(lives, processes)), 30.0)
        assert not (work / "state" / "control.sock").exists()
        assert not (work / "specs" / "site.sock").exists()
