"""The runner tells caught from missed, and a bug that was missed from a run that says nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.seeded_bugs.__main__ import main, median, report_json, table
from tests.seeded_bugs.catalogue import Bug, load
from tests.seeded_bugs.trial import Broken, Outcome, Plan, attempt, simulate

BUG = Bug("a-bug", "S1", "rule.py", "It is wrong.", "a look", "    return True\n", "    return seed % 7 != 0\n")
PLAN = Plan(first_seed=101, schedules_max=20, batch=3, simulation="tests.seeded_bugs.fake_simulation")


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """A product that keeps its one rule for every seed."""
    source = tmp_path / "vcrecon"
    source.mkdir()
    (source / "__init__.py").touch()
    (source / "rule.py").write_text("def keeps(seed):\n    return True\n")
    return source


def mistaken(new: str) -> Bug:
    return replace(BUG, new=new)


def test_a_bug_is_caught_by_the_first_seed_that_fails(product: Path) -> None:
    assert attempt(BUG, PLAN, product) == Outcome(BUG, "caught", 5, 105)


def test_a_bug_that_no_seed_shows_is_missed(product: Path) -> None:
    harmless = mistaken("    return seed < 10_000\n")
    assert attempt(harmless, PLAN, product) == Outcome(harmless, "missed", 20)


def test_no_more_schedules_are_run_than_were_asked_for(product: Path) -> None:
    late = mistaken("    return seed != 121\n")
    assert attempt(late, PLAN, product).result == "missed"
    assert attempt(late, replace(PLAN, schedules_max=21), product) == Outcome(late, "caught", 21, 121)


def test_a_seed_that_fails_on_the_sound_product_counts_for_nothing(product: Path) -> None:
    (product / "rule.py").write_text("def keeps(seed):\n    if seed == 102:\n        return False\n    return True\n")
    bug = replace(BUG, new="    return seed not in (102, 110)\n")
    assert attempt(bug, PLAN, product) == Outcome(bug, "caught", 10, 110)


def test_a_simulation_that_breaks_off_has_caught_nothing(product: Path) -> None:
    broken = attempt(mistaken("    raise SystemExit('out of memory')\n"), PLAN, product)
    assert broken.result == "broken"
    assert broken.why == "seeds 101 to 103: the simulation ended with status 1 and no report: out of memory"


def test_a_simulation_that_hangs_is_ended_and_has_caught_nothing(product: Path) -> None:
    plan = replace(PLAN, start_s=3.0, schedule_s=0.0)
    hung = attempt(mistaken("    while True: pass\n"), plan, product)
    assert hung.result == "broken"
    assert "no end within 3 s" in hung.why


def test_a_bug_that_does_not_fit_is_told(product: Path) -> None:
    outcome = attempt(replace(BUG, old="    return False\n"), PLAN, product)
    assert (outcome.result, outcome.why) == ("broken", "S1 a-bug: its old text stands 0 times in rule.py")


def test_another_product_on_the_path_is_never_tried(product: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(Broken, match="ended with status 97"):
        simulate(PLAN, empty, 1, 1)


@pytest.mark.parametrize(
    ("body", "result"),
    [("assert rule.keeps(7)", "caught"), ("assert rule.keeps(8)", "missed"), ("this is no Python", "broken")],
)
def test_a_bug_may_name_a_test_that_catches_it(product: Path, tmp_path: Path, body: str, result: str) -> None:
    file = tmp_path / "test_rule.py"
    file.write_text(f"from vcrecon import rule\n\n\ndef test_it():\n    {body}\n")
    outcome = attempt(replace(BUG, test=f"{file}::test_it"), PLAN, product)
    assert (outcome.result, outcome.schedules) == (result, 0)


def test_the_copy_is_removed_and_the_product_left_as_it_is(
    product: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    assert attempt(BUG, PLAN, product).result == "caught"
    assert list(scratch.iterdir()) == []
    assert (product / "rule.py").read_text() == "def keeps(seed):\n    return True\n"


OUTCOMES = [
    Outcome(BUG, "caught", 5, 105),
    Outcome(replace(BUG, name="b-bug"), "missed", 20),
    Outcome(replace(BUG, name="c-bug", test="tests/x.py::test_x"), "caught"),
]


def test_the_table_has_a_row_for_each_and_a_median_of_schedules() -> None:
    assert table(OUTCOMES).splitlines() == [
        "rule  bug    result  schedules  first seed",
        "S1    a-bug  caught  5          105",
        "S1    b-bug  missed  20",
        "S1    c-bug  caught  test",
        "",
        "2 of 3 caught; median 12.5 schedules",
    ]


def test_the_report_as_json_says_the_same() -> None:
    report = json.loads(report_json(OUTCOMES))
    assert (report["caught"], report["total"], report["median_schedules"]) == (2, 3, 12.5)
    assert [bug["by"] for bug in report["bugs"]] == ["simulation", "simulation", "tests/x.py::test_x"]


def test_without_schedules_there_is_no_median() -> None:
    assert median(OUTCOMES[2:]) is None
    assert table(OUTCOMES[2:]).endswith("1 of 1 caught")


def test_the_list_shows_what_was_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "S9"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["S9", "S9"]


def test_a_name_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["no-such-bug"])
    assert "no bug and no rule is called no-such-bug" in capsys.readouterr().err


def test_an_entry_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s1.toml").write_text('[[bug]]\nname = "x"\nfiel = "y"\n')
    with pytest.raises(ValueError, match=r"s1\.toml: x: missing or unknown: fiel, file, mistake"):
        load(tmp_path)
