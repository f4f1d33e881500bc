"""Faults that must have one outcome, each against a real OpenSSH server in a namespace of its own."""

from __future__ import annotations

import pytest
from tests.faults import campaign, single

pytestmark = [pytest.mark.soak, pytest.mark.root, pytest.mark.slow]


@pytest.mark.parametrize("name", single.SCENARIOS)
def test_one_fault(name: str) -> None:
    if campaign.missing():
        pytest.skip(f"not installed: {' '.join(campaign.missing())}")
    assert campaign.apart("tests.faults.single", name)["violations"] == []
