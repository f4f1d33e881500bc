"""The commands on containers as machines: `reinstall`, `adopt`, `fence`. Each says what it means before it asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vcrecon.cli import options
from vcrecon.cli.deployment import Container, DryRun, show_difference, spec_directory
from vcrecon.cli.output import confirm, listed, say, say_json
from vcrecon.cli.reach import who
from vcrecon.cli.target import Target, resolve, talk
from vcrecon.errors import Refused

if TYPE_CHECKING:
    from vcrecon.shell.control import ControlClient

Facts = dict[str, Any]


def reinstall(
    container: Container,
    give_up: Annotated[
        list[str] | None,
        typer.Option("--give-up", metavar="GUEST", help="A guest whose work there may be lost; once for each."),
    ] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Take it back, while it has not begun.")] = False,
    yes: options.Yes = False,
    socket: options.SocketPath = None,
    state: options.State = None,
    specs: options.SpecsOption = None,
) -> None:
    """Install a container anew, from a blank disk. All that is on its disks is lost, so it asks first.

    Refused while students' work is there, unless --give-up names each guest. `vcrecon evacuate` takes them away.
    """
    target = Target(socket, state, specs)
    found = _facts(target, container)
    if cancel:
        say(talk(target, lambda client: client.cancel_reinstall(found["name"], who())))
        return
    name, named = found["name"], [guest.removeprefix("guest/") for guest in give_up or ()]
    missing = [guest for guest in found["touched"] if guest not in named]
    if missing:
        raise Refused(
            f"students' work is on {name}: {listed(missing)}. Take it away first: `vcrecon evacuate {name}`. "
            f"To lose it: `vcrecon reinstall {name} --give-up {' --give-up '.join(missing)}`"
        )
    say(_what_reinstall_means(found))
    confirm(f"Install {name} anew?", yes=yes, what="reinstall")

    async def ask(client: ControlClient) -> str:
        return await client.reinstall(name, named, who())

    say(talk(target, ask))
    say("vcrecon status shows how far it is.")


def _what_reinstall_means(found: Facts) -> list[str]:
    name, lines = found["name"], []
    lost = [guest for guest in found["guests"] if guest in found["touched"]]
    others = [guest for guest in found["guests"] if guest not in found["touched"]]
    lines.append(f"All that is on the disks of {name} is lost, and it gets the system {found['system'] or '(none)'}.")
    if lost:
        lines.append(f"Students' work that you give up: {listed(lost, 30)}")
    if others:
        lines.append(f"Guests without work there, made anew: {listed(others, 30)}")
    if not found["guests"]:
        lines.append("No guest lives there.")
    if not found["looked_at"]:
        lines.append(f"{name} did not answer since vcrecon was started: disks kept aside there are not known.")
    elif not found["reachable"]:
        lines.append(f"{name} does not answer now; this is what was seen there last.")
    return lines


def adopt(
    mac: Annotated[str, typer.Argument(metavar="MAC", help="Of a machine that `vcrecon status` shows as a stranger.")],
    name: Annotated[str | None, typer.Option("--name", help="Of the container. Default: the next free one.")] = None,
    address: Annotated[str | None, typer.Option("--address", help="Default: the next free one.")] = None,
    like: Annotated[str | None, typer.Option("--template", help="A template of containers.yaml.")] = None,
    system: Annotated[str | None, typer.Option("--system", help="What to install it with.")] = None,
    yes: options.Yes = False,
    dry_run: DryRun = False,
    specs: options.SpecsOption = None,
    socket: options.SocketPath = None,
    state: options.State = None,
) -> None:
    """Make a machine a container: write its entry into containers.yaml, and keep the comments there.

    Once it is in the spec it is installed when it boots from the network, unless its disk holds something.
    """
    from vcrecon.spec import adopt as adopting

    directory = spec_directory(specs, socket, state)
    edit = adopting.adopt(directory, mac, name=name, address=address, template=like, system=system)
    say(show_difference(edit.diff()))
    if dry_run:
        say("Not written (--dry-run).")
        return
    confirm(f"Write {edit.path}?", yes=yes, what=f"writing {edit.path}")
    edit.write()
    say(f"Written: {edit.path}. A running service takes it up at once; let the machine boot from the network.")


def fence(
    container: Annotated[str, typer.Argument(metavar="CONTAINER", help="The container that is to count as off.")],
    confirmed: Annotated[
        bool, typer.Option("--confirmed", help="Your word: it is off and will not come back by itself.")
    ] = False,
    yes: options.Yes = False,
    as_json: options.Json = False,
    socket: options.SocketPath = None,
    state: options.State = None,
    specs: options.SpecsOption = None,
) -> None:
    """Let the guests of an unreachable container start elsewhere, once it is powered off.

    With power control it is switched off first, and nothing is fenced before that is proved. Without, --confirmed
    is your word that it is off; without either this only explains, and exits with 1.
    """
    target = Target(socket, state, specs)
    found = _status(target)
    name = container.removeprefix("container/")
    # One that left the spec may still hold guests.
    if not any(name in guest["seen_on"] for guest in found["guests"]):
        name = resolve(f"container/{name}", found).removeprefix("container/")
    entry: Facts = next((c for c in found["containers"] if c["name"] == name), {})
    by_power = not confirmed and entry.get("power", "manual") != "manual"
    guests = [g["name"] for g in found["guests"] if g["container"] == name or name in g["seen_on"]]
    if not confirmed and not by_power:
        say(_what_fence_means(name, guests), to_stderr=True)
        raise typer.Exit(1)
    if by_power:
        say(f"{name} is switched off by its power control. Guests that may still run there: {listed(guests, 30)}")
        confirm(f"Switch {name} off?", yes=yes, what="fence")

    async def ask(client: ControlClient) -> Facts:
        return await (client.power_fence(name, who()) if by_power else client.fence(name, who()))

    answer = talk(target, ask)
    if as_json:
        say_json(answer)
        return
    say(str(answer["message"]))


def _facts(target: Target, container: str) -> Facts:
    async def ask(client: ControlClient) -> Facts:
        subject = resolve(f"container/{container.removeprefix('container/')}", await client.status())
        return await client.container(subject.removeprefix("container/"))

    return talk(target, ask)


def _status(target: Target) -> Facts:
    async def ask(client: ControlClient) -> Facts:
        return await client.status()

    return talk(target, ask)


def _what_fence_means(name: str, guests: Sequence[str]) -> list[str]:
    return [
        f"Fencing {name} is your word that it is powered off and stays off until its disks were looked at.",
        "If it still runs, its guests would run twice, with the same addresses: check its power light or",
        "its power controller first, not only that it does not answer.",
        f"Guests that may still run there: {listed(guests, 30) if guests else 'none known'}",
        "Those that deployment.yaml places elsewhere start there, from a fresh image: their disks stay where",
        "they are. When the container comes back, the old copies are stopped first and their disks kept.",
        f"If it is off, type: vcrecon fence {name} --confirmed",
    ]
