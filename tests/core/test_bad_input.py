"""What is planned beside bad input: strangers under our names, images that fail, hooks, missing programs."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest
from worlds import (
    IMAGE,
    NOW_S,
    ASite,
    a_guest,
    a_spec,
    disk,
    off,
    running,
    seen,
    storage,
    students_disk,
    told,
)

from vcrecon.core.actions import Contextualize, CreateVolume, Discard
from vcrecon.core.concern import concerned, mended
from vcrecon.core.decisions import Block, Rest, Wait
from vcrecon.core.memory import Attempts
from vcrecon.core.observation import UNKNOWN, NetworkFacts
from vcrecon.core.wanted import Wanted, golden_volume
from vcrecon.core.world import World
from vcrecon.spec.model import Hook, Spec

HERE = {"c1": ["alice"]}
TWO = {"c1": ["alice"], "c2": []}


def a_hook(version: str = "1") -> Hook:
    return Hook("hooks/10-a", ("/bin/sh",), version * 64, version.encode())


def hooked(version: str = "1", session: str = "preparing", **changes: object) -> Spec:
    guest = a_guest("alice", hooks=(a_hook(version),), **changes)
    return a_spec({"c1": ["alice", "bob"]}, guests={"alice": guest}, session=session)


class TestStrangers:
    def test_nothing_is_done_for_a_guest_whose_name_is_taken(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", strangers=frozenset({"alice"})))
        assert site.block("c1", "alice").reason == "name-taken"
        assert site.settle() == []

    def test_its_disk_is_neither_put_aside_nor_discarded_under_a_strangers_name(self) -> None:
        site = ASite(a_spec({"c1": [], "c2": []}), seen("c1", [disk("alice")], strangers=frozenset({"alice"})))
        assert site.block("c1", "alice").reason == "name-taken"

    def test_a_guest_that_is_not_wanted_here_does_not_mind(self) -> None:
        site = ASite(a_spec({"c1": [], "c2": ["alice"]}), seen("c1", strangers=frozenset({"alice"})), seen("c2"))
        assert [told(a) for a in site.settle()][-1] == "start-guest alice c2"

    def test_a_volume_of_its_name_that_is_not_ours_stops_it(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", storage=storage(strangers=frozenset({"vcg-alice"}))))
        block = site.block("c1", "alice")
        assert block.reason == "volume-taken"
        assert "`lvrename vg vcg-alice NEW-NAME`" in block.message

    def test_a_running_guest_does_not_leave_for_a_container_where_its_name_is_taken(self) -> None:
        here = seen("c1", [students_disk("alice")], [running("alice")])
        there = seen("c2", [students_disk("bob")], [running("bob")], strangers=frozenset({"alice"}))
        site = ASite(a_spec({"c1": [], "c2": ["alice", "bob"]}), here, there)
        block = site.block("c1", "alice")
        assert block.reason == "destination-not-ready"
        assert "c2 has a virtual machine alice" in block.message

    def test_a_golden_volume_that_is_not_ours_stops_the_image(self) -> None:
        taken = storage(goldens=frozenset(), strangers=frozenset({golden_volume(IMAGE.root.sha256)}))
        site = ASite(a_spec(HERE), seen("c1", storage=taken))
        assert site.block("c1", "image/c1/debian").reason == "volume-taken"
        assert site.settle() == []


class TestImagesThatFail:
    def site(self, retry_in_s: float) -> ASite:
        site = ASite(a_spec({"c1": ["alice", "bob"]}), seen("c1", storage=storage(goldens=frozenset())))
        site.memory.attempts["image/c1/debian"] = Attempts(3, NOW_S + retry_in_s, "corrupt", "its SHA-256 is wrong")
        return site

    def test_the_guests_that_wait_say_why_and_the_image_too(self) -> None:
        site = self.site(30.0)
        for subject in ("alice", "bob", "image/c1/debian"):
            block = site.block("c1", subject)
            assert block.reason == "corrupt"
            assert "its SHA-256 is wrong" in block.message

    def test_its_failures_are_not_over_while_nobody_can_say_who_waits_for_it(self) -> None:
        site = self.site(30.0)
        site.observe(seen("c1", storage=storage(goldens=frozenset()), domains=UNKNOWN))
        assert "image/c1/debian" not in {decision.subject for decision in site.plan("c1").decisions}

    def test_it_is_fetched_again_when_its_time_has_come(self) -> None:
        site = self.site(-1.0)
        assert isinstance(site.decision("c1", "alice"), Wait)
        assert site.kinds("c1") == ["fetch-image"]


class TestMissingPrograms:
    @pytest.mark.parametrize(
        ("part", "program", "reason"), [("storage", "lvm", "no-lvm"), ("guests", "virsh", "no-hypervisor")]
    )
    def test_the_container_says_which_after_its_network_is_ready(self, part: str, program: str, reason: str) -> None:
        unknown = {"storage": {"storage": UNKNOWN}, "guests": {"domains": UNKNOWN}}[part]
        said = {"missing": {part: program}, "trouble": {part: f"c1 has no {program}"}}
        site = ASite(a_spec(HERE), replace(seen("c1"), **unknown, **said))
        assert site.block("c1", "container/c1").reason == reason
        assert site.block("c1", "alice").reason == "host-unclear"

    def test_without_ip_the_network_is_unknown_and_the_program_is_named(self) -> None:
        said = {"missing": {"network": "ip"}, "trouble": {"network": "c1 has no ip"}}
        site = ASite(a_spec(HERE), seen("c1", **said))
        block = site.block("c1", "container/c1")
        assert (block.reason, "iproute2" in block.message) == ("missing-program", True)


class TestHooks:
    def test_a_fresh_disk_is_contextualized_once(self) -> None:
        site = ASite(hooked(), seen("c1"))
        done = [told(a) for a in site.settle() if getattr(a, "guest", "") == "alice"]
        assert done == ["create-volume alice c1", "contextualize alice c1", "start-guest alice c1"]

    def test_a_step_that_was_cut_off_is_repeated_on_the_same_disk(self) -> None:
        site = ASite(hooked(), seen("c1", [disk("alice")]))
        assert isinstance(site.action("c1", "alice"), Contextualize)

    @pytest.mark.parametrize("boots", [0, 1])
    def test_a_changed_hook_gets_a_fresh_disk_before_the_class(self, boots: int) -> None:
        old = Wanted(hooked("1")).context(hooked("1").guests["alice"])
        site = ASite(hooked("2"), seen("c1", [disk("alice", boots=boots, context=old)], [off("alice")]))
        assert isinstance(site.action("c1", "alice"), Discard)
        done = [told(a) for a in site.settle() if getattr(a, "guest", "") == "alice"]
        assert done[1:3] == ["create-volume alice c1", "contextualize alice c1"]

    def test_what_a_hook_wrote_goes_with_the_last_hook(self) -> None:
        old = Wanted(hooked()).context(hooked().guests["alice"])
        site = ASite(a_spec(HERE, session="preparing"), seen("c1", [disk("alice", context=old)]))
        assert isinstance(site.action("c1", "alice"), Discard)

    def test_a_disk_that_holds_work_is_left_as_it_is(self) -> None:
        spec = hooked("2", session="running")
        old = Wanted(hooked("1")).context(hooked("1").guests["alice"])
        site = ASite(spec, seen("c1", [students_disk("alice", context=old), disk("bob")], [running("alice")]))
        decision = site.decision("c1", "alice")
        assert isinstance(decision, Rest)
        assert "differs from the spec in context" in decision.message

    def test_a_guest_without_hooks_has_its_context_written_again(self) -> None:
        site = ASite(a_spec(HERE, session="preparing"), seen("c1", [disk("alice", context="old")]))
        assert isinstance(site.action("c1", "alice"), Contextualize)

    def test_its_context_follows_what_hooks_are_told_but_not_its_place(self) -> None:
        def context(spec: Spec) -> str:
            return Wanted(spec).context(spec.guests["alice"])

        spec = hooked()
        moved = replace(spec, deployment={"c1": ("bob",), "c2": ("alice",)})
        assert context(moved) == context(spec)
        changes = (hooked("2"), hooked(cores=2), hooked(role="head"))
        neighbour = replace(spec, guests=spec.guests | {"bob": replace(spec.guests["bob"], cores=8)})
        assert len({context(other) for other in (spec, neighbour, *changes)}) == 5

    def test_a_neighbours_cores_concern_its_container(self) -> None:
        spec = a_spec({"c1": ["alice"], "c2": ["bob"]})
        other = replace(spec, guests=spec.guests | {"bob": replace(spec.guests["bob"], cores=8)})
        assert concerned(spec, other, World()) == {"c1", "c2"}


class TestStuck:
    """What `apply` waits for, and what it does not."""

    def failing(self, subject: str, reason: str, **changes: object) -> tuple[ASite, bool]:
        site = ASite(a_spec(HERE), seen("c1", [disk("alice")], **changes))
        site.memory.attempts[subject] = Attempts(4, NOW_S + 60, reason, "it failed")
        return site, site.plan("c1").stuck(site.memory)

    def test_a_failed_hook_needs_a_person(self) -> None:
        assert self.failing("guest/alice", "hook-failed")[1]

    def test_a_command_that_failed_may_work_the_next_time(self) -> None:
        assert not self.failing("guest/alice", "command-failed")[1]

    def test_what_waits_for_a_stuck_container_is_stuck_with_it(self) -> None:
        spec = a_spec(HERE)
        context = Wanted(spec).context(spec.guests["alice"])
        site = ASite(spec, seen("c1", [disk("alice", context=context)], network=NetworkFacts({}, "")))
        site.memory.attempts["container/c1"] = Attempts(4, NOW_S + 60, "no-vlan", "it failed")
        assert isinstance(site.decision("c1", "alice"), Wait)
        assert site.plan("c1").stuck(site.memory)
        site.memory.attempts["container/c1"] = Attempts(4, NOW_S + 60, "command-failed", "it failed")
        assert not site.plan("c1").stuck(site.memory)


class TestMended:
    failed: ClassVar = {
        "guest/alice": "hook-failed",
        "guest/bob": "command-failed",
        "image/c1/debian": "corrupt",
        "container/c1": "no-vlan",
    }

    def test_nothing_changed_nothing_is_tried_at_once(self) -> None:
        assert mended(hooked(), hooked(), self.failed) == frozenset()

    def test_a_changed_hook_is_tried_at_once(self) -> None:
        assert mended(hooked("1"), hooked("2"), self.failed) == {"guest/alice"}

    def test_a_changed_image_is_tried_at_once(self) -> None:
        spec = hooked()
        other = replace(spec, images=spec.images | {"debian": replace(IMAGE, disk_bytes=1)})
        assert mended(spec, other, self.failed) == {"image/c1/debian"}


def test_a_site_without_strangers_is_as_before() -> None:
    site = ASite(a_spec(HERE), seen("c1"))
    assert isinstance(site.action("c1", "alice"), CreateVolume)
    assert not [d for d in site.plan("c1").decisions if isinstance(d, Block)]
