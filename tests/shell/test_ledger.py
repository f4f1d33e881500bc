"""What a controller that has just begun makes of words and intents of one that died."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.core.worlds import NOW_S, a_spec, kept_disk, seen, silent

from vcrecon.core.actions import CopyDisk, Quarantine
from vcrecon.core.memory import Attempts, Claim, Consent, Intent
from vcrecon.core.observation import UNKNOWN, Observation
from vcrecon.core.plan import View, plan_container
from vcrecon.core.wanted import Wanted
from vcrecon.core.world import World
from vcrecon.errors import Transient
from vcrecon.shell.ledger import Ledger
from vcrecon.shell.metrics import Metrics
from vcrecon.shell.record import Record

SPEC = a_spec({"c1": ["g1"], "c2": [], "c3": []})


class NewLife:
    """A ledger on a record that an earlier life has left, and what its controller has seen so far."""

    def __init__(self, record: Record) -> None:
        self.record, self.world = record, World()
        self.ledger = Ledger(record, Metrics(), clock=lambda: NOW_S, rng=random.Random(1), stable_s=60.0)

    def looks_at(self, *observations: Observation) -> None:
        for observation in observations:
            self.world.observe(observation)
            self.ledger.saw(observation, self.world, SPEC)

    def plans(self, container: str) -> None:
        view = View(Wanted(SPEC), self.world, self.record.memory, NOW_S)
        self.ledger.planned(plan_container(view, container), SPEC)

    @property
    def may_prune(self) -> bool:
        return ("prune", "gone") in self.record.memory.consents


@pytest.fixture
def life(tmp_path: Path) -> Iterator[NewLife]:
    with Record.open(tmp_path / "state", clock=lambda: NOW_S) as record:
        record.put_consent(Consent("prune", "gone", 1, NOW_S))
        record.put_claim(Claim("gone", "c1", 1, touched=True))
        yield NewLife(record)


class TestAConsentToPrune:
    def test_outlives_a_restart_that_looks_at_other_containers_first(self, life: NewLife) -> None:
        life.looks_at(seen("c2"), seen("c3"))
        assert life.may_prune
        life.looks_at(seen("c1", [kept_disk("gone")]))
        assert life.may_prune

    def test_waits_for_a_container_that_does_not_show_its_disks_yet(self, life: NewLife) -> None:
        life.looks_at(seen("c2"), seen("c3"), seen("c1", storage=UNKNOWN))
        assert life.may_prune

    def test_waits_for_the_container_that_the_disk_is_claimed_to_be_on(self, life: NewLife) -> None:
        life.looks_at(silent("c1"), seen("c2"), seen("c3"))
        assert life.may_prune

    def test_ends_when_no_container_has_the_disk(self, life: NewLife) -> None:
        life.looks_at(seen("c1"), silent("c2"), seen("c3"))
        assert not life.may_prune

    def test_that_was_carried_out_by_a_life_that_died_leaves_no_claim(self, life: NewLife) -> None:
        life.record.put_intent(Intent("guest/gone", "prune", NOW_S))
        life.looks_at(seen("c1"), seen("c2"), seen("c3"))
        assert not life.may_prune
        assert life.record.memory.claims == {}
        assert life.record.memory.intents == {}


class TestAnImageThatALifeWhichDiedHasFetched:
    def test_leaves_no_intent_and_no_failures(self, life: NewLife) -> None:
        subject = "image/c2/debian"
        life.record.put_intent(Intent(subject, "fetch-image", NOW_S))
        life.record.put_attempts(subject, Attempts(1, NOW_S, "corrupt", "a wrong digest"))
        life.looks_at(seen("c1"), seen("c2"), seen("c3"))
        life.plans("c2")
        assert subject not in life.record.memory.intents
        assert subject not in life.record.memory.attempts


class TestAnOldDiskThatIsPutAside:
    """It is no success of what failed elsewhere, which would be tried again at full speed (S8)."""

    ASIDE = Quarantine("c1", "the live copy is on c2", "g1", "vcg-g1", 1, "moved")

    def test_forgives_no_copy_that_failed(self, life: NewLife) -> None:
        copy = CopyDisk("c3", "moves here from c2", "g1", "c2", "vcg-g1")
        for _ in range(3):
            life.ledger.failed(copy, Transient("no answer", kind="timeout"), 1.0)
        life.ledger.done(self.ASIDE, 1.0, SPEC)
        assert life.record.memory.attempts["guest/g1"].count == 3

    def test_forgives_its_own_failures(self, life: NewLife) -> None:
        life.ledger.failed(self.ASIDE, Transient("no answer", kind="timeout"), 1.0)
        life.ledger.done(self.ASIDE, 1.0, SPEC)
        assert "guest/g1" not in life.record.memory.attempts
