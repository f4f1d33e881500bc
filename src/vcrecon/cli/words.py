"""The commands by which a person's word reaches the running service.

`pause`, `resume`, `rebuild`, `prune`, `confirm`: each says what it means before it asks (S1 to S3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vcrecon.cli import options
from vcrecon.cli.output import columns, confirm, count, duration, listed, say, say_json, size
from vcrecon.cli.target import Target, resolve, talk
from vcrecon.errors import Refused

if TYPE_CHECKING:
    from vcrecon.shell.control import Consentable, ControlClient

Object = Annotated[
    str,
    typer.Argument(metavar="[OBJECT]", help="Such as c01, a-head, cluster/a, container/c01. Default: the whole site."),
]


def pause(
    subject: Object = "site",
    socket: options.SocketPath = None,
    state: options.State = None,
    specs: options.SpecsOption = None,
) -> None:
    """Keep hands off an object, a cluster or the whole site until `resume`. What runs goes on running."""

    async def ask(client: ControlClient) -> str:
        return await client.pause(resolve(subject, await client.status()))

    say(talk(Target(socket, state, specs), ask))


def resume(
    subject: Object = "site",
    socket: options.SocketPath = None,
    state: options.State = None,
    specs: options.SpecsOption = None,
) -> None:
    """End a pause: the object is brought to what the spec wants."""

    async def ask(client: ControlClient) -> str:
        return await client.resume(resolve(subject, await client.status()))

    say(talk(Target(socket, state, specs), ask))


def rebuild(
    name: Annotated[str, typer.Argument(metavar="GUEST|CLUSTER", help="A guest, or a cluster with all its guests.")],
    yes: options.Yes = False,
    socket: options.SocketPath = None,
    state: options.State = None,
    specs: options.SpecsOption = None,
) -> None:
    """Give guests new disks from their image. What is on the old ones is given up, so it asks first."""
    target = Target(socket, state, specs)
    guests = _to_rebuild(name, _status(target))
    say([f"New disks from the image for {count(len(guests), 'guest')}:"])
    say(
        columns(
            ("GUEST", "CLUSTER", "CONTAINER", "STATE"),
            ((g["name"], g["cluster"] or "-", g["container"] or "-", g["state"] or "unknown") for g in guests),
            indent="  ",
        )
    )
    say(
        "They begin again from the image: what students saved on them is gone from these guests. "
        "Old disks with student work are kept aside until `vcrecon prune`."
    )
    confirm(f"Rebuild {count(len(guests), 'guest')}?", yes=yes, what="rebuild")
    say(_consent(target, "rebuild", [guest["name"] for guest in guests]))


def prune(
    names: Annotated[list[str] | None, typer.Argument(metavar="[GUEST]...", help="Whose kept disks to remove.")] = None,
    yes: options.Yes = False,
    as_json: Annotated[bool, typer.Option("--json", help="List what could be removed as JSON.")] = False,
    socket: options.SocketPath = None,
    state: options.State = None,
    specs: options.SpecsOption = None,
) -> None:
    """Remove disks that were kept when guests left the spec or moved. Without names, lists them."""
    target = Target(socket, state, specs)
    found = _status(target)
    # One that is merely still there, and is none of the spec's, has no disk aside yet.
    orphans: list[dict[str, Any]] = [entry for entry in found["orphans"] if entry.get("disks", 1)]
    if not names:
        say_json({"orphans": orphans}) if as_json else say(_prunable(orphans, found["now_s"]))
        return
    if as_json:
        raise typer.BadParameter("--json lists what could be removed; leave the names out")
    kept = {orphan["name"] for orphan in orphans}
    bare = [resolve(name, found).removeprefix("guest/") for name in names]
    nothing = [name for name in bare if name not in kept]
    if nothing:
        raise Refused(f"nothing is kept of {listed(nothing)}; `vcrecon prune` lists what can be removed")
    mine = [orphan for orphan in orphans if orphan["name"] in set(bare)]
    say(["These disks are removed for ever:", *_prunable(mine, found["now_s"])[:-1]])
    confirm(f"Remove {count(len(mine), 'disk')}?", yes=yes, what="prune")
    say(_consent(target, "prune", list(dict.fromkeys(bare))))


def confirm_change(
    socket: options.SocketPath = None,
    state: options.State = None,
    specs: options.SpecsOption = None,
) -> None:
    """Give the word that a large change of the spec waits for. `status` says which, `plan` what it does."""

    async def ask(client: ControlClient) -> tuple[str | None, str]:
        waiting = (await client.status())["spec"]["held_back"]
        return waiting, await client.confirm()

    waiting, answer = talk(Target(socket, state, specs), ask)
    if waiting:
        say(f"Confirmed: {waiting}")
    say(answer)


def _status(target: Target) -> dict[str, Any]:
    async def ask(client: ControlClient) -> dict[str, Any]:
        return await client.status()

    return talk(target, ask)


def _consent(target: Target, kind: Consentable, names: Sequence[str]) -> list[str]:
    async def ask(client: ControlClient) -> list[str]:
        return await client.consent(kind, names)

    return talk(target, ask)


def _to_rebuild(name: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    kind, _, bare = resolve(name, found).partition("/")
    key = {"guest": "name", "cluster": "cluster"}.get(kind)
    if key is None:
        raise Refused(f"{name!r} is a {kind}; rebuild takes a guest or a cluster")
    guests = [guest for guest in found["guests"] if guest[key] == bare]
    if not guests:
        raise Refused(f"{bare} is not in the spec any more; add it again first, or `vcrecon prune {bare}`")
    return guests


def _prunable(orphans: Sequence[dict[str, Any]], now_s: float) -> list[Any]:
    """A table of kept disks; size and age where the service tells them."""
    if not orphans:
        return ["Nothing is kept: there is nothing to prune."]
    rows = [
        (
            orphan["name"],
            orphan["container"],
            size(orphan["disk_bytes"]) if orphan.get("disk_bytes") else "",
            duration(now_s - orphan["since_s"]) if orphan.get("since_s") else "",
            orphan["message"],
        )
        for orphan in orphans
    ]
    table = columns(("GUEST", "CONTAINER", "SIZE", "KEPT FOR", ""), rows)
    return [*table, "Remove one for ever: vcrecon prune GUEST"]
