"""`service.serve` on a simulated site: generations, directories that are replaced, metrics, apply's verdict."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
from running import (
    GUESTS,
    Place,
    Service,
    blocked,
    container,
    guest,
    move,
    rewrite,
    running,
    serving,
    settings,
    site_of,
    until,
)

from vcrecon.service import serve


async def test_a_new_generation_takes_effect_within_seconds(tmp_path: Path) -> None:
    async with site_of(tmp_path) as place, serving(place) as service:
        await service.converged()
        began_s = time.monotonic()
        move(place.specs, "b-n2", "c02")
        await service.until("generation 2", lambda s: s["spec"]["generation"] == 2, 5)
        print(f"a new generation was in force after {time.monotonic() - began_s:.3f} s")
        await service.until("b-n2 on c02", lambda s: guest(s, "b-n2")["seen_on"] == ["c02"] and s["converged"])


async def test_a_bad_edit_changes_nothing_and_is_named_until_it_is_mended(tmp_path: Path) -> None:
    async with site_of(tmp_path) as place, serving(place) as service:
        good = await service.converged()
        path = place.specs / "deployment.yaml"
        lines = path.read_text().splitlines(keepends=True)
        line = next(number for number, text in enumerate(lines, 1) if "c02" in text and "[" in text)
        path.write_text("".join(lines).replace("b-head", "b-haed"))
        bad = await service.until("the finding", lambda s: not s["spec"]["valid"], 5)
        assert any(f"deployment.yaml:{line}:" in problem for problem in bad["spec"]["problems"])
        assert any("b-head" in problem for problem in bad["spec"]["problems"]), "the near miss is suggested"
        assert bad["spec"]["generation"] == good["spec"]["generation"] == 1
        assert bad["spec"]["digest"] == good["spec"]["digest"]
        await place.site.kill_guest("b-head")
        await service.until("the old generation still heals", lambda s: _boots(place, "b-head") == 2 and s["converged"])
        path.write_text("".join(lines))
        mended = await service.until("mended", lambda s: s["spec"]["valid"], 5)
        assert mended["spec"]["problems"] == []
        assert mended["spec"]["generation"] == 1, "the same content is the same generation"


def _boots(place: Place, name: str) -> int:
    return place.site.witness.boots[name]


async def test_a_spec_directory_that_is_replaced_as_a_whole_is_taken_up(tmp_path: Path) -> None:
    """As `git worktree`, `rsync` to a new directory and a deployment tool do it: the old one is moved away."""
    async with site_of(tmp_path) as place, serving(place) as service:
        await service.converged()
        new = tmp_path / "new"
        shutil.copytree(place.specs, new)
        move(new, "b-n2", "c02")
        place.specs.rename(tmp_path / "old")
        new.rename(place.specs)
        await service.until("generation 2", lambda s: s["spec"]["generation"] == 2, 30)
        move(place.specs, "b-n1", "c02")
        await service.until("an edit in the new directory", lambda s: s["spec"]["generation"] == 3, 30)
        assert (await service.status())["spec"]["valid"]


async def test_a_link_that_points_to_another_spec_directory_is_followed(tmp_path: Path) -> None:
    async with site_of(tmp_path) as place:
        first, second = tmp_path / "first", tmp_path / "second"
        place.specs.rename(first)
        place.specs.symlink_to(first)
        async with serving(place) as service:
            await service.converged()
            shutil.copytree(first, second)
            move(second, "b-n2", "c02")
            link = tmp_path / "link"
            link.symlink_to(second)
            link.replace(place.specs)
            await service.until("generation 2", lambda s: s["spec"]["generation"] == 2, 30)
            move(second, "b-n1", "c02")
            await service.until("an edit behind the link", lambda s: s["spec"]["generation"] == 3, 30)


async def test_a_spec_directory_that_vanishes_for_a_while_stops_nothing(tmp_path: Path) -> None:
    async with site_of(tmp_path) as place, serving(place) as service:
        await service.converged()
        place.specs.rename(tmp_path / "away")
        gone = await service.until("the finding", lambda s: not s["spec"]["valid"], 30)
        assert str(place.specs) in gone["spec"]["problems"][0]
        assert running(gone, GUESTS)
        (tmp_path / "away").rename(place.specs)
        await service.until("it is back", lambda s: s["spec"]["valid"], 30)
        move(place.specs, "b-n2", "c02")
        await service.until("edits count again", lambda s: s["spec"]["generation"] == 2, 30)


async def test_a_file_saved_by_removing_and_writing_it_is_one_edit(tmp_path: Path) -> None:
    async with site_of(tmp_path) as place, serving(place) as service:
        await service.converged()
        path, backup = place.specs / "deployment.yaml", place.specs / "deployment.yaml~"
        content = path.read_text()
        path.rename(backup)
        await service.until("the file is missing", lambda s: not s["spec"]["valid"], 5)
        path.write_text(content.replace("[a-head, b-n2]", "[a-head]").replace("[b-head, a-n2]", "[b-head, a-n2, b-n2]"))
        backup.unlink()
        await service.until("saved", lambda s: s["spec"]["valid"] and s["spec"]["generation"] == 2, 5)


async def test_metrics_and_health_are_served_and_promtool_is_content(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    promtool = program("promtool")
    async with site_of(tmp_path) as place, serving(place, listen=("127.0.0.1", 0)) as service:
        status = await service.converged()
        url = status["metrics_url"].removesuffix("/metrics")
        async with aiohttp.ClientSession() as web:
            for path in ("/healthz", "/readyz"):
                async with web.get(url + path) as answer:
                    assert answer.status == 200, path
            metrics = ""

            async def counted() -> bool:
                nonlocal metrics
                async with web.get(f"{url}/metrics") as answer:
                    metrics = await answer.text()
                return "vcrecon_converge_seconds_count 1.0" in metrics.splitlines()

            await until("the convergence is counted", counted)
    lines = set(metrics.splitlines())
    assert 'vcrecon_guests{state="running"} 6.0' in lines
    assert 'vcrecon_containers{state="vlan-ready"} 3.0' in lines
    assert {"vcrecon_spec_valid 1.0", "vcrecon_spec_generation 1.0", "vcrecon_frozen 0.0"} <= lines
    assert _complaints(promtool, metrics) == ""


def _complaints(promtool: str, metrics: str) -> str:
    command = [promtool, "check", "metrics"]
    found = subprocess.run(command, input=metrics, capture_output=True, text=True, check=False)
    return found.stdout + found.stderr + (f"status {found.returncode}" if found.returncode else "")


async def test_the_service_is_not_ready_before_it_has_looked_everywhere(tmp_path: Path) -> None:
    async with site_of(tmp_path) as place:
        for name in place.site.hosts:
            await place.site.slow(name, 0.1)
        async with serving(place, listen=("127.0.0.1", 0)) as service:
            url = (await service.status())["metrics_url"].replace("/metrics", "/readyz")
            async with aiohttp.ClientSession() as web:
                async with web.get(url) as answer:
                    assert (answer.status, "not looked at yet" in await answer.text()) == (503, True)
                for name in place.site.hosts:
                    await place.site.slow(name, 0)
                await service.converged()
                async with web.get(url) as answer:
                    assert answer.status == 200


async def _apply(place: Place) -> int:
    quick = settings(stuck_s=1.0)
    return await serve(place.specs, place.state, listen=None, once=True, confirm=False, settings=quick, on_status=None)


async def test_apply_ends_with_0_once_everything_is_as_wanted(tmp_path: Path) -> None:
    async with site_of(tmp_path) as place:
        assert await asyncio.wait_for(_apply(place), 60) == 0
        assert (await place.site.world())["running"] == len(GUESTS)
        assert await asyncio.wait_for(_apply(place), 60) == 0, "and again, with nothing to do"
        assert set(place.site.witness.boots.values()) == {1}


async def test_apply_ends_with_1_when_only_a_person_can_help(tmp_path: Path) -> None:
    async with site_of(tmp_path) as place:
        await place.site.refuse_key("c03")
        assert await asyncio.wait_for(_apply(place), 60) == 1
        assert (await place.site.world())["running"] == 4, "what could be done was done"


async def test_a_hung_host_costs_the_others_nothing(tmp_path: Path) -> None:
    """While c03 hangs, guests on the others die and are healed as fast as ever (S8)."""
    async with site_of(tmp_path) as place, serving(place) as service:
        await service.converged()
        healthy_s = await _heal(place, service)
        await place.site.hang_command("c03", ".*", times=None)
        await service.until("c03 is seen to hang", lambda s: blocked(s, "c03") == ["deadline"], 20)
        hung_s = await _heal(place, service)
        print(f"healed in {healthy_s:.2f} s beside healthy hosts, in {hung_s:.2f} s beside a hung one")
        assert hung_s < healthy_s + 1.0
        await place.site.heal("c03")
        await place.site.reboot("c03")
        await service.until("c03 is back", lambda s: container(s, "c03")["reachable"])
        await service.converged()


async def _heal(place: Place, service: Service) -> float:
    """Seconds from the death of two guests until both run again."""
    before = {name: _boots(place, name) for name in ("a-head", "b-head")}
    began_s = time.monotonic()
    for name in before:
        await place.site.kill_guest(name)
    await service.until(
        "both healed",
        lambda s: running(s, tuple(before)) and all(_boots(place, name) > count for name, count in before.items()),
    )
    return time.monotonic() - began_s


async def test_a_site_under_another_name_is_refused(tmp_path: Path) -> None:
    """Everything on the hosts carries the site's name: under another it would all be a stranger's."""
    async with site_of(tmp_path) as place, serving(place) as service:
        await service.converged()
        rewrite(place.specs / "site.yaml", lambda content: content.update(site="large"))
        bad = await service.until("refused", lambda s: not s["spec"]["valid"], 5)
        assert "'large'" in bad["spec"]["problems"][0]
        assert bad["spec"]["generation"] == 1
        rewrite(place.specs / "site.yaml", lambda content: content.update(site="small"))
        await service.until("put back", lambda s: s["spec"]["valid"], 5)
