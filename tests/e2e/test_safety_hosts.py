"""Lost containers: never two copies of a guest (S1), and no rash moves when many are lost at once (S6)."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import STUDENT_TEXT, Playground, SpecFiles, playground

from vcrecon.errors import Refused


async def lose(play: Playground, container: str) -> None:
    await play.site.cut(container)
    await play.until(lambda: not play.controller.world.reachable(container), f"{container} is seen as lost")


def move(play: Playground, container: str, *guests: str) -> None:
    for guest in guests:
        play.files.move(guest, container)
    play.reload()


async def test_a_guest_of_a_lost_container_waits_for_somebodys_word_before_it_starts_elsewhere(
    tmp_path: Path,
) -> None:
    async with playground(tmp_path) as play:
        await lose(play, "c02")
        move(play, "c01", "a-n2", "b-head")
        for guest in ("a-n2", "b-head"):
            await play.blocked(guest, "may-live-elsewhere")
        await play.relisted("c01", times=2)
        assert play.hosts_of("a-n2") == ["c02"]
        await play.site.power_off("c02")
        answer = play.controls.fence("c02", "a test")
        assert answer["guests"] == answer["touched"] == ["a-n2", "b-head"]
        for guest in ("a-n2", "b-head"):
            await play.runs_on(guest, "c01")


async def test_a_fenced_container_that_returns_still_running_has_its_stale_copies_stopped_and_kept(
    tmp_path: Path,
) -> None:
    async with playground(tmp_path) as play:
        await play.students_work("a-n2")
        await lose(play, "c02")
        move(play, "c01", "a-n2")
        await play.blocked("a-n2", "may-live-elsewhere")
        # The word was wrong: c02 lost its network, not its power. Our own witness counts it as our fault.
        play.controls.fence("c02", "somebody mistaken")
        await play.until(lambda: set(play.hosts_of("a-n2")) == {"c01", "c02"}, "the mistake shows")
        mark = play.last_event_id()
        await play.site.mend("c02")
        await play.until(lambda: play.hosts_of("a-n2") == ["c01"], "the stale copy is stopped")
        await play.until(lambda: play.kept("a-n2") == {"c02": "moved"}, "its disk is kept")
        # The host is changed first; the event is written once its answer has come back.
        await play.happened("guest/a-n2", "quarantine", after_id=mark)
        reasons = [e["reason"] for e in play.events("guest/a-n2", mark)]
        assert reasons.index("stop-guest") < reasons.index("quarantine")
        assert play.events("container/c02", mark)[0]["reason"] == "fence-void"
        await play.converged()
        assert [v["kind"] for v in play.site.witness.violations] == ["two live copies"]
        play.site.witness.violations.clear()


async def test_a_fenced_container_that_was_off_returns_without_starting_its_old_guests(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await play.students_work("a-n2")
        await lose(play, "c02")
        await play.site.power_off("c02")
        move(play, "c01", "a-n2", "b-head")
        play.controls.fence("c02", "a test")
        for guest in ("a-n2", "b-head"):
            await play.runs_on(guest, "c01")
        await play.site.mend("c02")
        await play.site.power_on("c02")
        await play.converged()
        assert play.hosts_of("a-n2") == play.hosts_of("b-head") == ["c01"]
        assert play.kept("a-n2") == play.kept("b-head") == {"c02": "moved"}


async def test_a_lost_container_that_returns_before_any_fence_goes_on_as_if_nothing_happened(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        before = play.all_boots()
        await lose(play, "c02")
        await play.site.mend("c02")
        await play.converged()
        assert play.all_boots() == before


async def test_a_moved_guest_of_a_lost_container_is_carried_over_once_it_returns(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await play.students_work("a-n2")
        await lose(play, "c02")
        move(play, "c01", "a-n2")
        await play.blocked("a-n2", "may-live-elsewhere")
        await play.site.mend("c02")
        await play.runs_on("a-n2", "c01")
        assert await play.work_of("a-n2") == STUDENT_TEXT


async def test_a_container_that_answers_is_not_fenced(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        with pytest.raises(Refused, match="c02 answers, so it is not off"):
            play.controls.fence("c02", "a test")
        assert play.record.memory.fences == {}


async def test_a_container_that_leaves_the_spec_while_lost_still_holds_its_guests(tmp_path: Path) -> None:
    def crowd(files: SpecFiles) -> None:
        files.add_single("x", "c02", "10.200.0.50")

    async with playground(tmp_path, vary=crowd) as play:
        await lose(play, "c02")
        for guest in ("a-n2", "b-head", "x"):
            play.files.move(guest, "c01")
        with play.files.editing("deployment") as document:
            document["deployment"].pop("c02", None)
        with play.files.editing("containers") as document:
            document["containers"] = [c for c in document["containers"] if c["name"] != "c02"]
        play.reload()
        await play.blocked("x", "may-live-elsewhere")
        await play.relisted("c01", times=2)
        assert play.hosts_of("x") == ["c02"]


async def test_without_the_record_no_guest_starts_while_a_container_that_may_hold_it_is_silent(
    tmp_path: Path,
) -> None:
    async with playground(tmp_path) as play:
        await lose(play, "c02")
        play.files.move("a-n2", "c01")
        await play.restart(without_record=True)
        await play.until(lambda: len(play.controller.world.current) == 3, "every container was looked at")
        await play.relisted("c01", times=2)
        assert play.hosts_of("a-n2") == ["c02"]


def seven_containers(files: SpecFiles) -> None:
    """Four more KVM hosts, empty."""
    with files.editing("containers") as document:
        document["containers"].append({"name": "c[04-07]", "address": "10.64.0.[14-17]", "hypervisor": "kvm"})
    for container in ("c04", "c05", "c06", "c07"):
        with files.editing("deployment") as document:
            document["deployment"][container] = []


async def test_when_too_many_containers_are_lost_moves_wait_and_healing_goes_on(tmp_path: Path) -> None:
    async with playground(tmp_path, vary=seven_containers) as play:
        before = play.all_boots()
        lost = ("c05", "c06", "c07")
        for container in lost:
            await play.site.cut(container)
        await play.until(lambda: play.controls.status()["frozen"] is not None, "the site is frozen")
        move(play, "c04", "a-n2")
        await play.blocked("a-n2", "site-frozen")
        await play.site.kill_guest("a-head")
        await play.restarted("a-head", before["a-head"])
        assert play.hosts_of("a-n2") == ["c02"]
        assert play.boots("a-n2") == before["a-n2"]
        await play.site.mend("c05")
        await play.runs_on("a-n2", "c04")
        assert play.controls.status()["frozen"] is None


async def test_a_changed_host_key_halts_work_on_that_container_alone(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        before = play.all_boots()
        await play.site.change_host_key("c02")
        await play.until(lambda: not play.controller.world.reachable("c02"), "c02 is not believed")
        await play.site.kill_guest("a-n2")
        await play.site.kill_guest("a-head")
        await play.restarted("a-head", before["a-head"])
        assert play.boots("a-n2") == before["a-n2"]
        block = play.controller.ledger.block("container/c02")
        assert block is not None
        assert "host key" in block.message
