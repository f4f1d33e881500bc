"""Recording rules and alerts, by Prometheus' own unit tests; and what a name in a label may be."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from vcrecon.spec.values import label

HERE = Path(__file__).parent
GRAFANA = HERE.parents[1] / "grafana"


def said_by(*command: str | Path) -> tuple[int, str]:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout + result.stderr


def test_rules_and_configuration_are_what_prometheus_takes(program: Callable[[str], str]) -> None:
    code, words = said_by(program("promtool"), "check", "config", GRAFANA / "prometheus.yml")
    assert (code, "SUCCESS: 18 rules found" in words) == (0, True), words


def test_every_rule_does_what_it_says(program: Callable[[str], str], tmp_path: Path) -> None:
    cases = (HERE / "rules_test.yml").read_text(encoding="utf-8")
    path = tmp_path / "rules_test.yml"
    path.write_text(cases.replace("RULES", str(GRAFANA / "rules" / "vcrecon.rules.yml")), encoding="utf-8")
    code, words = said_by(program("promtool"), "test", "rules", path)
    assert code == 0, words


@pytest.mark.parametrize("name", ["it's", 'a"b', "group 1", "grüppe", "a\\b", "a{b}", "a|b", ".*", "a\nb", ""])
def test_no_name_in_a_label_needs_quoting(name: str) -> None:
    """The spec refuses clusters, containers and guests that a query or a link would have to quote."""
    with pytest.raises(ValueError, match="is not a host label"):
        label(name, "cluster")
