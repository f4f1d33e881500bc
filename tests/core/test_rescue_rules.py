"""A person asks for a guest's disk and gives it back: what is planned meanwhile, here and on other containers."""

from __future__ import annotations

import pytest
from worlds import (
    NOW_S,
    ASite,
    a_guest,
    a_spec,
    arriving,
    disk,
    off,
    running,
    seen,
    silent,
    students_disk,
    told,
)

from vcrecon.core.actions import Hold, Release, StopGuest
from vcrecon.core.admission import Admission
from vcrecon.core.backoff import CRASH_LOOP
from vcrecon.core.decisions import Block, Rest, Wait
from vcrecon.core.memory import Attempts, Memory, Rescue
from vcrecon.spec.model import Limits

HERE = {"c1": ["alice"]}
MOVED = {"c1": [], "c2": ["alice"]}


def asks(site: ASite, wish: str = "hold") -> ASite:
    site.memory.rescues["alice"] = Rescue("alice", wish, NOW_S, "ann")  # type: ignore[arg-type]
    return site


def done(site: ASite) -> list[str]:
    return [told(action) for action in site.settle() if action.kind != "set-up-network"]


def a_running_guest(deployment: dict[str, list[str]] = HERE, **changes: object) -> ASite:
    others = [seen(name) for name in deployment if name != "c1"]
    return ASite(a_spec(deployment), seen("c1", [students_disk("alice", **changes)], [running("alice")]), *others)


def a_held_guest(deployment: dict[str, list[str]] = HERE, **changes: object) -> ASite:
    others = [seen(name) for name in deployment if name != "c1"]
    return ASite(a_spec(deployment), seen("c1", [students_disk("alice", boots=2, held=True, **changes)]), *others)


class TestAskedFor:
    def test_is_stopped_held_and_then_left_alone(self) -> None:
        site = asks(a_running_guest())
        assert done(site) == ["stop-guest alice c1", "hold alice c1"]
        assert isinstance(site.decision("c1", "alice"), Rest)
        assert "by ann" in site.decision("c1", "alice").message

    def test_is_asked_to_power_off_and_loses_its_plug_after_the_grace_time(self) -> None:
        site = asks(a_running_guest())
        site.intend("alice", "stop-guest", NOW_S - 5)
        assert isinstance(site.decision("c1", "alice"), Wait)
        site.intend("alice", "stop-guest", NOW_S - 61)
        stop = site.action("c1", "alice")
        assert isinstance(stop, StopGuest)
        assert stop.force

    def test_counts_as_a_boot_so_that_a_copy_from_before_is_outdated(self) -> None:
        hold = asks(ASite(a_spec(HERE), seen("c1", [students_disk("alice", boots=3)], [off("alice")]))).action(
            "c1", "alice"
        )
        assert isinstance(hold, Hold)
        assert hold.boots == 4

    def test_is_not_kept_waiting_by_a_crash_loop(self) -> None:
        site = asks(ASite(a_spec(HERE), seen("c1", [students_disk("alice")], [off("alice")])))
        site.memory.attempts["guest/alice"] = Attempts(5, NOW_S + 300, CRASH_LOOP, "went down again")
        assert isinstance(site.action("c1", "alice"), Hold)

    def test_is_not_kept_waiting_by_guests_that_move(self) -> None:
        site = asks(a_running_guest())
        admission = Admission(Limits(moves=1))
        assert admission.ask(StopGuest("c1", "moves", "bob"), Memory()) is None
        assert admission.ask(site.action("c1", "alice"), site.memory) is None

    def test_again_while_it_is_held_mounts_it_again(self) -> None:
        assert isinstance(asks(a_held_guest()).action("c1", "alice"), Hold)

    def test_before_its_first_boot_goes_on_being_made(self) -> None:
        site = asks(ASite(a_spec(HERE), seen("c1", [disk("alice")])))
        assert done(site) == ["contextualize alice c1", "start-guest alice c1", "stop-guest alice c1", "hold alice c1"]

    def test_is_not_taken_along_by_a_move_that_was_planned(self) -> None:
        site = asks(a_running_guest(MOVED))
        assert done(site) == ["stop-guest alice c1", "hold alice c1"]
        assert site.live("alice") == {"c1": 1}

    def test_on_a_container_that_does_not_answer_waits_there(self) -> None:
        site = asks(a_running_guest())
        site.observe(silent("c1"))
        assert site.kinds("c1") == []

    def test_and_given_back_before_it_was_held_just_runs_on(self) -> None:
        site = asks(a_running_guest(), "release")
        assert done(site) == ["release alice c1"]
        assert site.runs_on("alice") == ["c1"]
        assert site.memory.rescues == {}


class TestHeld:
    def test_is_left_alone_when_the_record_is_lost(self) -> None:
        site = a_held_guest()
        assert site.memory.rescues == {}
        assert isinstance(site.decision("c1", "alice"), Rest)
        assert site.kinds("c1") == []

    def test_is_left_alone_when_the_spec_moves_it_and_says_so_on_both(self) -> None:
        site = a_held_guest(MOVED)
        assert site.settle() == []
        assert "places it on c2, where it goes after that" in site.decision("c1", "alice").message
        assert "held for rescue on c1" in site.decision("c2", "alice").message

    def test_is_left_alone_when_it_left_the_spec(self) -> None:
        site = ASite(a_spec({"c1": []}), seen("c1", [students_disk("alice", held=True)]))
        assert site.settle() == []
        assert "it left the spec and is put aside after that" in site.decision("c1", "alice").message

    @pytest.mark.parametrize("context", ["outdated", ""])
    def test_is_not_written_or_rebuilt(self, context: str) -> None:
        site = ASite(
            a_spec(HERE, session="preparing"), seen("c1", [disk("alice", boots=1, held=True, context=context)])
        )
        site.consent("rebuild", "alice")
        assert site.settle() == []

    def test_is_not_put_aside_for_a_newer_one_that_runs_meanwhile(self) -> None:
        site = ASite(
            a_spec(MOVED),
            seen("c1", [students_disk("alice", 1, held=True)]),
            seen("c2", [students_disk("alice", 2)], [running("alice")]),
        )
        assert site.settle() == []
        assert site.runs_on("alice") == ["c2"]
        assert done(asks(site, "release")) == ["release alice c1", "quarantine alice c1"]

    def test_that_somebody_started_by_hand_is_not_touched_and_told(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", [students_disk("alice", held=True)], [running("alice")]))
        block = site.decision("c1", "alice")
        assert isinstance(block, Block)
        assert block.reason == "held-and-running"

    def test_that_runs_by_hand_beside_a_newer_one_is_stopped(self) -> None:
        site = ASite(
            a_spec(MOVED),
            seen("c1", [students_disk("alice", 1, held=True)], [running("alice")]),
            seen("c2", [students_disk("alice", 2)], [running("alice")]),
        )
        stop = site.action("c1", "alice")
        assert isinstance(stop, StopGuest)
        assert stop.force


class TestGivenBack:
    def test_boots_again(self) -> None:
        assert done(asks(a_held_guest(), "release")) == ["release alice c1", "start-guest alice c1"]

    def test_boots_again_though_it_was_powered_off_and_the_spec_honours_that(self) -> None:
        honour = a_spec(HERE, guests={"alice": a_guest("alice", on_poweroff="honour")})
        site = asks(ASite(honour, seen("c1", [students_disk("alice")], [running("alice")])))
        site.settle()
        assert done(asks(site, "release")) == ["release alice c1", "start-guest alice c1"]

    def test_goes_where_the_spec_places_it(self) -> None:
        site = asks(a_held_guest(MOVED), "release")
        assert done(site)[0] == "release alice c1"
        assert site.runs_on("alice") == ["c2"]

    def test_is_copied_anew_when_a_copy_was_made_before_it_was_held(self) -> None:
        here = seen("c1", [students_disk("alice", boots=1)], [off("alice")])
        site = asks(ASite(a_spec(MOVED), here, seen("c2", [arriving("alice", (1, 1))])))
        site.do(site.action("c1", "alice"))
        assert site.kinds("c2") == []
        assert done(asks(site, "release"))[:3] == ["release alice c1", "discard alice c2", "copy-disk alice c2<c1"]

    def test_release_is_asked_of_the_disk_itself(self) -> None:
        release = asks(a_held_guest(), "release").action("c1", "alice")
        assert release == Release("c1", "the person is done", "alice", "vcg-alice")
