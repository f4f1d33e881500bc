"""The crash sweep, whole; `make soak` plays the false views, and each point by itself.

What fails here is played again by the line that is printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.simulation import picture
from tests.simulation.workflows import WORKFLOWS

ROOT = Path(__file__).parents[2]


@pytest.mark.simulation
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_a_crash_anywhere_ends_as_if_nothing_had_happened(workflow: str) -> None:
    command = [sys.executable, "-m", "tests.simulation.sweep", "--json", "--workflow", workflow]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command[1:])}\n{done.stdout[-6000:]}{done.stderr[-3000:]}"
    total: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert total["runs"] >= total["different"] > 0


def test_a_difference_names_the_place() -> None:
    one: picture.Picture = {"c01 volume vcg-x1": ("vc.touched",), "c01 power": True}
    other: picture.Picture = {"c01 volume vcg-x1": (), "c01 power": True, "c02 volume vcg-x1": ()}
    assert picture.difference(one, one) == []
    assert picture.difference(one, other) == [
        "c01 volume vcg-x1: ('vc.touched',) became ()",
        "c02 volume vcg-x1: None became ()",
    ]
