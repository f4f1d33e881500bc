"""How soon a dead guest's restart begins, on the lab's real hypervisors: by events, and by a poll each second.

Needs a lab that is up (`vcrecon lab up`) with converged guests and no service on it. One round, of a KVM and a
Xen guest at once: the order to destroy the guest goes to a tool that waits for it on the container, and the clock
runs until the service says that its restart begins. Called by `python -m benchmarks lab-events`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.report import Report, Series
from vcrecon.lab.inside import ssh_command
from vcrecon.lab.layout import Files
from vcrecon.spec.load import load

DEADLINE_S = 600.0
CLI = [sys.executable, "-m", "vcrecon"]


def run(*, quick: bool) -> Report:
    """Kill a KVM and a Xen guest again and again under each way to hear of it."""
    rounds = 1 if quick else 3
    files = Files()
    spec = load(files.specs).spec
    victims: dict[str, str] = {}
    for name in spec.guests:
        victims.setdefault(spec.containers[spec.placement[name]].hypervisor, name)
    series = []
    for way, settings in (
        ("events", {}),
        ("poll each second", {"VCRECON_EVENTS": "0", "VCRECON_POLL_S": "1"}),
    ):
        with _service(files, settings) as log:
            kills = [(spec.placement[guest], hypervisor, guest) for hypervisor, guest in sorted(victims.items())]
            found = [Series(f"{hypervisor}: {way}") for _, hypervisor, _ in kills]
            for _ in range(rounds):
                for entry, seconds in zip(found, _round(files, log, kills), strict=True):
                    entry.wall_s.append(seconds)
            series += found
    return Report("lab-events", {"rounds": rounds, "guests": victims}, series)


@contextlib.contextmanager
def _service(files: Files, settings: dict[str, str]) -> Iterator[Path]:
    """`vcrecon run` on the lab, converged; its log is JSON lines with every action's beginning."""
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [*CLI, "run", str(files.specs), "--log-level", "debug", "--log-format", "json"],
                stdout=subprocess.DEVNULL,
                stderr=stream,
                # A guest that dies often is restarted ever more slowly; here it is meant to.
                env={**os.environ, "VCRECON_STABLE_S": "1", **settings},
            )
        try:
            _until_converged(files)
            yield log
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _until_converged(files: Files) -> None:
    ends_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < ends_s:
        asked = [*CLI, "status", "--json", "--specs", str(files.specs)]
        said = subprocess.run(asked, capture_output=True, text=True, check=False)
        if said.returncode == 0 and json.loads(said.stdout)["converged"]:
            return
        time.sleep(1.0)
    raise TimeoutError(f"the lab did not converge within {DEADLINE_S:.0f} s")


def _round(files: Files, log: Path, kills: list[tuple[str, str, str]]) -> list[float]:
    """Kill these (container, hypervisor, guest) at once: seconds to the beginning of each one's restart."""
    _until_converged(files)
    # The count of quick deaths is forgiven by the first look after VCRECON_STABLE_S.
    time.sleep(15.0)
    with ThreadPoolExecutor(len(kills)) as pool:
        return list(pool.map(lambda kill: _kill(files, log, *kill), kills))


def _kill(files: Files, log: Path, container: str, hypervisor: str, guest: str) -> float:
    """Seconds from the order to kill the guest to the beginning of its restart."""
    shell = ssh_command(container, ["virsh -q" if hypervisor == "kvm" else "sh"], files)
    with subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as tool:
        assert tool.stdin is not None
        assert tool.stdout is not None
        tool.stdin.write("version\n" if hypervisor == "kvm" else "echo ready\n")
        tool.stdin.flush()
        tool.stdout.readline()
        began_s = time.time()
        tool.stdin.write(f"{'' if hypervisor == 'kvm' else 'xl '}destroy {guest}\n")
        tool.stdin.close()
        return _restart_begins(log, guest, began_s) - began_s


def _restart_begins(log: Path, guest: str, since_s: float) -> float:
    ends_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < ends_s:
        for line in log.read_text().splitlines():
            entry: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
            if (entry.get("message"), entry.get("action")) != ("begins", "start-guest"):
                continue
            at_s = datetime.fromisoformat(entry["timestamp"]).timestamp()
            if entry["subject"] == f"guest/{guest}" and at_s >= since_s:
                return at_s
        time.sleep(0.5)
    raise TimeoutError(f"no restart of {guest} within {DEADLINE_S:.0f} s")
