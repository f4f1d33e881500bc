"""The commands that describe vcrecon itself: `schema`, `diagram`."""

from __future__ import annotations

import typer

from vcrecon.cli.output import say_json


def schema() -> None:
    """Print the JSON Schema of the spec files, for editors that check YAML while one types."""
    from vcrecon.spec.text import json_schema

    say_json(json_schema())


def diagram() -> None:
    """Print the lifecycle of containers and guests as Mermaid diagrams in Markdown."""
    from vcrecon.core.lifecycle import diagram as draw

    typer.echo(draw())
