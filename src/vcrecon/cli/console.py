"""`vcrecon console`: the serial console of a guest on the person's own terminal, over SSH."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from vcrecon.cli import options
from vcrecon.cli.output import say
from vcrecon.cli.reach import Facts, find_guest, run_there
from vcrecon.cli.target import Target, talk
from vcrecon.errors import Refused

if TYPE_CHECKING:
    import asyncssh

    from vcrecon.shell.control import ControlClient

ESCAPE = b"\x1d"
"""Ctrl-]: what both `virsh console` and `xl console` take for the wish to leave."""


def console(
    guest: Annotated[str, typer.Argument(metavar="GUEST", help="A guest that runs.")],
    socket: options.SocketPath = None,
    state: options.State = None,
    specs: options.SpecsOption = None,
) -> None:
    """Open a guest's serial console on this terminal; Ctrl-] leaves it.

    With standard input from a pipe, its bytes are typed there, and the console is left at their end.
    """

    async def ask(client: ControlClient) -> Facts:
        return await find_guest(client, guest)

    found = talk(Target(socket, state, specs), ask)
    name = found["name"]
    if not found["reachable"]:
        raise Refused(f"{found['container'] or 'its container'} does not answer, so the console of {name} is not there")
    if not found["active"]:
        raise Refused(f"{name} does not run ({found['state']}: {found['message']}), so it has no console now")
    import asyncio

    say(f"Console of {name} on {found['container']}; press Enter for a prompt, leave with Ctrl-]", to_stderr=True)
    try:
        status = asyncio.run(run_there(found, lambda connection: _attach(connection, found)))
    finally:
        if sys.stderr.isatty():
            say("", to_stderr=True)
    say(f"Left the console of {name}", to_stderr=True)
    raise typer.Exit(status)


async def _attach(connection: asyncssh.SSHClientConnection, found: Facts) -> int:
    from vcrecon.shell.terminal import interact

    return await interact(connection, found["console"], found["container"], escape=ESCAPE)
