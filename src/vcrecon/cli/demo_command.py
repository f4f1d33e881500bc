"""The command `demo`; what it shows is in `cli.demo`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from vcrecon.cli import options


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave site and service running at the end, and print how to stop them.")
    ] = False,
    spec: Annotated[
        Literal["tutorial", "small"],
        typer.Option("--spec", help="Which of the specs that ship with vcrecon; small has 3 containers, 6 guests."),
    ] = "tutorial",
    as_json: options.Json = False,
) -> None:
    """Show it all on a simulated site on this machine: converge, heal, move. Needs no root and no hosts.

    64 containers and 131 guests, in about two minutes. Exits with 1 when anything did not come true.
    """
    from vcrecon.cli.demo import demo as show

    code = show(keep=keep, as_json=as_json, spec=spec)
    if code:
        raise typer.Exit(code)
