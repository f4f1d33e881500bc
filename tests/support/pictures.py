"""`python -m tests.support.pictures [DIR]`: the pictures in docs/images, of the page and the terminal view.

Called by `make pictures`. The tutorial's site is simulated, healthy first and then broken; the service is the real
one, Chromium takes the page, and rich draws the terminal. Needs Debian's chromium, and no root.
"""

from __future__ import annotations

import asyncio
import io
import shutil
import sys
import tempfile
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from tests.e2e.running import Place, Service, blocked, container, rewrite, serving, settings, site_of
from tests.support.browser import Tab, browsing

from vcrecon.cli.watch_view import Screen, frame
from vcrecon.core.overview import overview
from vcrecon.shell.log import configure

ROOT = Path(__file__).parents[2]
TERMINAL = (100, 30)
XTERM = TerminalTheme(
    (22, 25, 29),
    (216, 221, 226),
    [(0, 0, 0), (205, 0, 0), (0, 205, 0), (205, 205, 0), (0, 0, 238), (205, 0, 205), (0, 205, 205), (229, 229, 229)],
    [(127, 127, 127), (255, 0, 0), (0, 255, 0), (255, 255, 0), (92, 92, 255), (255, 0, 255), (0, 255, 255), (255,) * 3],
)
"""The colours of xterm, on dark grey."""
CALM = settings(relist_s=30.0, poll_s=2.0, look_deadline_s=30.0, connect_deadline_s=30.0, spec_debounce_s=0.2)
"""64 hosts and the service share this process."""


async def main(target: Path) -> None:
    """Write all pictures into `target`."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("pictures: chromium is not installed: apt-get install chromium")
    configure(level="warning", log_format="console")
    with tempfile.TemporaryDirectory(prefix="vc-") as directory:
        async with (
            site_of(Path(directory), source=ROOT / "specs" / "tutorial") as place,
            serving(place, settings=CALM, listen=("127.0.0.1", 0)) as service,
            browsing(chromium) as tab,
        ):
            await service.converged(600)
            await _take(tab, service, target, "healthy")
            await _break(place, service)
            await _take(tab, service, target, "broken")


async def _break(place: Place, service: Service) -> None:
    """A guest that does not start again, a silent container, a pool nearly full, a mistake in the spec."""
    site = place.site
    home = {g["name"]: g["container"] for g in (await service.status())["guests"]}
    await site.fail_command(home["d-n2"], "^virsh .*start d-n2|^xl create", None, stderr="cannot allocate memory")
    await site.kill_guest("d-n2")
    await site.fill_pool("c12", 91.0)
    await site.cut("c07")
    await service.control.refresh()
    await service.until("d-n2 is blocked", lambda s: blocked(s, "d-n2"), 120)
    await service.until("c07 is silent", lambda s: blocked(s, "c07"), 120)
    await service.until("c12 is nearly full", lambda s: (container(s, "c12")["pool_data_percent"] or 0) > 90, 120)
    rewrite(place.specs / "clusters.yaml", lambda content: content["templates"]["node"].update(memory="512M"))
    await service.until("the mistake is found", lambda s: not s["spec"]["valid"], 120)


async def _take(tab: Tab, service: Service, target: Path, name: str) -> None:
    status = await service.status()
    level = overview(status).level.name.lower()
    for scheme, suffix in (("light", ""), ("dark", "-dark")):
        await tab.scheme(scheme)
        await tab.screen(1200, 760)
        await _picture(tab, status["page_url"], level, target / f"page-{name}{suffix}.png")
    await tab.screen(390, 844, scale=1.25, phone=True)
    await tab.scheme("light")
    await _picture(tab, status["page_url"], level, target / f"page-{name}-phone.png")
    drawing = Path(tempfile.mkdtemp(prefix="vc-", dir=service.control.path.parent)) / "terminal.html"
    drawing.write_text(_terminal(status))
    await tab.open(drawing.as_uri())
    width, height = await tab.js("[document.body.firstChild.offsetWidth, document.body.firstChild.offsetHeight]")
    await tab.screen(width, height)
    _save(target / f"terminal-{name}.png", await tab.picture())


async def _picture(tab: Tab, url: str, level: str, path: Path) -> None:
    await tab.open(url)
    await tab.until("document.querySelector('#fresh').innerText.startsWith('Live')")
    await tab.until(f"document.querySelector('.headline').classList.contains('{level}')", 120)
    _save(path, await tab.picture())


def _save(path: Path, picture: bytes) -> None:
    path.write_bytes(picture)
    print(f"{path.name}: {len(picture) / 1024:.0f} KiB")


def _terminal(status: dict[str, Any]) -> str:
    """The screen of `status --watch` as HTML."""
    console = Console(record=True, file=io.StringIO(), width=TERMINAL[0], force_terminal=True, color_system="truecolor")
    for line in frame(overview(status), Screen(*TERMINAL), age_s=0.4).lines:
        console.print(line, no_wrap=True, overflow="crop")
    body = console.export_html(theme=XTERM, inline_styles=True, code_format="{code}")
    font = "font: 15px/1.3 'DejaVu Sans Mono', monospace"
    colours = "background: #16191d; color: #d8dde2"
    return (
        f'<!doctype html><meta charset="utf-8"><title>{escape(status["site"])}</title><body style="margin:0">'
        f'<pre style="margin:0; padding:12px; width:{TERMINAL[0]}ch; {font}; {colours}">{body}</pre>'
    )


if __name__ == "__main__":
    images = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(images))
