"""The catalogue fits the product as it is now, and the runner tells caught from missed."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache

import pytest
from tests.seeded_bugs import catalogue
from tests.seeded_bugs.catalogue import ROOT, SOURCE, Bug

BUGS = catalogue.load()
FEWEST = {f"S{number}": 3 if number <= 5 else 1 for number in range(1, 13)}


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
