"""What is made from code is current and whole: dashboards, rules, docs/metrics.md, and the runbook's promises."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml
from dashboards.boards import BOARDS
from dashboards.files import RULES, files
from dashboards.metrics_doc import DEBUGGING, exported, used_by
from dashboards.rules import ALERTS

from vcrecon.cli.app import app

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")


@pytest.mark.generated
def test_generated_files_are_current() -> None:
    made = files()
    if os.environ.get("VCRECON_TEST_WRITE"):
        for name, content in made.items():
            (ROOT / name).write_text(content, encoding="utf-8")
    stale = [name for name, content in made.items() if (ROOT / name).read_text(encoding="utf-8") != content]
    assert stale == [], "run `python -m dashboards`"


@pytest.mark.generated
def test_no_dashboard_or_rule_is_left_over() -> None:
    there = {
        str(path.relative_to(ROOT)) for part in ("dashboards", "rules") for path in (ROOT / "grafana" / part).iterdir()
    }
    assert there <= files().keys()


@pytest.mark.generated
def test_every_metric_is_used_or_for_debugging_and_not_both() -> None:
    unused = {metric.name for metric in exported() if not used_by(metric)}
    assert unused == DEBUGGING.keys()


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
class TestBoard:
    def test_every_panel_says_what_it_shows(self, board: Any) -> None:
        drawn = json.loads(files()[f"grafana/dashboards/{board.uid}.json"])
        assert len(drawn["panels"]) == len(board.panels)
        for panel, wanted in zip(drawn["panels"], board.panels, strict=True):
            assert panel["title"] == wanted.title
            assert len(panel["description"]) > 15, panel["title"]
            assert [target["expr"] for target in panel["targets"]] == [query.expr for query in wanted.queries]
            assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"], panel["title"]
            if wanted.kind == "graph" or wanted.unit:
                assert wanted.unit == panel["fieldConfig"]["defaults"].get("unit", ""), panel["title"]

    def test_links_annotations_and_the_data_source_are_there(self, board: Any) -> None:
        drawn = json.loads(files()[f"grafana/dashboards/{board.uid}.json"])
        assert [link["tags"] for link in drawn["links"]] == [["vcrecon"]]
        assert drawn["tags"] == ["vcrecon"]
        assert [note["name"] for note in drawn["annotations"]["list"]] == ["Spec generations", "Moves"]
        assert "datasource" in [variable["name"] for variable in drawn["templating"]["list"]]

    def test_panels_fill_rows_without_overlap(self, board: Any) -> None:
        drawn = json.loads(files()[f"grafana/dashboards/{board.uid}.json"])
        taken: set[tuple[int, int]] = set()
        for panel in drawn["panels"]:
            place = panel["gridPos"]
            cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
            assert not cells & taken, panel["title"]
            assert place["x"] + place["w"] <= 24, panel["title"]
            taken |= cells

    def test_titles_are_unique(self, board: Any) -> None:
        titles = [panel.title for panel in board.panels]
        assert len(titles) == len(set(titles))

    def test_no_colour_is_the_only_sign(self, board: Any) -> None:
        """Codes have words; and no colour that red-green blindness takes for another is beside it."""
        for panel in board.panels:
            for words in filter(None, (panel.words, *(query.words for query in panel.queries))):
                assert len({word for word, _ in words.values()}) == len(words)
                assert len({colour for _, colour in words.values()}) == len(words)


def test_every_alert_names_its_runbook_section() -> None:
    written = yaml.safe_load((ROOT / RULES).read_text(encoding="utf-8"))
    alerts = {rule["alert"]: rule for group in written["groups"] for rule in group["rules"] if "alert" in rule}
    sections = re.findall(r"^## (.+)$", RUNBOOK, re.M)
    assert sorted(alerts) == sorted(sections) == sorted(alert.name for alert in ALERTS)
    for name, rule in alerts.items():
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"


def _command_names(group: Any, prefix: str = "") -> dict[str, click.Command]:
    found = {}
    for name, command in group.commands.items():
        found[f"{prefix}{name}"] = command
        if hasattr(command, "commands"):
            found.update(_command_names(command, f"{prefix}{name} "))
    return found


@pytest.mark.parametrize("section", re.split(r"^## ", RUNBOOK, flags=re.M)[1:], ids=lambda text: text.split("\n")[0])
def test_every_section_says_what_to_type_and_it_exists(section: str) -> None:
    known = _command_names(typer.main.get_command(app))
    typed = re.findall(r"`vcrecon ([^`]+)`", section)
    assert typed, "a section without a command helps nobody"
    for line in typed:
        words = line.split()
        name = " ".join(words[:2]) if " ".join(words[:2]) in known else words[0]
        assert name in known, f"vcrecon {line}"
        options = {
            option for parameter in known[name].params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        assert {word for word in words if word.startswith("-")} <= options, f"vcrecon {line}"
