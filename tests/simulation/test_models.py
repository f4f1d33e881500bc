"""The model tests and the spec transitions at a small size, from fresh seeds; run by `make soak`.

Each in a process of its own, with hashes that are the same in every run: the order of sets is part of what a seed
replays. `VCRECON_TEST_EXAMPLES` and `VCRECON_TEST_PAIRS` say how many for a longer run.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = int(os.environ.get("VCRECON_TEST_EXAMPLES", "30"))
PAIRS = int(os.environ.get("VCRECON_TEST_PAIRS", "60"))
ROOT = Path(__file__).parents[2]


def _play(*words: str) -> None:
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-20_000:]


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.timeout(EXAMPLES * 60)
def test_commands_do_what_their_person_expects() -> None:
    _play("tests.simulation.verbs", "--examples", str(EXAMPLES), "--steps", "20")


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.timeout(PAIRS * 60)
def test_a_site_that_changed_its_spec_ends_as_one_that_began_with_it() -> None:
    _play(
        "tests.simulation.transitions", "--pairs", str(PAIRS), "--first-seed", str(secrets.randbelow(10**9)), "--json"
    )
