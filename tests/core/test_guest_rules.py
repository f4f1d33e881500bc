"""What is planned for one guest, rule by rule: from what containers show to the one decision that follows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from worlds import (
    BARE_NETWORK,
    GIB,
    NOW_S,
    ASite,
    a_guest,
    a_spec,
    arriving,
    disk,
    kept_disk,
    off,
    running,
    seen,
    silent,
    storage,
    students_disk,
    told,
)

from vcrecon.core.actions import (
    Contextualize,
    CreateVolume,
    Discard,
    MarkTouched,
    Prune,
    Quarantine,
    Restore,
    StartGuest,
    StopGuest,
)
from vcrecon.core.backoff import CRASH_LOOP
from vcrecon.core.decisions import Rest, Wait
from vcrecon.core.memory import Attempts, Memory
from vcrecon.core.observation import UNKNOWN
from vcrecon.core.states import GuestState

HERE = {"c1": ["alice"]}
TWO = {"c1": ["alice"], "c2": []}


def a_running_guest(**changes: object) -> ASite:
    return ASite(a_spec(HERE, **changes), seen("c1", [students_disk("alice")], [running("alice")]))  # type: ignore[arg-type]


def guests_steps(site: ASite) -> list[str]:
    return [told(action) for action in site.settle() if action.kind != "set-up-network"]


class TestFreshGuest:
    def test_is_made_step_by_step_until_it_runs(self) -> None:
        bare = seen("c1", images=frozenset(), storage=storage(goldens=frozenset()), network=BARE_NETWORK)
        site = ASite(a_spec(HERE), bare)
        assert [told(action) for action in site.settle()] == [
            "set-up-network c1",
            "fetch-image debian c1",
            "create-volume alice c1",
            "contextualize alice c1",
            "start-guest alice c1",
        ]
        assert isinstance(site.decision("c1", "alice"), Rest)

    def test_first_boot_in_a_running_session_marks_the_disk_touched(self) -> None:
        site = ASite(a_spec(HERE), seen("c1"))
        start = site.settle()[-1]
        assert isinstance(start, StartGuest)
        assert start.touched

    def test_first_boot_while_preparing_leaves_the_disk_untouched(self) -> None:
        site = ASite(a_spec(HERE, session="preparing"), seen("c1"))
        start = site.settle()[-1]
        assert isinstance(start, StartGuest)
        assert not start.touched

    def test_waits_for_the_image_and_names_it(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", storage=storage(goldens=frozenset())))
        decision = site.decision("c1", "alice")
        assert isinstance(decision, Wait)
        assert decision.image == "debian"

    def test_one_fetch_serves_all_guests_of_an_image(self) -> None:
        site = ASite(a_spec({"c1": ["alice", "bob"]}), seen("c1", storage=storage(goldens=frozenset())))
        assert site.kinds("c1") == ["fetch-image"]

    def test_thick_guest_needs_the_archive_and_not_the_golden_volume(self) -> None:
        spec = a_spec(HERE, guests={"alice": a_guest("alice", storage="thick")})
        site = ASite(spec, seen("c1", storage=storage(goldens=frozenset())))
        assert site.kinds("c1") == ["fetch-image"]
        site.settle()
        assert site.runs_on("alice") == ["c1"]

    @pytest.mark.parametrize(
        "full",
        [
            storage(pool_data_percent=100.0),
            storage(pool_metadata_percent=96.0),
        ],
    )
    def test_is_refused_by_a_full_pool(self, full: object) -> None:
        site = ASite(a_spec(HERE), seen("c1", storage=full))
        assert site.block("c1", "alice").reason == "pool-full"
        assert site.block("c1", "container/c1").reason == "pool-full"

    def test_is_refused_without_a_thin_pool(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", storage=storage(pool_bytes=0)))
        assert site.block("c1", "alice").reason == "no-storage"
        assert "lvcreate --type thin-pool" in site.block("c1", "container/c1").message

    def test_thick_guest_is_refused_by_a_full_group(self) -> None:
        spec = a_spec(HERE, guests={"alice": a_guest("alice", storage="thick")})
        site = ASite(spec, seen("c1", storage=storage(group_free_bytes=GIB)))
        assert site.block("c1", "alice").reason == "pool-full"

    def test_an_unfinished_volume_of_an_earlier_try_is_discarded_first(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", [arriving("alice")]))
        assert [told(a) for a in site.settle()][:2] == ["discard alice c1", "create-volume alice c1"]


class TestHealing:
    def test_a_running_guest_rests(self) -> None:
        assert a_running_guest().plan("c1").settled

    def test_a_crashed_guest_is_restarted_and_never_reimaged(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", [students_disk("alice", boots=3)], [off("alice")]))
        assert [told(a) for a in site.settle()] == ["start-guest alice c1"]

    def test_a_guest_whose_domain_is_gone_is_restarted(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", [students_disk("alice", boots=3)]))
        action = site.action("c1", "alice")
        assert isinstance(action, StartGuest)
        assert action.boots == 4

    def test_a_power_off_from_inside_is_honoured_when_the_spec_says_so(self) -> None:
        spec = a_spec(HERE, guests={"alice": a_guest("alice", on_poweroff="honour")})
        site = ASite(spec, seen("c1", [students_disk("alice")], [off("alice", "shutdown")]))
        decision = site.decision("c1", "alice")
        assert isinstance(decision, Rest)
        assert "powered off from inside" in decision.message

    def test_a_crash_is_healed_even_where_power_off_is_honoured(self) -> None:
        spec = a_spec(HERE, guests={"alice": a_guest("alice", on_poweroff="honour")})
        site = ASite(spec, seen("c1", [students_disk("alice")], [off("alice", "crashed")]))
        assert isinstance(site.action("c1", "alice"), StartGuest)

    def test_our_own_shutdown_is_not_taken_for_the_students(self) -> None:
        spec = a_spec(HERE, guests={"alice": a_guest("alice", on_poweroff="honour")})
        site = ASite(spec, seen("c1", [students_disk("alice")], [off("alice", "shutdown")]))
        site.intend("alice", "stop-guest")
        assert isinstance(site.action("c1", "alice"), StartGuest)

    def test_a_restart_waits_for_the_network(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", [students_disk("alice")], trouble={"network": "ip: no such file"}))
        decision = site.decision("c1", "alice")
        assert isinstance(decision, Wait)
        assert "network" in decision.message
        assert site.block("c1", "container/c1").reason == "network-unknown"

    def test_a_guest_that_never_answers_is_blocked_after_its_deadline(self) -> None:
        site = a_running_guest()
        site.memory.answered.clear()
        site.intend("alice", "start-guest")
        assert isinstance(site.decision("c1", "alice"), Wait)
        site.now_s += 301
        assert site.block("c1", "alice").reason == "silent"

    def test_one_that_is_silent_with_an_older_context_may_have_another_address(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", [students_disk("alice", context="old")], [running("alice")]))
        site.memory.answered.clear()
        site.intend("alice", "start-guest")
        site.now_s += 301
        block = site.block("c1", "alice")
        assert block.reason == "silent"
        assert "made for an older spec" in block.message
        assert "`vcrecon rebuild alice`" in block.message

    def test_a_deleted_record_restarts_nothing(self) -> None:
        site = a_running_guest()
        site.memory = Memory(claims_complete=False, answered=site.memory.answered)
        assert site.plan("c1").actions == ()

    def test_after_the_record_was_lost_a_host_never_seen_since_may_run_any_guest_that_is_down(self) -> None:
        site = ASite(a_spec(TWO), seen("c1", [students_disk("alice")]), silent("c2"))
        site.claim("alice", "c1")
        site.memory.claims_complete = False
        assert site.block("c1", "alice").reason == "may-live-elsewhere"
        site.fence("c2")
        assert site.action("c1", "alice").kind == "start-guest"

    def test_a_domain_without_its_disk_is_left_alone(self) -> None:
        site = ASite(a_spec(TWO), seen("c1", [], [running("alice")]), seen("c2"))
        assert site.block("c1", "alice").reason == "no-disk"

    def test_a_domain_without_its_disk_gets_no_copy_under_its_feet(self) -> None:
        site = ASite(a_spec(TWO), seen("c1", [], [running("alice")]), seen("c2", [kept_disk("alice")]))
        assert site.block("c1", "alice").reason == "no-disk"


class TestLostDisk:
    def test_touched_is_never_rebuilt_without_consent(self) -> None:
        site = ASite(a_spec(HERE), seen("c1"))
        site.claim("alice", "c1", 3)
        block = site.block("c1", "alice")
        assert block.reason == "disk-lost"
        assert "vcrecon rebuild alice" in block.message

    def test_with_consent_it_becomes_the_next_epoch(self) -> None:
        site = ASite(a_spec(HERE), seen("c1"))
        site.claim("alice", "c1", 3)
        site.consent("rebuild", "alice", 3)
        action = site.action("c1", "alice")
        assert isinstance(action, CreateVolume)
        assert action.epoch == 4

    def test_consent_for_an_earlier_disk_does_not_count(self) -> None:
        site = ASite(a_spec(HERE), seen("c1"))
        site.claim("alice", "c1", 3)
        site.consent("rebuild", "alice", 2)
        assert site.block("c1", "alice").reason == "disk-lost"

    def test_untouched_is_made_again(self) -> None:
        site = ASite(a_spec(HERE), seen("c1"))
        site.claim("alice", "c1", 3, touched=False)
        assert isinstance(site.action("c1", "alice"), CreateVolume)

    def test_its_proved_copy_is_kept_when_the_original_vanished(self) -> None:
        site = ASite(a_spec({"c1": [], "c2": ["alice"]}), seen("c1"), seen("c2", [arriving("alice", (1, 5))]))
        site.claim("alice", "c1")
        assert site.block("c2", "alice").reason == "only-copy"
        site.adopt(a_spec(TWO))
        assert site.block("c2", "alice").reason == "only-copy"
        assert site.block("c1", "alice").reason == "disk-lost"

    def test_consent_gives_the_lone_copy_up_too(self) -> None:
        site = ASite(a_spec({"c1": [], "c2": ["alice"]}), seen("c1"), seen("c2", [arriving("alice", (1, 5))]))
        site.claim("alice", "c1")
        site.consent("rebuild", "alice")
        assert [told(a) for a in site.settle()][:2] == ["discard alice c2", "create-volume alice c2"]


class TestRebuild:
    def test_stops_puts_aside_and_makes_the_next_disk(self) -> None:
        site = a_running_guest()
        site.consent("rebuild", "alice")
        assert [told(a) for a in site.settle()] == [
            "stop-guest alice c1",
            "quarantine alice c1",
            "create-volume alice c1",
            "contextualize alice c1",
            "start-guest alice c1",
        ]
        assert site.live("alice") == {"c1": 2}

    def test_in_the_middle_of_a_move_the_given_up_disk_is_not_carried_over(self) -> None:
        spec = a_spec({"c1": [], "c2": ["alice"]})
        site = ASite(spec, seen("c1", [students_disk("alice")], [running("alice")]), seen("c2"))
        site.consent("rebuild", "alice")
        kinds = [told(a) for a in site.settle()]
        assert "quarantine alice c1" in kinds
        assert "create-volume alice c2" in kinds
        assert not [k for k in kinds if k.startswith("copy-disk")]


class TestSession:
    def test_beginning_the_class_marks_used_disks(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", [disk("alice", boots=2)], [running("alice")]))
        assert isinstance(site.action("c1", "alice"), MarkTouched)

    def test_while_preparing_a_new_image_rebuilds_a_used_disk(self) -> None:
        spec = a_spec(HERE, session="preparing", guests={"alice": a_guest("alice", image="newer")})
        site = ASite(spec, seen("c1", [disk("alice", boots=2)], [running("alice")]))
        assert [told(a) for a in site.settle()][:3] == [
            "stop-guest alice c1",
            "discard alice c1",
            "create-volume alice c1",
        ]

    def test_while_preparing_a_new_context_is_written_into_a_used_disk(self) -> None:
        site = ASite(
            a_spec(HERE, session="preparing"), seen("c1", [disk("alice", boots=2, context="old")], [running("alice")])
        )
        assert [told(a) for a in site.settle()] == [
            "stop-guest alice c1",
            "contextualize alice c1",
            "start-guest alice c1",
        ]

    def test_while_preparing_our_own_shutdown_for_a_new_context_is_not_taken_for_the_students(self) -> None:
        spec = a_spec(HERE, session="preparing", guests={"alice": a_guest("alice", on_poweroff="honour")})
        site = ASite(spec, seen("c1", [disk("alice", boots=2, context="old")], [running("alice")]))
        assert told(site.settle()[-1]) == "start-guest alice c1"

    @pytest.mark.parametrize(
        "volume",
        [
            students_disk("alice", context="old"),
            students_disk("alice", image="0" * 64),
            disk("alice", boots=1, context="old", touched=True),
        ],
    )
    def test_a_touched_disk_is_never_rewritten(self, volume: object) -> None:
        site = ASite(a_spec(HERE), seen("c1", [volume], [running("alice")]))  # type: ignore[list-item]
        decision = site.decision("c1", "alice")
        assert isinstance(decision, Rest)
        assert "differs from the spec in" in decision.message

    def test_a_touched_disk_stays_touched_when_the_session_goes_back_to_preparing(self) -> None:
        spec = a_spec(HERE, session="preparing", guests={"alice": a_guest("alice", image="newer")})
        site = ASite(spec, seen("c1", [students_disk("alice")], [running("alice")]))
        assert site.plan("c1").actions == ()

    def test_an_unbooted_disk_with_the_wrong_context_is_written_again(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", [disk("alice", context="old")]))
        assert isinstance(site.action("c1", "alice"), Contextualize)

    def test_an_unbooted_disk_of_another_image_is_discarded(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", [disk("alice", image="0" * 64)]))
        assert isinstance(site.action("c1", "alice"), Discard)


class TestHandsOff:
    @pytest.mark.parametrize("subject", ["guest/alice", "cluster/a", "container/c1", "site"])
    def test_paused(self, subject: str) -> None:
        site = ASite(a_spec(HERE), seen("c1"))
        site.memory.paused[subject] = NOW_S
        decision = site.decision("c1", "alice")
        assert isinstance(decision, Rest)
        assert "vcrecon resume" in decision.message

    def test_held_for_rescue(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", [students_disk("alice", held=True)]))
        assert "vcrecon release" in site.decision("c1", "alice").message

    def test_a_step_in_flight(self) -> None:
        site = ASite(a_spec(HERE), seen("c1"))
        site.busy = frozenset({"guest/alice"})
        assert isinstance(site.decision("c1", "alice"), Wait)

    @pytest.mark.parametrize("unclear", [{"domains": UNKNOWN}, {"storage": UNKNOWN}])
    @pytest.mark.parametrize("deployment", [HERE, {"c1": []}])
    def test_a_host_that_does_not_show_its_guests_or_disks(self, unclear: dict, deployment: dict) -> None:  # type: ignore[type-arg]
        site = ASite(a_spec({"c1": ["alice"]}), seen("c1", [students_disk("alice")]))
        site.adopt(a_spec(deployment))
        site.observe(seen("c1", [students_disk("alice")], **{"domains": ()} | unclear, trouble={"guests": "no socket"}))
        assert site.block("c1", "alice").reason == "host-unclear"
        assert "no socket" in site.block("c1", "alice").message
        assert not [a for a in site.plan("c1").actions if a.kind != "set-up-network"]

    def test_a_host_that_only_keeps_an_old_disk_of_a_guest_does_not_block_it(self) -> None:
        old = replace(students_disk("alice"), name="vcq-alice-1", quarantined="moved")
        site = ASite(a_spec({"c1": [], "c2": ["alice"]}), seen("c1", [old]), seen("c2"))
        site.observe(seen("c1", storage=UNKNOWN, trouble={"storage": "c1 has no lvm"}))
        assert isinstance(site.decision("c1", "alice"), Rest)

    def test_a_host_without_a_release_file(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", release=None))
        assert site.block("c1", "container/c1").reason == "not-installed"
        assert site.plan("c1").actions == ()


class TestPatience:
    def test_a_failed_guest_waits_until_its_time(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", [students_disk("alice")]))
        site.memory.attempts["guest/alice"] = Attempts(3, NOW_S + 20, "no-space", "no space on c1")
        block = site.block("c1", "alice")
        assert (block.reason, "try 4 in 20 s" in block.message) == ("no-space", True)
        site.now_s += 21
        assert isinstance(site.action("c1", "alice"), StartGuest)

    def test_a_clock_set_back_does_not_make_it_wait_for_ever(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", [students_disk("alice")]))
        site.memory.attempts["guest/alice"] = Attempts(3, NOW_S + 86400, "no-space", "no space on c1")
        assert isinstance(site.action("c1", "alice"), StartGuest)

    def test_a_failing_step_on_a_running_guest_waits_too(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", [disk("alice", boots=2)], [running("alice")]))
        site.memory.attempts["guest/alice"] = Attempts(1, NOW_S + 20, "command-failed", "lvchange failed")
        assert site.block("c1", "alice").reason == "command-failed"

    def test_a_failing_quarantine_of_a_stale_disk_waits_too(self) -> None:
        site = ASite(
            a_spec({"c1": [], "c2": ["alice"]}),
            seen("c1", [students_disk("alice")]),
            seen("c2", [students_disk("alice", 2)], [running("alice")]),
        )
        assert isinstance(site.action("c1", "alice"), Quarantine)
        site.memory.attempts["guest/alice"] = Attempts(1, NOW_S + 20, "unsafe", "still runs")
        assert site.block("c1", "alice").reason == "unsafe"

    def test_a_crash_loop_delays_the_next_start_and_no_other_step(self) -> None:
        site = a_running_guest()
        site.memory.attempts["guest/alice"] = Attempts(4, NOW_S + 100, CRASH_LOOP, "went down again")
        site.consent("rebuild", "alice")
        assert isinstance(site.action("c1", "alice"), StopGuest)
        site.memory.consents.clear()
        site.observe(seen("c1", [students_disk("alice")], [off("alice")]))
        assert site.block("c1", "alice").reason == CRASH_LOOP
        site.adopt(a_spec({"c1": []}))
        assert isinstance(site.action("c1", "alice"), Quarantine)

    def test_a_guest_that_does_not_stop_is_forced_after_the_grace_time(self) -> None:
        site = a_running_guest()
        site.consent("rebuild", "alice")
        site.intend("alice", "stop-guest")
        assert isinstance(site.decision("c1", "alice"), Wait)
        site.now_s += 61
        action = site.action("c1", "alice")
        assert isinstance(action, StopGuest)
        assert action.force

    def test_a_clock_set_back_asks_it_to_stop_again(self) -> None:
        site = a_running_guest()
        site.consent("rebuild", "alice")
        site.intend("alice", "stop-guest", NOW_S + 500)
        action = site.action("c1", "alice")
        assert isinstance(action, StopGuest)
        assert not action.force


class TestLeavingTheSpec:
    def test_a_removed_guest_is_stopped_and_its_disk_kept(self) -> None:
        site = a_running_guest()
        site.adopt(a_spec({"c1": []}))
        assert guests_steps(site) == ["stop-guest alice c1", "quarantine alice c1"]
        (aside,) = site.world.on("c1")["alice"].quarantined
        assert (aside.quarantined, aside.touched) == ("removed", True)

    def test_it_comes_back_with_its_disk(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", [kept_disk("alice")]))
        assert isinstance(site.action("c1", "alice"), Restore)
        site.settle()
        assert site.live("alice") == {"c1": 1}

    def test_it_comes_back_on_another_container_with_its_disk(self) -> None:
        site = ASite(a_spec({"c1": [], "c2": ["alice"]}), seen("c1", [kept_disk("alice")]), seen("c2"))
        assert [told(a) for a in site.settle()] == [
            "copy-disk alice c2<c1",
            "activate-copy alice c2",
            "start-guest alice c2",
        ]

    def test_its_kept_disk_on_a_silent_container_is_waited_for(self) -> None:
        site = ASite(a_spec({"c1": [], "c2": ["alice"]}), seen("c1", [kept_disk("alice")]), seen("c2"))
        site.observe(silent("c1"))
        site.memory.claims.clear()
        assert site.block("c2", "alice").reason == "disk-out-of-reach"
        site.fence("c1")
        assert isinstance(site.action("c2", "alice"), CreateVolume)

    @pytest.mark.parametrize("why", ["moved", "rebuilt"])
    def test_a_disk_put_aside_for_another_reason_does_not_come_back(self, why: str) -> None:
        site = ASite(a_spec(HERE), seen("c1", [kept_disk("alice", why=why)]))
        assert isinstance(site.action("c1", "alice"), CreateVolume)

    def test_its_frames_pass_until_it_is_stopped(self) -> None:
        site = a_running_guest()
        site.adopt(a_spec({"c1": []}))
        assert told(site.settle()[0]) == "stop-guest alice c1"

    def test_rules_are_renewed_at_once_when_another_guest_is_to_start_here(self) -> None:
        site = a_running_guest()
        site.adopt(a_spec({"c1": ["bob"]}, guests={"bob": a_guest("bob", 2)}))
        assert site.kinds("c1")[0] == "set-up-network"

    def test_removed_disks_are_pruned_only_when_named(self) -> None:
        site = ASite(a_spec({"c1": []}), seen("c1", [kept_disk("alice")]))
        assert "vcrecon prune alice" in site.decision("c1", "alice").message
        site.consent("prune", "alice")
        assert isinstance(site.action("c1", "alice"), Prune)

    def test_old_disks_of_a_guest_that_runs_here_are_pruned_when_named(self) -> None:
        site = ASite(
            a_spec(HERE), seen("c1", [students_disk("alice", 2), kept_disk("alice", 1, "rebuilt")], [running("alice")])
        )
        assert site.plan("c1").settled
        site.consent("prune", "alice", 1)
        assert [told(a) for a in site.settle()] == ["prune alice c1"]

    def test_prune_spares_disks_younger_than_the_consent(self) -> None:
        site = ASite(a_spec({"c1": []}), seen("c1", [kept_disk("alice", 2)]))
        site.consent("prune", "alice", 1)
        assert site.plan("c1").actions == ()

    def test_an_old_disk_says_nothing_of_a_guest_that_lives_elsewhere(self) -> None:
        """Else its state goes to and fro, and the word to stop it there is forgotten again and again."""
        site = ASite(
            a_spec({"c1": [], "c2": []}),
            seen("c1", [students_disk("alice", 2)], [running("alice")]),
            seen("c2", [kept_disk("alice", 1)]),
        )
        assert [status.subject for status in site.plan("c2").statuses] == ["container/c2"]
        for paused in ({}, {"container/c2": NOW_S}):
            site.memory.paused = paused
            decision = site.decision("c2", "guest/alice")
            assert isinstance(decision, Rest)
            assert not decision.ours
        site.observe(seen("c1"))
        assert {s.subject: s.state for s in site.plan("c2").statuses}["guest/alice"] is GuestState.QUARANTINED


@pytest.mark.parametrize("paused", ["guest/alice", "container/c1", "site"])
def test_a_pause_does_not_end_the_intent_of_a_step_under_way(paused: str) -> None:
    """It goes on to its end, and must be found again when the service dies before that (S7)."""
    site = ASite(a_spec({"c1": ["alice"]}), seen("c1", [students_disk("alice")], [running("alice")]))
    site.memory.paused = {paused: NOW_S}
    assert isinstance(site.decision("c1", "alice"), Rest)
    site.busy = frozenset({"guest/alice", "container/c1"})
    assert isinstance(site.decision("c1", "alice"), Wait)
    assert isinstance(site.decision("c1", "container/c1"), Wait)


def many(count: int) -> list[str]:
    return [f"g{number:02}" for number in range(count)]


class TestDisruptionBudget:
    def site_of_ten(self, left: int) -> ASite:
        names = many(10)
        site = ASite(a_spec({"c1": names}), seen("c1", [students_disk(n) for n in names], [running(n) for n in names]))
        site.adopt(a_spec({"c1": names[:left]}, digest="two"))
        return site

    def test_a_spec_that_stops_two_of_ten_goes_ahead(self) -> None:
        assert self.site_of_ten(8).kinds("c1").count("stop-guest") == 2

    def test_a_spec_that_stops_three_of_ten_waits_for_a_person(self) -> None:
        site = self.site_of_ten(7)
        assert site.plan("c1").actions == ()
        assert "3 of 10 running guests" in site.block("c1", "g09").message
        assert site.block("c1", "g09").reason == "needs-confirmation"

    def test_two_of_three_that_waited_wait_on_when_the_third_dies(self) -> None:
        site = self.site_of_ten(7)
        site.memory.held_digest = site.spec.digest
        names = many(10)
        alive = [running(n) for n in names[:9]]
        site.observe(seen("c1", [students_disk(n) for n in names], alive))
        assert site.block("c1", "g08").reason == "needs-confirmation"
        assert "2 of 9 running guests (more when it was first looked at)" in site.block("c1", "g08").message
        site.memory.confirmed_digest = site.spec.digest
        assert isinstance(site.action("c1", "g08"), StopGuest)

    def test_what_was_held_back_says_nothing_of_another_spec(self) -> None:
        site = self.site_of_ten(8)
        site.memory.held_digest = "one"
        assert site.kinds("c1").count("stop-guest") == 2

    def test_guests_of_a_silent_container_count_until_it_is_fenced(self) -> None:
        names = many(10)
        there = {"c1": names[:5], "c2": names[5:], "c3": []}
        site = ASite(
            a_spec(there),
            *(seen(c, [students_disk(n) for n in there[c]], [running(n) for n in there[c]]) for c in ("c1", "c2")),
            seen("c3"),
        )
        site.observe(silent("c2"))
        site.adopt(a_spec({"c1": names[1:5], "c2": names[7:], "c3": [names[0], *names[5:7]]}, digest="two"))
        assert site.block("c1", "g00").reason == "needs-confirmation"
        site.observe(seen("c3"))
        site.fence("c2")
        assert isinstance(site.action("c1", "g00"), StopGuest)

    def test_a_persons_word_for_this_very_spec_lets_it_go_ahead(self) -> None:
        site = self.site_of_ten(7)
        site.memory.confirmed_digest = "one"
        assert site.plan("c1").actions == ()
        site.memory.confirmed_digest = "two"
        assert site.kinds("c1").count("stop-guest") == 3
