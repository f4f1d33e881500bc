"""Judges each change of state between two passes, and draws the diagram. The only importer of `transitions`.

`Machine` serves as the table's judge only (`get_transitions`): no object's state is kept in it, since state
is derived from observation. `AsyncMachine` is not used: it swallows cancellation, and a second trigger
cancels the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from transitions import Machine
from transitions.extensions import GraphMachine

from vcrecon.core.states import CONTAINER_EDGES, GUEST_EDGES, ContainerState, Edge, GuestState, State


@dataclass(frozen=True, slots=True)
class Stay:
    """Nothing changed."""


@dataclass(frozen=True, slots=True)
class Step:
    """An edge of the table was taken; `reason` is the table's."""

    reason: str


@dataclass(frozen=True, slots=True)
class Jump:
    """Reality moved by itself. The new state is adopted, counted and planned from."""


Change = Stay | Step | Jump


def _transitions(edges: tuple[Edge, ...]) -> list[dict[str, object]]:
    return [{"trigger": edge.trigger, "source": edge.source, "dest": edge.dest} for edge in edges]


@cache
def _machine(kind: type[State]) -> Machine:
    edges = CONTAINER_EDGES if kind is ContainerState else GUEST_EDGES
    return Machine(model=None, states=kind, initial=None, transitions=_transitions(edges), auto_transitions=False)


@cache
def judge(before: State, after: State) -> Change:
    """Compare the state of the last pass with the observed one: Stay, Step or Jump.

    Two steps taken between two looks (a fast boot) count as one Step each only when the table has the
    direct edge; otherwise the change is a Jump.
    """
    if before is after:
        return Stay()
    machine = _machine(type(before))
    found = machine.get_transitions(source=before, dest=after)
    if not found:
        return Jump()
    trigger = next(
        name for name, event in machine.events.items() if any(t in found for t in event.transitions[before.name])
    )
    edges = CONTAINER_EDGES if isinstance(before, ContainerState) else GUEST_EDGES
    return Step(next(e.reason for e in edges if (e.trigger, e.source, e.dest) == (trigger, before, after)))


class _Drawing:
    """GraphMachine draws the graph of a model; this one has nothing else to it."""


def _plain(source: str, kind: type[State]) -> str:
    """The engine's drawing with the names that users see, without its styles (`Class` is not even Mermaid)."""
    lines = (line for line in source.splitlines() if line.strip())
    kept = [line for line in lines if not line.strip().startswith(("classDef ", "Class "))]
    text = "\n".join(kept)
    for state in kind:
        text = text.replace(f'state "{state.name}" as {state.name}', f'state "{state.value}" as {state.name}')
    return text


def diagram() -> str:
    """The lifecycle of containers and guests as two Mermaid state diagrams in Markdown."""
    parts = []
    for title, kind, edges in (
        ("Containers", ContainerState, CONTAINER_EDGES),
        ("Guests", GuestState, GUEST_EDGES),
    ):
        machine = GraphMachine(
            model=_Drawing(),
            states=kind,
            initial=next(iter(kind)),
            transitions=_transitions(edges),
            auto_transitions=False,
            graph_engine="mermaid",
            title=f"title: {title}",
        )
        drawing = _plain(str(machine.get_combined_graph().source), kind)  # type: ignore[attr-defined]
        rows = "\n".join(f"| `{e.source.value}` | `{e.trigger}` | `{e.dest.value}` | {e.reason} |" for e in edges)
        parts.append(
            f"## {title}\n\n```mermaid\n{drawing}\n```\n\n| from | action | to | when |\n|---|---|---|---|\n{rows}\n"
        )
    return "\n".join(parts)
