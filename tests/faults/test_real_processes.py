"""A few fresh runs against real servers, and proof that what judges them can find fault."""

from __future__ import annotations

import secrets

import pytest
from tests.faults import campaign
from tests.faults.judge import Call, Told, canaries, judge_call, judge_journal
from tests.faults.weather import FAMILIES, forecast, random

RUNS = 4
DONE = Told("ok", 100.0, "ab")
WHOLE = "begin quick.1 50.5\nbeat quick.1\nend quick.1 ab\n"


@pytest.mark.soak
@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_runs_from_fresh_seeds_break_no_rule() -> None:
    if campaign.missing():
        pytest.skip(f"not installed: {' '.join(campaign.missing())}")
    first = secrets.randbelow(1 << 31)
    results: list[campaign.Result] = []
    total = campaign.many(range(first, first + RUNS), at_once=2, ended=results.append)
    words = [
        f"{violation}\n    again: {campaign.replay(result['seed'])}"
        for result in results
        for violation in result["violations"]
    ]
    assert words == []
    assert total["left"] == {}
    assert total["calls"] > 0


def test_a_seed_settles_the_faults() -> None:
    assert forecast(random.Random(7), {1, 2}, {1}, 7.0) == forecast(random.Random(7), {1, 2}, {1}, 7.0)


def test_faults_of_one_family_do_not_meet_on_a_box_and_all_kinds_come() -> None:
    kinds = set()
    for seed in range(300):
        spells = forecast(random.Random(seed), {1, 2}, {1}, 7.0)
        kinds |= {spell.kind for spell in spells}
        for one in spells:
            near = [o for o in spells if o is not one and (o.box, o.family) == (one.box, one.family)]
            assert all(o.at_s + o.for_s <= one.at_s or one.at_s + one.for_s <= o.at_s for o in near)
    assert kinds == {kind for family in FAMILIES.values() for kind in family}


@pytest.mark.parametrize(
    ("text", "told", "found"),
    [
        (WHOLE, DONE, ""),
        ("", Told("refused", 1.0, "ab"), ""),
        ("begin quick.1 50.5\n", Told("connection-lost", 60.0, "ab"), ""),
        ("", DONE, "lost"),
        (WHOLE.replace("end quick.1 ab", "end quick.1 cd"), DONE, "lost"),
        (WHOLE + WHOLE, DONE, "repeated"),
        (WHOLE, Told("refused", 1.0, "ab"), "not so"),
        (WHOLE, Told("status 75", 1.0, "ab"), "not so"),
        (WHOLE.replace("beat quick.1\n", "beat qui\n"), DONE, "torn"),
        (WHOLE.removesuffix("\n"), DONE, "torn"),
        ("begin quick.2 49.0\n" + WHOLE, DONE, "nobody asked"),
    ],
)
def test_a_journal_is_judged(text: str, told: Told, found: str) -> None:
    violations, _ = judge_journal(text, {"quick.1": told})
    assert bool(violations) == bool(found)
    assert not found or any(found in words for words in violations)


def test_two_steps_under_one_lock_must_not_meet() -> None:
    text = "begin quick.1 1.0\nbegin quick.2 1.1\nbeat quick.1\nend quick.2 cd\n"
    told = {"quick.1": Told("connection-lost", 9.0, "ab"), "quick.2": Told("ok", 9.0, "cd")}
    violations, _ = judge_journal(text, told)
    assert violations == ["overlap: quick.1 still worked when quick.2 held the lock"]
    apart = text.replace("quick.2", "long.1")
    assert judge_journal(apart, {"quick.1": told["quick.1"], "long.1": told["quick.2"]}) == ([], 0)


def test_a_step_that_began_after_its_caller_gave_up_is_counted() -> None:
    assert judge_journal("begin quick.1 50.5\n", {"quick.1": Told("deadline", 50.0, "ab")}) == ([], 1)


@pytest.mark.parametrize(
    ("outcome", "took_s", "fair", "strange", "found"),
    [
        ("ok", 1.0, True, False, ""),
        ("deadline", 3.0, False, False, ""),
        ("status 75", 1.0, True, False, ""),
        ("deadline", 3.0, True, False, "without a fault"),
        ("ok", 9.0, False, False, "late"),
        ("KeyError: 'x'", 1.0, False, False, "strange error"),
        ("ok", 1.0, False, True, "S9"),
        ("status 1", 1.0, False, True, "S9"),
        ("host-key-changed", 1.0, False, True, ""),
    ],
)
def test_a_call_is_judged(outcome: str, took_s: float, fair: bool, strange: bool, found: str) -> None:
    violations = judge_call(Call("quick step", ("c1",), 10.0, 10.0 + took_s, 3.0, outcome), fair=fair, strange=strange)
    assert bool(violations) == bool(found)
    assert not found or found in violations[0]


def test_a_secret_is_found_where_it_shows() -> None:
    assert canaries("canary-1", {"the log": "a canary-1 b", "an error": "none"}) == ["S10: a secret shows in the log"]
