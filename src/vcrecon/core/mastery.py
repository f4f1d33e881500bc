"""Two masters at once are refused: who may act on a container. Pure; used by `controller`.

Each container carries a lease in /run (`host.lease`): who looks after it, that master's generation, and when it last
said so by the container's own clock. `vcrecon master promote` gives a master a higher generation than the one before
it, so that the old one, coming back, finds itself outranked and keeps its hands off.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vcrecon.core.decisions import Block, Decision, Do, Plan, Rest
from vcrecon.core.observation import UNKNOWN, Lease, Seen
from vcrecon.core.world import World

LOOK_AGAIN_S = 5.0


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


def obeying(plan: Plan, world: World) -> Plan:
    """What this master may carry out of `plan`: nothing where another one looks after the container.

    A container that does not answer shows no lease; nothing is begun there while others of the site show one, since
    the other master may be installing it just now.
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
        return plan if lease is None else _hands_off(plan, _block(subject, plan.container, lease))
    if not plan.actions:
        return plan
    for name in world.current:
        lease = foreign(world, name)
        if lease is not None:
            block = _block(subject, name, lease)
            return replace(plan, decisions=tuple(_kept(decision, block) for decision in plan.decisions))
    return plan


def _kept(decision: Decision, block: Block) -> Decision:
    return replace(block, subject=decision.subject) if isinstance(decision, Do) else decision


def _hands_off(plan: Plan, block: Block) -> Plan:
    others = (Rest(d.subject, "another master looks after it") for d in plan.decisions if d.subject != block.subject)
    return replace(plan, decisions=(block, *others))


def _block(subject: str, container: str, lease: Lease) -> Block:
    return Block(
        subject,
        "other-master",
        f"{container} is looked after by another master, {lease.title} (generation {lease.generation}, renewed "
        f"{lease.age_s} s ago): stop that one, or type `vcrecon master promote SPECS` here to take over",
        LOOK_AGAIN_S,
    )
