"""The controller ends when it is asked to, also when that meets a wake-up or an edit of the spec."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from harness import QUICK, SpecFiles, playground

from vcrecon.core.actions import FetchImage

STOP_DEADLINE_S = 10.0


@pytest.mark.parametrize("turns", range(5))
async def test_a_stop_that_comes_together_with_a_wake_up_ends_the_controller(tmp_path: Path, turns: int) -> None:
    async with playground(tmp_path) as play:
        play.controller.wake(play.controller.stations)
        for _ in range(turns):  # of the event loop: the wake-up is then half done
            await asyncio.sleep(0)
        stopping = asyncio.create_task(play.stop())
        ended, _ = await asyncio.wait({stopping}, timeout=STOP_DEADLINE_S)
        assert ended, "the controller goes on"


def one_download_at_a_time(files: SpecFiles) -> None:
    with files.editing("site") as document:
        document["limits"]["image_transfers"] = 1


def take_out(files: SpecFiles, container: str) -> None:
    """The container leaves the spec; its guests are placed on the others."""
    others = [name for name in ("c01", "c02", "c03") if name != container]
    with files.editing("containers") as document:
        kinds = {"c01": "kvm", "c02": "kvm", "c03": "xen"}
        by_name = {entry["name"]: entry for entry in document["containers"]}
        entries = [by_name.get(name) for name in others]
        document["containers"] = [
            entry or {"name": name, "address": "127.0.0.1", "hypervisor": kinds[name]}
            for name, entry in zip(others, entries, strict=True)
        ]
    with files.editing("deployment") as document:
        document["deployment"][others[0]].extend(document["deployment"].pop(container))


async def test_nobody_waits_behind_a_container_that_left_the_spec(tmp_path: Path) -> None:
    hasty = replace(QUICK, shutdown_s=0.0)
    async with playground(tmp_path, vary=one_download_at_a_time, settings=hasty, converge=False) as play:
        for name in play.site.hosts:
            await play.site.hang_command(name, "^curl", times=None)
        admission = play.controller.admission
        await play.until(lambda: admission.lengths()["image-transfers"] == 2, "two wait for the third")
        fetching = {action.container for action in admission.in_flight.values() if isinstance(action, FetchImage)}
        waiting = next(name for name in play.site.hosts if name not in fetching)
        take_out(play.files, waiting)
        play.reload()
        assert admission.lengths()["image-transfers"] == 1


async def test_a_controller_killed_before_it_looked_at_every_host_does_not_take_a_new_record_for_whole(
    tmp_path: Path,
) -> None:
    hasty = replace(QUICK, shutdown_s=0.0, connect_deadline_s=1.0)
    async with playground(tmp_path, settings=hasty) as play:
        await play.stop()
        shutil.rmtree(play.state)
        await play.site.cut("c01")
        play.files.move("a-head", "c02")
        play.start()
        await play.until(lambda: "c02" in play.record.memory.seen, "c02 was seen")
        assert "c01" not in play.controller.world.current, "c01 still hides what it holds"
        await play.restart()
        await play.blocked("a-head", "may-live-elsewhere")
        await play.relisted("c02", times=2)
        assert play.hosts_of("a-head") == ["c01"]
