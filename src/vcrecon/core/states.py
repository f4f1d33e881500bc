"""States and edges as tables, each edge with its reason. The one place that says what may follow what.

Theory of operation: a state is never stored and trusted; `classify` derives it from an observation in every
pass. The tables restrict what vcrecon *does*, not what it may *see*: when reality moved by itself, the
difference between two passes is a Jump, which is adopted and counted (`lifecycle`). `docs/lifecycle.md` and
`vcrecon diagram` are drawn from these tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ContainerState(Enum):
    """Where a physical host stands."""

    PXE = "pxe"
    INSTALLING = "installing"
    INSTALLED = "installed"
    VLAN_READY = "vlan-ready"


class GuestState(Enum):
    """Where a virtual machine stands. A guest that boots keeps its state until it answers on its network."""

    PENDING = "pending"
    IMAGED = "imaged"
    CONTEXTUALIZED = "contextualized"
    RUNNING = "running"
    STOPPED = "stopped"
    HELD = "held"
    QUARANTINED = "quarantined"
    REMOVED = "removed"


State = ContainerState | GuestState


@dataclass(frozen=True, slots=True)
class Edge:
    """One step that vcrecon may take by an action of kind `trigger`."""

    trigger: str
    source: State
    dest: State
    reason: str


_C, _G = ContainerState, GuestState

CONTAINER_EDGES: tuple[Edge, ...] = (
    Edge("install", _C.PXE, _C.INSTALLING, "an install slot is free and the plan asked for this install"),
    Edge(
        "finish-install",
        _C.INSTALLING,
        _C.INSTALLED,
        "the installer called back and SSH shows the pinned key",
    ),
    Edge("abort-install", _C.INSTALLING, _C.PXE, "the install failed or passed its deadline"),
    Edge(
        "set-up-network",
        _C.INSTALLED,
        _C.VLAN_READY,
        "every VLAN, bridge, rule and route of its guests is in place",
    ),
    Edge("reinstall", _C.INSTALLED, _C.PXE, "a person asked for a new system"),
    Edge(
        "reinstall",
        _C.VLAN_READY,
        _C.PXE,
        "a person asked for a new system, and no touched guest lives there",
    ),
)

GUEST_EDGES: tuple[Edge, ...] = (
    Edge("create-volume", _G.PENDING, _G.IMAGED, "its volume holds the wanted image, digest proved"),
    Edge("activate-copy", _G.PENDING, _G.STOPPED, "a verified copy of its disk arrived from another container"),
    Edge("contextualize", _G.IMAGED, _G.CONTEXTUALIZED, "identity, network, keys and password are written"),
    Edge("start-guest", _G.CONTEXTUALIZED, _G.RUNNING, "first boot"),
    Edge("start-guest", _G.STOPPED, _G.RUNNING, "it should run: restart, never reimage"),
    Edge("stop-guest", _G.RUNNING, _G.STOPPED, "it moves, leaves the spec, is rebuilt, or is a stale copy"),
    Edge("hold", _G.STOPPED, _G.HELD, "a person works on its disk (rescue)"),
    Edge("release", _G.HELD, _G.STOPPED, "the person is done"),
    Edge("quarantine", _G.STOPPED, _G.QUARANTINED, "moved, removed or rebuilt: the old disk is kept"),
    Edge("quarantine", _G.IMAGED, _G.QUARANTINED, "the guest left the spec before it ever booted"),
    Edge("quarantine", _G.CONTEXTUALIZED, _G.QUARANTINED, "the guest left the spec before it ever booted"),
    Edge("restore", _G.QUARANTINED, _G.STOPPED, "the guest came back into the spec"),
    Edge("discard", _G.IMAGED, _G.PENDING, "never booted, and not what the spec wants"),
    Edge("discard", _G.CONTEXTUALIZED, _G.PENDING, "never booted, and not what the spec wants"),
    Edge(
        "discard",
        _G.STOPPED,
        _G.PENDING,
        "the class has not begun: a disk without student work is rebuilt at will",
    ),
    Edge("prune", _G.QUARANTINED, _G.REMOVED, "a person named it"),
)

EDGES: tuple[Edge, ...] = CONTAINER_EDGES + GUEST_EDGES

_BY_TRIGGER: dict[tuple[str, State], Edge] = {(edge.trigger, edge.source): edge for edge in EDGES}


def edge(trigger: str, source: State) -> Edge:
    """The edge that an action of kind `trigger` takes from `source`; KeyError when the table has none."""
    return _BY_TRIGGER[trigger, source]
