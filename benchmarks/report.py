"""Results of a benchmark as a table for people and JSON for scripts. Used by every file in benchmarks/."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from rich.console import Console
from rich.table import Table


@dataclass
class Series:
    """One thing measured several times. Times in seconds; `cpu_s` is the measured process's own, per round.

    `skipped` says what is missing here, `failed` what went wrong: the rounds before it still count.
    """

    name: str
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    skipped: str = ""
    failed: str = ""

    @property
    def median_s(self) -> float | None:
        return statistics.median(self.wall_s) if self.wall_s else None

    @property
    def median_cpu_s(self) -> float | None:
        return statistics.median(self.cpu_s) if self.cpu_s else None


@dataclass
class Report:
    """A named benchmark: the series, and the figures derived from them."""

    name: str
    parameters: Mapping[str, object]
    series: Sequence[Series]
    figures: Mapping[str, object] = field(default_factory=dict)

    def as_data(self) -> dict[str, object]:
        """All of it as plain data for JSON, with the machine it was measured on."""
        machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}
        series = [asdict(each) | {"median_s": each.median_s, "median_cpu_s": each.median_cpu_s} for each in self.series]
        return {
            "name": self.name,
            "machine": machine,
            "parameters": dict(self.parameters),
            "series": series,
            "figures": dict(self.figures),
        }


def show(report: Report) -> None:
    """Print the table, and the figures below it."""
    console = Console()
    parameters = ", ".join(f"{key} {value}" for key, value in report.parameters.items())
    table = Table(title=f"{report.name} ({parameters})", title_justify="left")
    for heading in ("what", "median s", "best s", "worst s", "own CPU s"):
        table.add_column(heading, justify="left" if heading == "what" else "right", overflow="fold")
    for each in report.series:
        if each.wall_s:
            numbers = [each.median_s, min(each.wall_s), max(each.wall_s), each.median_cpu_s]
            name = f"{each.name} (then failed: {each.failed})" if each.failed else each.name
            table.add_row(name, *("" if number is None else f"{number:.3f}" for number in numbers))
        else:
            why = f"failed: {each.failed}" if each.failed else f"skipped: {each.skipped}"
            table.add_row(f"{each.name}: {why}", "", "", "", "")
    console.print(table)
    for key, value in report.figures.items():
        console.print(f"  {key}: {value:.3g}" if isinstance(value, float) else f"  {key}: {value}")
