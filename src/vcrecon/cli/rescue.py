"""`rescue`, `release` and `fix`: a person works on the disk of a halted guest, on its container.

The service halts the guest and holds its disk; what the person does there goes over a connection of the command's
own. Says at each end what the guest is left as, and what to type.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vcrecon.cli import options
from vcrecon.cli.output import columns, say, say_json
from vcrecon.cli.reach import Facts, find_guest, run_there, wait_for, who
from vcrecon.cli.recipes import Recipe, choose, recipes
from vcrecon.cli.target import Target, talk
from vcrecon.errors import Refused

if TYPE_CHECKING:
    import asyncssh

    from vcrecon.shell.control import ControlClient

Guest = Annotated[str, typer.Argument(metavar="GUEST", help="A guest, such as a-head.")]


def rescue(
    guest: Guest,
    run: Annotated[
        str | None, typer.Option("--run", metavar="CMD", help="Run this command there instead of a shell.")
    ] = None,
    socket: options.SocketPath = None,
    state: options.State = None,
    specs: options.SpecsOption = None,
) -> None:
    """Halt a guest, mount its disk on its container, and open a shell there.

    The shell is the container's, in the mounted tree: never run what lies in the tree itself. The guest stays held
    after it, also through restarts of the service, until `vcrecon release GUEST`.
    """
    target = Target(socket, state, specs)
    found = talk(target, lambda client: _hold(client, guest))
    name = found["name"]
    if run is None:
        say(f"The disk of {name} is mounted at {found['mounted_at']} on {found['container']}", to_stderr=True)
    try:
        status = asyncio.run(run_there(found, lambda connection: _work(connection, found, run)))
    finally:
        say(f"{name} is still held: `vcrecon release {name}` boots it again", to_stderr=True)
    raise typer.Exit(status)


def release(
    guest: Guest,
    as_json: options.Json = False,
    socket: options.SocketPath = None,
    state: options.State = None,
    specs: options.SpecsOption = None,
) -> None:
    """Unmount a held guest's disk and let it boot again."""
    found = talk(Target(socket, state, specs), lambda client: _release(client, guest))
    if as_json:
        say_json({"guest": found["name"], "container": found["container"], "released": True})
        return
    say(f"{found['name']} is released: it boots again where the spec wants it")


def fix(
    guest: Annotated[str | None, typer.Argument(metavar="GUEST", help="A guest, such as a-head.")] = None,
    recipe: Annotated[str | None, typer.Argument(metavar="RECIPE", help="Which recipe; see --list.")] = None,
    list_them: Annotated[bool, typer.Option("--list", help="List the recipes.")] = False,
    keep_held: Annotated[bool, typer.Option("--keep-held", help="Do not release the guest afterwards.")] = False,
    socket: options.SocketPath = None,
    state: options.State = None,
    specs: options.SpecsOption = None,
) -> None:
    """Halt a guest, mend its disk by a recipe, and boot it again.

    When the recipe fails the guest stays held, to be looked at with `vcrecon rescue GUEST`.
    """
    target = Target(socket, state, specs)
    if list_them:
        say(columns(("RECIPE", "FROM", ""), ((r.name, r.origin, r.summary) for r in _known(target).values())))
        return
    if guest is None or recipe is None:
        raise typer.BadParameter("give a guest and a recipe, or --list")
    found = talk(target, lambda client: find_guest(client, guest))
    chosen = choose(recipe, recipes(Path(found["specs"])))
    parcel = _parcel(found, chosen)
    was_held = found["held"] is not None
    name = found["name"]
    found = talk(target, lambda client: _hold(client, name))
    done = False
    try:
        status = asyncio.run(run_there(found, lambda connection: _mend(connection, found, parcel)))
        done = status == 0
    finally:
        if not done:
            say(
                f"{chosen.name} failed: {name} stays held. Look at it with `vcrecon rescue {name}`; "
                f"`vcrecon release {name}` boots it again",
                to_stderr=True,
            )
    if status:
        raise typer.Exit(status)
    if was_held or keep_held:
        say(f"{name} is still held: `vcrecon release {name}` boots it again", to_stderr=True)
        return
    talk(target, lambda client: _release(client, name))
    say(f"{name} is released: it boots again", to_stderr=True)


async def _hold(client: ControlClient, guest: str) -> Facts:
    found = await find_guest(client, guest)
    name = found["name"]
    say(await client.rescue(name, who()), to_stderr=True)
    return await wait_for(
        client,
        found,
        lambda now: now["pending"] is None and now["held"] is not None,
        f"Ctrl-C stops waiting, `vcrecon release {name}` takes it back",
        failure=f"vcrecon goes on trying; `vcrecon release {name}` takes it back",
    )


async def _release(client: ControlClient, guest: str) -> Facts:
    found = await find_guest(client, guest)
    name = found["name"]
    told = await client.release(name, who())
    if not found["reachable"]:
        raise Refused(told)
    return await wait_for(
        client,
        found,
        lambda now: now["pending"] is None and now["held"] is None,
        "Ctrl-C stops waiting; it is released all the same",
        failure=f"vcrecon goes on trying, and {name} is released once it can be",
    )


async def _work(connection: asyncssh.SSHClientConnection, found: Facts, run: str | None) -> int:
    from vcrecon.host import rescue as scripts
    from vcrecon.shell.terminal import interact, stream

    name, where = found["name"], found["container"]
    if run is not None:
        return await stream(connection, scripts.command(name, run), where)
    if not os.isatty(0):
        return await stream(connection, scripts.shell_without_terminal(name), where)
    return await interact(connection, scripts.shell(name), where)


async def _mend(connection: asyncssh.SSHClientConnection, found: Facts, parcel: bytes) -> int:
    from vcrecon.host import rescue as scripts
    from vcrecon.host.steps import LOCKED
    from vcrecon.shell.terminal import stream

    status = await stream(connection, scripts.recipe(found["name"]), found["container"], stdin=parcel)
    if status == LOCKED:
        raise Refused(f"another step or recipe is at work on {found['name']}; try again when it ended")
    return status


def _parcel(found: Facts, recipe: Recipe) -> bytes:
    """The recipe with what it may know. Raises Refused for a guest that left the spec, or without its password."""
    from vcrecon.host.rescue import parcel

    if found["facts"] is None:
        raise Refused(f"{found['name']} is not in the spec any more, so a recipe cannot know what it should be")
    path = Path(found["root_password"])
    try:
        password = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not plain text"
        raise Refused(f"cannot read the root password hash of {found['name']} in {path.name}: {why}") from None
    return parcel(recipe.script, found["facts"], f"root:{password}\n".encode())


def _known(target: Target) -> dict[str, Recipe]:
    """The recipes of the site that is meant; the built-in ones when no service runs to say which."""
    if target.specs is not None:
        return recipes(target.specs)

    async def ask(client: ControlClient) -> str:
        return str((await client.status())["spec"]["directory"])

    return recipes(Path(talk(target, ask)) if target.find_socket() is not None else Path(os.devnull))
