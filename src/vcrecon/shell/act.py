"""Carries out one action over SSH, step by step. Called by `controller`. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable

from vcrecon.core.actions import Action, CopyDisk
from vcrecon.errors import Transient
from vcrecon.host import scripts
from vcrecon.host.scripts import Bench
from vcrecon.host.steps import Step, failure
from vcrecon.shell.transport import Host, Reply
from vcrecon.shell.transport import copy as copy_streams

Hosts = Callable[[str], Host]
"""A container's name to its connection; raises Transient when the container left the spec."""


async def carry_out(action: Action, bench: Bench, hosts: Hosts, progress: Callable[[int], None] | None = None) -> None:
    """Run all steps of the action. Raises HostError at the first that fails; what was done stays done.

    `progress` is called with the number of bytes moved so far, for actions that move data.
    """
    if isinstance(action, CopyDisk):
        await _copy_disk(action, bench, hosts, progress)
        return
    for step in scripts.steps(action, bench):
        await _run(action, step, hosts)


async def _run(action: Action, step: Step, hosts: Hosts) -> str:
    reply = await hosts(step.container).run(step.script, stdin=step.stdin, deadline_s=step.deadline_s)
    _check(action, step, reply)
    return reply.stdout.decode(errors="replace").strip()


def _check(action: Action, step: Step, reply: Reply) -> None:
    if reply.status:
        raise failure(f"{action.kind} of {action.subject}", step.container, reply.status, reply.stderr)


async def _copy_disk(action: CopyDisk, bench: Bench, hosts: Hosts, progress: Callable[[int], None] | None) -> None:
    steps = scripts.copy(action, bench)
    await _run(action, steps.prepare, hosts)
    sent, written = await copy_streams(
        hosts(steps.send.container),
        steps.send.script,
        hosts(steps.write.container),
        steps.write.script,
        deadline_s=steps.send.deadline_s,
        progress=progress,
    )
    _check(action, steps.send, sent)
    _check(action, steps.write, written)
    sha256 = await _run(action, steps.digest, hosts)
    if len(sha256) != 64:
        raise Transient(f"{action.source} gave {sha256[:80]!r} for a SHA-256", kind="garbage")
    await _run(action, steps.prove(sha256), hosts)
