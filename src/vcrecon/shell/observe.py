"""Looks at one container over SSH and says what it showed. Called by `controller` and by `plan`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from vcrecon.core.mastery import Master
from vcrecon.core.observation import ALL_PARTS, Observation, Part, Seen, Unseen
from vcrecon.errors import HostError, Permanent, Transient
from vcrecon.host import look
from vcrecon.hypervisor import HYPERVISORS
from vcrecon.hypervisor.base import Hypervisor
from vcrecon.shell.transport import Host
from vcrecon.spec.model import Container


async def observe(
    host: Host,
    container: Container,
    *,
    site: str,
    parts: Collection[Part],
    probes: Sequence[tuple[str, int]],
    before: Seen | None,
    clock: Callable[[], float],
    deadline_s: float,
    master: Master | None = None,
) -> Observation:
    """One look, in one round trip; a container that does not answer is Unseen, never an exception.

    With `master` the look takes or renews that master's lease there.

    A host that rebooted since `before` is looked at once more in full, since nothing learned earlier holds.
    """
    hypervisor = HYPERVISORS[container.hypervisor]
    if before is None:
        parts = ALL_PARTS
    try:
        seen = await _look(host, container, hypervisor, site, parts, probes, before, clock, deadline_s, master)
        if before is not None and seen.boot_id != before.boot_id and frozenset(parts) != ALL_PARTS:
            seen = await _look(host, container, hypervisor, site, ALL_PARTS, (), None, clock, deadline_s, master)
    except HostError as error:
        return Unseen(container.name, clock(), error.kind, str(error))
    return seen


async def _look(
    host: Host,
    container: Container,
    hypervisor: Hypervisor,
    site: str,
    parts: Collection[Part],
    probes: Sequence[tuple[str, int]],
    before: Seen | None,
    clock: Callable[[], float],
    deadline_s: float,
    master: Master | None,
) -> Seen:
    at_s = clock()
    asking = host.ask(look.script(parts, hypervisor, probes, master), deadline_s=deadline_s)
    answers: list[str] | None = None
    said = ""
    if Part.GUESTS in parts and hypervisor.resident is not None:
        reply, (answers, said) = await asyncio.gather(
            asking, _ask_hypervisor(host, hypervisor.resident, hypervisor.look, deadline_s)
        )
    else:
        reply = await asking
    return look.parse(
        reply.stdout.decode(errors="replace"),
        answers,
        container=container,
        site=site,
        parts=parts,
        hypervisor=hypervisor,
        before=before,
        at_s=at_s,
        stderr=reply.stderr.decode(errors="replace"),
        tool_said=said,
        master=master,
    )


async def _ask_hypervisor(
    host: Host, command: str, lines: Sequence[str], deadline_s: float
) -> tuple[list[str] | None, str]:
    """The answers; None when the hypervisor's tool does not answer, though the host does, and why."""
    try:
        return await host.ask_tool(command, lines, deadline_s=deadline_s), ""
    except (Transient, Permanent) as error:
        return None, str(error)
