"""The tables of states and edges, the judge over them, and the drawing made from them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from vcrecon.core.actions import ACTIONS, CopyDisk, FetchImage, MarkTouched
from vcrecon.core.lifecycle import Jump, Stay, Step, diagram, judge
from vcrecon.core.states import CONTAINER_EDGES, EDGES, GUEST_EDGES, ContainerState, GuestState, edge

DOCUMENT = Path(__file__).parents[2] / "docs/lifecycle.md"
INTRODUCTION = """\
# Lifecycle

<!-- Made from the tables in src/vcrecon/core/states.py; after a change there, run
     `VCRECON_TEST_WRITE=1 pytest tests/core/test_lifecycle.py`. -->

The states of a container (a physical host) and of a guest (a virtual machine), and every step that vcrecon
may take between them. States are not stored: each pass derives them anew from what the hosts show. When
reality moves by itself, for instance when a guest dies, the new state is adopted and counted as a jump, and
the next plan starts from there. Silence is not a state: a container that does not answer keeps its last one.

"""
SEEN = {"finish-install", "abort-install", "reinstall"}
"""Triggers of edges that an install takes on its way: no action is called so."""


def test_every_edge_is_taken_by_an_action() -> None:
    assert {e.trigger for e in EDGES} - {action.kind for action in ACTIONS} == SEEN


def test_every_action_takes_an_edge_or_changes_no_state() -> None:
    stateless = {FetchImage.kind, CopyDisk.kind, MarkTouched.kind}
    assert {action.kind for action in ACTIONS} - {e.trigger for e in EDGES} == stateless


def test_an_action_leads_from_a_state_to_one_state_only() -> None:
    pairs = [(e.trigger, e.source) for e in EDGES]
    assert len(pairs) == len(set(pairs))


def test_every_edge_has_a_reason() -> None:
    assert all(len(e.reason) > 5 for e in EDGES)


@pytest.mark.parametrize(("states", "edges"), [(ContainerState, CONTAINER_EDGES), (GuestState, GUEST_EDGES)])
def test_every_state_is_reached_from_the_first(states: type, edges: tuple) -> None:  # type: ignore[type-arg]
    reached = {next(iter(states))}
    for _ in states:
        reached |= {e.dest for e in edges if e.source in reached}
    assert reached == set(states)


def test_looking_up_an_edge_that_is_not_there_fails() -> None:
    assert edge("prune", GuestState.QUARANTINED).dest is GuestState.REMOVED
    with pytest.raises(KeyError):
        edge("prune", GuestState.RUNNING)


@pytest.mark.parametrize("taken", EDGES, ids=lambda e: f"{e.source.value}-{e.trigger}")
def test_each_edge_is_a_step_with_a_reason_of_the_table(taken) -> None:  # type: ignore[no-untyped-def]
    judged = judge(taken.source, taken.dest)
    assert isinstance(judged, Step)
    assert judged.reason in {e.reason for e in EDGES if (e.source, e.dest) == (taken.source, taken.dest)}


@pytest.mark.parametrize("states", [ContainerState, GuestState])
def test_the_same_state_is_no_change(states: type) -> None:
    assert all(judge(state, state) == Stay() for state in states)  # type: ignore[attr-defined]


@pytest.mark.parametrize("states", [ContainerState, GuestState])
def test_whatever_the_table_does_not_know_is_a_jump(states: type) -> None:
    known = {(e.source, e.dest) for e in EDGES}
    for before in states:  # type: ignore[attr-defined]
        for after in states:  # type: ignore[attr-defined]
            if before is not after and (before, after) not in known:
                assert judge(before, after) == Jump()


def test_a_lost_network_and_a_vanished_disk_are_jumps() -> None:
    assert judge(ContainerState.VLAN_READY, ContainerState.INSTALLED) == Jump()
    assert judge(GuestState.RUNNING, GuestState.PENDING) == Jump()


class TestDiagram:
    def test_shows_the_names_that_users_see(self) -> None:
        for state in (*ContainerState, *GuestState):
            assert f'state "{state.value}" as {state.name}\n' in diagram()

    def test_has_an_arrow_for_each_edge(self) -> None:
        for e in EDGES:
            arrow = next(line for line in diagram().splitlines() if f"{e.source.name} --> {e.dest.name}: " in line)
            assert e.trigger in arrow

    def test_has_a_title_that_mermaid_reads_and_no_styles(self) -> None:
        assert re.findall(r"^```mermaid\n---\ntitle: (\w+)\n---\nstateDiagram-v2\n", diagram(), re.M) == [
            "Containers",
            "Guests",
        ]
        assert not re.search(r"^ *class", diagram(), re.M | re.I)


@pytest.mark.generated
def test_the_document_is_current() -> None:
    if os.environ.get("VCRECON_TEST_WRITE"):
        DOCUMENT.parent.mkdir(exist_ok=True)
        DOCUMENT.write_text(INTRODUCTION + diagram(), encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == INTRODUCTION + diagram(), "see the comment in the document"
