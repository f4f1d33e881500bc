"""What a machine that boots from the network is told to boot. Pure; called by `boot.desk` for each request.

Only a ticket makes a machine install (S2): every other answer ends at the machine's own disk, or in the queue.
"""

from __future__ import annotations

from collections.abc import Mapping

from vcrecon.core.installs import BootAnswer, LocalBoot, RunInstaller, Ticket, WaitInLine
from vcrecon.core.mastery import UNCLEAR, Quiet
from vcrecon.spec.model import Spec


def container_of(mac: str, spec: Spec) -> str | None:
    """The container whose provisioning interface has this MAC (lower case, colons), or None for a stranger."""
    return next((name for name, container in spec.containers.items() if container.mac == mac), None)


def answer(
    mac: str,
    *,
    spec: Spec,
    tickets: Mapping[str, Ticket],
    waiting: Mapping[str, str],
    quiet: Quiet | None = None,
) -> BootAnswer:
    """The answer to the machine with this MAC (lower case, colons).

    `tickets` are those that are valid now, by container; `waiting` is what machines in the queue are told, by
    container. A ticket is bound to the MAC that it was opened for: after the spec gave its container another
    one, it lets neither machine install. A master that is `quiet` because of another one sends every machine
    away: one that is held here would not ask the other.
    """
    name = container_of(mac, spec)
    if name is None:
        return LocalBoot(f"{mac} is not in containers.yaml")
    if spec.site.provisioning.mode == "off":
        return LocalBoot(f"{name}: site.yaml has provisioning off")
    if quiet is not None:
        return WaitInLine(f"{name}: {quiet.message}") if quiet is UNCLEAR else LocalBoot(f"{name}: {quiet.message}")
    ticket = tickets.get(name)
    if ticket is None:
        if name in waiting:
            return WaitInLine(waiting[name])
        return LocalBoot(f"{name}: no install is asked for")
    if ticket.mac != mac:
        return LocalBoot(f"{name}: the install is for {ticket.mac}")
    if ticket.state == "claimed":
        # It lost its installer half way, and its disk is of no use: what comes next is the controller's to say.
        return WaitInLine(f"{name}: the install broke off and may be started again")
    if ticket.system not in spec.systems:
        return LocalBoot(f"{name}: no system {ticket.system} in images.yaml")
    return RunInstaller(ticket)
