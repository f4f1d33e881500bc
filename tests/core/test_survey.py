"""A record that begins now: when does it know what all hosts hold (S1)? The real controller, with looks given to it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from worlds import a_spec, seen, silent

from vcrecon.controller import Controller
from vcrecon.core.observation import UNKNOWN, Observation
from vcrecon.host.scripts import Secrets
from vcrecon.service import site_metrics
from vcrecon.settings import Settings
from vcrecon.shell.ledger import Ledger
from vcrecon.shell.record import Record


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    with Record.open(tmp_path / "state", clock=time.time) as record:
        ledger = Ledger(record, site_metrics(), clock=time.time, rng=random.Random(1), stable_s=60.0)
        spec = a_spec({"c1": [], "c2": ["alice"], "c3": []})
        secrets = Secrets(bytes(32), lambda guest: "!")
        yield Controller(spec, ledger, secrets, lambda container, spec: pytest.fail("nobody connects"), Settings())


@pytest.mark.parametrize(
    ("first", "complete"),
    [
        (seen("c1"), True),
        (silent("c1"), False),
        (seen("c1", storage=UNKNOWN), False),
        (seen("c1", domains=UNKNOWN), False),
        (seen("c1", storage=UNKNOWN, missing={"storage": "lvs"}), True),
    ],
    ids=["empty", "silent", "without its disks", "without its guests", "without a program"],
)
def test_claims_are_complete_only_when_every_container_was_seen_to_be_empty(
    controller: Controller, first: Observation, complete: bool
) -> None:
    """c1 may hold all guests of the site although c2 and c3 are empty, and nothing is silent but c1."""
    for observation in (seen("c2"), seen("c3"), first):
        controller.world.observe(observation)
    controller._end_survey()
    assert controller.memory.claims_complete is complete
