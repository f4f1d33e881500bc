"""What a dashboard says, as values. Drawn by `dashboards.render`, proved by tests/dashboards.

Colours are Okabe and Ito's, which people with any kind of colour vision tell apart, and never the only sign: each
code has a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

BLUE, AMBER, VERMILION, GREY, PURPLE = "#0072B2", "#E69F00", "#D55E00", "#6E6E6E", "#CC79A7"

Words = Mapping[int, tuple[str, str]]
"""A code to its word and its colour."""
Kind = Literal["number", "tiles", "graph", "table"]

HEALTH: Words = {0: ("ready", BLUE), 1: ("working", AMBER), 2: ("help", VERMILION)}


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL query. In a table its value becomes the column `legend`, "" leaves it out."""

    expr: str
    legend: str = ""
    unit: str = ""
    words: Words | None = None


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `steps` are (value, colour) from below.

    `empty` is the reason why it may show nothing; without one it always shows something while the service runs.
    With `names` a number shows its legend instead of its value. `labels` renames the labels that a table shows as
    columns. `link` goes to another dashboard, for the object whose label it names.
    """

    title: str
    description: str
    kind: Kind
    queries: tuple[Query, ...]
    width: int = 12
    height: int = 8
    unit: str = ""
    words: Words | None = None
    steps: tuple[tuple[float, str], ...] = ((0, BLUE),)
    stacked: bool = False
    names: bool = False
    empty: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    link: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard. `variable` is a label that a person may choose values of, and the metric that has them all."""

    uid: str
    title: str
    description: str
    panels: tuple[Panel, ...]
    variable: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """An annotation: a mark on every graph wherever `expr` has a value."""

    name: str
    expr: str
    title: str
    colour: str


NOTES = (
    Note("Spec generations", "changes(vcrecon_spec_generation[1m]) > 0", "a new generation is in force", PURPLE),
    Note(
        "Moves",
        "sum by (guest, cluster) (increase(vcrecon_guest_moves_total[1m])) > 0",
        "{{guest}} moved",
        AMBER,
    ),
)
