"""The deterministic simulation: the same seeds in every run of continuous integration, fresh ones in `make soak`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BATCHES, SCHEDULES = 4, 12

pytestmark = [pytest.mark.simulation, pytest.mark.slow, pytest.mark.timeout(3000)]


def simulate(*arguments: str) -> tuple[dict[str, Any], str]:
    """The last line of `python -m tests.simulation`, and all that it printed."""
    command = [sys.executable, "-m", "tests.simulation", *arguments, "--json"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=False
    )
    lines = done.stdout.strip().splitlines()
    assert lines, done.stderr
    return json.loads(lines[-1]), done.stdout + done.stderr


@pytest.mark.parametrize("batch", range(BATCHES))
def test_whatever_happens_every_safety_rule_holds_and_the_site_comes_to_rest(batch: int) -> None:
    found, output = simulate("--first-seed", str(1 + batch * SCHEDULES), "--schedules", str(SCHEDULES))
    assert found["violations"] == 0, output
    assert found["schedules"] == SCHEDULES


def test_one_seed_is_one_story_wherever_and_after_whatever_it_is_played() -> None:
    alone = {seed: simulate("--seed", str(seed))[0]["trace_hash"] for seed in (11, 12)}
    program = "from tests.simulation.schedule import run; print(run(12).trace_hash, run(11).trace_hash, sep='\\n')"
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    together = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert together.stdout.split() == [alone[12], alone[11]]


def test_several_processes_play_the_same() -> None:
    found, output = simulate("--first-seed", "11", "--schedules", "2", "--jobs", "2")
    assert (found["schedules"], found["failing_seeds"]) == (2, []), output


def test_a_hung_host_costs_the_others_at_most_a_twentieth() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.hung_host"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = json.loads(done.stdout)
    well = seconds.pop("nothing")
    assert len(seconds) == 3
    assert {way: s for way, s in seconds.items() if s > well * 1.05} == {}
