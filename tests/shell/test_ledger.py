"""What a controller that has just begun makes of words and intents of one that died."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.core.worlds import NOW_S, a_spec, disk, kept_disk, nowhere_else, running, seen, silent, students_disk

from vcrecon.core.actions import CopyDisk, Quarantine, StartGuest, StopGuest
from vcrecon.core.backoff import CRASH_LOOP
from vcrecon.core.decisions import Rest
from vcrecon.core.memory import Attempts, Claim, Consent, Intent, LastState
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

    def test_that_was_carried_out_over_a_connection_that_died_leaves_nothing(self, life: NewLife) -> None:
        life.record.put_attempts("guest/gone", Attempts(1, NOW_S, "connection-lost", "its outcome is unknown"))
        life.looks_at(seen("c1"), seen("c2"), seen("c3"))
        assert life.record.memory.claims == {}
        assert life.record.memory.attempts == {}

    def test_leaves_the_claim_on_a_disk_that_is_not_put_aside(self, life: NewLife) -> None:
        life.looks_at(seen("c1", [students_disk("gone")]), seen("c2"), seen("c3"))
        assert "gone" in life.record.memory.claims


class TestAnImageThatALifeWhichDiedHasFetched:
    def test_leaves_no_intent_and_no_failures(self, life: NewLife) -> None:
        subject = "image/c2/debian"
        life.record.put_intent(Intent(subject, "fetch-image", NOW_S))
        life.record.put_attempts(subject, Attempts(1, NOW_S, "corrupt", "a wrong digest"))
        life.looks_at(seen("c1"), seen("c2"), seen("c3"))
        life.plans("c2")
        assert subject not in life.record.memory.intents
        assert subject not in life.record.memory.attempts

    def test_leaves_no_failures_where_no_intent_is_left(self, life: NewLife) -> None:
        subject = "image/c2/debian"
        life.record.put_attempts(subject, Attempts(1, NOW_S, "connection-lost", "its outcome is unknown"))
        life.looks_at(seen("c1"), seen("c2"), seen("c3"))
        life.plans("c2")
        assert subject not in life.record.memory.attempts


class TestAClaimOnATouchedDisk:
    def test_is_not_taken_back_by_an_old_view_of_the_same_disk(self, life: NewLife) -> None:
        life.record.put_claim(Claim("g1", "c1", 1, touched=True))
        life.looks_at(seen("c1", [disk("g1", 1)]))
        assert life.record.memory.claims["g1"].touched

    def test_says_nothing_of_the_disk_that_comes_after_it(self, life: NewLife) -> None:
        life.record.put_claim(Claim("g1", "c1", 1, touched=True))
        life.looks_at(seen("c1", [disk("g1", 2)]))
        assert life.record.memory.claims["g1"] == Claim("g1", "c1", 2, touched=False)


class TestAContainerOfAnotherMaster:
    @pytest.mark.parametrize(("ours", "kept"), [(False, True), (True, False)])
    def test_says_nothing_of_what_we_have_begun_elsewhere(self, life: NewLife, ours: bool, kept: bool) -> None:
        """A guest is started on c2 while c1, where it is to go, is another master's (S7)."""
        life.looks_at(seen("c1"), seen("c2"))
        life.record.put_intent(Intent("guest/g1", "start-guest", NOW_S))
        plan = plan_container(View(Wanted(SPEC), life.world, life.record.memory, NOW_S), "c1")
        life.ledger.planned(replace(plan, decisions=(Rest("guest/g1", "whatever", ours=ours),)), SPEC)
        assert ("guest/g1" in life.record.memory.intents) is kept


class TestAGuestThatVcreconStopped:
    """Somebody's power-off may be honoured; ours is known by its intent, until the guest is where it ought to be."""

    copies = CopyDisk("c2", "it moves", "g1", "c1", "vcg-g1", 1, 1, 1, True, "", "")

    def test_is_still_known_as_such_when_what_it_was_stopped_for_fails(self, life: NewLife) -> None:
        life.ledger.begins(StopGuest("c1", "it moves", "g1"))
        asked = life.record.memory.intents["guest/g1"]
        for _ in range(2):
            life.ledger.begins(self.copies)
            assert life.record.memory.intents["guest/g1"].action == "copy-disk"
            life.ledger.failed(self.copies, Transient("no space left", delay_s=1), 1.0)
            assert life.record.memory.intents["guest/g1"] == asked

    def test_is_still_started_after_a_start_that_fails(self, life: NewLife) -> None:
        life.ledger.begins(StopGuest("c1", "it moves", "g1"))
        start = StartGuest("c1", "it stays", "g1", "vcg-g1", 1, 2, True, elsewhere=nowhere_else("g1", "c1"))
        life.ledger.begins(start)
        life.ledger.failed(start, Transient("another step of g1 runs", delay_s=1), 1.0)
        assert life.record.memory.intents["guest/g1"].action == "start-guest"

    def test_is_so_no_more_once_that_succeeds(self, life: NewLife) -> None:
        life.ledger.begins(StopGuest("c1", "it moves", "g1"))
        life.ledger.begins(self.copies)
        life.ledger.done(self.copies, 1.0, SPEC)
        assert "guest/g1" not in life.record.memory.intents
        life.ledger.begins(self.copies)
        life.ledger.failed(self.copies, Transient("no space left", delay_s=1), 1.0)
        assert "guest/g1" not in life.record.memory.intents


class TestAGuestThatLeftForGood:
    """Not in the spec, and no container has a trace of it: its name may have been one of thousands."""

    def left(self, life: NewLife) -> None:
        life.record.put_state(LastState("guest/gone", "stopped", NOW_S))
        life.record.put_answered("gone", "a-boot/1")
        life.record.put_attempts("guest/gone", Attempts(1, NOW_S, "crash-loop", "was restarted"))

    def remembered(self, life: NewLife) -> bool:
        memory = life.record.memory
        return bool({"guest/gone"} & (memory.states.keys() | memory.attempts.keys()) or "gone" in memory.answered)

    def test_is_forgotten(self, life: NewLife) -> None:
        self.left(life)
        life.record.remove_claim("gone")
        life.looks_at(seen("c1"), seen("c2"), seen("c3"))
        life.ledger.forget_gone_guests(life.world, SPEC)
        assert not self.remembered(life)

    def test_is_not_forgotten_while_its_disk_is_kept(self, life: NewLife) -> None:
        self.left(life)
        life.record.remove_claim("gone")
        life.looks_at(seen("c1", [kept_disk("gone")]), seen("c2"), seen("c3"))
        life.ledger.forget_gone_guests(life.world, SPEC)
        assert self.remembered(life)

    def test_is_not_forgotten_while_the_record_says_that_it_has_a_disk(self, life: NewLife) -> None:
        self.left(life)
        life.record.remove_consent("prune", "gone")  # which would end the claim
        life.looks_at(seen("c1"), seen("c2"), seen("c3"))
        life.ledger.forget_gone_guests(life.world, SPEC)
        assert self.remembered(life)

    def test_is_not_forgotten_before_every_container_was_looked_at(self, life: NewLife) -> None:
        self.left(life)
        life.record.remove_claim("gone")
        life.looks_at(seen("c1"), seen("c2"))
        life.ledger.forget_gone_guests(life.world, SPEC)
        assert self.remembered(life)

    def test_of_the_spec_is_never_forgotten(self, life: NewLife) -> None:
        life.record.put_state(LastState("guest/g1", "pending", NOW_S))
        life.looks_at(seen("c1"), seen("c2"), seen("c3"))
        life.ledger.forget_gone_guests(life.world, SPEC)
        assert "guest/g1" in life.record.memory.states

    def test_leaves_no_empty_place_in_the_world(self, life: NewLife) -> None:
        life.looks_at(seen("c1", [kept_disk("gone")]))
        life.looks_at(seen("c1"))
        assert life.world.sightings == {}


class TestAGuestThatIsAsWanted:
    """Its start was cut off as far as anybody could see, and it runs."""

    FAILED = Attempts(3, NOW_S + 60, "connection-lost", "the connection was lost while a command ran")

    @pytest.fixture
    def runs(self, life: NewLife) -> NewLife:
        life.record.put_answered("g1", "s1")
        old = [kept_disk("g1")]
        life.looks_at(seen("c1", [students_disk("g1", 2)], [running("g1")]), seen("c2", old), seen("c3"))
        return life

    def test_keeps_no_failure_of_the_act_that_made_it_so(self, runs: NewLife) -> None:
        runs.record.put_attempts("guest/g1", self.FAILED)
        runs.plans("c1")
        assert runs.record.memory.attempts == {}

    def test_is_not_forgiven_at_once_that_it_went_down_again_and_again(self, runs: NewLife) -> None:
        runs.record.put_attempts("guest/g1", replace(self.FAILED, error=CRASH_LOOP))
        runs.plans("c1")
        assert "guest/g1" in runs.record.memory.attempts

    def test_keeps_the_failures_of_its_old_disk_elsewhere(self, runs: NewLife) -> None:
        runs.record.put_consent(Consent("prune", "g1", 1, NOW_S))
        runs.record.put_attempts("guest/g1", self.FAILED)
        runs.plans("c2")
        runs.plans("c1")
        assert "guest/g1" in runs.record.memory.attempts


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
