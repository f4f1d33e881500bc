"""The soak at a small size, on the same code: is the service flat, is nothing lost, was nobody restarted in vain."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.soak.churn import Churn, Pace
from tests.soak.run import Plan, soak

SEED = 7
PLAN = Plan(
    containers=6,
    guests=20,
    minutes=0.5,
    seed=SEED,
    pace=Pace(every_s=0.2, stable_s=2.0, trouble_s=(0.2, 4.0)),
    speed=0.1,
    sample_every_s=1.0,
    watchers_stay_s=6.0,
    environment={
        "VCRECON_RELIST_S": "5",
        "VCRECON_POLL_S": "1",
        "VCRECON_RETRY_UNREACHABLE_S": "0.5",
        "VCRECON_STABLE_S": "1",
    },
)


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_half_a_minute_of_churn_leaves_the_service_as_it_was() -> None:
    said: list[str] = []
    with tempfile.TemporaryDirectory(prefix="vcs") as work:  # short: it holds Unix sockets
        found = asyncio.run(soak(PLAN, Path(work), said.append))
    print(*said, found, sep="\n")  # shown when it fails
    assert found["findings"] == []
    assert sum(found["acts"].values()) >= 30
    assert found["watchers"].keys() == {"browser", "screen", "follower"}


class TestWhatAStartNeeds:
    """The judge of restarts: a guest may be started as often as it was harmed."""

    def churn(self, starts: dict[str, int], harms: dict[str, int]) -> Churn:
        site: Any = SimpleNamespace(lives=SimpleNamespace(starts=starts))
        service: Any = None
        return Churn(site, service, random.Random(1), Pace(), harms=Counter(harms))

    def test_a_guest_that_nobody_harmed_and_that_was_started_again_is_told_of(self) -> None:
        churn = self.churn({"a": 2, "b": 1}, {})
        assert churn.unharmed_but_started({"a": 1, "b": 1}) == ["a was started 1 times and harmed 0 times"]

    def test_one_start_for_each_harm_is_as_it_should_be(self) -> None:
        assert self.churn({"a": 3}, {"a": 2}).unharmed_but_started({"a": 1}) == []
