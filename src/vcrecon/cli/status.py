"""The command `status`: the whole site, once or again and again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vcrecon.cli import options
from vcrecon.cli.output import out, say, say_json
from vcrecon.cli.target import Target, talk

if TYPE_CHECKING:
    from vcrecon.shell.control import ControlClient

WATCH_S = 1.0


def status(
    cluster: Annotated[str | None, typer.Option("--cluster", "-c", help="Only this cluster.")] = None,
    container: Annotated[str | None, typer.Option("--container", "-n", help="Only this container.")] = None,
    state: Annotated[
        str | None,
        typer.Option("--in-state", help="Only objects in this state; also: blocked, unknown."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", "-a", help="List each guest, however many.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again as it changes.")] = False,
    as_json: options.Json = False,
    socket: options.SocketPath = None,
    state_directory: options.State = None,
    specs: options.SpecsOption = None,
) -> None:
    """Show the site: the sums, what is blocked and what to type about it, containers, guests."""
    from vcrecon.cli import status_view

    if watch and as_json:
        raise typer.BadParameter("--watch is for people; scripts poll `vcrecon status --json`")
    target = Target(socket, state_directory, specs)
    wanted = status_view.Filter(cluster, container, state)
    if watch:
        _watch(target, wanted, every)
        return

    async def ask(client: ControlClient) -> dict[str, Any]:
        return await client.status()

    found = talk(target, ask)
    _must_exist(found, wanted)
    if as_json:
        say_json(status_view.select(found, wanted) if wanted.is_on else found)
    else:
        say(status_view.render(found, wanted, every=every))


def _must_exist(found: dict[str, Any], wanted: Any) -> None:
    """A filter by a name that the site does not have is a typing error, not an empty answer."""
    from vcrecon.cli.target import resolve

    for kind in ("cluster", "container"):
        name = getattr(wanted, kind)
        if name is not None:
            resolve(f"{kind}/{name}", found)


def _watch(target: Target, wanted: Any, every: bool) -> None:
    """The whole screen; where there is none, a line whenever the sums change."""
    from vcrecon.cli import status_view
    from vcrecon.cli.watch import can_draw, watch

    def select(found: dict[str, Any]) -> dict[str, Any]:
        return status_view.select(found, wanted) if wanted.is_on else found

    async def ask(client: ControlClient) -> dict[str, Any]:
        return await client.status()

    _must_exist(talk(target, ask), wanted)
    if can_draw(out()):
        asyncio.run(watch(target.must_find_socket(), select, every=every))
    else:
        talk(target, _lines)


async def _lines(client: ControlClient) -> None:
    """Until the service ends or the reader has left."""
    from vcrecon.cli import status_view

    last = ""
    while True:
        line = status_view.summary(await client.status()).plain
        if line != last:
            out().print(line)
            last = line
        await asyncio.sleep(WATCH_S)
