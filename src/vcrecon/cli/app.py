"""Puts the commands together into `app`, which `__main__` calls. The names are a contract (design, section 7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vcrecon import __version__
from vcrecon.cli import console, deployment, describe, machines, plan, rescue, serve, words
from vcrecon.cli.boot import app as boot
from vcrecon.cli.dashboards_command import dashboards
from vcrecon.cli.demo_command import demo
from vcrecon.cli.events import events
from vcrecon.cli.image import app as image
from vcrecon.cli.lab_command import app as lab
from vcrecon.cli.master_command import app as master
from vcrecon.cli.output import say_error
from vcrecon.cli.status import status
from vcrecon.errors import VcreconError


class _Group(TyperGroup):
    """Turns expected errors into one sentence on standard error and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except VcreconError as error:
            say_error(error)
            raise typer.Exit(1) from None

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order in which a newcomer needs them, not the alphabet's."""
        return list(self.commands)


app = typer.Typer(
    name="vcrecon",
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Try it without any hosts: vcrecon demo",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vcrecon {__version__}")
        raise typer.Exit


@app.callback()
def main(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Keep virtual clusters alive on plain servers, as a spec directory says.

    A container is a physical host, a guest a virtual machine on it. Commands that ask a running service find
    it by --specs, --state or --socket, or by themselves when only one runs.
    """


# Command, name, its line in the list of commands, what to type to try it.
_COMMANDS: tuple[tuple[Callable[..., None], str, str, str], ...] = (
    (demo, "demo", "See it all on a simulated site on this machine.", "vcrecon demo --keep"),
    (plan.check, "check", "Say whether a spec directory is usable.", "vcrecon check specs/tutorial"),
    (plan.plan, "plan", "Show what would be done, and do nothing.", "vcrecon plan specs/tutorial"),
    (serve.apply, "apply", "Make the site what the spec says, once.", "vcrecon apply specs/tutorial"),
    (serve.run, "run", "Run the service that keeps it so.", "vcrecon run specs/tutorial --listen 127.0.0.1:9620"),
    (status, "status", "Show the site, and what is blocked and why.", "vcrecon status --cluster a --watch"),
    (events, "events", "Show what happened, and follow it.", "vcrecon events a-head --follow"),
    (
        deployment.place,
        "place",
        "Find a container for each guest without one.",
        "vcrecon place specs/tutorial --dry-run",
    ),
    (deployment.cordon, "cordon", "Let no new guest be placed on a container.", "vcrecon cordon c01"),
    (deployment.uncordon, "uncordon", "Let guests be placed on it again.", "vcrecon uncordon c01"),
    (deployment.evacuate, "evacuate", "Give the guests of a container other places.", "vcrecon evacuate c01 --yes"),
    (machines.fence, "fence", "Make sure that an unreachable container is off.", "vcrecon fence c01"),
    (machines.reinstall, "reinstall", "Install a container anew.", "vcrecon reinstall c01"),
    (machines.adopt, "adopt", "Make a machine on the network a container.", "vcrecon adopt 52:54:00:00:00:03"),
    (words.pause, "pause", "Keep hands off an object or the whole site.", "vcrecon pause cluster/a"),
    (words.resume, "resume", "End a pause.", "vcrecon resume cluster/a"),
    (words.rebuild, "rebuild", "Give guests new disks from their image.", "vcrecon rebuild a-n1"),
    (rescue.rescue, "rescue", "Halt a guest and open a shell on its disk.", "vcrecon rescue a-n1 --run 'ls -l etc'"),
    (rescue.fix, "fix", "Halt a guest, mend it by a recipe, boot it.", "vcrecon fix a-n1 restore-shadow"),
    (rescue.release, "release", "Boot a guest that was rescued.", "vcrecon release a-n1"),
    (console.console, "console", "Open the serial console of a guest.", "vcrecon console a-n1"),
    (words.prune, "prune", "List disks that were kept, or remove some.", "vcrecon prune a-n1"),
    (words.confirm_change, "confirm", "Give the word that a large change waits for.", "vcrecon confirm"),
    (
        dashboards,
        "dashboards",
        "Write Grafana dashboards, alerts, a runbook.",
        "vcrecon dashboards --write /etc/vcrecon",
    ),
    (describe.schema, "schema", "Print the JSON Schema of the spec files.", "vcrecon schema > vcrecon.schema.json"),
    (describe.diagram, "diagram", "Print the lifecycle of containers and guests.", "vcrecon diagram > lifecycle.md"),
)

for _function, _name, _short, _example in _COMMANDS:
    app.command(_name, short_help=_short, epilog=f"Example: {_example}")(_function)

app.add_typer(boot, name="boot", short_help="Print what your own DHCP server, or nginx, must be told.")
app.add_typer(image, name="image", short_help="Build, capture, verify and prune images.")
app.add_typer(lab, name="lab", short_help="Make a site of virtual machines to try it on.")
app.add_typer(master, name="master", short_help="Let another host take the master's part over.")
