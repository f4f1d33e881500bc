"""The status of a site as text: the sums first, then what needs a person and what to type, then the tables.

Called by `cli.status` and, for its one-line summary, by `cli.progress`. Pure: gets the status document of the
control socket (shell.control) and returns lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from vcrecon.cli.output import columns, count, duration, listed, state_text
from vcrecon.core.overview import POOL_SHOWN_PERCENT, Entry, Status, install_words, is_silent, next_step

GUESTS_SHOWN_MAX = 40
CONTAINERS_SHOWN_MAX = 24
BLOCKED_SHOWN_MAX = 20


@dataclass(frozen=True, slots=True)
class Filter:
    """What a person wants to see of a site; None means all."""

    cluster: str | None = None
    container: str | None = None
    state: str | None = None

    @property
    def is_on(self) -> bool:
        return any((self.cluster, self.container, self.state))

    def guest(self, guest: Entry) -> bool:
        places = {guest["container"], *guest["seen_on"]}
        return (
            self.cluster in (None, guest["cluster"])
            and (self.container is None or self.container in places)
            and self._state(guest)
        )

    def container_shown(self, container: Entry, guests: Sequence[Entry]) -> bool:
        """With a cluster, the containers that hold its guests."""
        holds = self.cluster is None or any(
            container["name"] in {guest["container"], *guest["seen_on"]} for guest in guests
        )
        own_state = self._state(container) or (self.state is not None and self._holds(container, guests))
        return holds and self.container in (None, container["name"]) and own_state

    def _holds(self, container: Entry, guests: Sequence[Entry]) -> bool:
        return self.container is not None and any(g["container"] == container["name"] for g in guests)

    def _state(self, entry: Entry) -> bool:
        if self.state is None:
            return True
        if self.state == "blocked":
            return bool(entry["blocked"])
        return self.state == (entry["state"] or "unknown")


def select(status: Status, wanted: Filter) -> dict[str, Any]:
    """The status document with only the objects that `wanted` lets through."""
    guests = [guest for guest in status["guests"] if wanted.guest(guest)]
    containers = [c for c in status["containers"] if wanted.container_shown(c, guests)]
    orphans = [o for o in status["orphans"] if wanted.container in (None, o["container"])]
    if wanted.cluster or wanted.state:
        orphans = []
    return {**status, "containers": containers, "guests": guests, "orphans": orphans}


def summary(status: Status) -> Text:
    """The whole site in one line."""
    guests, containers = status["guests"], status["containers"]
    running = sum(guest["state"] == "running" for guest in guests)
    silent = sum(is_silent(container) for container in containers)
    installing = sum(bool(container.get("install")) for container in containers)
    unseen = sum(not c["reachable"] and not c.get("install") and not is_silent(c) for c in containers)
    blocked = sum(bool(entry["blocked"]) for entry in (*guests, *containers))
    head = ("converged", "bold green") if status["converged"] else ("not converged", "bold yellow")
    line = Text.assemble(
        (str(status["site"]), "bold"), ": ", head, f", {running} of {count(len(guests), 'guest')} running"
    )
    line.append(f" on {count(len(containers), 'container')}")
    if silent:
        line.append(f", {silent} unreachable", style="bold red")
    if installing:
        line.append(f", {installing} to install", style="cyan")
    if unseen:
        line.append(f", {unseen} not looked at yet")
    if blocked:
        line.append(f", {blocked} blocked", style="bold yellow")
    if status["frozen"]:
        line.append(", frozen", style="bold red")
    if not status["spec"]["valid"]:
        line.append(", spec has errors", style="bold red")
    if status["spec"]["held_back"]:
        line.append(", a change waits for your word", style="bold yellow")
    return line


def render(status: Status, wanted: Filter | None = None, *, every: bool = False) -> list[Text]:
    """All lines for a person. `every` lists each guest and each block, however many."""
    wanted = wanted or Filter()
    shown = select(status, wanted) if wanted.is_on else status
    parts = [
        [summary(status), _service(status)],
        _site_trouble(status),
        _blocked(shown, every),
        _orphans(shown["orphans"]),
        [] if wanted.is_on else _strangers(status),
        _containers(shown, status["now_s"], every or wanted.is_on),
        _guests(shown, status["now_s"], every or wanted.is_on),
    ]
    if wanted.is_on and not shown["guests"] and not shown["containers"]:
        parts.append([Text("Nothing matches the filters.", style="yellow")])
    lines: list[Text] = []
    for part in parts:
        if part and lines:
            lines.append(Text())
        lines += part
    return lines


def _service(status: Status) -> Text:
    up = duration(status["now_s"] - status["started_at_s"])
    spec = status["spec"]
    line = (
        f"spec generation {spec['generation']} from {spec['directory']}; "
        f"vcrecon {status['version']}, pid {status['pid']}, up {up}"
    )
    if status.get("page_url"):
        line += f"; page at {status['page_url']}, metrics at {status['metrics_url']}"
    queues = [f"{name} {length}" for name, length in status["queues"].items() if length]
    if queues:
        line += f"; waiting: {', '.join(queues)}"
    return Text(line, style="dim")


def _site_trouble(status: Status) -> list[Text]:
    spec, lines = status["spec"], []
    if not spec["valid"]:
        lines.append(Text(f"The spec has errors; generation {spec['generation']} stays in force:", style="bold red"))
        lines += [Text(f"  {problem}") for problem in spec["problems"][:BLOCKED_SHOWN_MAX]]
        more = len(spec["problems"]) - BLOCKED_SHOWN_MAX
        if more > 0:
            lines.append(Text(f"  … {count(more, 'more finding')}: vcrecon check {spec['directory']}"))
    if spec["held_back"]:
        lines.append(Text.assemble(("Waits for your word: ", "bold yellow"), str(spec["held_back"])))
        if "vcrecon confirm" not in spec["held_back"]:
            lines.append(_next("vcrecon confirm"))
    if status.get("trouble"):
        lines.append(Text.assemble(("Trouble: ", "bold red"), str(status["trouble"])))
    if (status.get("boot") or {}).get("problem"):
        lines.append(Text.assemble(("Boot services: ", "bold red"), str(status["boot"]["problem"])))
    if status["frozen"]:
        lines.append(Text.assemble(("Frozen: ", "bold red"), str(status["frozen"])))
    return lines


def _blocked(status: Status, every: bool) -> list[Text]:
    found = [
        (f"container/{c['name']}", str(c["name"]), bool(c["reachable"]), block)
        for c in status["containers"]
        for block in c["blocked"]
    ]
    found += [
        (f"guest/{g['name']}", str(g["container"] or ""), True, block)
        for g in status["guests"]
        for block in g["blocked"]
    ]
    if not found:
        return []
    lines = [Text(f"Blocked ({len(found)}):", style="bold yellow")]
    shown = found if every else found[:BLOCKED_SHOWN_MAX]
    for subject, container, reachable, block in shown:
        line = Text.assemble("  ", (subject, "bold"), "  ", (str(block["reason"]), "yellow"))
        lines.append(line.append(f"  {block['message']}"))
        hint = next_step(block, container, reachable=reachable)
        if hint:
            lines.append(_next(hint))
    if len(found) > len(shown):
        lines.append(Text(f"  … and {len(found) - len(shown)} more: vcrecon status --all"))
    return lines


def _next(what: str) -> Text:
    return Text.assemble(("      next: ", "dim"), what)


def _orphans(orphans: Sequence[Entry]) -> list[Text]:
    if not orphans:
        return []
    lines = [Text(f"Kept aside, or not in the spec ({len(orphans)}):", style="bold")]
    lines += columns(
        ("GUEST", "CONTAINER", ""), ((o["name"], o["container"], o["message"]) for o in orphans), indent="  "
    )
    lines.append(_next("`vcrecon prune` shows what can be removed; nothing is without your word"))
    return lines


def _strangers(status: Status) -> list[Text]:
    """Machines that boot from the network and that the spec does not know."""
    strangers = status.get("strangers") or []
    if not strangers:
        return []
    now_s = status["now_s"]
    rows = (
        (
            str(stranger["mac"]),
            str(stranger["address"]),
            f"{duration(now_s - stranger['since_s'])} ago",
            f"{duration(now_s - stranger['at_s'])} ago",
            str(stranger["serial"] or ""),
        )
        for stranger in strangers[:BLOCKED_SHOWN_MAX]
    )
    lines = [Text(f"Strangers that booted from the network ({len(strangers)}):", style="bold")]
    lines += columns(("MAC", "ADDRESS", "SINCE", "LAST", "SERIAL"), rows, indent="  ")
    lines.append(_next(f"`vcrecon adopt {strangers[0]['mac']}` makes it a container"))
    return lines


def _containers(status: Status, now_s: float, every: bool) -> list[Text]:
    """A row each; of many, only those with something to say, and the number of the others."""
    shown, quiet = list(status["containers"]), 0
    if not every and len(shown) > CONTAINERS_SHOWN_MAX:
        shown = [c for c in shown if _is_remarkable(c, now_s)]
        quiet = len(status["containers"]) - len(shown)
    rows = []
    for container in shown:
        pool = container["pool_data_percent"]
        rows.append(
            (
                container["name"],
                state_text(container["state"]),
                duration(now_s - container["since_s"]) if container["since_s"] is not None else "",
                str(container["guests"]),
                "" if pool is None else f"{pool:.0f} %",
                container["hypervisor"],
                container["address"],
                _container_notes(container, now_s),
            )
        )
    lines = columns(("CONTAINER", "STATE", "SINCE", "GUESTS", "POOL", "KIND", "ADDRESS", "NOTES"), rows)
    if quiet:
        more = "more " if rows else ""
        are = "is" if quiet == 1 else "are"
        text = f"{count(quiet, more + 'container')} {are} vlan-ready and well: vcrecon status --all lists each"
        lines.append(Text(text, style="dim"))
    return lines


def _is_remarkable(container: Entry, now_s: float) -> bool:
    """Whether a person wants to see this container among many: all but those that are ready and have no note."""
    pool = container["pool_data_percent"] or 0
    return (
        container["state"] != "vlan-ready"
        or bool(container["blocked"])
        or bool(_container_notes(container, now_s).plain)
        or pool >= POOL_SHOWN_PERCENT
    )


def _container_notes(container: Entry, now_s: float) -> Text:
    notes = Text()
    install = container.get("install")
    if install:
        notes.append(install_words(install, now_s), style="cyan")
    elif not container["reachable"]:
        seen = container["last_seen_s"]
        ago = f"last seen {duration(now_s - seen)} ago" if seen else "never seen"
        silent = is_silent(container)
        word = "unreachable" if silent else "not looked at yet"
        notes.append(f"{word}, {ago}", style="red" if silent else "dim")
    for word in ("cordoned", "fenced", "paused"):
        if container[word]:
            notes.append(", " if notes else "").append(word, style="magenta")
    if container["detail"] and container["reachable"]:
        notes.append(", " if notes else "").append(str(container["detail"]), style="dim")
    return notes


def _guests(status: Status, now_s: float, every: bool) -> list[Text]:
    guests = status["guests"]
    if every or len(guests) <= GUESTS_SHOWN_MAX:
        return columns(("GUEST", "STATE", "SINCE", "CONTAINER", "NOTES"), (_guest(guest, now_s) for guest in guests))
    lines = columns(("CLUSTER", "RUNNING", "OTHER STATES", "CONTAINERS"), _clusters(guests))
    lines.append(Text("Each guest: vcrecon status --all, --cluster NAME or --container NAME", style="dim"))
    return lines


def _guest(guest: Entry, now_s: float) -> tuple[str | Text, ...]:
    since = duration(now_s - guest["since_s"]) if guest["since_s"] is not None else ""
    notes = Text()
    if guest["paused"]:
        notes.append("paused", style="magenta")
    elsewhere = [name for name in guest["seen_on"] if name != guest["container"]]
    if elsewhere:
        # On its way it is in one place only: where it was.
        word = "also" if guest["container"] in guest["seen_on"] else "still"
        notes.append(", " if notes else "").append(f"{word} on {listed(elsewhere)}", style="yellow")
    said = (guest["detail"], guest["message"] if guest["state"] != "running" else "")
    for text in dict.fromkeys(said):
        if text and not guest["blocked"]:
            notes.append(", " if notes else "").append(str(text), style="dim")
    if guest["blocked"]:
        reasons = ", ".join(str(block["reason"]) for block in guest["blocked"])
        notes.append(", " if notes else "").append(f"blocked: {reasons}", style="yellow")
    return guest["name"], state_text(guest["state"]), since, guest["container"] or "-", notes


def _clusters(guests: Iterable[Entry]) -> list[tuple[str | Text, ...]]:
    """One row a cluster, and one for the guests without a cluster."""
    by_cluster: dict[str, list[Entry]] = {}
    for guest in guests:
        by_cluster.setdefault(guest["cluster"] or "(no cluster)", []).append(guest)
    rows: list[tuple[str | Text, ...]] = []
    for name, members in by_cluster.items():
        states = Counter(guest["state"] or "unknown" for guest in members)
        running = states.pop("running", 0)
        others = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
        places = list(dict.fromkeys(str(guest["container"] or "-") for guest in members))
        style = "green" if running == len(members) else "yellow"
        rows.append((name, Text(f"{running}/{len(members)}", style=style), others, listed(places, 6)))
    return rows
