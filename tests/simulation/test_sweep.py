"""The crash sweep and the false views: a part of all, another in each run of `make soak`.

What fails here is played again by the line that is printed.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from typing import Any

import pytest
from tests.simulation import picture
from tests.simulation.workflows import WORKFLOWS

CRASHES_EVERY = 3
VIEWS_EVERY = 40


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("views", "every"), [(False, CRASHES_EVERY), (True, VIEWS_EVERY)], ids=["crashes", "views"])
def test_every_workflow_ends_as_if_nothing_had_happened(views: bool, every: int) -> None:
    offset = random.SystemRandom().randrange(every)
    command = [sys.executable, "-m", "tests.simulation.sweep", "--json", f"--every={every}", f"--offset={offset}"]
    command += ["--views"] if views else []
    print(*command[1:])
    done = subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": "0"}, capture_output=True, text=True)
    total: dict[str, Any] = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
    assert done.returncode == 0, f"{' '.join(command[1:])}\n{done.stdout[-6000:]}{done.stderr[-3000:]}"
    assert total["workflows"] == len(WORKFLOWS)
    assert total["runs"] > 0


def test_a_difference_names_the_place() -> None:
    one: picture.Picture = {"c01 volume vcg-x1": ("vc.touched",), "c01 power": True}
    other: picture.Picture = {"c01 volume vcg-x1": (), "c01 power": True, "c02 volume vcg-x1": ()}
    assert picture.difference(one, one) == []
    assert picture.difference(one, other) == [
        "c01 volume vcg-x1: ('vc.touched',) became ()",
        "c02 volume vcg-x1: None became ()",
    ]
