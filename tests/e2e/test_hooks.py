"""Hooks: a site's own scripts finish guests' disks, and one that is wrong stops nobody but its guest."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import SpecFiles, playground
from running import GUESTS, running, serving, settings, site_of

from vcrecon.service import serve

TUTORIAL_HOOKS = Path(__file__).parents[2] / "specs" / "tutorial" / "hooks"
SECRET = "correct-horse-battery-staple"


def write_hook(directory: Path, name: str, script: str) -> None:
    """Save a hook as an editor would: at once or not at all."""
    (directory / "hooks").mkdir(exist_ok=True)
    path = directory / "hooks" / name
    new = path.with_name(f"{name}.new")
    new.write_text(f"#!/bin/sh\n{script}\n")
    new.chmod(0o755)
    new.replace(path)


def hooked(*scripts: str, template: str = "node", session: str = "running") -> Callable[[SpecFiles], None]:
    """Guests of a template get the hooks 0, 1, …, whose lines these are."""

    def vary(files: SpecFiles) -> None:
        for number, script in enumerate(scripts):
            write_hook(files.directory, str(number), script)
        with files.editing("clusters") as document:
            document["templates"][template]["hooks"] = "hooks"
        files.set_session(session)
        files.set_policy(hook_deadline="1s")

    return vary


async def test_the_hooks_of_the_tutorial_make_a_finished_cluster(tmp_path: Path) -> None:
    def vary(files: SpecFiles) -> None:
        shutil.copytree(TUTORIAL_HOOKS, files.directory / "hooks")
        with files.editing("site") as document:
            document["defaults"]["hooks"] = "hooks/cluster"

    async with playground(tmp_path, vary=vary) as play:
        exports = await play.site.read_guest_file("a-head", "/etc/exports")
        assert exports.startswith("/home 10.1.1.11(rw,sync,no_subtree_check) 10.1.1.12(rw,sync,no_subtree_check)")
        fstab = await play.site.read_guest_file("b-n2", "/etc/fstab")
        assert "/dev/vda / xfs" in fstab, "what the image brought is kept"
        assert "10.1.2.1:/home /home nfs" in fstab
        hostfile = await play.site.read_guest_file("a-n1", "/etc/openmpi/openmpi-default-hostfile")
        assert hostfile == "a-head slots=1\na-n1 slots=1\na-n2 slots=1\n"


async def test_what_a_hook_holds_is_neither_in_a_command_nor_left_on_the_container(tmp_path: Path) -> None:
    async with playground(tmp_path, vary=hooked(f"echo {SECRET} > root/token")) as play:
        assert await play.site.read_guest_file("a-n2", "/root/token") == f"{SECRET}\n"
        ran = await play.site.commands("c02")
        assert not [line for line in [*ran["log"], *ran["scripts"]] if SECRET in line]
        assert play.site.hosts["c02"].machine.files.listdir("/run/vcrecon/hooks") == []


def fails_for_one_guest(specs: Path) -> None:
    hooked('if [ "$VCRECON_GUEST" = a-n2 ]; then exit 3; fi')(SpecFiles(specs))


async def test_apply_ends_with_1_when_a_hook_must_be_mended(tmp_path: Path) -> None:
    async with site_of(tmp_path, change=fails_for_one_guest) as place:
        quick = settings(stuck_s=1.0)
        applied = serve(place.specs, place.state, listen=None, once=True, confirm=False, settings=quick, on_status=None)
        assert await asyncio.wait_for(applied, 60) == 1
        assert (await place.site.world())["running"] == len(GUESTS) - 1, "what could be done was done"


async def test_a_running_service_refuses_a_half_written_hook_and_takes_the_whole_one(tmp_path: Path) -> None:
    async with site_of(tmp_path, change=fails_for_one_guest) as place, serving(place) as service:
        await service.until("a-n2 is blocked", lambda s: "hook-failed" in str(_guest(s, "a-n2")["blocked"]))
        hook = place.specs / "hooks" / "0"
        hook.write_text("#!/bin/sh\necho who")
        bad = await service.until("refused", lambda s: not s["spec"]["valid"], 10)
        assert "site.yaml" not in bad["spec"]["problems"][0]
        assert "clusters.yaml:" in bad["spec"]["problems"][0]
        assert "'hooks/0' has no newline at its end: is it half-written?" in bad["spec"]["problems"][0]
        hook.write_text("#!/bin/sh\necho whole > etc/hooked\n")
        await service.until("taken", lambda s: s["spec"]["valid"] and running(s, GUESTS))
        assert await place.site.read_guest_file("a-n2", "/etc/hooked") == "whole\n"


def _guest(status: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(guest for guest in status["guests"] if guest["name"] == name)
    return found


async def test_a_hook_that_fails_blocks_its_guest_alone_and_is_tried_again_when_saved(tmp_path: Path) -> None:
    fails = 'if [ "$VCRECON_GUEST" = a-n2 ]; then echo "first" >&2; echo "no licence left" >&2; exit 3; fi'
    async with playground(tmp_path, vary=hooked("true", fails), converge=False) as play:
        await play.blocked("a-n2", "hook-failed")
        for guest, container in (
            ("a-head", "c01"),
            ("b-head", "c02"),
            ("a-n1", "c03"),
            ("b-n1", "c03"),
            ("b-n2", "c01"),
        ):
            await play.runs_on(guest, container)
        block = play.controller.ledger.block("guest/a-n2")
        assert block is not None
        assert (
            "c02: hook hooks/1 of a-n2: exit status 3: no licence left; mend it in the spec directory" in block.message
        )
        assert play.state_of("a-n2") == "imaged"
        assert play.site.hosts["c02"].machine.files.listdir("/run/vcrecon/hooks") == []
        assert (await play.happened("guest/a-n2", "failed"))["message"].startswith("c02: hook hooks/1 of a-n2")
        metric = 'vcrecon_blocked{object="guest/a-n2",reason="hook-failed"} 1.0'
        assert metric in play.metrics.render().decode()
        write_hook(play.files.directory, "1", "echo ok > etc/licence")
        play.reload()
        assert "guest/a-n2" not in play.record.memory.attempts, "tried at once"
        await play.converged()
        assert await play.site.read_guest_file("a-n2", "/etc/licence") == "ok\n"


async def test_a_hook_that_hangs_is_ended_at_its_deadline(tmp_path: Path) -> None:
    async with playground(tmp_path, vary=hooked("sleep 100000"), timing_scale=1, converge=False) as play:
        await play.blocked("a-n2", "hook-failed")
        block = play.controller.ledger.block("guest/a-n2")
        assert block is not None
        assert "hook hooks/0 of a-n2: still ran after 1 s" in block.message
        await play.runs_on("a-head", "c01")


async def test_before_the_class_a_changed_hook_gets_a_fresh_disk(tmp_path: Path) -> None:
    async with playground(tmp_path, vary=hooked("echo old > etc/old", session="preparing")) as play:
        boots = play.boots("a-head")
        write_hook(play.files.directory, "0", "ls etc > etc/seen")
        play.reload()
        await play.converged()
        assert "old" not in (await play.site.read_guest_file("a-n2", "/etc/seen")).split()
        assert play.boots("a-head") == boots, "a guest without hooks is left alone"


async def test_a_disk_that_holds_work_is_not_rewritten_for_a_changed_hook(tmp_path: Path) -> None:
    async with playground(tmp_path, vary=hooked("echo old > etc/hooked")) as play:
        await play.students_work("a-n2")
        disk, boots = play.live_volume("a-n2", "c02"), play.boots("a-n2")
        write_hook(play.files.directory, "0", "echo new > etc/hooked")
        play.reload()
        await play.converged()
        assert play.live_volume("a-n2", "c02") is disk
        assert play.boots("a-n2") == boots
        assert await play.site.read_guest_file("a-n2", "/etc/hooked") == "old\n"


async def test_a_move_does_not_run_hooks_again(tmp_path: Path) -> None:
    async with playground(tmp_path, vary=hooked("echo once >> etc/hooked")) as play:
        await play.students_work("a-n2")
        play.files.move("a-n2", "c01")
        play.reload()
        await play.runs_on("a-n2", "c01")
        assert await play.site.read_guest_file("a-n2", "/etc/hooked") == "once\n"
