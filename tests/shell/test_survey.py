"""When a record that knows nothing yet may believe that no container holds guests unseen (S1)."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from tests.core.worlds import NOW_S, a_spec, running, seen, silent, students_disk

from vcrecon.core.memory import SURVEY
from vcrecon.core.observation import UNKNOWN, FoundLease, Lease, Observation, Seen, Storage, Unseen
from vcrecon.core.world import World
from vcrecon.shell.ledger import Ledger
from vcrecon.shell.metrics import Metrics
from vcrecon.shell.record import Record
from vcrecon.shell.survey import Survey

SPEC = a_spec({"c1": ["g1"], "c2": [], "c3": []})


class Beginning:
    """A survey on a record that begins now, as the controller leads it."""

    def __init__(self, state: Path) -> None:
        self.record, self.world = Record.open(state, clock=lambda: NOW_S), World()
        self.ledger = Ledger(self.record, Metrics(), clock=lambda: NOW_S, rng=random.Random(1), stable_s=60.0)
        self.survey = Survey(self.record, lambda: NOW_S)

    def looks_at(self, *observations: Observation) -> None:
        for observation in observations:
            self.world.observe(observation)
            self.survey.begin(SPEC.containers)
            self.ledger.saw(observation, self.world, SPEC)
            self.survey.end(SPEC.containers, self.world, SPEC.site.limits)

    @property
    def complete(self) -> bool:
        return self.record.memory.claims_complete


@pytest.fixture
def site(tmp_path: Path) -> Beginning:
    return Beginning(tmp_path / "state")


def test_nothing_is_begun_before_all_were_looked_at(site: Beginning) -> None:
    site.looks_at(seen("c1"), seen("c2"))
    assert site.survey.on
    assert SURVEY in site.record.memory.intents
    site.looks_at(seen("c3"))
    assert not site.survey.on
    assert SURVEY not in site.record.memory.intents


@pytest.mark.parametrize("third", [seen("c3"), seen("c3", [students_disk("g1")], [running("g1")])])
def test_the_claims_are_complete_when_all_show_what_they_hold(site: Beginning, third: Observation) -> None:
    site.looks_at(seen("c1"), seen("c2"), third)
    assert site.complete
    assert site.record.memory.unshown == {}


@pytest.mark.parametrize(
    "third",
    [
        silent("c3"),
        seen("c3", domains=UNKNOWN),
        Unseen("c3", NOW_S, "garbage", "answered something else than asked"),
    ],
    ids=["silent", "shows no guests", "talks nonsense"],
)
def test_one_that_does_not_may_hold_any_guest_until_it_does(site: Beginning, third: Observation) -> None:
    site.looks_at(seen("c1"), seen("c2"), third)
    assert not site.survey.on
    assert not site.complete
    site.looks_at(seen("c3"))
    assert site.complete


def unused(name: str) -> Seen:
    """A container that never held a guest: not even an image's volume is there."""
    return seen(name, storage=Storage(True))


def test_a_silent_one_of_a_site_without_a_trace_of_guests_is_taken_for_empty(site: Beginning) -> None:
    site.looks_at(unused("c1"), unused("c2"), silent("c3"))
    assert site.complete


@pytest.mark.parametrize(
    "others",
    [
        [unused("c1"), silent("c2"), silent("c3")],
        [unused("c1"), unused("c2"), seen("c3", domains=UNKNOWN)],
        [unused("c1"), unused("c2"), Unseen("c3", NOW_S, "connection-lost", "the connection was lost")],
    ],
    ids=["most are silent", "one shows no guests", "one speaks SSH"],
)
def test_not_where_most_are_silent_or_one_is_on(site: Beginning, others: list[Observation]) -> None:
    site.looks_at(*others)
    assert not site.complete


def looked_after(name: str, found: FoundLease | None, at_s: float = NOW_S) -> Observation:
    lease = Lease("abc", 3, 0, "m1:/state", ours=True, found=found)
    return replace(unused(name), lease=lease, at_s=at_s)


@pytest.mark.parametrize("found", [FoundLease(7, ours=False), FoundLease(0, ours=True)], ids=["another's", "ours"])
def test_nor_where_a_lease_tells_that_the_site_was_in_use(site: Beginning, found: FoundLease) -> None:
    """Its guests may all be on the one that is silent."""
    site.looks_at(unused("c1"), looked_after("c2", found), silent("c3"))
    assert not site.complete


def test_a_lease_that_this_survey_took_tells_nothing(site: Beginning) -> None:
    """Also when the survey was interrupted, and begins anew."""
    site.looks_at(looked_after("c1", None, NOW_S + 1))
    site.looks_at(looked_after("c1", FoundLease(6, ours=True), NOW_S + 7))
    site.world, site.survey = World(), Survey(site.record, lambda: NOW_S + 8)
    site.looks_at(looked_after("c1", FoundLease(7, ours=True), NOW_S + 8), unused("c2"), silent("c3"))
    assert site.complete


def test_that_the_site_was_in_use_outlives_a_restart_in_the_survey(site: Beginning) -> None:
    site.looks_at(looked_after("c1", FoundLease(500, ours=False)))
    site.world, site.survey = World(), Survey(site.record, lambda: NOW_S + 8)
    site.looks_at(looked_after("c1", FoundLease(8, ours=True), NOW_S + 8), unused("c2"), silent("c3"))
    assert not site.complete


def test_one_without_the_programs_holds_no_guests(site: Beginning) -> None:
    site.looks_at(seen("c1"), seen("c2"), seen("c3", domains=UNKNOWN, missing={"guests": "virsh"}))
    assert site.complete


def test_one_that_left_the_spec_before_it_was_seen_counts(site: Beginning) -> None:
    site.survey.mind_unshown(["c4"])
    site.looks_at(seen("c1"), seen("c2"), seen("c3"))
    assert not site.complete
    assert set(site.record.memory.unshown) == {"c4"}
