"""What a person who watches a site should see, made from the status document. Pure.

One function, `overview`, for the terminal view (`cli.watch_view`) and for the web page (`shell.page`), so that the
two cannot disagree. It judges nothing that the planner has not said: levels come from states, blocks and decisions
in the document of `controls.SiteControls.status`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from vcrecon.core.install_queue import about
from vcrecon.core.phrases import count, duration, listed

Status = Mapping[str, Any]
Entry = Mapping[str, Any]

POOL_SHOWN_PERCENT = 80
NO_CLUSTER = "no cluster"

# What to type when a block's own message does not say it.
_HINTS: Mapping[str, str] = {
    "bug": "this is a fault in vcrecon itself: its log has the traceback; please report it",
    "pool-full": "`vcrecon prune` frees disks kept aside; `vcrecon evacuate {container}` empties the container",
    "site-frozen": "look at the network of the machine that runs vcrecon first",
}
# Their messages say what to do; that the host may be off is not the trouble.
_SPEAK_FOR_THEMSELVES = frozenset({"host-key-changed", "no-host-key", "permission-denied"})
_SILENT_HINT = (
    "bring it back; or `vcrecon evacuate {container}`, power it off, "
    "and say so: `vcrecon fence {container} --confirmed`"
)
_SECONDS = re.compile(r"\b\d+(\.\d+)? (s|min|h|d)\b")


class Level(IntEnum):
    """How an object stands; the higher, the sooner a person should look."""

    OK = 0
    WORK = 1
    WARN = 2
    BAD = 3


@dataclass(frozen=True, slots=True)
class Guest:
    """One virtual machine. `since_s` is when its state began, None when its word is no state that is seen now.

    `note` says why it is not simply running; "" when there is nothing to say.
    """

    name: str
    level: Level
    word: str
    container: str
    since_s: float | None
    note: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """One tile. `word` sums up its guests: `running`, `1 stopped, 2 unseen`."""

    name: str
    level: Level
    word: str
    running: int
    guests: tuple[Guest, ...]


@dataclass(frozen=True, slots=True)
class Container:
    """One row. `since_s` is when its word began to hold (Unix seconds); None when nobody knows.

    `percent` is how far its install is, 0 to 100; None when none is under way.
    """

    name: str
    level: Level
    word: str
    guests: int
    since_s: float | None
    pool_percent: float | None
    percent: float | None
    note: str


@dataclass(frozen=True, slots=True)
class Banner:
    """Trouble of the whole site, to be shown large."""

    level: Level
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Attention:
    """One thing that is blocked, why, and what to type when the reason itself does not say it."""

    subject: str
    reason: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Doing:
    """What is under way, or waits, for these objects; `what` is an action's name, or `waits`."""

    what: str
    why: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """The site at `now_s` (Unix seconds, the service's clock)."""

    site: str
    now_s: float
    started_at_s: float
    version: str
    generation: int
    session: str
    level: Level
    headline: str
    sums: tuple[tuple[str, str], ...]
    banners: tuple[Banner, ...]
    attention: tuple[Attention, ...]
    doing: tuple[Doing, ...]
    clusters: tuple[Cluster, ...]
    containers: tuple[Container, ...]
    notes: tuple[str, ...]


def overview(status: Status) -> Overview:
    """What to show of a status document."""
    silent = {c["name"] for c in status["containers"] if is_silent(c)}
    guests = [_guest(entry, silent) for entry in status["guests"]]
    clusters = _clusters(zip(status["guests"], guests, strict=True))
    containers = tuple(_container(entry, status["now_s"]) for entry in status["containers"])
    banners = tuple(_banners(status))
    attention = tuple(_attention(status))
    worst = max((o.level for group in (guests, containers, banners) for o in group), default=Level.OK)
    level = worst if worst >= Level.WARN or status["converged"] else Level.WORK
    return Overview(
        site=str(status["site"]),
        now_s=status["now_s"],
        started_at_s=status["started_at_s"],
        version=str(status["version"]),
        generation=status["spec"]["generation"],
        session=str(status.get("session") or ""),
        level=level,
        headline=_headline(level, bool(status["converged"])),
        sums=tuple(_sums(status, clusters, silent)),
        banners=banners,
        attention=attention,
        doing=tuple(_doing(status)),
        clusters=clusters,
        containers=containers,
        notes=tuple(_notes(status)),
    )


def is_silent(container: Entry) -> bool:
    """Whether a container was asked and did not answer; right after a start, some were not asked yet."""
    return (
        not container.get("install")
        and not container["reachable"]
        and bool(container["blocked"] or container["fenced"])
    )


def next_step(block: Entry, container: str, *, reachable: bool) -> str:
    """What to type about a block; "" when its own message says it."""
    if "`vcrecon " in block["message"] or block["reason"] in _SPEAK_FOR_THEMSELVES:
        return ""
    return _HINTS.get(block["reason"], "" if reachable else _SILENT_HINT).format(container=container)


def install_words(install: Entry, now_s: float) -> str:
    """How far an install is: `download 43 %, about 2m left, for 1m`; or its place in the queue."""
    if install["step"] == "queued":
        begins = install["begins_in_s"]
        when = f", begins in about {about(begins)}" if begins is not None else ""
        return f"waits for its install: place {install['place']} of {install['of']}{when}"
    percent = f" {install['percent']:.0f} %" if install["percent"] else ""
    left = f", about {about(install['eta_s'])} left" if install["eta_s"] is not None else ""
    return f"{install['step']}{percent}{left}, for {duration(now_s - install['since_s'])}"


def _headline(level: Level, converged: bool) -> str:
    words = {
        Level.OK: "Everything is as wanted",
        Level.WORK: "Working on it",
        Level.WARN: "Not as it should be",
        Level.BAD: "Needs attention",
    }
    return words[level] if level is not Level.WARN or not converged else "As wanted, but look below"


def _sums(status: Status, clusters: Sequence[Cluster], silent: set[str]) -> Iterable[tuple[str, str]]:
    guests, containers = status["guests"], status["containers"]
    real = [cluster for cluster in clusters if cluster.name != NO_CLUSTER]
    yield "guests running", f"{sum(cluster.running for cluster in clusters)} of {len(guests)}"
    if real:
        yield "clusters well", f"{sum(c.level is Level.OK for c in real)} of {len(real)}"
    ready = sum(c["state"] == "vlan-ready" and c["reachable"] for c in containers)
    yield "containers ready", f"{ready} of {len(containers)}"
    blocked = sum(bool(entry["blocked"]) for entry in (*guests, *containers))
    installs = sum(bool(c.get("install")) for c in containers)
    for what, number in (("unreachable", len(silent)), ("to install", installs), ("blocked", blocked)):
        if number:
            yield what, str(number)


def _banners(status: Status) -> Iterable[Banner]:
    spec = status["spec"]
    if status["frozen"]:
        yield Banner(Level.BAD, "Frozen: nothing is moved or reinstalled", (str(status["frozen"]),))
    if not spec["valid"]:
        title = f"The spec has errors: generation {spec['generation']} stays in force"
        yield Banner(Level.BAD, title, tuple(str(problem) for problem in spec["problems"]))
    if spec["held_back"]:
        said = str(spec["held_back"])
        hint = () if "vcrecon confirm" in said else ("next: vcrecon confirm",)
        yield Banner(Level.WARN, "A change waits for your word", (said, *hint))
    if status.get("trouble"):
        yield Banner(Level.BAD, "Trouble with the record", (str(status["trouble"]),))
    if (status.get("boot") or {}).get("problem"):
        yield Banner(Level.BAD, "Trouble with the boot services", (str(status["boot"]["problem"]),))
    if status["containers"] and all(c["paused"] for c in status["containers"]):
        yield Banner(Level.WARN, "Paused: vcrecon looks, and does nothing", ("next: vcrecon resume",))


def _attention(status: Status) -> Iterable[Attention]:
    for kind in ("container", "guest"):
        for entry in status[f"{kind}s"]:
            place = str(entry["name"] if kind == "container" else entry["container"] or "")
            reachable = kind == "guest" or bool(entry["reachable"])
            for block in entry["blocked"]:
                hint = next_step(block, place, reachable=reachable)
                yield Attention(str(entry["name"]), str(block["reason"]), str(block["message"]), hint)


def _doing(status: Status) -> Iterable[Doing]:
    """What the planner wants to be done now, the same for several objects told once."""
    groups: dict[tuple[str, str], list[str]] = {}
    why: dict[tuple[str, str], str] = {}
    for entry in (*status["containers"], *status["guests"]):
        kind, message = entry.get("decision"), str(entry.get("message") or "")
        if kind not in ("do", "wait") or entry["blocked"] or entry.get("install"):
            continue
        what, _, reason = message.partition(": ") if kind == "do" else ("waits", "", message)
        key = (what, _SECONDS.sub("", reason))
        groups.setdefault(key, []).append(str(entry["name"]))
        why.setdefault(key, reason)
    for entry in status["containers"]:
        if entry.get("install"):
            yield Doing("install", install_words(entry["install"], status["now_s"]), (str(entry["name"]),))
    for key, names in groups.items():
        alike = len(names) == 1 or why[key] == key[1]
        yield Doing(key[0], why[key] if alike else " ".join(key[1].split()), tuple(names))
    waiting = [f"{queue} {length}" for queue, length in status["queues"].items() if length]
    if waiting:
        yield Doing("waits", f"for a free slot: {', '.join(waiting)}", ())


def _notes(status: Status) -> Iterable[str]:
    orphans, strangers = status["orphans"], status.get("strangers") or []
    if orphans:
        names = listed(list(dict.fromkeys(str(o["name"]) for o in orphans)), 6)
        yield f"Kept aside, or not in the spec: {names}. `vcrecon prune` shows what can be removed."
    if strangers:
        yield (
            f"{count(len(strangers), 'stranger')} booted from the network: "
            f"`vcrecon adopt {strangers[0]['mac']}` makes it a container."
        )


def _guest(entry: Entry, silent: set[str]) -> Guest:
    level, word, note = _guest_words(entry, silent)
    if entry["paused"]:
        note = ", ".join(part for part in ("paused", note) if part)
    elsewhere = [name for name in entry["seen_on"] if name != entry["container"]]
    if elsewhere:
        still = "also" if entry["container"] in entry["seen_on"] else "still"
        note = ", ".join(part for part in (f"{still} on {listed(elsewhere)}", note) if part)
    since_s = entry["since_s"] if word == entry["state"] else None
    return Guest(str(entry["name"]), level, word, str(entry["container"] or ""), since_s, note)


def _guest_words(entry: Entry, silent: set[str]) -> tuple[Level, str, str]:
    """Level, state in words, and why."""
    state, message = str(entry["state"] or "unknown"), str(entry["message"] or entry["detail"] or "")
    lives_on = entry["seen_on"] or [entry["container"]]
    if entry["blocked"]:
        return Level.BAD, "blocked", "; ".join(f"{b['reason']}: {b['message']}" for b in entry["blocked"])
    if all(place in silent for place in lives_on):
        return Level.WARN, "unseen", f"{listed([str(p) for p in lives_on])} is unreachable; it was {state} there"
    decision = entry.get("decision")
    if state == "running":
        return (Level.WORK, state, message) if decision in ("do", "wait") else (Level.OK, state, "")
    if state in ("stopped", "held"):
        wanted = state == "stopped" and decision == "rest"
        return Level.OK if wanted else Level.WARN, state, message
    return Level.WORK, state, message


def _clusters(pairs: Iterable[tuple[Entry, Guest]]) -> tuple[Cluster, ...]:
    members: dict[str, list[Guest]] = {}
    for entry, guest in pairs:
        members.setdefault(str(entry["cluster"] or NO_CLUSTER), []).append(guest)
    return tuple(_cluster(name, tuple(guests)) for name, guests in members.items())


def _cluster(name: str, guests: tuple[Guest, ...]) -> Cluster:
    words = Counter(guest.word for guest in sorted(guests, key=lambda g: -g.level))
    running = words.pop("running", 0)
    word = ", ".join(f"{number} {word}" for word, number in words.items()) or "running"
    return Cluster(name, max(guest.level for guest in guests), word, running, guests)


def _container(entry: Entry, now_s: float) -> Container:
    level, word, note = _container_words(entry, now_s)
    marks = [mark for mark in ("cordoned", "paused") if entry[mark]]
    install, since_s = entry.get("install"), entry["since_s"]
    if install:
        since_s = install.get("since_s")
    elif not entry["reachable"]:
        since_s = entry["last_seen_s"] or None
    return Container(
        name=str(entry["name"]),
        level=level,
        word=word,
        guests=entry["guests"],
        since_s=since_s,
        pool_percent=entry["pool_data_percent"],
        percent=float(install.get("percent") or 0.0) if install else None,
        note=", ".join([*marks, *([note] if note else [])]),
    )


def _container_words(entry: Entry, now_s: float) -> tuple[Level, str, str]:
    state, blocks = str(entry["state"] or "unknown"), entry["blocked"]
    why = "; ".join(f"{block['reason']}: {block['message']}" for block in blocks)
    if is_silent(entry):
        seen = entry["last_seen_s"]
        ago = f"last seen {duration(now_s - seen, 1)} ago" if seen else "never seen"
        word = "fenced" if entry["fenced"] else "unreachable"
        return Level.BAD, word, f"{ago}; {why}" if why else ago
    if blocks:
        return Level.BAD, "blocked", why
    if entry.get("install"):
        queued = entry["install"]["step"] == "queued"
        return Level.WORK, "queued" if queued else "installing", install_words(entry["install"], now_s)
    if not entry["reachable"]:
        return Level.WORK, "not looked at yet", ""
    fill = {"data": entry["pool_data_percent"] or 0.0, "metadata": entry["pool_metadata_percent"] or 0.0}
    full = [f"pool {what} {percent:.0f} % full" for what, percent in fill.items() if percent >= POOL_SHOWN_PERCENT]
    message = str(entry.get("message") or entry["detail"] or "")
    if full:
        return Level.WARN, state, ", ".join(full)
    if state != "vlan-ready" or entry.get("decision") in ("do", "wait"):
        return Level.WORK, state, message
    return Level.OK, state, str(entry["detail"] or "")
