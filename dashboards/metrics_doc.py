"""Writes docs/metrics.md from the metrics that the code exports, and says where each is used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from dashboards.boards import BOARDS
from dashboards.model import NOTES
from dashboards.rules import ALERTS, RECORDED
from vcrecon.shell.gauges import COUNTERS, GAUGES
from vcrecon.shell.metrics import Metrics

DEBUGGING = {
    "process_virtual_memory_bytes": "the address space; memory that counts is process_resident_memory_bytes",
    "vcrecon_tasks": "back at its level whenever nothing happens; the soak watches it",
}
"""Metrics that no dashboard and no alert uses, and why they are there all the same."""

_WORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_HEAD = """\
# Metrics

Made by `python -m dashboards`; do not edit. `/metrics` is served on the address that `vcrecon run --listen` gives.

Every object has one series of a name, so their number grows with the site and not with time: about {container} series
for each container, {guest} for each guest, 1 for each cluster, and {fixed} that every site has. A counter begins at 0
when the service starts; use `rate` or `increase`, which take a restart for what it is. Names of containers, guests and
clusters are host labels (a-z, 0-9, -), so nothing in a label needs quoting.
"""


@dataclass(frozen=True, slots=True)
class Exported:
    """One metric as the code declares it. `series` are the names that a query may use."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]

    @property
    def series(self) -> frozenset[str]:
        if self.kind == "histogram":
            return frozenset(f"{self.name}_{end}" for end in ("bucket", "count", "sum"))
        return frozenset({self.name})


def exported() -> tuple[Exported, ...]:
    """Every metric that a controller exports, by name."""
    metrics = Metrics()
    declared = {}
    for collector in list(metrics.registry._collector_to_names):
        labels = tuple(getattr(collector, "_labelnames", ()))
        for family in getattr(collector, "describe", collector.collect)() or collector.collect():
            name = family.name + ("_total" if family.type == "counter" else "")
            known = {**GAUGES, **COUNTERS}
            declared[name] = Exported(name, family.type, family.documentation, known.get(name, ("", labels))[1])
    return tuple(declared[name] for name in sorted(declared))


def uses() -> Iterator[tuple[str, str]]:
    """Each query of dashboards, rules and alerts, and what it belongs to."""
    for board in BOARDS:
        for panel in board.panels:
            for query in panel.queries:
                yield query.expr, f"{board.title.removeprefix('vcrecon: ')}: {panel.title}"
    for note in NOTES:
        yield note.expr, f"annotation: {note.name}"
    for recorded in RECORDED:
        yield recorded.expr, recorded.name
    for alert in ALERTS:
        yield alert.expr, alert.name


def used_by(metric: Exported) -> list[str]:
    """What uses it, without repeats."""
    return list(dict.fromkeys(where for expr, where in uses() if metric.series & set(_WORD.findall(expr))))


def fixed_series() -> int:
    """Series of a site without any object, as the service makes its metrics."""
    from vcrecon.service import site_metrics

    return sum(1 for line in site_metrics().render().decode().splitlines() if not line.startswith("#"))


def document() -> str:
    """The whole of docs/metrics.md."""
    rows = exported()
    each = {kind: sum(1 for row in rows if row.name.startswith(f"vcrecon_{kind}_")) for kind in ("container", "guest")}
    fixed = round(fixed_series(), -1)  # a Python with other collectors has a few more or less
    lines = [_HEAD.format(container=each["container"], guest=each["guest"], fixed=f"about {fixed}")]
    lines += ["## Exported", "", "| metric | type | labels | what it says | used by |", "|---|---|---|---|---|"]
    for row in rows:
        where = ", ".join(used_by(row)) or f"for debugging: {DEBUGGING.get(row.name, '?')}"
        labels = ", ".join(f"`{label}`" for label in row.labels)
        lines.append(f"| `{row.name}` | {row.kind} | {labels} | {row.help} | {where} |")
    lines += ["", "## Recorded by Prometheus", "", "| series | what it says |", "|---|---|"]
    lines += [f"| `{recorded.name}` | {recorded.meaning} |" for recorded in RECORDED]
    return "\n".join(lines) + "\n"
