"""Two masters at once are refused: who may act on a container. Pure; used by `controller`.

Each container carries a lease in /run (`host.lease`): who looks after it, that master's generation, and when it last
said so by the container's own clock. `vcrecon master promote` gives a master a higher generation than the one before
it, so that the old one, coming back, finds itself outranked and keeps its hands off.

What goes over the provisioning network cannot be refused container by container: there a master is quiet while
another one holds any container of the site.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

from vcrecon.core.actions import Install
from vcrecon.core.decisions import Block, Decision, Do, Plan, Rest, Wait
from vcrecon.core.observation import UNKNOWN, Lease, Seen
from vcrecon.core.world import World

LOOK_AGAIN_S = 5.0

TAKE_OVER = "stop that one, or type `vcrecon master promote SPECS` here to take over"
"""What a person may do about another master."""


@dataclass(frozen=True, slots=True)
class Master:
    """One controller: `name` tells it from others, `title` says to a person where it runs.

    A lease that was not renewed for `lease_s` seconds is void.
    """

    name: str
    generation: int
    title: str
    lease_s: int = 90


def foreign(world: World, container: str) -> Lease | None:
    """The lease of another master on a container, as last seen."""
    observation = world.current.get(container)
    lease = observation.lease if isinstance(observation, Seen) else None
    return lease if isinstance(lease, Lease) and not lease.ours else None


def holds(world: World, container: str) -> bool:
    """Whether a container, as last seen, is this master's."""
    observation = world.current.get(container)
    return isinstance(observation, Seen) and isinstance(observation.lease, Lease) and observation.lease.ours


@dataclass(frozen=True, slots=True)
class Quiet:
    """Why this master serves no boots: another one holds the site, or it does not know yet whether one does."""

    reason: Literal["other-master", "master-unclear"]
    message: str


UNCLEAR = Quiet("master-unclear", "vcrecon has just begun and looks whether another master holds this site")


def quiet(
    containers: Collection[str], world: World, master: Master, now_s: float, before: Quiet | None
) -> Quiet | None:
    """Why this master serves no boots now; None when it may. `before` is the last answer, UNCLEAR at first.

    A container that went silent keeps the lease it showed until that must have run out, and for as long as no
    container of the site answers: whoever sees nothing does not see the other master either. At first, one
    container that is ours is enough to begin; without any, each must have been looked at once.
    """
    for name, (lease, at_s) in world.foreign.items():
        if name not in containers:
            continue
        may_hold = world.reachable(name) or now_s < at_s + master.lease_s - lease.age_s
        if may_hold or not any(map(world.reachable, containers)):
            return Quiet(
                "other-master",
                f"another master, {lease.title} (generation {lease.generation}), holds this site: this one serves no "
                f"boots and installs nothing; {TAKE_OVER}",
            )
    if before is not UNCLEAR or any(holds(world, name) for name in containers):
        return None
    return None if all(name in world.current for name in containers) else UNCLEAR


def obeying(plan: Plan, world: World, silence: Quiet | None) -> Plan:
    """What this master may carry out of `plan`: nothing where another one looks after the container.

    A container that does not answer shows no lease; but nothing is installed while this master is quiet, since the
    other one may be installing it just now.
    """
    observation = world.current.get(plan.container)
    subject = f"container/{plan.container}"
    if isinstance(observation, Seen):
        if observation.lease is UNKNOWN:
            trouble = (observation.trouble or {}).get("master", "no answer")
            return _hands_off(
                plan,
                Block(
                    subject,
                    "master-unclear",
                    f"{plan.container} does not show which master looks after it, so nothing is done there: {trouble}; "
                    "look at /run/vcrecon/master there",
                    LOOK_AGAIN_S,
                ),
            )
        lease = foreign(world, plan.container)
        if lease is not None:
            return _hands_off(plan, Block(subject, "other-master", _words(plan.container, lease), LOOK_AGAIN_S))
    if silence is None or not any(isinstance(action, Install) for action in plan.actions):
        return plan
    instead: Decision = Block(subject, silence.reason, silence.message, LOOK_AGAIN_S)
    if silence is UNCLEAR:
        instead = Wait(subject, silence.message, 1.0)
    found = (instead if isinstance(d, Do) and isinstance(d.action, Install) else d for d in plan.decisions)
    return replace(plan, decisions=tuple(found))


def _hands_off(plan: Plan, block: Block) -> Plan:
    message = "another master looks after it"
    others = (Rest(d.subject, message, ours=False) for d in plan.decisions if d.subject != block.subject)
    return replace(plan, decisions=(block, *others))


def _words(container: str, lease: Lease) -> str:
    return (
        f"{container} is looked after by another master, {lease.title} (generation {lease.generation}, renewed "
        f"{lease.age_s} s ago): {TAKE_OVER}"
    )
