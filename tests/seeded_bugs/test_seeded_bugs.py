"""The catalogue fits the product as it is now, and the runner tells caught from missed."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache

import pytest
from tests.seeded_bugs import catalogue
from tests.seeded_bugs.catalogue import ROOT, SOURCE, Bug
from tests.seeded_bugs.trial import Plan, attempt

BUGS = catalogue.load()
FEWEST = {f"S{number}": 3 if number <= 5 else 1 for number in range(1, 13)}
TRIED = {
    "failed-lvm-shows-no-disks": "blind_move",
    "touched-after-the-start": "",
    "moves-not-counted": "large_edits",
    "empty-file-is-no-entries": "spoil_files",
    "whole-ruleset-flushed": "",
}
"""Tried in every run, one for each of S1 to S5, with the story that brings it out. All others: `make soak`."""


@cache
def sound(file: str) -> str:
    return ast.dump(ast.parse((SOURCE / file).read_text(encoding="utf-8")))


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.rule}-{bug.name}")
def test_a_bug_fits_the_product_and_compiles_to_something_else(bug: Bug) -> None:
    mistaken = bug.apply((SOURCE / bug.file).read_text(encoding="utf-8"))
    assert ast.dump(ast.parse(mistaken)) != sound(bug.file)


def test_every_rule_has_its_share() -> None:
    counts = Counter(bug.rule for bug in BUGS)
    assert {rule: n for rule, n in FEWEST.items() if counts[rule] < n} == {}
    assert len(BUGS) >= 40
    assert len({bug.name for bug in BUGS}) == len(BUGS)


def test_what_a_test_must_catch_names_one_that_is_there() -> None:
    for bug in BUGS:
        file, _, names = bug.test.partition("::")
        if bug.test:
            assert f"def {names.split('::')[-1].partition('[')[0]}(" in (ROOT / file).read_text(encoding="utf-8")


def test_most_bugs_are_for_the_simulation_to_find() -> None:
    assert sum(not bug.test for bug in BUGS) >= 40


@pytest.mark.simulation
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", TRIED)
def test_the_simulation_catches_it(name: str) -> None:
    bug = next(bug for bug in BUGS if bug.name == name)
    outcome = attempt(bug, Plan(first_seed=1, schedules_max=16, batch=8, story=TRIED[name], schedule_s=60))
    assert outcome.result == "caught", f"{name}: {outcome.result} {outcome.why}"


def test_every_one_of_the_first_rules_is_tried_in_every_run() -> None:
    assert {bug.rule for bug in BUGS if bug.name in TRIED} == {"S1", "S2", "S3", "S4", "S5"}
