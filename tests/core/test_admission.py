"""Who may go now: slots, order of arrival, and what keeps failing ones from starving the others (S8)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import nowhere_else

from vcrecon.core.actions import Action, CopyDisk, FetchImage, SetUpNetwork, StartGuest, StopGuest
from vcrecon.core.admission import RETRIES_AT_ONCE, Admission
from vcrecon.core.backoff import FIRST_S, LONGEST_S, after_failure, wait_s
from vcrecon.core.memory import Attempts, Intent, Memory
from vcrecon.spec.model import Limits


def fetch(container: str) -> Action:
    return FetchImage(container, "needed", "debian")


def start(guest: str, container: str = "c1") -> Action:
    return StartGuest(container, "should run", guest, elsewhere=nowhere_else(guest, container))


def stop(guest: str, container: str = "c1", *, force: bool = False) -> Action:
    return StopGuest(container, "moves", guest, force)


def an_admission(**limits: int) -> Admission:
    return Admission(Limits(**limits))


class TestSlots:
    def test_what_needs_no_slot_goes_at_once(self) -> None:
        admission = an_admission()
        assert admission.ask(SetUpNetwork("c1", "missing"), Memory()) is None
        assert admission.busy == {"container/c1"}

    def test_one_action_at_a_time_on_an_object(self) -> None:
        admission = an_admission()
        admission.ask(start("alice"), Memory())
        assert admission.ask(stop("alice"), Memory()) is not None

    def test_image_transfers_are_limited_across_the_site(self) -> None:
        admission = an_admission(image_transfers=2)
        asked = [admission.ask(fetch(c), Memory()) for c in ("c1", "c2", "c3")]
        assert asked == [None, None, "image-transfers"]
        assert admission.lengths()["image-transfers"] == 1

    def test_starts_are_limited_per_container(self) -> None:
        admission = an_admission(starts_per_container=1)
        asked = [admission.ask(start(g, c), Memory()) for g, c in (("alice", "c1"), ("bob", "c1"), ("carol", "c2"))]
        assert asked == [None, "starts", None]

    def test_a_queue_on_one_container_delays_no_other(self) -> None:
        admission = an_admission(starts_per_container=1)
        for guest in ("alice", "bob", "carol"):
            admission.ask(start(guest, "c1"), Memory())
        assert admission.ask(start("dave", "c2"), Memory()) is None

    def test_a_move_holds_its_slot_from_the_stop_until_the_guest_runs(self) -> None:
        admission, memory = an_admission(moves=1), Memory()
        assert admission.ask(stop("alice"), memory) is None
        memory.intents["guest/alice"] = Intent("guest/alice", "stop-guest", 0.0)
        admission.done(stop("alice"))
        assert admission.ask(stop("bob"), memory) == "moves"
        assert admission.ask(CopyDisk("c2", "moves", "alice", "c1"), memory) is None
        admission.done(CopyDisk("c2", "moves", "alice", "c1"))
        memory.intents.clear()
        assert admission.ask(stop("bob"), memory) is None

    def test_pulling_the_plug_waits_for_nobody(self) -> None:
        admission, memory = an_admission(moves=1), Memory()
        admission.ask(stop("alice"), memory)
        assert admission.ask(stop("bob", force=True), memory) is None

    def test_only_so_many_that_failed_before_go_at_once(self) -> None:
        memory = Memory()
        for number in range(RETRIES_AT_ONCE + 1):
            memory.attempts[f"container/c{number}"] = Attempts(3, 0.0, "timeout", "no answer")
        admission = an_admission()
        asked = [admission.ask(SetUpNetwork(f"c{n}", "missing"), memory) for n in range(RETRIES_AT_ONCE + 1)]
        assert asked == [None] * RETRIES_AT_ONCE + ["retries"]
        assert admission.ask(SetUpNetwork("healthy", "missing"), memory) is None


class TestOrder:
    def test_first_come_first_served(self) -> None:
        admission = an_admission(image_transfers=1)
        for container in ("c1", "c2", "c3"):
            admission.ask(fetch(container), Memory())
        assert admission.done(fetch("c1")) == {"c2", "c3"}
        assert admission.ask(fetch("c3"), Memory()) == "image-transfers"
        assert admission.ask(fetch("c2"), Memory()) is None

    def test_what_is_no_longer_planned_gives_up_its_place(self) -> None:
        admission = an_admission(image_transfers=1)
        for container in ("c1", "c2", "c3"):
            admission.ask(fetch(container), Memory())
        admission.retain("c2", [])
        admission.done(fetch("c1"))
        assert admission.ask(fetch("c3"), Memory()) is None

    def test_a_place_is_kept_for_what_is_still_planned(self) -> None:
        admission = an_admission(image_transfers=1)
        for container in ("c1", "c2"):
            admission.ask(fetch(container), Memory())
        admission.retain("c2", ["image/c2/debian"])
        admission.retain("c3", [])
        assert admission.lengths()["image-transfers"] == 1


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=60))
def test_limits_hold_and_nothing_waits_for_a_free_slot(history: list[tuple[bool, int]]) -> None:
    admission = an_admission(image_transfers=3)
    for ask, number in history:
        action = fetch(f"c{number}")
        if ask:
            admission.ask(action, Memory())
        else:
            admission.done(action)
        assert len(admission.busy) <= 3
    for number in range(8):
        admission.done(fetch(f"c{number}"))
    waiting = admission.lengths()["image-transfers"]
    admitted = [n for n in range(8) if admission.ask(fetch(f"c{n}"), Memory()) is None]
    assert len(admitted) >= min(3, waiting)


class TestBackoff:
    def test_waits_double_up_to_the_longest(self) -> None:
        attempts, waits = None, []
        for _ in range(12):
            attempts = after_failure(attempts, error="e", message="m", now_s=100.0, jitter=1.0)
            waits.append(attempts.retry_at_s - 100.0)
        assert waits[:4] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S, 8 * FIRST_S]
        assert waits[-1] == LONGEST_S

    def test_jitter_takes_off_at_most_half(self) -> None:
        assert after_failure(None, error="e", message="m", now_s=0.0, jitter=0.0).retry_at_s == FIRST_S / 2

    def test_a_failure_may_ask_for_more(self) -> None:
        assert after_failure(None, error="e", message="m", now_s=0.0, jitter=0.5, least_s=30.0).retry_at_s == 30.0

    @pytest.mark.parametrize(("retry_at_s", "expected_s"), [(90.0, 0.0), (110.0, 10.0), (100_000.0, 0.0)])
    def test_wait_is_what_is_left_and_never_longer_than_any_given_out(
        self, retry_at_s: float, expected_s: float
    ) -> None:
        assert wait_s(Attempts(1, retry_at_s, "e", "m"), 100.0) == expected_s

    def test_nothing_failed_nothing_waits(self) -> None:
        assert wait_s(None, 100.0) == 0.0
