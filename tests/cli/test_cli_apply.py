"""`plan`, `apply` and `run` against simulated hosts over real SSH, as a person types them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SMALL = Path(__file__).parents[2] / "specs" / "small"


def vcrecon(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "vcrecon", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def typed(*arguments: str) -> tuple[int, str]:
    """Exit code and standard output of a command."""
    process = vcrecon(*arguments)
    out, err = process.communicate(timeout=60)
    return process.returncode, out or err


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """The spec directory of a simulated site whose hosts are up."""
    command = [sys.executable, "-m", "vcrecon.sim", "--specs", str(SMALL), "--out", str(tmp_path / "specs")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Path(json.loads(process.stdout.readline())["specs"])
        finally:
            process.terminate()


@pytest.mark.slow
def test_a_site_is_planned_applied_and_then_rests(site: Path, tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "state"))
    code, shown = typed("plan", str(site), *state)
    assert code == 2
    assert "  + guest/a-head on c01  pending → running  (" in shown
    assert "Student work at risk: none\nPlan: 6 to create, 0 to start, 0 to move, 0 to remove" in shown

    code, shown = typed("apply", str(site), *state, "--json")
    outcome = json.loads(shown)
    assert (code, outcome["converged"]) == (0, True)
    assert {guest["state"] for guest in outcome["status"]["guests"]} == {"running"}

    assert typed("plan", str(site), *state) == (
        0,
        "Student work at risk: none\nNothing to do: everything is as the spec wants.\n",
    )

    with vcrecon("run", str(site), *state, "--listen", "none") as service:
        assert service.stdout is not None
        assert "guests running on 3 containers" in service.stdout.readline()
        code, shown = typed("status", "--json", *state)
        assert (code, json.loads(shown)["pid"]) == (0, service.pid)
        assert typed("apply", str(site), *state)[1].startswith(
            f"error: {tmp_path / 'state'}: another vcrecon (pid {service.pid}) is at work on this record"
        )
        service.send_signal(signal.SIGTERM)
        service.communicate(timeout=30)
    assert service.returncode == 0
    assert "no running service found" in typed("status", *state)[1]
