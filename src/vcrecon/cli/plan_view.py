"""A plan as text: one line an object, what is at risk, what is blocked, one line of sums. Called by `cli.plan`.

Pure: it gets a report and returns lines.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text

from vcrecon.cli.output import count, listed

if TYPE_CHECKING:
    from vcrecon.preview import PlanReport, PlanStep

NOTHING = "Nothing to do: everything is as the spec wants."
COMMANDS_SHOWN = 3
COMMAND_LENGTH_MAX = 110

# By what an object's steps contain, the strongest first: sign, colour, verb of the sum.
_KINDS: tuple[tuple[frozenset[str], str, str, str], ...] = (
    (frozenset({"copy-disk", "activate-copy"}), "→", "cyan", "move"),
    (frozenset({"create-volume"}), "+", "green", "create"),
    (frozenset({"quarantine", "prune", "discard"}), "-", "red", "remove"),
    (frozenset({"start-guest", "restore"}), "^", "green", "start"),
    (frozenset({"stop-guest"}), "!", "red", "stop"),
)
_OTHER = ("~", "yellow", "change")
_FETCH = ("<", "yellow", "fetch")
_ALWAYS_SUMMED = ("create", "start", "move", "remove")


@dataclass(frozen=True, slots=True)
class _Group:
    """All steps of one object."""

    subject: str
    steps: tuple[PlanStep, ...]
    sign: str
    style: str
    verb: str


def exit_code(report: PlanReport) -> int:
    """0 when everything is as the spec wants, 2 when changes are pending, blocked and unknown ones included."""
    return 2 if report.steps or report.blocked or report.unreachable else 0


def as_json(report: PlanReport) -> dict[str, Any]:
    """The report as one JSON object, every command in full."""
    summary = _sums(_groups(report.steps))
    return {**asdict(report), "summary": summary, "pending": exit_code(report) == 2}


def render(report: PlanReport, *, verbose: bool = False) -> list[Text]:
    """The lines for a person. `verbose` shows every command in full."""
    groups = _groups(report.steps)
    lines: list[Text] = []
    for group in groups:
        lines += _object(group, verbose)
    if groups:
        lines.append(Text())
    lines += _unreachable(report.unreachable)
    lines += _blocked(report.blocked)
    risk = listed(report.at_risk, 30) if report.at_risk else "none"
    lines.append(Text.assemble("Student work at risk: ", (risk, "bold red" if report.at_risk else "green")))
    lines.append(Text(_summary(groups, report), style="bold"))
    return lines


def _groups(steps: Sequence[PlanStep]) -> list[_Group]:
    by_subject: dict[str, list[PlanStep]] = {}
    for step in steps:
        by_subject.setdefault(step.subject, []).append(step)
    return [_group(subject, tuple(mine)) for subject, mine in by_subject.items()]


def _group(subject: str, steps: tuple[PlanStep, ...]) -> _Group:
    actions = {step.action for step in steps}
    containers = {step.container for step in steps}
    other = _FETCH if subject.startswith("image/") else _OTHER
    sign, style, verb = next((tuple(look) for kinds, *look in _KINDS if actions & kinds), other)
    if verb == "create" and "discard" in actions and len(containers) > 1:
        # Never booted: made anew on the other container instead of copied.
        sign, style, verb = _KINDS[0][1:]
    return _Group(subject, steps, sign, style, verb)


def _object(group: _Group, verbose: bool) -> list[Text]:
    first, last = group.steps[0], group.steps[-1]
    before, after = first.from_state, last.to_state
    states = before if before == after else f"{before} → {after}"
    places = " → ".join(dict.fromkeys(step.container for step in group.steps))
    where = "" if group.subject.startswith(("container/", "image/")) else f" on {places}"
    what = group.subject
    if what.startswith("image/"):
        # An image has no state of its own: the step is that it gets there.
        what, where, states = f"image {what.rpartition('/')[2]}", f" on {places}", "absent → present"
    line = Text.assemble((f"  {group.sign} ", f"bold {group.style}"), (what, "bold"), where, "  ", states)
    line.append(f"  ({first.reason})", style="dim")
    if any(step.touches_work for step in group.steps):
        line.append("  disturbs student work", style="bold red")
    lines = [line]
    commands = [(step.action, command) for step in group.steps for command in step.commands]
    shown = commands if verbose else commands[:COMMANDS_SHOWN]
    for action, command in shown:
        text = command.strip()
        pieces = text.splitlines() if verbose else [_shorten(text)]
        lines += [
            Text(f"      {f'{action} $' if index == 0 else ' '} {piece}", style="dim")
            for index, piece in enumerate(pieces)
        ]
    if len(commands) > len(shown):
        lines.append(Text(f"      … {count(len(commands) - len(shown), 'more command')} (-v shows all)", style="dim"))
    return lines


def _shorten(script: str) -> str:
    """The gist of a script in one line: what its lock and shell are wrapped around."""
    with suppress(ValueError):
        words = shlex.split(script)
        if words[-3:-1] == ["sh", "-c"]:
            script = words[-1]
    parts = [" ".join(line.split()) for line in script.splitlines()]
    text = "; ".join(part for part in parts if part not in ("", "set -eu"))
    return text if len(text) <= COMMAND_LENGTH_MAX else text[: COMMAND_LENGTH_MAX - 1] + "…"


def _unreachable(names: Sequence[str]) -> list[Text]:
    if not names:
        return []
    sentence = f"Not reachable, so nothing is planned there: {listed(names)}"
    return [Text(sentence, style="yellow"), Text()]


def _blocked(blocked: Sequence[Mapping[str, Any]]) -> list[Text]:
    if not blocked:
        return []
    lines = [Text(f"Blocked ({len(blocked)}):", style="bold yellow")]
    for entry in blocked:
        lines.append(Text.assemble("  ", (str(entry["subject"]), "bold"), f"  {entry['reason']}"))
        lines.append(Text(f"      {entry['message']}"))
    return [*lines, Text()]


def _sums(groups: Sequence[_Group]) -> dict[str, int]:
    sums = dict.fromkeys((*_ALWAYS_SUMMED, "stop", "change", "fetch"), 0)
    for group in groups:
        sums[group.verb] += 1
    return sums


def _summary(groups: Sequence[_Group], report: PlanReport) -> str:
    sums = _sums(groups)
    stuck = f"{count(len(report.blocked), 'object')} blocked" if report.blocked else ""
    silent = f"{count(len(report.unreachable), 'container')} unreachable" if report.unreachable else ""
    waits = ", ".join(part for part in (stuck, silent) if part)
    if not groups:
        return f"Nothing that vcrecon can do by itself: {waits}." if waits else NOTHING
    parts = [f"{number} to {verb}" for verb, number in sums.items() if number or verb in _ALWAYS_SUMMED]
    return f"Plan: {', '.join(parts)}" + (f"; {waits}" if waits else "")
