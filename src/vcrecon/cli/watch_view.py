"""The overview of a site as a screen of text: what is wrong at the top, clusters as tiles, containers as rows.

Called by `cli.watch`. Pure: the same overview, size and moment give the same lines. A state is always a word and a
mark, never only a colour.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.text import Text

from vcrecon.cli.output import columns, count, duration, listed
from vcrecon.core.overview import Attention, Banner, Cluster, Container, Doing, Guest, Level, Overview

STALE_S = 3.0
"""Older than this, the data is said to be old."""

_MARKS = {Level.OK: "✓", Level.WORK: "…", Level.WARN: "!", Level.BAD: "✕"}
_STYLES = {Level.OK: "green", Level.WORK: "cyan", Level.WARN: "bold yellow", Level.BAD: "bold red"}
_LOUD = {Level.WARN: "bold black on yellow", Level.BAD: "bold white on red"}
_ASCII = str.maketrans({"✓": "+", "✕": "x", "…": "~", "·": "-", "↑": "^", "↓": "v"})

# How many lines a section may have on a screen that is too small for all of it.
_ATTENTION_LINES, _DOING_LINES, _GUEST_LINES, _BANNER_LINES = 6, 4, 6, 2


@dataclass(frozen=True, slots=True)
class Screen:
    """What a person set: size in cells, lines scrolled down, and whether what is well is listed in any case."""

    width: int
    height: int
    scroll: int = 0
    every: bool = False
    ascii_only: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """Exactly `height` lines, and how far one may scroll."""

    lines: list[Text]
    scroll_max: int


def frame(site: Overview, screen: Screen, *, age_s: float, trouble: str = "") -> Frame:
    """One screen. `age_s` is how old the overview is; `trouble` why no newer one came, or ""."""
    head = _head(site, screen, age_s, trouble)
    room = max(1, screen.height - len(head) - 1)
    body = _body(site, screen, fold=0)
    for fold in () if screen.every else (1, 2, 3):
        if len(body) > room:
            body = _body(site, screen, fold=fold)
    scroll_max = max(0, len(body) - room)
    top = min(screen.scroll, scroll_max)
    shown = body[top : top + room]
    shown += [Text()] * (room - len(shown))
    lines = [*head, *shown, _foot(site, screen, top, scroll_max)]
    return Frame([_fitted(line, screen) for line in lines[: screen.height]], scroll_max)


def _fitted(line: Text, screen: Screen) -> Text:
    """Nothing that a host printed may move the cursor; nothing is wider than the screen."""
    fitted = line.copy()
    fitted.plain = "".join(c if c.isprintable() else " " for c in line.plain)
    fitted.truncate(screen.width, overflow="ellipsis")
    if screen.ascii_only:
        fitted.plain = fitted.plain.translate(_ASCII).encode("ascii", "replace").decode()
    return fitted


def _head(site: Overview, screen: Screen, age_s: float, trouble: str) -> list[Text]:
    lines = []
    if trouble or age_s > STALE_S:
        text = f" ✕ No answer for {duration(age_s)}: what is below is old. Asking again …"
        lines.append(_loud(Level.BAD, text, screen.width))
        lines += [Text(part) for part in _wrapped(trouble, screen.width, "   ")] if trouble else []
    session = f", session {site.session}" if site.session else ""
    style = _LOUD.get(site.level, f"reverse {_STYLES[site.level]}")
    line = Text.assemble((f" {_MARKS[site.level]} {site.headline} ", style), f"  {site.site}{session}")
    seen = Text(f"seen {duration(age_s, 1)} ago ", style="dim")
    lines.append(line.append(" " * max(2, screen.width - line.cell_len - seen.cell_len)).append_text(seen))
    sums = " · ".join(f"{number} {what}" for what, number in site.sums)
    lines += [Text(part, style="bold") for part in _wrapped(sums, screen.width, " ")]
    for banner in site.banners:
        lines += _banner(banner, screen.width)
    return lines


def _banner(banner: Banner, width: int) -> Iterable[Text]:
    yield _loud(banner.level, f" {_MARKS[banner.level]} {banner.title}", width)
    wrapped = [part for line in banner.lines for part in _wrapped(line, width, "   ")]
    yield from (Text(line) for line in wrapped[:_BANNER_LINES])
    if len(wrapped) > _BANNER_LINES:
        yield Text(f"   and {count(len(wrapped) - _BANNER_LINES, 'more line')}: vcrecon status", style="dim")


def _loud(level: Level, text: str, width: int) -> Text:
    line = Text(text, style=_LOUD[level])
    line.pad_right(max(0, width - line.cell_len))
    return line


def _foot(site: Overview, screen: Screen, top: int, scroll_max: int) -> Text:
    keys = " q ends · a folds what is well" if screen.every else " q ends · a shows all"
    if scroll_max:
        keys += f" · ↑↓ scroll, {scroll_max - top} more below" if top < scroll_max else " · ↑↓ scroll"
    up = duration(site.now_s - site.started_at_s, 1)
    return Text(f"{keys} · generation {site.generation} · vcrecon {site.version}, up {up}", style="dim")


def _body(site: Overview, screen: Screen, *, fold: int) -> list[Text]:
    """`fold` 1 sums up the containers that are well, 2 the clusters too, 3 cuts the other sections short."""
    folded = fold == 3
    odd = [g for c in site.clusters for g in c.guests if g.level not in (Level.OK, Level.BAD)]
    parts = [
        _clusters(site.clusters, screen.width, folded=fold >= 2),
        _section("Blocked, and why", [_attention(a, screen.width) for a in site.attention], _ATTENTION_LINES, folded),
        _section("Happening now", [[_doing(d)] for d in site.doing], _DOING_LINES, folded),
        _section("Guests not as wanted", [[row] for row in _guests(odd, site.now_s)], _GUEST_LINES, folded),
        _containers(site.containers, site.now_s, folded=fold >= 1),
        [Text(line, style="dim") for note in site.notes for line in _wrapped(note, screen.width, " ")],
    ]
    lines: list[Text] = []
    for part in parts:
        if part and not folded:
            lines.append(Text())
        lines += part
    return lines


def _section(title: str, items: Sequence[list[Text]], most: int, folded: bool) -> list[Text]:
    """A title with its items below; on a small screen so many lines, and how many items are left."""
    if not items:
        return []
    lines = [Text(f" {title} ({len(items)})", style="bold")]
    for shown, item in enumerate(items):
        if folded and shown and len(lines) - 1 + len(item) > most:
            return [*lines, Text(f"   and {len(items) - shown} more", style="dim")]
        lines += item
    return lines


def _clusters(clusters: Sequence[Cluster], width: int, *, folded: bool) -> list[Text]:
    if not clusters:
        return [Text(" No guests in the spec.")]
    lines = [Text(f" Clusters ({len(clusters)})", style="bold")]
    lines += _tiles([c for c in clusters if c.level is not Level.OK], width)
    well = [c for c in clusters if c.level is Level.OK]
    if folded and well:
        number = sum(len(c.guests) for c in well)
        return [*lines, Text(f" ✓ {count(len(well), 'cluster')} well, {count(number, 'guest')}", style="green")]
    return lines + _tiles(well, width)


def _tiles(clusters: Sequence[Cluster], width: int) -> list[Text]:
    """On a grid as wide as most tiles need; a wider tile takes several places."""
    texts = [_tile(cluster) for cluster in clusters]
    if not texts:
        return []
    place = sorted(text.cell_len for text in texts)[len(texts) * 9 // 10] + 1
    lines, column = [Text(" ")], 1
    for text in texts:
        if column > 1 and column + text.cell_len > width:
            lines.append(Text(" "))
            column = 1
        lines[-1].append(" " * (column - lines[-1].cell_len)).append_text(text)
        column += -(-(text.cell_len + 1) // place) * place
    return lines


def _tile(cluster: Cluster) -> Text:
    of = f" {_MARKS[cluster.level]} {cluster.name} {cluster.running}/{len(cluster.guests)} "
    word = "" if cluster.level is Level.OK else f"{cluster.word} "
    return Text(of + word, style=_LOUD.get(cluster.level, _STYLES[cluster.level]))


def _attention(item: Attention, width: int) -> list[Text]:
    first, *rest = _wrapped(f"{item.subject}  {item.reason}  {item.message}", width, "   ")
    line = Text(first)
    line.stylize("bold", 3, 3 + len(item.subject))
    line.stylize("bold red", 5 + len(item.subject), 5 + len(item.subject) + len(item.reason))
    hint = _wrapped(f"next: {item.hint}", width, "     ") if item.hint else []
    return [line, *map(Text, rest), *(Text(text, style="cyan") for text in hint)]


def _doing(item: Doing) -> Text:
    line = Text.assemble("   ", (item.what, "bold cyan"))
    if len(item.names) > 1:
        line.append(f" ({len(item.names)})")
    if item.names:
        line.append(f" {listed(item.names, 5)}")
    return line.append(f": {item.why}" if item.names else f" {item.why}", style="dim")


def _guests(guests: Sequence[Guest], now_s: float) -> list[Text]:
    rows = ((g.name, _state(g.level, g.word), g.container, _since(g.since_s, now_s), g.note) for g in guests)
    return columns(("", "", "", "", ""), rows, indent="   ")[1:]


def _containers(containers: Sequence[Container], now_s: float, *, folded: bool) -> list[Text]:
    shown = [c for c in containers if not folded or c.level is not Level.OK or c.note]
    rows = (
        (
            container.name,
            _state(container.level, container.word),
            _since(container.since_s, now_s),
            str(container.guests),
            "" if container.pool_percent is None else f"{container.pool_percent:.0f} %",
            f"{_bar(container.percent)}{container.note}",
        )
        for container in shown
    )
    lines = columns((f"CONTAINERS ({len(containers)})", "STATE", "FOR", "GUESTS", "POOL", ""), rows, indent=" ")
    well = len(containers) - len(shown)
    if well:
        lines.append(Text(f" ✓ {count(well, 'container')} vlan-ready and well", style="green"))
    return lines


def _state(level: Level, word: str) -> Text:
    return Text(f"{_MARKS[level]} {word}", style=_STYLES[level])


def _since(at_s: float | None, now_s: float) -> str:
    return "" if at_s is None else duration(now_s - at_s, 1)


def _bar(percent: float | None) -> str:
    """`[####......] ` for an install under way."""
    if not percent:
        return ""
    full = round(percent / 10)
    return f"[{'#' * full}{'.' * (10 - full)}] "


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    room = max(20, width - 1)
    return textwrap.wrap(text, room, initial_indent=indent, subsequent_indent=indent + "  ") or [indent]
