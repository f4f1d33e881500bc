"""The catalogue fits the product as it is now, and the runner tells caught from missed."""

from __future__ import annotations

import ast
from collections import Counter

import pytest
from tests.seeded_bugs import catalogue
from tests.seeded_bugs.catalogue import ROOT, SOURCE, Bug

BUGS = catalogue.load()
FEWEST = {f"S{number}": 3 if number <= 5 else 1 for number in range(1, 13)}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.rule}-{bug.name}")
def test_a_bug_fits_the_product_and_compiles_to_something_else(bug: Bug) -> None:
    text = (SOURCE / bug.file).read_text(encoding="utf-8")
    mistaken = bug.apply(text)
    assert ast.dump(ast.parse(mistaken)) != ast.dump(ast.parse(text))


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
