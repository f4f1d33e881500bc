"""The commands that edit deployment.yaml: `cordon`, `uncordon`, `evacuate`, `place`.

Each shows the difference before it writes. The running service takes the new file up by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from vcrecon.cli import options
from vcrecon.cli.output import confirm, count, say
from vcrecon.cli.target import Target, talk
from vcrecon.errors import Refused

if TYPE_CHECKING:
    from vcrecon.shell.control import ControlClient
    from vcrecon.spec.edit import Edit

Container = Annotated[str, typer.Argument(metavar="CONTAINER", help="The name of a physical host.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the difference and write nothing.")]


def cordon(
    container: Container,
    yes: options.Yes = False,
    dry_run: DryRun = False,
    specs: options.SpecsOption = None,
    socket: options.SocketPath = None,
    state: options.State = None,
) -> None:
    """Let no new guest be placed on a container. Those that are there stay."""
    from vcrecon.spec import edit

    directory = spec_directory(specs, socket, state)
    _carry_out(directory, lambda: edit.cordon(directory, container), f"{container} is cordoned", yes, dry_run)


def uncordon(
    container: Container,
    yes: options.Yes = False,
    dry_run: DryRun = False,
    specs: options.SpecsOption = None,
    socket: options.SocketPath = None,
    state: options.State = None,
) -> None:
    """Let guests be placed on a container again. Moves none back; `place --rebalance` does."""
    from vcrecon.spec import edit

    directory = spec_directory(specs, socket, state)
    done = f"{container} is not cordoned"
    _carry_out(directory, lambda: edit.uncordon(directory, container), done, yes, dry_run)


def evacuate(
    container: Container,
    yes: options.Yes = False,
    dry_run: DryRun = False,
    specs: options.SpecsOption = None,
    socket: options.SocketPath = None,
    state: options.State = None,
) -> None:
    """Cordon a container and give its guests other places. Says of each that cannot move, why.

    Exits with 1 when a guest had to stay.
    """
    from vcrecon.spec import edit

    directory = spec_directory(specs, socket, state)
    done = f"{container} is cordoned and no guest that can move is left on it"
    _carry_out(directory, lambda: edit.evacuate(directory, container), done, yes, dry_run)


def place(
    specs: Annotated[
        Path | None,
        typer.Argument(metavar="[SPECS]", help="The spec directory. Default: as --specs of the other commands."),
    ] = None,
    rebalance: Annotated[
        bool, typer.Option("--rebalance", help="Also move guests that are placed well, to spread the load.")
    ] = False,
    yes: options.Yes = False,
    dry_run: DryRun = False,
    socket: options.SocketPath = None,
    state: options.State = None,
) -> None:
    """Find a container for every guest that has none, and write it to deployment.yaml.

    Nodes of one cluster go to separate containers; what is placed well stays. Exits with 1 when a guest
    found no place.
    """
    from vcrecon.spec import edit

    directory = spec_directory(specs, socket, state)
    done = "every guest that fits has its place"
    _carry_out(directory, lambda: edit.place_directory(directory, rebalance), done, yes, dry_run)


def spec_directory(specs: Path | None, socket: Path | None, state: Path | None) -> Path:
    """--specs, else the running service's directory, else VCRECON_SPECS, else ./specs."""
    if specs is not None:
        return specs
    named = bool(socket or state)
    # The environment stands behind a running service here, so it must not choose which one is asked.
    target = Target(socket, state, environ={})
    if named or target.find_socket() is not None:

        async def ask(client: ControlClient) -> dict[str, Any]:
            return await client.status()

        return Path(talk(target, ask)["spec"]["directory"])
    directory = Path(os.environ.get("VCRECON_SPECS") or "specs")
    if not directory.is_dir():
        raise Refused(
            f"no running service found, and {directory} is not a directory; say where the spec is: --specs DIR"
        )
    return directory


def _carry_out(directory: Path, make: Callable[[], Edit], done: str, yes: bool, dry_run: bool) -> None:
    """Show the edit, ask, write. Exits with 1 when guests are stuck or the person says no."""
    edit = make()
    say(show_difference(edit.diff()))
    say(_moves(edit))
    if not edit.changed:
        say(f"Nothing to write: {done}." if not edit.stuck else "Nothing to write.")
    elif dry_run:
        say("Not written (--dry-run).")
    else:
        confirm(f"Write {edit.path}?", yes=yes, what=f"writing {edit.path}")
        edit.write()
        say(f"Written: {edit.path}. A running service takes it up at once; else: vcrecon apply {directory}")
    if edit.stuck:
        raise typer.Exit(1)


def _moves(edit: Edit) -> list[Text]:
    lines = [
        Text.assemble("  ", (guest, "bold"), f": {source or '(nowhere)'} → {target}")
        for guest, source, target in edit.moved
    ]
    if lines:
        lines.insert(0, Text(f"{count(len(lines), 'guest')} to move:"))
    if edit.stuck:
        lines.append(Text(f"{count(len(edit.stuck), 'guest')} cannot move:", style="bold yellow"))
        lines += [Text.assemble("  ", (guest, "bold"), f": {reason}") for guest, reason in edit.stuck]
    return lines


def show_difference(diff: str) -> list[Text]:
    """A unified diff in colours."""
    styles = {"+": "green", "-": "red", "@": "cyan"}
    return [Text(line, style=styles.get(line[:1], "")) for line in diff.splitlines()]
