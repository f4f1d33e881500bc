"""The files that `python -m dashboards` writes and `make check` compares: name below the repository to content."""

from __future__ import annotations

from typing import Any

import yaml

from dashboards.boards import BOARDS
from dashboards.metrics_doc import document
from dashboards.render import render
from dashboards.rules import ALERTS, RECORDED

RULES = "grafana/rules/vcrecon.rules.yml"
_MADE = "# Made by `python -m dashboards`; do not edit.\n"


def files() -> dict[str, str]:
    """All of them."""
    made = {f"grafana/dashboards/{board.uid}.json": render(board) for board in BOARDS}
    return {**made, RULES: _MADE + _dump(rules()), "docs/metrics.md": document()}


def rules() -> dict[str, Any]:
    """Recording rules and alerts as Prometheus reads them."""
    return {
        "groups": [
            {"name": "vcrecon", "rules": [{"record": r.name, "expr": r.expr} for r in RECORDED]},
            {
                "name": "vcrecon-alerts",
                "rules": [
                    {
                        "alert": alert.name,
                        "expr": alert.expr,
                        "for": alert.hold,
                        "labels": {"severity": alert.severity},
                        "annotations": {
                            "summary": alert.summary,
                            "runbook_url": f"docs/runbook.md#{alert.name.lower()}",
                        },
                    }
                    for alert in ALERTS
                ],
            },
        ]
    }


def _dump(content: dict[str, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False, width=110, allow_unicode=True)
