"""Who may act on a container when there may be another master."""

from __future__ import annotations

from vcrecon.core.actions import Install, SetUpNetwork
from vcrecon.core.decisions import Block, Do, Plan, Rest, Wait
from vcrecon.core.mastery import UNCLEAR, Master, Quiet, foreign, obeying, quiet
from vcrecon.core.observation import UNKNOWN, Lease, Seen, Unknown, Unseen
from vcrecon.core.world import World

OURS = Lease("abc", 3, 5, "m1:/state", ours=True)
THEIRS = Lease("def", 4, 7, "m2:/state", ours=False)
DO = Do(SetUpNetwork("c01", "it is missing", (), ()))
PLAN = Plan("c01", (), (DO, Rest("guest/a", "runs")))
INSTALL = Plan("c01", (), (Do(Install("c01", "it calls")), Rest("guest/a", "runs")))
ME = Master("abc", 3, "m1:/state", lease_s=90)
QUIET = Quiet("other-master", "another master holds this site")


def world(**leases: Lease | Unknown | None) -> World:
    seen = World()
    for name, lease in leases.items():
        seen.observe(Seen(name, 1.0, "boot", lease=lease, trouble={"master": "it said no"}))
    return seen


def test_a_container_of_ours_is_acted_on() -> None:
    assert obeying(PLAN, world(c01=OURS), None) is PLAN


def test_without_leases_nothing_is_held_back() -> None:
    assert obeying(PLAN, world(c01=None), None) is PLAN


def test_on_a_container_of_another_master_nothing_is_done_and_it_is_said_why() -> None:
    plan = obeying(PLAN, world(c01=THEIRS), None)
    assert plan.actions == ()
    [block, rest] = plan.decisions
    assert isinstance(block, Block)
    assert (block.subject, block.reason) == ("container/c01", "other-master")
    assert "m2:/state (generation 4, renewed 7 s ago)" in block.message
    assert rest == Rest("guest/a", "another master looks after it", ours=False)


def test_a_container_that_hides_its_lease_is_left_alone() -> None:
    plan = obeying(PLAN, world(c01=UNKNOWN), None)
    [block] = plan.blocked
    assert (block.reason, plan.actions) == ("master-unclear", ())
    assert "it said no" in block.message


def test_one_containers_lease_holds_back_no_other_that_answers() -> None:
    assert obeying(PLAN, world(c01=OURS, c02=THEIRS), None) is PLAN


def test_nothing_is_installed_while_another_master_holds_the_site() -> None:
    for seen in (silent(world(c02=THEIRS), "c01"), world(c01=OURS)):
        plan = obeying(INSTALL, seen, QUIET)
        assert plan.actions == ()
        assert [(b.subject, b.reason) for b in plan.blocked] == [("container/c01", "other-master")]
        assert plan.decisions[1] == INSTALL.decisions[1]


def test_what_is_no_install_goes_on_where_the_container_is_ours() -> None:
    assert obeying(PLAN, world(c01=OURS, c02=THEIRS), QUIET) is PLAN


def test_an_install_waits_until_it_is_known_who_the_master_is() -> None:
    plan = obeying(INSTALL, silent(world(), "c01"), UNCLEAR)
    assert isinstance(plan.decisions[0], Wait)


def test_on_a_silent_container_of_a_site_of_ours_work_goes_on() -> None:
    assert obeying(INSTALL, silent(world(c02=OURS), "c01"), None) is INSTALL


def silent(seen: World, *names: str) -> World:
    for name in names:
        seen.observe(Unseen(name, 2.0, "timeout", "no answer"))
    return seen


def is_quiet(seen: World, *, now_s: float = 2.0, before: Quiet | None = None) -> Quiet | None:
    return quiet({"c01": 1, "c02": 2}, seen, ME, now_s, before)


def test_a_master_without_another_serves_boots() -> None:
    assert is_quiet(world(c01=OURS, c02=None)) is None
    assert is_quiet(silent(world(), "c01", "c02")) is None


def test_one_container_of_another_master_is_enough_to_be_quiet() -> None:
    found = is_quiet(world(c01=OURS, c02=THEIRS))
    assert found is not None
    assert found.reason == "other-master"
    assert "m2:/state (generation 4)" in found.message
    assert "vcrecon master promote SPECS" in found.message


def test_a_container_that_is_not_in_the_spec_makes_nobody_quiet() -> None:
    assert is_quiet(world(c01=OURS, c09=THEIRS)) is None


def test_a_lease_that_was_taken_over_lets_it_serve_again() -> None:
    seen = world(c01=OURS, c02=THEIRS)
    assert is_quiet(seen) is not None
    seen.observe(Seen("c02", 95.0, "boot", lease=OURS))
    assert is_quiet(seen, before=QUIET) is None


def test_a_lease_that_hides_is_still_there() -> None:
    seen = world(c01=OURS, c02=THEIRS)
    seen.observe(Seen("c02", 1.5, "boot", lease=UNKNOWN))
    assert is_quiet(seen) is not None


def test_a_container_that_went_silent_keeps_its_lease_until_it_must_have_run_out() -> None:
    seen = silent(world(c01=OURS, c02=THEIRS), "c02")  # renewed 7 s before 1 s
    assert is_quiet(seen, now_s=1 + 90 - 7 - 0.1, before=QUIET) is not None
    assert is_quiet(seen, now_s=1 + 90 - 7, before=QUIET) is None


def test_whoever_sees_no_container_does_not_take_the_other_master_for_gone() -> None:
    seen = silent(world(c01=THEIRS, c02=THEIRS), "c01", "c02")
    assert is_quiet(seen, now_s=100_000.0, before=QUIET) is not None


def test_at_first_it_is_quiet_until_one_container_is_its_own_or_all_were_looked_at() -> None:
    assert is_quiet(world(), before=UNCLEAR) is UNCLEAR
    assert is_quiet(silent(world(), "c01"), before=UNCLEAR) is UNCLEAR
    assert is_quiet(silent(world(), "c01", "c02"), before=UNCLEAR) is None
    assert is_quiet(world(c01=OURS), before=UNCLEAR) is None
    assert is_quiet(world(c01=THEIRS), before=UNCLEAR) not in (UNCLEAR, None)


def test_a_container_that_joins_later_makes_nobody_quiet() -> None:
    assert is_quiet(silent(world(), "c01"), before=None) is None


def test_only_a_lease_of_another_master_is_foreign() -> None:
    seen = world(c01=OURS, c02=THEIRS, c03=UNKNOWN, c04=None)
    seen.observe(Unseen("c05", 1.0, "timeout", "no answer"))
    assert [name for name in ("c01", "c02", "c03", "c04", "c05", "c06") if foreign(seen, name)] == ["c02"]
