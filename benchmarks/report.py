"""Results of a benchmark as a table for people and JSON for scripts. Used by every file in benchmarks/."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass
class Series:
    """One thing measured several times. Times in seconds; `cpu_s` is this process's own, per round."""

    name: str
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    skipped: str = ""

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

    def as_json(self) -> str:
        machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}
        series = [
            asdict(each) | {"median_s": each.median_s, "median_cpu_s": each.median_cpu_s}
            for each in self.series
        ]
        whole = {
            "name": self.name,
            "machine": machine,
            "parameters": dict(self.parameters),
            "series": series,
            "figures": dict(self.figures),
        }
        return json.dumps(whole, indent=2, default=str)


def show(report: Report, *, json_file: Path | None = None) -> None:
    """Print the tables and, if a file is given, write the JSON there."""
    console = Console()
    parameters = ", ".join(f"{key} {value}" for key, value in report.parameters.items())
    table = Table(title=f"{report.name} ({parameters})", title_justify="left")
    for heading in ("what", "median s", "best s", "worst s", "own CPU s"):
        table.add_column(heading, justify="left" if heading == "what" else "right", overflow="fold")
    for each in report.series:
        if each.wall_s:
            numbers = [each.median_s, min(each.wall_s), max(each.wall_s), each.median_cpu_s]
            table.add_row(each.name, *("" if number is None else f"{number:.3f}" for number in numbers))
        else:
            table.add_row(each.name, f"skipped: {each.skipped}", "", "", "")
    console.print(table)
    for key, value in report.figures.items():
        console.print(f"  {key}: {value:.3g}" if isinstance(value, float) else f"  {key}: {value}")
    if json_file is not None:
        json_file.write_text(report.as_json() + "\n")
