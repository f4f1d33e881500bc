"""A record whose disk is full, and a clock that jumps: no act without a written intent, no wait without an end."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from pathlib import Path

import pytest
from harness import QUICK, playground

DAY_S = 86_400.0


class Clock:
    """The wall clock, set forward or back by hand."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@pytest.mark.root
async def test_a_full_disk_under_the_record_stops_every_act_and_no_look(tmp_path: Path, small_disk: Path) -> None:
    """Without a written intent nothing is begun (S7); the service looks on, says so, and recovers by itself."""
    async with playground(tmp_path) as play:
        assert play.state == small_disk
        filler = small_disk / "filler"
        _fill(filler)
        boots = play.all_boots()
        await play.site.kill_guest("a-head")
        await play.until(lambda: play.controller.record_trouble is not None, "it says so")
        assert "full" in str(play.controls.status()["trouble"])
        looked_s = {name: seen.at_s for name, seen in play.controller.world.current.items()}
        await play.until(
            lambda: all(seen.at_s > looked_s[name] for name, seen in play.controller.world.current.items()),
            "looking goes on everywhere",
        )
        assert play.all_boots() == boots, "nothing is begun that could not be written down"
        filler.unlink()
        await play.restarted("a-head", boots["a-head"])
        await play.converged()
        await play.until(lambda: play.controller.record_trouble is None, "the trouble is over")


def _fill(path: Path) -> None:
    """Write until there is no byte left."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


async def test_a_clock_that_jumps_forward_and_back_delays_and_restarts_nothing(tmp_path: Path) -> None:
    clock = Clock()
    async with playground(tmp_path, clock=clock) as play:
        for ahead_s, victim in ((365 * DAY_S, "a-head"), (-30 * DAY_S, "b-head"), (0.0, "a-n1")):
            clock.ahead_s = ahead_s
            boots = play.all_boots()
            await play.converged()
            assert play.all_boots() == boots, "a jump alone restarts nothing"
            await play.site.kill_guest(victim)
            await play.restarted(victim, boots[victim])
        await play.converged()


async def test_a_backoff_from_before_the_clock_was_set_back_does_not_last_for_ever(tmp_path: Path) -> None:
    clock = Clock()
    async with playground(tmp_path, clock=clock) as play:
        clock.ahead_s = 30 * DAY_S
        await play.site.fail_command("c01", "^virsh .*start a-head", None)
        await play.site.kill_guest("a-head")
        await play.happened("guest/a-head", "failed")
        await play.site.heal("c01")
        clock.ahead_s = 0.0
        await play.restarted("a-head", 1)
        await play.converged()


async def test_a_stop_that_was_asked_for_before_the_clock_was_set_back_is_asked_for_again(tmp_path: Path) -> None:
    clock = Clock()
    async with playground(tmp_path, clock=clock) as play:
        clock.ahead_s = 30 * DAY_S
        await play.site.fail_command("c01", "^virsh .*shutdown b-n2", 1)
        play.files.move("b-n2", "c02")
        play.reload()
        await play.happened("guest/b-n2", "failed")
        clock.ahead_s = 0.0
        await play.runs_on("b-n2", "c02")
        await play.converged()


async def test_a_fence_outlives_a_clock_that_was_set_back(tmp_path: Path) -> None:
    """The person's word counts from when it was given, whatever the clock said then; seeing the host voids it."""
    clock = Clock()
    settings = dataclasses.replace(QUICK, look_deadline_s=1.5, connect_deadline_s=1.0)
    async with playground(tmp_path, clock=clock, settings=settings) as play:
        await play.site.power_off("c03")
        await play.until(lambda: not play.controller.world.reachable("c03"), "c03 is seen as lost")
        clock.ahead_s = 0.0
        play.controls.fence("c03", "a person")
        play.files.move("a-n1", "c02")
        play.files.move("b-n1", "c01")
        play.reload()
        clock.ahead_s = -DAY_S
        await play.runs_on("a-n1", "c02")
        await play.runs_on("b-n1", "c01")
        assert play.hosts_of("a-n1") == ["c02"]
