"""`vcrecon plan`: looks at every container once, and plans until nothing is left to do, without doing it.

Called by the command line, beside a running service or without one; writes nothing anywhere.
"""

from __future__ import annotations

import asyncio
import copy
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vcrecon.core.actions import Action, CopyDisk, GuestAction, Install, Quarantine, StartGuest
from vcrecon.core.classify import answered, guest_state
from vcrecon.core.decisions import Block
from vcrecon.core.foresee import foresee
from vcrecon.core.install_rules import residents
from vcrecon.core.memory import Memory
from vcrecon.core.observation import ALL_PARTS, Seen, Unseen
from vcrecon.core.plan import View, plan_container
from vcrecon.core.states import ContainerState, GuestState
from vcrecon.core.wanted import Wanted
from vcrecon.core.world import World
from vcrecon.host import scripts
from vcrecon.host.netboot import REBOOT
from vcrecon.host.scripts import Bench, Secrets
from vcrecon.host.steps import Step
from vcrecon.settings import Settings
from vcrecon.shell.connector import Connector
from vcrecon.shell.observe import observe
from vcrecon.shell.pins import Pins
from vcrecon.shell.record import Record
from vcrecon.spec.load import load
from vcrecon.spec.model import Spec

ROUNDS_MAX = 40
"""More than any object needs steps; reached only if two rules undo each other, which is a bug."""


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One action: what it does to which object, why, and by which commands."""

    subject: str
    container: str
    action: str
    reason: str
    from_state: str
    to_state: str
    commands: tuple[str, ...]
    touches_work: bool


@dataclass(frozen=True, slots=True)
class PlanReport:
    """All steps in the order in which they may begin. `at_risk` names guests whose student work is disturbed."""

    steps: tuple[PlanStep, ...]
    blocked: tuple[dict[str, Any], ...]
    at_risk: tuple[str, ...]
    unreachable: tuple[str, ...]


async def plan_once(specs: Path, state: Path, *, settings: Settings) -> PlanReport:
    """Raises SpecError for a bad spec and Refused for a record that cannot be read."""
    spec = load(specs).spec
    with Record.read_only(state) as reader:
        memory = copy.deepcopy(reader.memory)
    wanted, world = Wanted(spec), World()
    await _look_at_all(spec, world, Connector(settings, Pins(state / "known_hosts")), settings)
    _remember(world, memory)
    return preview(wanted, world, memory)


async def _look_at_all(spec: Spec, world: World, connect: Connector, settings: Settings) -> None:
    async def look(name: str) -> None:
        host = connect(spec.containers[name], spec)
        try:
            for _ in range(2):
                # Twice: guests that the first look finds running are asked for an answer by the second.
                before = world.current.get(name)
                probes = [
                    (i.address.partition("/")[0], i.vlan)
                    for s in world.on(name).values()
                    if s.active and s.guest in spec.guests
                    for i in spec.guests[s.guest].interfaces[:1]
                    if i.address
                ]
                if before is not None and not probes:
                    return
                observation = await observe(
                    host,
                    spec.containers[name],
                    site=spec.site.name,
                    parts=ALL_PARTS,
                    probes=probes,
                    before=before if isinstance(before, Seen) else None,
                    clock=time.time,
                    deadline_s=settings.look_deadline_s,
                )
                world.observe(observation)
        finally:
            await host.close()

    await asyncio.gather(*(look(name) for name in spec.containers))


def _remember(world: World, memory: Memory) -> None:
    """Running guests count as having answered: a preview does not wait for one that boots just now."""
    for name, observation in world.current.items():
        if isinstance(observation, Seen):
            memory.seen[name] = observation.at_s
        if world.clear(name):
            memory.shown.setdefault(name, observation.at_s)
        for sighting in world.on(name).values():
            if sighting.domain is not None and sighting.active:
                memory.answered[sighting.guest] = sighting.domain.serial


def preview(wanted: Wanted, world: World, memory: Memory) -> PlanReport:
    """Plan, foresee, plan again, until only rest and blocks are left. Changes `world` and `memory`."""
    secrets = Secrets(bytes(32), lambda guest: "!")
    steps: list[PlanStep] = []
    blocked: dict[str, dict[str, Any]] = {}
    lost: dict[str, int] = {}
    for _ in range(ROUNDS_MAX):
        acted = False
        blocked = {}
        for container in wanted.spec.containers:
            plan = plan_container(View(wanted, world, memory, time.time()), container)
            for block in plan.blocked:
                blocked[block.subject] = _block(block, container)
            for action in plan.actions:
                if isinstance(action, Install) and action.wipe:
                    lost |= residents(wanted.spec, world, memory, container)
                steps.append(_step(action, wanted, world, memory, secrets))
                acted = True
        if not acted:
            break
    risk = dict.fromkeys([*lost, *(step.subject.partition("/")[2] for step in steps if step.touches_work)])
    silent = tuple(name for name, seen in world.current.items() if isinstance(seen, Unseen))
    return PlanReport(tuple(steps), tuple(blocked.values()), tuple(risk), silent)


def _block(block: Block, container: str) -> dict[str, Any]:
    return {
        "subject": block.subject,
        "container": container,
        "reason": block.reason,
        "message": block.message,
    }


def _step(action: Action, wanted: Wanted, world: World, memory: Memory, secrets: Secrets) -> PlanStep:
    """Describe an action, then take it as done."""
    bench = Bench(wanted, world, memory, secrets)
    commands = _commands(action, bench)
    before = _state(action, wanted, world, memory)
    touches = isinstance(action, GuestAction) and _touches_work(action, world, memory)
    foresee(action, wanted, world, memory)
    after = _state(action, wanted, world, memory)
    return PlanStep(action.subject, action.container, action.kind, action.reason, before, after, commands, touches)


def _commands(action: Action, bench: Bench) -> tuple[str, ...]:
    if isinstance(action, Install):
        return (_install_words(action),)
    if isinstance(action, CopyDisk):
        parts = scripts.copy(action, bench)
        found: tuple[Step, ...] = (
            parts.prepare,
            parts.send,
            parts.write,
            parts.digest,
            parts.prove("SHA256-OF-THE-ORIGINAL"),
        )
    else:
        found = scripts.steps(action, bench)
    return tuple(step.script for step in found)


def _install_words(action: Install) -> str:
    """What is done to a machine is no command on a host."""
    rouse = {"follow": "", "switch-on": "switch on; ", "power-cycle": "switch off and on; ", "reboot": f"{REBOOT}; "}
    disks = "make its disks anew" if action.wipe else "stop at anything that is on its disks"
    return f"{rouse[action.rouse]}boot {action.mac} from the network; {disks}; install {action.system}"


def _state(action: Action, wanted: Wanted, world: World, memory: Memory) -> str:
    if not isinstance(action, GuestAction):
        plan = plan_container(View(wanted, world, memory, time.time()), action.container)
        states = {s.subject: s.state for s in plan.statuses}
        found = states.get(f"container/{action.container}")
        return str((found or ContainerState.INSTALLED).value)
    sighting = world.on(action.container).get(action.guest)
    guest = wanted.spec.guests.get(action.guest)
    placed = wanted.spec.placement.get(action.guest) == action.container
    state = guest_state(sighting, memory, wanted.context(guest) if guest and placed else None)
    if sighting is not None and sighting.active and not answered(memory, sighting):
        state = GuestState.RUNNING
    return str(state.value)


def _touches_work(action: GuestAction, world: World, memory: Memory) -> bool:
    """Whether a student would notice: their running guest is stopped, or the disk they worked on is put aside."""
    if isinstance(action, StartGuest):
        return False
    sighting = world.on(action.container).get(action.guest)
    volume = sighting.volume if sighting else None
    if volume is None or not volume.touched:
        return False
    return action.disturbs or (isinstance(action, Quarantine) and action.why != "moved")
