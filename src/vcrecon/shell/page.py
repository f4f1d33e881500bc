"""The web page that shows a site: read-only, one document, nothing from outside. Served on the metrics port.

`service` hands the status document in; what to show of it is decided by `core.overview`. The page asks for `/view`
every two seconds and is answered 304 while nothing changed. It works without scripts too, as a snapshot that reloads.
Every text is escaped here, and a content security policy lets nothing run but the page's own script.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from html import escape
from importlib.resources import files
from typing import Any

from aiohttp import web

from vcrecon.core.overview import Attention, Banner, Cluster, Container, Doing, Guest, Level, Overview, overview
from vcrecon.core.phrases import count, duration, listed

FRESH_S = 1.0
"""One rendering serves all who ask within this time."""
COST_SHARE = 0.05
"""Rendering takes at most this share of a core, so a huge site is shown a little later, and never served later."""
FRESH_S_MAX = 5.0
"""No rendering is older than this for those who ask, whatever it cost."""
ATTENTION_MAX = 40
DOING_MAX = 20
PROBLEMS_MAX = 10
MANY_TILES = 60
GUESTS_LISTED_MAX = 2000
"""Above, a tile lists only the guests that are not well, so that the page stays small enough for a phone."""

_MARKS = {Level.OK: "✓", Level.WORK: "…", Level.WARN: "!", Level.BAD: "✕"}


@dataclass(frozen=True, slots=True)
class View:
    """One rendering: `html` is the inside of <main>, `packed` the same compressed, `etag` without time in it."""

    etag: str
    title: str
    now_s: float
    html: bytes
    packed: bytes


class Viewer:
    """Renders the site when somebody asks, never more often than it is worth."""

    def __init__(self, status: Callable[[], dict[str, Any]], clock: Callable[[], float] = time.monotonic) -> None:
        self._status = status
        self._clock = clock
        self._view: View | None = None
        self._made_at_s = self._good_for_s = 0.0
        self._one_at_a_time = asyncio.Lock()

    async def view(self) -> View:
        """The site as it is now, or as it was a second ago."""
        async with self._one_at_a_time:
            if self._view is None or self.age_s >= self._good_for_s:
                # CPU time: a busy machine must not make the page old.
                began_s = time.thread_time()
                status, made_at_s = self._status(), self._clock()
                cost_s = time.thread_time() - began_s
                # Not in the loop that minds the site.
                view, render_s = await asyncio.to_thread(_timed_render, status, self._view)
                self._view, self._made_at_s = view, made_at_s
                self._good_for_s = min(max(FRESH_S, (cost_s + render_s) / COST_SHARE), FRESH_S_MAX)
                return view
            return self._view

    @property
    def age_s(self) -> float:
        """How old the last rendering is, in seconds."""
        return self._clock() - self._made_at_s


def page_routes(viewer: Viewer) -> list[web.RouteDef]:
    """`/`, the page, and `/view`, what it asks for; for the application on the metrics port."""
    shell = _Shell()

    async def page(request: web.Request) -> web.Response:
        view = await viewer.view()
        return web.Response(body=shell.document(view), content_type="text/html", charset="utf-8", headers=shell.headers)

    async def fragment(request: web.Request) -> web.Response:
        view = await viewer.view()
        headers = {
            "ETag": view.etag,
            "Cache-Control": "no-store",
            "Vary": "Accept-Encoding",
            "X-Vcrecon-Now": f"{view.now_s:.3f}",
            "X-Vcrecon-Age": f"{viewer.age_s:.3f}",
            "X-Vcrecon-Shell": shell.digest,
            "X-Content-Type-Options": "nosniff",
        }
        if request.headers.get("If-None-Match") == view.etag:
            return web.Response(status=304, headers=headers)
        body = view.html
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
            body = view.packed
        return web.Response(body=body, content_type="text/html", charset="utf-8", headers=headers)

    return [web.get("/", page), web.get("/view", fragment)]


class _Shell:
    """The document around a view. Its style and script are allowed by their digests, and nothing else is."""

    def __init__(self) -> None:
        own = files("vcrecon") / "data" / "page"
        self._style = (own / "page.css").read_text(encoding="utf-8")
        self._script = (own / "page.js").read_text(encoding="utf-8")
        self.digest = hashlib.sha256((self._style + self._script).encode()).hexdigest()[:16]
        policy = (
            f"default-src 'none'; style-src '{_hash(self._style)}'; script-src '{_hash(self._script)}'; "
            "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self.headers = {
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }

    def document(self, view: View) -> bytes:
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<noscript><meta http-equiv="refresh" content="10"></noscript>\n'
            f'<link rel="icon" href="data:,">\n<title>{escape(view.title)}</title>\n'
            f"<style>{self._style}</style>\n</head>\n"
            f'<body data-etag="{escape(view.etag)}" data-now="{view.now_s:.3f}" data-shell="{self.digest}">\n'
            f'<div id="stale" role="alert"></div>\n<p id="fresh">As of {_clock_time(view.now_s)}</p>\n<main>\n'
        ).encode() + (view.html + f"</main>\n<script>{self._script}</script>\n</body>\n</html>\n".encode())


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _timed_render(status: dict[str, Any], before: View | None) -> tuple[View, float]:
    """A rendering, and the CPU seconds it took."""
    began_s = time.thread_time()
    view = _render(status, before)
    return view, time.thread_time() - began_s


def _render(status: dict[str, Any], before: View | None) -> View:
    site = overview(status)
    etag = '"' + hashlib.sha256(repr(replace(site, now_s=0.0)).encode()).hexdigest()[:32] + '"'
    if before is not None and before.etag == etag:
        return replace(before, now_s=site.now_s)
    html = "".join(_sections(site)).encode()
    return View(etag, f"{_MARKS[site.level]} {site.site}", site.now_s, html, gzip.compress(html, 6))


def _sections(site: Overview) -> Iterable[str]:
    """The inside of <main>: always the same sections, some of them empty, so that each can be replaced alone."""
    yield _top(site)
    yield _section("banners", map(_banner, site.banners))
    yield _tiles(site)
    yield _section("columns", _columns(site), "columns")
    yield _containers(site)
    yield _section("notes", (f'<p class="soft">{_typed(note)}</p>' for note in site.notes))
    yield (
        f'<footer id="foot">Spec generation {site.generation}; vcrecon {escape(site.version)}, up '
        f"{_ago(site.started_at_s, site.now_s)}; last change at {_clock_time(site.now_s)}. Read-only.</footer>"
    )


def _section(name: str, parts: Iterable[str], style: str = "") -> str:
    content = "".join(parts)
    hidden = "" if content else " hidden"
    return f'<section id="{name}" class="{style}"{hidden}>{content}</section>\n'


def _top(site: Overview) -> str:
    mark, style = _MARKS[site.level], site.level.name.lower()
    sums = "".join(f"<div><dt>{escape(what)}</dt><dd>{escape(number)}</dd></div>" for what, number in site.sums)
    session = f", session {escape(site.session)}" if site.session else ""
    return (
        f'<section id="top" data-title="{mark} {escape(site.site)}"><div>'
        f'<h1>{escape(site.site)}{session}</h1><p class="headline {style}" role="status">{mark} '
        f"{escape(site.headline)}</p></div><dl>{sums}</dl></section>\n"
    )


def _banner(banner: Banner) -> str:
    lines = "".join(f"<p>{_typed(line)}</p>" for line in banner.lines[:PROBLEMS_MAX])
    more = len(banner.lines) - PROBLEMS_MAX
    lines += f"<p>and {count(more, 'more line')}: vcrecon status</p>" if more > 0 else ""
    style, mark = banner.level.name.lower(), _MARKS[banner.level]
    return f'<div class="banner {style}" role="alert"><b>{mark} {escape(banner.title)}</b>{lines}</div>'


def _tiles(site: Overview) -> str:
    if not site.clusters:
        return _section("clusters", ["<p>No guests in the spec.</p>"])
    every = sum(len(cluster.guests) for cluster in site.clusters) <= GUESTS_LISTED_MAX
    tiles = "".join(_tile(cluster, site.now_s, every) for cluster in site.clusters)
    style = "many" if len(site.clusters) > MANY_TILES else ""
    return _section("clusters", [f'<h2>Clusters</h2><div class="tiles">{tiles}</div>'], style)


def _tile(cluster: Cluster, now_s: float, every: bool) -> str:
    style, mark, name = cluster.level.name.lower(), _MARKS[cluster.level], escape(cluster.name)
    shown = [guest for guest in cluster.guests if every or guest.level is not Level.OK]
    rows = "".join(_guest(guest, now_s) for guest in shown)
    rest = len(cluster.guests) - len(shown)
    long = " long" if len(cluster.name) > 6 else ""
    rows += f'<tr><td colspan="4">{count(rest, "other guest")} as wanted</td></tr>' if rest else ""
    return (
        f'<details class="tile {style}{long}" id="k-{name}"><summary id="s-{name}"><b>{name}</b>'
        f'<span class="of">{cluster.running}/{len(cluster.guests)}</span>'
        f'<span class="word">{mark} {escape(cluster.word)}</span></summary>'
        f'<div class="scroll"><table><tbody>{rows}</tbody></table></div></details>'
    )


def _guest(guest: Guest, now_s: float) -> str:
    return (
        f"<tr><td>{escape(guest.name)}</td><td>{_mark(guest.level, guest.word)}</td>"
        f"<td>{escape(guest.container)}</td><td>{_ago(guest.since_s, now_s)}</td>"
        f'<td class="wide">{_typed(guest.note)}</td></tr>'
    )


def _columns(site: Overview) -> Iterable[str]:
    if site.attention:
        items = "".join(map(_attention, site.attention[:ATTENTION_MAX]))
        more = len(site.attention) - ATTENTION_MAX
        items += f"<li>and {more} more: <code>vcrecon status --all</code></li>" if more > 0 else ""
        yield f'<div class="card" id="attention"><h2>Blocked, and why</h2><ul>{items}</ul></div>'
    if site.doing:
        items = "".join(map(_doing, site.doing[:DOING_MAX]))
        more = len(site.doing) - DOING_MAX
        items += f"<li>and {more} more: <code>vcrecon status</code></li>" if more > 0 else ""
        yield f'<div class="card" id="doing"><h2>Happening now</h2><ul>{items}</ul></div>'


def _attention(item: Attention) -> str:
    hint = f'<p class="next">next: {_typed(item.hint)}</p>' if item.hint else ""
    return f"<li><b>{escape(item.subject)}</b> {_mark(Level.BAD, item.reason)} {_typed(item.message)}{hint}</li>"


def _doing(item: Doing) -> str:
    names = f" {escape(listed(item.names, 8))}" if item.names else ""
    number = f" ({len(item.names)})" if len(item.names) > 1 else ""
    return f'<li><b>{escape(item.what)}</b>{number}{names}<p class="next">{_typed(item.why)}</p></li>'


def _containers(site: Overview) -> str:
    remarkable = [c for c in site.containers if c.level is not Level.OK or c.note]
    well = [c for c in site.containers if c.level is Level.OK and not c.note]
    parts = []
    if remarkable:
        rows = "".join(_container(container, site.now_s) for container in remarkable)
        heads = '<th>name</th><th>state</th><th class="hide">for</th><th>guests</th><th class="hide">pool</th><th></th>'
        table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        parts.append(f'<div class="card scroll">{table}</div>')
    if well:
        names = "".join(
            f"<li><b>{escape(c.name)}</b> {count(c.guests, 'guest')}{_pool(c, ', pool ')}</li>" for c in well
        )
        opened = " open" if len(well) <= MANY_TILES else ""
        parts.append(
            f'<details class="rest" id="well"{opened}><summary id="s-well">{_mark(Level.OK, "vlan-ready")} '
            f'{count(len(well), "container")} ready and well</summary><ul class="names">{names}</ul></details>'
        )
    return _section("containers", ["<h2>Containers</h2>", *parts] if parts else [])


def _container(container: Container, now_s: float) -> str:
    bar = ""
    if container.percent:
        bar = f'<progress max="100" value="{container.percent:.0f}"></progress> '
    return (
        f"<tr><td>{escape(container.name)}</td><td>{_mark(container.level, container.word)}</td>"
        f'<td class="hide">{_ago(container.since_s, now_s)}</td><td>{container.guests}</td>'
        f'<td class="hide">{_pool(container)}</td><td class="wide">{bar}{_typed(container.note)}</td></tr>'
    )


def _pool(container: Container, before: str = "") -> str:
    return "" if container.pool_percent is None else f"{before}{container.pool_percent:.0f} %"


def _mark(level: Level, word: str) -> str:
    return f'<span class="mark {level.name.lower()}">{_MARKS[level]} {escape(word)}</span>'


def _ago(at_s: float | None, now_s: float) -> str:
    """How long ago, kept up to date by the page's script."""
    return "" if at_s is None else f'<time data-s="{at_s:.0f}">{duration(now_s - at_s, 1)}</time>'


def _clock_time(at_s: float) -> str:
    return time.strftime("%H:%M:%S UTC", time.gmtime(at_s))


def _typed(text: str) -> str:
    """Escaped; what stands in backquotes is set as something to type."""
    parts = escape(text).split("`")
    if len(parts) % 2 == 0:
        return "`".join(parts)
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
