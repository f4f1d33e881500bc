"""Guests that move: their work goes with them, and never two copies live (S1)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from worlds import (
    GIB,
    NOW_S,
    ASite,
    a_guest,
    a_spec,
    an_installable,
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

from vcrecon.core.actions import ActivateCopy, CopyDisk, CreateVolume, Discard, Quarantine, StartGuest, StopGuest
from vcrecon.core.decisions import Wait
from vcrecon.core.observation import UNKNOWN, NetworkFacts

HERE = {"c1": ["alice"], "c2": []}
THERE = {"c1": [], "c2": ["alice"]}
MOVE = [
    "stop-guest alice c1",
    "copy-disk alice c2<c1",
    "activate-copy alice c2",
    "quarantine alice c1",
    "start-guest alice c2",
]


def a_move(*, volume: object = None, **there: object) -> ASite:
    """Alice runs on c1, and the spec has just moved her to c2."""
    source = seen("c1", [volume or students_disk("alice")], [running("alice")])  # type: ignore[list-item]
    return ASite(a_spec(THERE), source, seen("c2", **there))  # type: ignore[arg-type]


def guests_steps(site: ASite) -> list[str]:
    return [told(a) for a in site.settle() if a.kind != "set-up-network"]


class TestInOrder:
    def test_the_disk_is_carried_over_before_the_guest_starts(self) -> None:
        site = a_move()
        assert guests_steps(site) == MOVE
        assert (site.runs_on("alice"), site.live("alice")) == (["c2"], {"c2": 2})

    def test_the_old_disk_is_kept(self) -> None:
        site = a_move()
        site.settle()
        (aside,) = site.world.on("c1")["alice"].quarantined
        assert (aside.quarantined, aside.epoch) == ("moved", 1)

    def test_the_network_is_ready_there_before_the_guest_stops_here(self) -> None:
        site = a_move(network=NetworkFacts({}, ""))
        assert site.block("c1", "alice").reason == "destination-not-ready"
        assert [told(a) for a in site.settle()][:2] == ["set-up-network c2", "stop-guest alice c1"]

    def test_a_disk_without_work_is_made_anew_there_and_not_copied(self) -> None:
        spec = a_spec(THERE, session="preparing")
        site = ASite(spec, seen("c1", [disk("alice", boots=2)], [running("alice")]), seen("c2"))
        assert guests_steps(site) == [
            "stop-guest alice c1",
            "discard alice c1",
            "create-volume alice c2",
            "contextualize alice c2",
            "start-guest alice c2",
        ]

    def test_a_new_disk_starts_only_after_the_older_one_is_put_aside(self) -> None:
        site = ASite(a_spec(THERE), seen("c1", [students_disk("alice")]), seen("c2", [students_disk("alice", 2)]))
        decision = site.decision("c2", "alice")
        assert isinstance(decision, Wait)
        assert "old disk on c1" in decision.message
        assert isinstance(site.action("c1", "alice"), Quarantine)


class TestDestinationNotReady:
    @pytest.mark.parametrize(
        ("there", "said"),
        [
            ({"storage": storage(pool_data_percent=100.0)}, "are needed: prune what is kept aside there"),
            ({"storage": storage(pool_metadata_percent=99.0)}, "metadata"),
            ({"storage": storage(pool_bytes=0)}, "no volume group or thin pool"),
            ({"storage": UNKNOWN}, "does not show"),
            ({"domains": UNKNOWN}, "does not show"),
            ({"release": None}, "not installed"),
        ],
    )
    def test_the_guest_keeps_running_here_meanwhile(self, there: dict, said: str) -> None:  # type: ignore[type-arg]
        site = a_move(**there)
        block = site.block("c1", "alice")
        assert block.reason == "destination-not-ready"
        assert said in block.message

    def test_silent(self) -> None:
        site = a_move()
        site.observe(silent("c2"))
        assert "c2 does not answer" in site.block("c1", "alice").message

    def test_paused(self) -> None:
        site = a_move()
        site.memory.paused["container/c2"] = NOW_S
        assert "c2 is paused" in site.block("c1", "alice").message

    def test_a_thick_disk_needs_room_in_the_group_and_not_in_the_pool(self) -> None:
        thick = {"alice": a_guest("alice", storage="thick")}
        spec = a_spec(THERE, guests=thick)
        here = seen("c1", [students_disk("alice", used_bytes=4 * GIB)], [running("alice")])
        site = ASite(spec, here, seen("c2", storage=storage(group_free_bytes=GIB)))
        assert site.block("c1", "alice").reason == "destination-not-ready"
        site.observe(seen("c2", storage=storage(pool_data_percent=100.0)))
        assert isinstance(site.action("c1", "alice"), StopGuest)

    def test_a_guest_that_dies_meanwhile_is_healed_here(self) -> None:
        site = a_move(storage=storage(pool_data_percent=100.0))
        site.observe(seen("c1", [students_disk("alice")], [off("alice")]))
        assert isinstance(site.action("c1", "alice"), StartGuest)

    def test_the_room_that_the_copy_itself_takes_does_not_send_the_guest_back(self) -> None:
        site = a_move()
        site.do(site.action("c1", "alice"))
        site.do(site.action("c2", "alice"))
        there = site.world.current["c2"]
        site.observe(replace(there, storage=replace(there.storage, pool_data_percent=99.99)))  # type: ignore[union-attr]
        assert not isinstance(site.decision("c1", "alice"), StartGuest)
        assert guests_steps(site) == MOVE[2:]


class TestRevertInTheMiddle:
    """The spec is put back after any number of steps: alice ends on c1 with all her work."""

    @pytest.mark.parametrize("steps", range(6))
    def test_nothing_is_lost_and_she_runs_here_again(self, steps: int) -> None:
        site = a_move()
        for _ in range(steps):
            action = next(a for c in ("c1", "c2") for a in site.plan(c).actions if "guest" in a.subject)
            site.do(action)
        site.adopt(a_spec(HERE))
        site.settle()
        assert site.runs_on("alice") == ["c1"]
        assert list(site.live("alice")) == ["c1"]
        (volume,) = [s.volume for s in site.world.sightings["alice"].values() if s.volume]
        assert volume.touched

    def test_a_copy_of_a_disk_that_was_booted_since_is_never_activated(self) -> None:
        site = ASite(
            a_spec(THERE), seen("c1", [students_disk("alice", boots=2)]), seen("c2", [arriving("alice", (1, 1))])
        )
        assert isinstance(site.action("c2", "alice"), Discard)

    def test_a_copy_of_the_very_disk_is_activated(self) -> None:
        site = ASite(
            a_spec(THERE), seen("c1", [students_disk("alice", boots=2)]), seen("c2", [arriving("alice", (1, 2))])
        )
        action = site.action("c2", "alice")
        assert isinstance(action, ActivateCopy)
        assert (action.epoch, action.touched) == (2, True)

    def test_a_copy_is_not_activated_while_its_original_runs(self) -> None:
        site = ASite(
            a_spec(THERE),
            seen("c1", [students_disk("alice")], [running("alice")]),
            seen("c2", [arriving("alice", (1, 1))]),
        )
        assert isinstance(site.action("c2", "alice"), Discard)

    def test_an_activation_that_was_recorded_and_never_happened_is_forgotten(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", [students_disk("alice")]), seen("c2", [arriving("alice", (1, 1))]))
        site.claim("alice", "c2", 2)
        assert isinstance(site.decision("c1", "guest/alice"), Wait)
        assert guests_steps(site) == ["discard alice c2", "start-guest alice c1"]


class TestSilentContainer:
    def lost(self) -> ASite:
        """Alice ran on c1, which does not answer any more, and the spec moves her to c2."""
        site = a_move()
        site.observe(silent("c1"))
        return site

    def test_a_guest_that_may_still_run_there_is_not_started_here(self) -> None:
        site = self.lost()
        block = site.block("c2", "alice")
        assert block.reason == "may-live-elsewhere"
        assert "vcrecon fence c1 --confirmed" in block.message

    def test_nothing_is_planned_on_it(self) -> None:
        site = self.lost()
        assert site.plan("c1").actions == ()
        assert site.block("c1", "container/c1").reason == "unreachable"

    def test_the_claim_alone_is_reason_enough(self) -> None:
        site = ASite(a_spec(THERE), silent("c1"), seen("c2"))
        site.claim("alice", "c1", touched=False)
        assert site.block("c2", "alice").reason == "may-live-elsewhere"

    def test_a_fence_lets_the_guest_go(self) -> None:
        site = self.lost()
        site.fence("c1")
        assert guests_steps(site) == ["create-volume alice c2", "contextualize alice c2", "start-guest alice c2"]

    def test_when_it_returns_its_stale_copy_is_stopped_first_and_kept(self) -> None:
        site = self.lost()
        site.fence("c1")
        site.settle()
        site.observe(seen("c1", [students_disk("alice")], [running("alice")]))
        stop = site.action("c1", "alice")
        assert isinstance(stop, StopGuest)
        assert stop.force
        assert guests_steps(site) == ["stop-guest alice c1", "quarantine alice c1"]
        assert site.runs_on("alice") == ["c2"]

    def test_a_fence_is_void_once_it_was_seen_again(self) -> None:
        site = self.lost()
        site.fence("c1")
        site.memory.seen["c1"] = site.memory.fences["c1"].at_s + 5
        assert site.block("c2", "alice").reason == "may-live-elsewhere"

    def test_a_proved_copy_of_the_fenced_containers_disk_is_used(self) -> None:
        site = ASite(a_spec(THERE), seen("c1", [students_disk("alice")]), seen("c2", [arriving("alice", (1, 1))]))
        site.observe(silent("c1"))
        site.fence("c1")
        assert isinstance(site.action("c2", "alice"), ActivateCopy)

    def test_without_a_full_record_a_container_never_seen_may_hold_any_guest(self) -> None:
        site = ASite(a_spec(THERE), silent("c1"), seen("c2"))
        site.memory.claims_complete = False
        assert site.block("c2", "alice").reason == "may-live-elsewhere"
        site.memory.claims_complete = True
        assert isinstance(site.action("c2", "alice"), CreateVolume)

    def test_one_that_only_asked_what_to_boot_may_hold_it_too(self) -> None:
        site = on_a_new_site("c3")
        site.netboot("c3")
        site.ticket("c3")
        assert site.block("c1", "alice").reason == "may-live-elsewhere"

    @pytest.mark.parametrize("step", ["started", "disks", "partition"])
    def test_one_whose_disks_are_only_looked_at_may_hold_it_too(self, step: str) -> None:
        site = on_a_new_site("c3")
        site.ticket("c3", "claimed")
        site.says("c3", step)
        assert site.block("c1", "alice").reason == "may-live-elsewhere"

    def test_one_whose_disks_were_just_wiped_by_our_installer_holds_none(self) -> None:
        site = on_a_new_site("c3")
        ticket = site.ticket("c3", "claimed")
        site.says("c3", "raid")
        assert isinstance(site.action("c1", "alice"), CreateVolume)
        site.memory.tickets["c3"] = replace(ticket, opened_at_s=site.now_s + 1)
        assert site.block("c1", "alice").reason == "may-live-elsewhere", "an earlier install said so"

    def test_on_a_new_site_it_is_said_what_to_do_and_not_of_each_container(self) -> None:
        site = on_a_new_site(*(f"c{number}" for number in range(3, 13)))
        message = site.block("c1", "alice").message
        assert "c10, c11, c12, c3, c4, c5 and 4 more never answered it" in message
        assert "boot from the network" in message
        assert "`vcrecon fence c10 --confirmed`" in message

    @pytest.mark.parametrize("unclear", [{"storage": UNKNOWN}, {"domains": UNKNOWN}])
    def test_a_container_that_answers_but_shows_nothing_counts_as_silent(self, unclear: dict) -> None:  # type: ignore[type-arg]
        site = a_move()
        site.observe(seen("c1", [students_disk("alice")], **{"domains": [running("alice")]} | unclear))
        block = site.block("c2", "alice")
        assert block.reason == "may-live-elsewhere"
        assert "repair it" in block.message

    def test_an_unclear_container_that_was_never_clear_counts_as_silent_too(self) -> None:
        site = ASite(a_spec(THERE), seen("c1", storage=UNKNOWN, domains=UNKNOWN), seen("c2"))
        site.claim("alice", "c1")
        assert site.block("c2", "alice").reason == "may-live-elsewhere"


def on_a_new_site(*never_seen: str) -> ASite:
    """A record that begins now; c1, where alice belongs, answers, and these never did."""
    spec = an_installable(a_spec({"c1": ["alice"], **{name: [] for name in never_seen}}))
    site = ASite(spec, seen("c1"), *(silent(name) for name in never_seen))
    site.memory.claims_complete = False
    return site


class TestFrozen:
    """More than max(2, 20 %) of the containers fell silent at once: suspect ourselves (S6)."""

    def site(self) -> ASite:
        spec = a_spec(THERE | {"c3": [], "c4": [], "c5": []})
        others = [seen(name) for name in ("c3", "c4", "c5")]
        site = ASite(spec, seen("c1", [students_disk("alice")], [running("alice")]), seen("c2"), *others)
        for name in ("c3", "c4", "c5"):
            site.observe(silent(name))
        return site

    def test_no_guest_is_moved(self) -> None:
        site = self.site()
        assert site.block("c1", "alice").reason == "site-frozen"
        assert "3 of 5 containers" in site.block("c1", "alice").message

    def test_no_disk_is_copied(self) -> None:
        site = self.site()
        site.observe(seen("c1", [students_disk("alice")]))
        assert site.block("c2", "alice").reason == "site-frozen"

    def test_guests_are_still_healed(self) -> None:
        site = self.site()
        site.observe(seen("c1", [students_disk("alice")], [off("alice")]))
        assert isinstance(site.action("c1", "alice"), StartGuest)

    @pytest.mark.parametrize("placement", [THERE, {"c1": [], "c2": []}], ids=["moved", "removed"])
    def test_a_new_start_looks_at_all_before_it_stops_one(self, placement: dict[str, list[str]]) -> None:
        """Whether too many are silent, or too many guests are to go (S3), is not known before."""
        spec = a_spec(placement | {"c3": [], "c4": [], "c5": []})
        site = ASite(spec, seen("c1", [students_disk("alice")], [running("alice")]), seen("c2"))
        assert isinstance(site.decision("c1", "guest/alice"), Wait)
        for name in ("c3", "c4", "c5"):
            site.observe(seen(name))
        assert isinstance(site.action("c1", "alice"), StopGuest)

    def test_fenced_containers_do_not_count(self) -> None:
        site = self.site()
        site.fence("c3")
        assert isinstance(site.action("c1", "alice"), StopGuest)

    def test_after_a_start_nothing_is_moved_before_it_is_known_who_answers(self) -> None:
        """The site was silent when the service ended, and so it may be still."""
        spec = a_spec(THERE | {"c3": [], "c4": [], "c5": []})
        site = ASite(spec, seen("c1", [students_disk("alice")]), seen("c2"))
        for name in ("c3", "c4", "c5"):
            site.memory.seen[name] = NOW_S - 60
        assert site.block("c2", "alice").reason == "site-frozen"
        site.observe(seen("c3"))
        assert isinstance(site.action("c2", "alice"), CopyDisk)

    def test_containers_that_never_answered_do_not_count(self) -> None:
        site = self.site()
        del site.memory.seen["c3"]
        assert isinstance(site.action("c1", "alice"), StopGuest)


class TestTwins:
    def test_two_disks_of_one_epoch_start_neither(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", [students_disk("alice")]), seen("c2", [students_disk("alice")]))
        assert site.block("c1", "alice").reason == "two-disks"
        assert not site.plan("c2").actions

    def test_a_twin_of_the_one_that_runs_where_it_belongs_is_put_aside(self) -> None:
        """The record was lost, c2 was fenced before it ever showed its disk, and alice was made anew on c1."""
        site = ASite(
            a_spec(HERE),
            seen("c1", [students_disk("alice")], [running("alice")]),
            seen("c2", [students_disk("alice")]),
        )
        assert guests_steps(site) == ["quarantine alice c2"]
        assert site.runs_on("alice") == ["c1"]

    def test_an_older_twin_is_put_aside(self) -> None:
        site = ASite(
            a_spec(HERE),
            seen("c1", [students_disk("alice", 2)]),
            seen("c2", [students_disk("alice")], [running("alice")]),
        )
        assert guests_steps(site) == ["stop-guest alice c2", "quarantine alice c2", "start-guest alice c1"]

    def test_a_newer_disk_put_aside_elsewhere_outranks_one_that_came_back(self) -> None:
        """Fenced, made anew on c2, removed from the spec there; then c1 returns with the disk of long ago."""
        site = ASite(a_spec(HERE), seen("c1", [students_disk("alice")]), seen("c2", [kept_disk("alice", 2)]))
        site.claim("alice", "c2", 2)
        assert [step for step in guests_steps(site) if "copy" in step or "quarantine" in step] == [
            "quarantine alice c1",
            "copy-disk alice c1<c2",
            "activate-copy alice c1",
        ]


def test_a_copy_in_progress_names_its_source_and_size() -> None:
    site = a_move()
    site.do(site.action("c1", "alice"))
    action = site.action("c2", "alice")
    assert isinstance(action, CopyDisk)
    assert (action.source, action.source_volume, action.size_bytes) == ("c1", "vcg-alice", 4 * GIB)
