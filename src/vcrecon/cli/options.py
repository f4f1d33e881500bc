"""Arguments and options that several commands share, each defined once. Used by every module of `cli`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Specs = Annotated[
    Path,
    typer.Argument(
        metavar="SPECS",
        envvar="VCRECON_SPECS",
        help="The spec directory: site.yaml, images.yaml, containers.yaml, clusters.yaml, deployment.yaml.",
        show_default=False,
    ),
]
State = Annotated[
    Path | None,
    typer.Option(
        "--state",
        metavar="DIR",
        envvar="VCRECON_STATE",
        help="The state directory. Default: /var/lib/vcrecon/SITE for root, "
        "else $XDG_STATE_HOME/vcrecon/SITE or ~/.local/state/vcrecon/SITE.",
        show_default=False,
    ),
]
SocketPath = Annotated[
    Path | None,
    typer.Option("--socket", metavar="PATH", help="The service's control socket.", show_default=False),
]
SpecsOption = Annotated[
    Path | None,
    typer.Option(
        "--specs",
        metavar="DIR",
        help="The spec directory of the site that is meant.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"] | None,
    typer.Option("--log-level", help="How much to log on standard error.", show_default=False),
]
LogFormat = Annotated[
    Literal["auto", "console", "json"],
    typer.Option("--log-format", help="auto: for people on a terminal, else JSON lines."),
]
