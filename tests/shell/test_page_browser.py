"""The web page in headless Chromium: phones, light and dark, evil names, large sites, a service that hangs or goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.cli.fake_site import NOW_S, a_container, a_guest, a_status, blocked
from tests.support.browser import Tab, browsing

from vcrecon.shell.metrics_port import TcpServer, metrics_app
from vcrecon.shell.page import Viewer, page_routes

pytestmark = pytest.mark.root

EVIL = "<img src=x onerror=document.title='owned'>\"'><script>document.title='owned'</script> ünï"
CONTRAST_MIN = 4.5
"""For text of any size: WCAG 2.2, success criterion 1.4.3."""

# Contrast of every text with what is behind it, as WCAG 2.2 defines it; the worst, and where.
WORST_CONTRAST = """(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = (color) => {
    const [r, g, b] = color.slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = rgb(getComputedStyle(e).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  let worst = [99, ""], counted = 0;
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.checkVisibility()) continue;
    const [a, b] = [luminance(rgb(getComputedStyle(element).color)), luminance(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    counted += 1;
    if (ratio < worst[0]) worst = [ratio, `${element.className}: ${element.textContent.slice(0, 40)}`];
  }
  return { ratio: worst[0], where: worst[1], counted };
})()"""


class Page:
    """A page on loopback; `status` is what its service knows."""

    def __init__(self, status: dict[str, Any]) -> None:
        self.status = status
        self.url = ""
        self._server: TcpServer | None = None

    async def start(self, port: int = 0) -> None:
        routes = page_routes(Viewer(lambda: self.status))
        app = metrics_app(lambda: b"", lambda: (True, ""), lambda: (True, ""), routes)
        self._server = TcpServer(app, "127.0.0.1", port)
        await self._server.start()
        self.url = self._server.url

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.close()


@asynccontextmanager
async def shown(status: dict[str, Any], program: Callable[[str], str]) -> AsyncIterator[tuple[Tab, Page]]:
    page = Page(status)
    await page.start()
    try:
        async with browsing(program("chromium")) as tab:
            await tab.open(page.url)
            yield tab, page
            assert tab.errors == []
    finally:
        await page.stop()


def a_broken_class() -> dict[str, Any]:
    """26 clusters with one of everything that can be shown."""
    containers = [a_container(f"c{n:02}") for n in range(1, 65)]
    containers[6].update(reachable=False, last_seen_s=NOW_S - 75, blocked=blocked("timeout", "c07 does not answer"))
    install = {"step": "extract", "percent": 43.0, "eta_s": 120, "since_s": NOW_S - 61}
    containers[20].update(state="installing", install=install)
    containers[11].update(pool_data_percent=91.0)
    names = [(k, n) for k in range(26) for n in range(5)]
    guests = [a_guest(f"{chr(97 + k)}-n{n}", f"c{(5 * k + n) % 64 + 1:02}") for k, n in names]
    guests[16].update(state="stopped", seen_on=[], decision="do", message="start-guest: it should run")
    guests[61].update(state="pending", blocked=blocked("disk-lost", "its disk is gone: type `vcrecon rebuild m-n1`"))
    guests[83].update(state="pending", decision="wait", message="waits for image debian-12 on c21")
    problem = "clusters.yaml:12:3: error: unknown key 'templat'; did you mean 'template'? " + "x" * 120
    spec = {"valid": False, "problems": [problem], "held_back": "this spec would stop 60 guests"}
    return a_status(containers, guests, converged=False, spec=spec, queues={"starts": 2}, session="running")


async def test_it_reads_well_on_a_phone_and_a_projector_in_light_and_dark(program: Callable[[str], str]) -> None:
    async with shown(a_broken_class(), program) as (tab, _):
        backgrounds = set()
        for scheme in ("light", "dark"):
            await tab.scheme(scheme)
            for width, height, phone in ((320, 640, True), (390, 844, True), (1280, 720, False), (1920, 1080, False)):
                await tab.screen(width, height, phone=phone)
                assert await tab.js("document.documentElement.scrollWidth") <= width, "nothing to scroll sideways"
                found = await tab.js(WORST_CONTRAST)
                assert found["counted"] > 100
                assert found["ratio"] >= CONTRAST_MIN, f"{scheme}, {width} wide: {found}"
            backgrounds.add(await tab.js("getComputedStyle(document.body).backgroundColor"))
        assert len(backgrounds) == 2
        assert await tab.js("document.title") == "✕ lab"
        banner = await tab.js("getComputedStyle(document.querySelector('.banner b')).fontSize")
        assert float(banner.removesuffix("px")) >= 24, "to be read from the back of the room"


async def test_a_tile_opens_on_its_guests_and_stays_open_while_the_site_changes(program: Callable[[str], str]) -> None:
    async with shown(a_broken_class(), program) as (tab, page):
        await tab.js("document.querySelector('#k-d summary').click()")
        assert "start-guest: it should run" in await tab.text("#k-d")
        page.status["guests"][16].update(state="running", decision="rest", message="", seen_on=["c17"])
        await tab.until("document.querySelector('#k-d .word').innerText === '✓ running'")
        assert await tab.js("document.querySelector('#k-d').open")
        assert "d-n1" in await tab.text("#k-d")


async def test_names_and_messages_are_only_ever_text(program: Callable[[str], str]) -> None:
    async with shown(a_status(), program) as (tab, page):
        page.status = a_status(
            [a_container(EVIL, blocked=blocked(EVIL, EVIL))],
            [a_guest(EVIL, cluster=EVIL, message=EVIL, decision="wait", state=EVIL)],
            site=EVIL,
            spec={"valid": False, "problems": [EVIL]},
        )
        await tab.until("document.querySelector('#top h1').innerText.includes('ünï')")
        assert EVIL in await tab.text("#banners")
        assert await tab.js("document.querySelectorAll('img, main script').length") == 0
        assert await tab.js("document.title") == f"✕ {EVIL}"
        await tab.open(page.url)
        assert await tab.js("document.querySelectorAll('img, main script').length") == 0
        assert EVIL in await tab.text("#banners")


async def test_a_service_that_hangs_or_is_gone_is_said_to_be_silent_until_it_answers(
    program: Callable[[str], str],
) -> None:
    async with shown(a_status(), program) as (tab, page):
        await tab.until("document.querySelector('#fresh').innerText.startsWith('Live: as of')")
        await page.stop()
        silent = await asyncio.start_server(lambda reader, writer: reader.read(), "127.0.0.1", page.port)
        async with silent:
            await tab.until("document.body.classList.contains('stale')")
        assert "No answer from vcrecon for" in await tab.text("#stale")
        assert "Everything is as wanted" in await tab.text("#top"), "what was said last is still there"
        assert (await tab.js(WORST_CONTRAST.replace('"body *"', '"#stale"')))["ratio"] >= CONTRAST_MIN
        page.status = a_status(converged=False)
        await page.start(page.port)
        await tab.until("!document.body.classList.contains('stale')")
        assert "Working on it" in await tab.text("#top")


async def test_without_scripts_it_is_a_snapshot_that_says_of_when(program: Callable[[str], str]) -> None:
    async with shown(a_broken_class(), program) as (tab, page):
        await tab.call("Emulation.setScriptExecutionDisabled", value=True)
        await tab.open(page.url)
        assert "Needs attention" in await tab.text("#top")
        assert (await tab.text("#fresh")).startswith("As of 13:46:40 UTC")
        assert await tab.js("document.querySelector('noscript meta').getAttribute('content')") == "10"


@pytest.mark.parametrize(("clusters", "containers"), [(0, 1), (200, 1000)])
async def test_a_tiny_and_a_huge_site_are_usable(program: Callable[[str], str], clusters: int, containers: int) -> None:
    names = [(k, n) for k in range(clusters) for n in range(5)]
    guests = [a_guest(f"k{k}-n{n}", f"c{(5 * k + n) % containers}", cluster=f"k{k}") for k, n in names]
    async with shown(a_status([a_container(f"c{n}") for n in range(containers)], guests), program) as (tab, _):
        for width, phone in ((390, True), (1920, False)):
            await tab.screen(width, 1080, phone=phone)
            assert await tab.js("document.documentElement.scrollWidth") <= width
            assert await tab.js("document.querySelectorAll('.tile').length") == clusters
            assert f"{containers} container" in await tab.text("#containers")
            first_tiles = "document.querySelector('.tiles')?.getBoundingClientRect().top ?? 0"
            assert await tab.js(first_tiles) < 500, "tiles are on the first screen"


async def test_ages_are_told_alike_by_the_service_and_the_script(program: Callable[[str], str]) -> None:
    ages_s = (0, 59, 60, 3599, 3600, 86399, 86400, 864000)
    guests = [a_guest(f"a-n{age}", state="stopped", since_s=NOW_S - age) for age in ages_s]
    async with shown(a_status(guests=guests), program) as (tab, page):
        await tab.until("document.querySelector('#fresh').innerText.startsWith('Live')")
        times = "[...document.querySelectorAll('#k-a time')].map((time) => time.textContent)"
        by_script = await tab.js(times)
        await tab.call("Emulation.setScriptExecutionDisabled", value=True)
        await tab.open(page.url)
        by_service = await tab.js(times)
    # A second or two may have passed where seconds are shown.
    assert by_script[2:] == by_service[2:] == ["1 min", "59 min", "1 h", "23 h", "1 d", "10 d"]
    assert by_service[:2] == ["0 s", "59 s"]
