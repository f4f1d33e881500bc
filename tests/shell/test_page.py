"""The web page as the service sends it: true, escaped, cheap to ask for. In a browser: test_page_browser."""

from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from typing import Any

import aiohttp
import pytest
from tests.cli.fake_site import a_container, a_guest, a_status, an_orphan, blocked

from vcrecon.shell.metrics_port import TcpServer, metrics_app
from vcrecon.shell.page import FRESH_S_MAX, Viewer, page_routes

EVIL = "<img src=x onerror=alert(1)>\"'><script>alert(2)</script>&amp; ünï"


class Site:
    """A page served on loopback: `status` is what it shows, `rendered` how often it was asked for that."""

    def __init__(self) -> None:
        self.status: dict[str, Any] = a_status()
        self.rendered = 0
        self.now_s = 0.0
        self.url = ""

    def ask(self) -> dict[str, Any]:
        self.rendered += 1
        return self.status

    def later(self) -> None:
        """Long enough for the next who asks to get a new rendering."""
        self.now_s += 3600


@asynccontextmanager
async def page_of(site: Site) -> AsyncIterator[aiohttp.ClientSession]:
    routes = page_routes(Viewer(site.ask, lambda: site.now_s))
    server = TcpServer(metrics_app(lambda: b"", lambda: (True, ""), lambda: (True, ""), routes), "127.0.0.1", 0)
    await server.start()
    site.url = server.url
    try:
        async with aiohttp.ClientSession(server.url) as web:
            yield web
    finally:
        await server.close()


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


async def text_of(web: aiohttp.ClientSession, path: str = "/") -> str:
    async with web.get(path) as answer:
        assert answer.status == 200
        return await answer.text()


async def test_the_page_is_one_document_that_needs_nothing_else() -> None:
    async with page_of(Site()) as web, web.get("/") as answer:
        document = await answer.text()
        policy = answer.headers["Content-Security-Policy"]
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-store"
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert re.findall(r"https?://|//[a-z]+\.", document) == []
    assert "Everything is as wanted" in document, "also without scripts"
    tags = _Tags()
    tags.feed(document)
    assert not [tag for tag, attributes in tags.found if "src" in attributes or "style" in attributes]


async def test_every_text_is_escaped_wherever_it_comes_from() -> None:
    site = Site()
    install = {"step": EVIL, "percent": 40.0, "eta_s": None, "since_s": 0.0}
    site.status = a_status(
        [
            a_container(EVIL, state=EVIL, detail=EVIL, blocked=blocked(EVIL, EVIL)),
            a_container("c2", install=install),
            a_container("c3", detail=EVIL, cordoned=True),
        ],
        [
            a_guest(EVIL, EVIL, cluster=EVIL, state=EVIL, message=EVIL, seen_on=[EVIL], decision="do"),
            a_guest("x", blocked=blocked(EVIL, EVIL)),
        ],
        spec={"valid": False, "problems": [EVIL], "held_back": EVIL},
        frozen=EVIL, trouble=EVIL, site=EVIL, version=EVIL, session=EVIL, queues={EVIL: 3},
        boot={"mode": "managed", "problem": EVIL}, orphans=[an_orphan(EVIL, EVIL)], strangers=[{"mac": EVIL}],
    )  # fmt: skip
    async with page_of(site) as web:
        document = await text_of(web)
    tags = _Tags()
    tags.feed(document)
    assert [tag for tag, _ in tags.found if tag in ("img", "script")] == ["script"], "only its own"
    assert not [attributes for _, attributes in tags.found if any(name.startswith("on") for name in attributes)]
    assert document.count("&lt;img src=x onerror=alert(1)&gt;") > 15


async def test_an_unchanged_site_is_answered_without_a_body() -> None:
    site = Site()
    async with page_of(site) as web:
        async with web.get("/view") as answer:
            etag, first = answer.headers["ETag"], await answer.text()
        site.later()
        site.status = {**site.status, "now_s": site.status["now_s"] + 60}
        async with web.get("/view", headers={"If-None-Match": etag}) as answer:
            assert (answer.status, await answer.read()) == (304, b"")
            assert answer.headers["X-Vcrecon-Now"] == f"{site.status['now_s']:.3f}"
        site.later()
        site.status = a_status(guests=[a_guest("a-head", state="stopped", message="it should run")])
        async with web.get("/view", headers={"If-None-Match": etag}) as answer:
            assert answer.status == 200
            assert await answer.text() != first


async def test_many_who_ask_at_once_cost_one_rendering() -> None:
    site = Site()
    async with page_of(site) as web:
        for _ in range(50):
            await text_of(web, "/view")
        assert site.rendered == 1
        site.later()
        await text_of(web, "/view")
        assert site.rendered == 2


async def test_a_busy_machine_makes_the_page_no_older_than_a_few_seconds() -> None:
    """A rendering that took minutes because others had the processor says nothing about what the next one costs."""
    site = Site()

    def ask() -> dict[str, Any]:
        site.now_s += 100
        return site.status

    viewer = Viewer(ask, lambda: site.now_s)
    await viewer.view()
    site.status = a_status(converged=False)
    site.now_s += FRESH_S_MAX + 0.1
    assert "Working on it" in (await viewer.view()).html.decode()


async def test_an_answer_says_how_old_it_is() -> None:
    site = Site()
    async with page_of(site) as web:
        await text_of(web, "/view")
        site.now_s += 0.75
        async with web.get("/view") as answer:
            assert answer.headers["X-Vcrecon-Age"] == "0.750"


async def test_a_fragment_is_compressed_for_those_who_can_read_it() -> None:
    site = Site()
    async with page_of(site), aiohttp.ClientSession(site.url, auto_decompress=False) as web:
        async with web.get("/view", headers={"Accept-Encoding": "gzip"}) as answer:
            packed = await answer.read()
        async with web.get("/view", headers={"Accept-Encoding": "identity"}) as answer:
            assert gzip.decompress(packed) == await answer.read()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_the_page_only_reads(method: str) -> None:
    async with page_of(Site()) as web:
        for path in ("/", "/view"):
            async with web.request(method, path, data=b"x") as answer:
                assert answer.status == 405


async def test_a_huge_site_lists_only_guests_that_are_not_well() -> None:
    site = Site()
    guests = [a_guest(f"k{k}-n{n}", cluster=f"k{k}") for k in range(200) for n in range(50)]
    guests[77].update(state="stopped", message="it should run")
    site.status = a_status(guests=guests)
    async with page_of(site) as web:
        document = await text_of(web)
    assert "k1-n27" in document
    assert "k1-n28" not in document
    assert "49 other guests as wanted" in document
    assert len(document) < 150_000


@pytest.mark.parametrize("status", [a_status([], []), a_status([a_container("c1")], [])], ids=["nothing", "no guests"])
async def test_a_site_with_nothing_to_show_says_so(status: dict[str, Any]) -> None:
    site = Site()
    site.status = status
    async with page_of(site) as web:
        assert "No guests in the spec." in await text_of(web)
