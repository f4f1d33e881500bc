"""The web page of the real service on a simulated site: what is broken shows, why, and that it was mended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from running import blocked, rewrite, serving, site_of
from tests.support.browser import browsing

from vcrecon.core.overview import overview

WELL = "document.querySelector('.headline')?.innerText.includes('Everything is as wanted')"


def tile(name: str) -> str:
    return f"document.querySelector('#k-{name}').innerText"


@pytest.mark.root
async def test_a_killed_guest_a_cut_container_and_a_bad_spec_show_and_clear(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    chromium = program("chromium")
    async with (
        site_of(tmp_path) as place,
        serving(place, listen=("127.0.0.1", 0)) as service,
        browsing(chromium) as tab,
    ):
        await service.converged()
        await tab.open((await service.status())["page_url"])
        await tab.until(WELL)
        assert [await tab.js(tile(name)) for name in "ab"] == ["a\n3/3\n✓ running", "b\n3/3\n✓ running"]

        await place.site.fail_command("c01", "^virsh .*start a-head", None)
        await place.site.kill_guest("a-head")
        await place.site.cut("c03")
        text = (place.specs / "clusters.yaml").read_text()
        rewrite(place.specs / "clusters.yaml", lambda content: content.update(cluster=[]))
        await tab.until(f"{tile('a')}.includes('1 blocked, 1 unseen')")
        await tab.until(f"{tile('b')}.includes('1 unseen')")
        assert await tab.js("document.querySelector('#k-a').className") == "tile bad"
        await tab.until("document.querySelector('#attention')?.innerText.includes('simulated failure')")
        await tab.until("document.querySelector('#containers table')?.innerText.includes('c03\\t✕ unreachable')")
        await tab.until("document.querySelector('#banners')?.innerText.includes('generation 1 stays in force')")
        assert "clusters.yaml:" in await tab.text("#banners")
        assert "vcrecon fence c03 --confirmed" in await tab.text("#attention")
        await tab.js("document.querySelector('#k-a summary').click()")
        assert "c03 is unreachable; it was running there" in await tab.text("#k-a")
        assert "Needs attention" in await tab.text("#top")

        await place.site.heal("c01")
        await place.site.mend("c03")
        (place.specs / "clusters.yaml").write_text(text)
        await tab.until(WELL, 120)
        assert [await tab.js(tile(name)) for name in "b"] == ["b\n3/3\n✓ running"]
        assert await tab.js("document.querySelector('#banners').hidden")
        assert tab.errors == []


@pytest.mark.root
async def test_a_guest_that_waits_says_for_what(tmp_path: Path, program: Callable[[str], str]) -> None:
    chromium = program("chromium")
    async with site_of(tmp_path) as place, browsing(chromium) as tab:
        for name in place.site.hosts:
            await place.site.hang_command(name, "^tar .*-x|^tar -x", None)
        async with serving(place, listen=("127.0.0.1", 0)) as service:
            await service.until("it waits", lambda s: any(g["decision"] == "wait" for g in s["guests"]))
            await tab.open((await service.status())["page_url"])
            await tab.until("document.querySelector('#doing')?.innerText.includes('debian-12')")
            assert "pending" in await tab.js(tile("a"))
            assert "Working on it" in await tab.text("#top")
            for name in place.site.hosts:
                await place.site.heal(name)
                await place.site.reboot(name)
            await tab.until(WELL, 120)


async def test_the_page_tells_what_the_control_socket_tells_and_no_secret(tmp_path: Path) -> None:
    """Password hashes, keys and the record's own secret are nowhere in it (S10)."""
    async with site_of(tmp_path) as place, serving(place, listen=("127.0.0.1", 0)) as service:
        await service.converged()
        await place.site.cut("c03")
        status = await service.until("it is missed", lambda s: blocked(s, "c03"))
        secrets = [
            line
            for path in [*place.specs.rglob("*"), place.state / "known_hosts"]
            if path.is_file() and path.suffix != ".yaml"
            for line in path.read_text(errors="replace").splitlines()
            if len(line) > 15
        ]
        assert len(secrets) > 5, "a client key, pinned host keys, a password hash"
        async with aiohttp.ClientSession() as web:
            pages = ""
            for path in ("", "view"):
                async with web.get(status["page_url"] + path) as answer:
                    assert answer.status == 200
                    pages += await answer.text()
        assert [secret for secret in secrets if secret in pages] == []
        assert status["spec"]["digest"] not in pages
        for cluster in overview(await service.status()).clusters:
            assert f'id="k-{cluster.name}"' in pages
