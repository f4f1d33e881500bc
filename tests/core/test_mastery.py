"""Who may act on a container when there may be another master."""

from __future__ import annotations

from vcrecon.core.actions import SetUpNetwork
from vcrecon.core.decisions import Block, Do, Plan, Rest
from vcrecon.core.mastery import foreign, obeying
from vcrecon.core.observation import UNKNOWN, Lease, Seen, Unknown, Unseen
from vcrecon.core.world import World

OURS = Lease("abc", 3, 5, "m1:/state", ours=True)
THEIRS = Lease("def", 4, 7, "m2:/state", ours=False)
DO = Do(SetUpNetwork("c01", "it is missing", (), ()))
PLAN = Plan("c01", (), (DO, Rest("guest/a", "runs")))


def world(**leases: Lease | Unknown | None) -> World:
    seen = World()
    for name, lease in leases.items():
        seen.observe(Seen(name, 1.0, "boot", lease=lease, trouble={"master": "it said no"}))
    return seen


def test_a_container_of_ours_is_acted_on() -> None:
    assert obeying(PLAN, world(c01=OURS)) is PLAN


def test_without_leases_nothing_is_held_back() -> None:
    assert obeying(PLAN, world(c01=None)) is PLAN


def test_on_a_container_of_another_master_nothing_is_done_and_it_is_said_why() -> None:
    plan = obeying(PLAN, world(c01=THEIRS))
    assert plan.actions == ()
    [block, rest] = plan.decisions
    assert isinstance(block, Block)
    assert (block.subject, block.reason) == ("container/c01", "other-master")
    assert "m2:/state (generation 4, renewed 7 s ago)" in block.message
    assert rest == Rest("guest/a", "another master looks after it")


def test_a_container_that_hides_its_lease_is_left_alone() -> None:
    plan = obeying(PLAN, world(c01=UNKNOWN))
    [block] = plan.blocked
    assert (block.reason, plan.actions) == ("master-unclear", ())
    assert "it said no" in block.message


def test_one_containers_lease_holds_back_no_other_that_answers() -> None:
    assert obeying(PLAN, world(c01=OURS, c02=THEIRS)) is PLAN


def test_on_a_silent_container_nothing_is_begun_while_another_master_is_at_work_on_the_site() -> None:
    seen = world(c02=THEIRS)
    seen.observe(Unseen("c01", 1.0, "timeout", "no answer"))
    plan = obeying(PLAN, seen)
    assert plan.actions == ()
    assert plan.blocked[0].reason == "other-master"


def test_on_a_silent_container_of_a_site_of_ours_work_goes_on() -> None:
    seen = world(c02=OURS)
    seen.observe(Unseen("c01", 1.0, "timeout", "no answer"))
    assert obeying(PLAN, seen) is PLAN


def test_only_a_lease_of_another_master_is_foreign() -> None:
    seen = world(c01=OURS, c02=THEIRS, c03=UNKNOWN, c04=None)
    seen.observe(Unseen("c05", 1.0, "timeout", "no answer"))
    assert [name for name in ("c01", "c02", "c03", "c04", "c05", "c06") if foreign(seen, name)] == ["c02"]
