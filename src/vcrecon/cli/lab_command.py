"""The commands `lab …`: a site of virtual machines on this machine. Each is a thin call of `vcrecon.lab`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from vcrecon.cli import options
from vcrecon.cli.output import columns, say, say_json
from vcrecon.cli.shipped import shipped_specs
from vcrecon.lab.layout import Accel, Files

app = typer.Typer(
    name="lab",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="A site of virtual machines on this machine: real Debian hosts to try vcrecon on. Needs root.",
)


class _Said:
    """Progress on standard error, each line with the seconds since the start."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()

    def __call__(self, line: str) -> None:
        typer.echo(f"lab: {time.monotonic() - self._began_s:5.0f} s  {line}", err=True)


@app.command("up", short_help="Make the lab, or what is missing of it.")
def up(
    specs: Annotated[
        Path | None, typer.Option("--specs", help="The site to build; by default the one that ships: specs/lab.")
    ] = None,
    accel: Annotated[
        Accel, typer.Option("--accel", help="auto tries /dev/kvm, and emulates where that does not run.")
    ] = "auto",
    spares: Annotated[
        int | None,
        typer.Option(
            "--spares", min=0, max=4, help="Blank machines, left off; spare2 has two disks. Two with --bare-metal."
        ),
    ] = None,
    uefi_spares: Annotated[
        int, typer.Option("--uefi-spares", min=0, max=4, help="More of them, with UEFI; needs the package ovmf.")
    ] = 0,
    bare_metal: Annotated[
        bool,
        typer.Option(
            "--bare-metal", help="Let vcrecon install spare machines; builds once what they are installed with."
        ),
    ] = False,
) -> None:
    """Build the images once, start a virtual machine for every container, and write a spec directory for them.

    Everything is in network namespaces of its own. Takes about four minutes the first time, one when the
    images are cached; it can be called again to switch on what is off.
    """
    from vcrecon.lab import lab

    tell = _Said()
    if bare_metal:
        from vcrecon.cli.lab_bare_metal import build

        build(tell)
    count = (2 if bare_metal else 0) if spares is None else spares
    plan = lab.up(
        specs or shipped_specs("lab"),
        tell,
        accel=accel,
        spares=count,
        uefi_spares=uefi_spares,
        bare_metal=bare_metal,
    )
    target = Files().specs
    typer.echo(f"The lab is up: {len(plan.machines)} containers. Its spec directory is {target}")
    typer.echo(f"  vcrecon apply {target}            bring up its guests, once")
    typer.echo(f"  vcrecon run {target}              or keep them alive, as a service")
    typer.echo("  vcrecon lab ssh c01 | vcrecon lab ssh a-head     look inside")
    typer.echo("  vcrecon lab break --help                         break something")
    if plan.spares:
        typer.echo(f"  vcrecon lab break power-on {plan.spares[0].name}     switch a blank machine on, to install it")
    typer.echo("  vcrecon lab down                                 remove all of it")


@app.command("status", short_help="Show the lab's machines.")
def status(as_json: options.Json = False) -> None:
    """Show which machines are on and answer, and where to look inside. Exits with 1 when a container does not.

    Spare machines are off until somebody needs one, so they do not count.
    """
    from vcrecon.lab import lab

    files = Files()
    rows = lab.status(files)
    if as_json:
        say_json({"directory": str(files.root), "specs": str(files.specs), "machines": rows})
    else:
        keys = ("name", "kind", "address", "mac", "power", "ssh", "console")
        rows = [{**row, "kind": row["hypervisor"] or row["kind"]} for row in rows]
        say(columns([key.upper() for key in keys], [[row[key] for key in keys] for row in rows]))
    if not all(row["ssh"] == "answers" for row in rows if row["kind"] != "spare"):
        raise typer.Exit(1)


@app.command("ssh", short_help="Log in to a container or a guest.", context_settings={"ignore_unknown_options": True})
def ssh(
    name: Annotated[str, typer.Argument(help="A container, or a guest of the lab's spec.")],
    command: Annotated[list[str] | None, typer.Argument(help="What to run there; a shell without it.")] = None,
) -> None:
    """Log in as root with the lab's key; to a guest by way of the container that it is placed on."""
    from vcrecon.lab import inside

    line: list[Any] = inside.ssh_command(name, command or [], Files())
    os.execvp(line[0], line)  # noqa: S606 - the terminal belongs to ssh from here on


@app.command("break", short_help="Break something on purpose.")
def break_(
    what: Annotated[str, typer.Argument(help="One of the list below.")] = "list",
    name: Annotated[str, typer.Argument(help="The container, spare machine or guest it happens to.")] = "",
) -> None:
    """Do to the lab what a class, or fate, does to a site. Without arguments: list what can be broken."""
    from vcrecon.lab import breakage

    if what == "list":
        rows = [(entry.name, entry.victim, entry.effect) for entry in breakage.BREAKAGES.values()]
        say(columns(("WHAT", "OF A", "WHAT HAPPENS"), rows))
        return
    typer.echo(breakage.break_it(what, name, Files()))


@app.command("down", short_help="Remove the lab.")
def down() -> None:
    """End its machines and remove everything it made but the cached images. Safe to call at any time."""
    from vcrecon.lab import lab

    ended = lab.down()
    typer.echo(f"The lab is gone ({ended} processes ended). Its images stay cached for the next one.")
