"""The command `events`: what happened, to one object or to all; from the service, or from the record it left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from vcrecon.cli import options
from vcrecon.cli.output import out, say, say_json
from vcrecon.cli.target import Target, resolve, talk
from vcrecon.errors import Refused

if TYPE_CHECKING:
    from vcrecon.shell.control import ControlClient

FOLLOW_WAIT_S = 25


def events(
    subject: Annotated[
        str | None,
        typer.Argument(metavar="[OBJECT]", help="Such as a-head, c01, guest/a-head. Default: all."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens next.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="The last so many.")] = 50,
    as_json: options.Json = False,
    socket: options.SocketPath = None,
    state: options.State = None,
    specs: options.SpecsOption = None,
) -> None:
    """Show what happened, oldest first, each with its reason.

    With --json and --follow, prints one JSON object a line. Without a running service, reads the record.
    """
    target = Target(socket, state, specs)
    if target.find_socket() is None:
        if follow or socket is not None:
            target.must_find_socket()
        found = _from_record(target, subject, limit)
        say_json({"events": found}) if as_json else say([line(event) for event in found])
        return
    talk(target, lambda client: _from_service(client, subject, limit, follow, as_json))


async def _from_service(client: ControlClient, name: str | None, limit: int, follow: bool, as_json: bool) -> None:
    subject = resolve(name, await client.status()) if name is not None else None
    found = await client.events(subject, limit=limit)
    if not follow:
        say_json({"events": found}) if as_json else say([line(event) for event in found])
        return
    last_id = 0
    while True:
        for event in found:
            _print_now(event, as_json)
        last_id = max([last_id, *(event["id"] for event in found)])
        found = await client.events(subject, after_id=last_id, wait_s=FOLLOW_WAIT_S)


def _print_now(event: Mapping[str, Any], as_json: bool) -> None:
    """At once, also into a pipe: who follows wants to see it when it happens."""
    import json

    console = out()
    console.print(json.dumps(event, ensure_ascii=False) if as_json else line(event))
    console.file.flush()


def _from_record(target: Target, name: str | None, limit: int) -> list[dict[str, Any]]:
    from vcrecon.shell.record import Record

    with Record.read_only(target.find_record()) as record:
        subjects = [name]
        if name is not None and "/" not in name:
            # No service to ask what kind of thing it is: the history knows.
            subjects = [f"{kind}/{name}" for kind in ("container", "guest", "cluster")]
        found = [event for subject in subjects for event in record.events(subject, limit=limit)]
    if name is not None and not found:
        raise Refused(f"no events about {name!r} in the record; `vcrecon events` shows all")
    return [{**asdict(event), "facts": dict(event.facts)} for event in sorted(found, key=lambda e: e.id)][-limit:]


def line(event: Mapping[str, Any]) -> Text:
    """One event as a line: local time, object, reason, message."""
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["at_s"]))
    return Text.assemble(
        (at, "dim"),
        "  ",
        (f"{event['subject']:<22}", "bold"),
        "  ",
        (f"{event['reason']:<18}", "cyan"),
        "  ",
        str(event["message"]),
    )
