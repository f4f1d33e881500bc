"""Guests that the spec places elsewhere: carried over with their disk, whatever goes wrong on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import STUDENT_TEXT, Playground, SpecFiles, playground


def move(play: Playground, guest: str, container: str) -> None:
    play.files.move(guest, container)
    play.reload()


async def moved_with_its_work(play: Playground, guest: str, container: str) -> None:
    """Until it runs there with the student's file, and nothing is left to do."""
    await play.runs_on(guest, container)
    assert await play.work_of(guest) == STUDENT_TEXT
    await play.converged()
    assert play.hosts_of(guest) == [container]


@pytest.mark.parametrize("target", ["c01", "c03"], ids=["kvm to kvm", "kvm to xen"])
async def test_a_moved_guest_takes_its_disk_along_and_the_old_copy_is_kept(tmp_path: Path, target: str) -> None:
    async with playground(tmp_path) as play:
        await play.students_work("a-n2")
        before = play.all_boots()
        move(play, "a-n2", target)
        await moved_with_its_work(play, "a-n2", target)
        assert play.kept("a-n2") == {"c02": "moved"}
        assert play.all_boots() == {**before, "a-n2": before["a-n2"] + 1}


async def test_a_guest_that_moves_back_brings_what_was_written_meanwhile(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        move(play, "a-n2", "c01")
        await play.runs_on("a-n2", "c01")
        await play.students_work("a-n2")
        move(play, "a-n2", "c02")
        await moved_with_its_work(play, "a-n2", "c02")
        assert play.kept("a-n2") == {"c01": "moved", "c02": "moved"}


async def test_a_guest_without_work_is_made_anew_at_its_new_place(tmp_path: Path) -> None:
    def preparing(files: SpecFiles) -> None:
        files.set_session("preparing")

    async with playground(tmp_path, vary=preparing) as play:
        move(play, "a-n2", "c01")
        await play.runs_on("a-n2", "c01")
        await play.converged()
        assert list(play.volumes("a-n2")) == [("c01", "vcg-a-n2")]


@pytest.mark.parametrize("phase", ["stop-guest", "copy-disk", "activate-copy", "quarantine", "start-guest"])
async def test_a_move_taken_back_at_any_moment_ends_where_it_began(tmp_path: Path, phase: str) -> None:
    async with playground(tmp_path) as play:
        await play.students_work("a-n2")
        mark = play.last_event_id()
        move(play, "a-n2", "c01")
        await play.happened("guest/a-n2", phase, after_id=mark)
        move(play, "a-n2", "c02")
        await moved_with_its_work(play, "a-n2", "c02")


async def test_a_move_that_changes_its_target_ends_at_the_last_one(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await play.students_work("a-n2")
        mark = play.last_event_id()
        move(play, "a-n2", "c01")
        await play.happened("guest/a-n2", "copy-disk", after_id=mark)
        move(play, "a-n2", "c03")
        await moved_with_its_work(play, "a-n2", "c03")


@pytest.mark.parametrize(
    ("container", "pattern"),
    [
        ("c02", "^zstd"),
        ("c02", "^dd"),
        ("c01", "^dd"),
        ("c01", "^zstd"),
        ("c02", "^sha256sum /dev"),
        ("c01", "^sha256sum /dev"),
    ],
)
async def test_a_copy_that_fails_midway_is_tried_again_and_arrives_whole(
    tmp_path: Path, container: str, pattern: str
) -> None:
    async with playground(tmp_path) as play:
        await play.students_work("a-n2")
        await play.site.fail_command(container, pattern)
        mark = play.last_event_id()
        move(play, "a-n2", "c01")
        await play.happened("guest/a-n2", "failed", after_id=mark)
        await moved_with_its_work(play, "a-n2", "c01")
        assert play.kept("a-n2") == {"c02": "moved"}


async def test_a_copy_that_fails_again_and_again_is_tried_ever_more_slowly(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await play.students_work("a-n2")
        await play.site.fail_command("c01", "^zstd", times=None)
        move(play, "a-n2", "c01")
        await play.until(lambda: attempts_of(play, "a-n2") >= 2, "two failures in a row are counted as two")
        assert play.hosts_of("a-n2") == []
        await play.site.heal("c01")
        await moved_with_its_work(play, "a-n2", "c01")


def attempts_of(play: Playground, guest: str) -> int:
    attempts = play.record.memory.attempts.get(f"guest/{guest}")
    return attempts.count if attempts else 0


async def test_a_guest_moves_to_a_container_that_never_held_its_image(tmp_path: Path) -> None:
    def with_an_empty_container(files: SpecFiles) -> None:
        with files.editing("containers") as document:
            document["containers"].append({"name": "c04", "address": "10.64.0.14", "hypervisor": "kvm"})

    async with playground(tmp_path, vary=with_an_empty_container) as play:
        await play.students_work("a-n2")
        move(play, "a-n2", "c04")
        await moved_with_its_work(play, "a-n2", "c04")
        golden = [v.name for v in play.site.hosts["c04"].machine.all_volumes() if v.name.startswith("vcimg-")]
        assert golden == [], "it brought its disk along: only the kernel was fetched"


async def test_a_copy_that_differs_from_the_original_is_never_booted(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await play.students_work("a-n2")
        boots, mark = play.boots("a-n2"), play.last_event_id()
        # `dd` on the receiving side says that all went well, and wrote nothing.
        await play.site.fail_command("c01", "^dd of=", times=None, status=0, stderr="")
        move(play, "a-n2", "c01")
        failed = await play.happened("guest/a-n2", "failed", after_id=mark)
        assert play.boots("a-n2") == boots
        assert "differs from the original" in failed["message"] or "zstd" in failed["message"]
        await play.site.heal("c01")
        await moved_with_its_work(play, "a-n2", "c01")


async def test_a_copy_is_outdated_once_the_original_ran_again(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await play.students_work("a-n2", "a first draft\n")
        mark = play.last_event_id()
        await play.site.fail_command("c01", r"^lvchange .*vc\.epoch=", times=None)  # it cannot be activated
        move(play, "a-n2", "c01")
        await play.happened("guest/a-n2", "failed", after_id=mark)
        move(play, "a-n2", "c02")
        await play.runs_on("a-n2", "c02")
        await play.students_work("a-n2")
        await play.site.heal("c01")
        move(play, "a-n2", "c01")
        await moved_with_its_work(play, "a-n2", "c01")


async def test_a_destination_that_dies_during_the_copy_sends_the_guest_home(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await play.students_work("a-n2")
        boots = play.boots("a-n2")
        await play.site.hang_command("c01", "^zstd", times=None)
        move(play, "a-n2", "c01")
        await play.until(lambda: ("c01", "vcg-a-n2") in play.volumes("a-n2"), "the copy has begun")
        await play.site.power_off("c01")
        await play.restarted("a-n2", boots)
        assert play.hosts_of("a-n2") == ["c02"]
        assert await play.work_of("a-n2") == STUDENT_TEXT
        await play.site.heal("c01")
        await play.site.power_on("c01")
        await moved_with_its_work(play, "a-n2", "c01")


async def test_a_guest_stays_where_it_is_while_its_destination_does_not_answer(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        boots = play.boots("a-n2")
        await play.site.cut("c01")
        await play.until(lambda: not play.controller.world.reachable("c01"), "c01 is seen as lost")
        move(play, "a-n2", "c01")
        await play.blocked("a-n2", "destination-not-ready")
        assert play.hosts_of("a-n2") == ["c02"]
        await play.site.kill_guest("a-n2")
        await play.restarted("a-n2", boots)
        assert play.hosts_of("a-n2") == ["c02"]
        await play.site.mend("c01")
        await play.runs_on("a-n2", "c01")


async def test_a_guest_does_not_leave_for_a_container_without_room(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await play.site.fill_pool("c01", 100.0)
        await play.relisted("c01")
        before = play.all_boots()
        move(play, "a-n2", "c01")
        await play.blocked("a-n2", "destination-not-ready")
        await play.relisted("c02")
        assert play.hosts_of("a-n2") == ["c02"]
        assert play.all_boots() == before
        assert list(play.volumes("a-n2")) == [("c02", "vcg-a-n2")]


async def test_a_guest_that_will_not_stop_loses_its_plug_after_the_grace_time(tmp_path: Path) -> None:
    def quickly(files: SpecFiles) -> None:
        files.set_policy(stop_grace="2s")

    async with playground(tmp_path, vary=quickly) as play:
        await play.students_work("a-n2")
        await play.site.fail_command("c02", r"^virsh .*shutdown", times=None, status=0, stderr="")
        move(play, "a-n2", "c01")
        await moved_with_its_work(play, "a-n2", "c01")


async def test_a_move_survives_the_controller_at_every_step(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await play.students_work("a-n2")
        boots = play.boots("a-n2")
        mark = play.last_event_id()
        move(play, "a-n2", "c01")
        for phase in ("stop-guest", "copy-disk", "activate-copy"):
            await play.happened("guest/a-n2", phase, after_id=mark)
            await play.restart()
        await moved_with_its_work(play, "a-n2", "c01")
        assert play.boots("a-n2") == boots + 1


async def test_a_move_goes_on_without_the_record(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await play.students_work("a-n2")
        mark = play.last_event_id()
        move(play, "a-n2", "c01")
        await play.happened("guest/a-n2", "activate-copy", after_id=mark)
        await play.restart(without_record=True)
        await moved_with_its_work(play, "a-n2", "c01")
