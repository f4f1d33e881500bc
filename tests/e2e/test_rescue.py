"""A person works on the disk of a halted guest: held, changed, given back; whatever happens meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import STUDENT_TEXT, Playground, SpecFiles, playground

from vcrecon.errors import Refused
from vcrecon.sim.files import Files

POINT = "/run/vcrecon/rescue/a-n2"


async def hold(play: Playground, guest: str = "a-n2") -> None:
    play.controls.rescue(guest, "the tester")
    await play.until(lambda: is_held(play, guest), f"{guest} is held")


def is_held(play: Playground, guest: str) -> bool:
    found = play.controls.guest(guest)
    return found["pending"] is None and found["held"] is not None


async def released(play: Playground, guest: str = "a-n2") -> None:
    before = play.boots(guest)
    play.controls.release(guest, "the tester")
    await play.restarted(guest, before)


def files_of(play: Playground, container: str) -> Files:
    return play.site.hosts[container].machine.files


async def test_a_rescued_guest_shows_its_files_on_its_container_and_boots_with_what_was_changed(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await play.students_work("a-n2")
        await hold(play)
        files = files_of(play, "c02")
        assert files.read(f"{POINT}/root/thesis.txt").decode() == STUDENT_TEXT
        assert {"nosuid", "nodev", "noexec"} <= set(files.mount_of(f"{POINT}/etc").options)
        assert files.mode("/run/vcrecon/rescue") & 0o777 == 0o700
        assert play.hosts_of("a-n2") == []
        files.write(f"{POINT}/srv/mended", b"yes\n")
        await released(play)
        await play.converged()
        assert await play.site.read_guest_file("a-n2", "/srv/mended") == "yes\n"
        assert play.events("guest/a-n2")[-1]["reason"] != "failed"


async def test_a_held_guest_stays_held_without_the_record_and_when_the_spec_moves_it(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await play.students_work("a-n2")
        await hold(play)
        before, disks = play.all_boots(), play.volumes("a-n2").keys()
        await play.restart(without_record=True)
        await play.converged()
        play.files.move("a-n2", "c01")
        play.reload()
        await play.converged()
        assert play.state_of("a-n2") == "held"
        (shown,) = [guest for guest in play.controls.status()["guests"] if guest["name"] == "a-n2"]
        assert "held for rescue on c02: it comes here after `vcrecon release a-n2`" in shown["message"]
        assert (play.all_boots(), play.volumes("a-n2").keys()) == (before, disks)
        files_of(play, "c02").write(f"{POINT}/root/thesis.txt", b"mended\n")
        await released(play)
        await play.runs_on("a-n2", "c01")
        assert await play.work_of("a-n2") == "mended\n"


async def test_a_container_that_reboots_loses_the_mount_and_a_new_rescue_makes_it_again(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await hold(play)
        await play.site.reboot("c02")
        await play.converged()
        assert play.state_of("a-n2") == "held"
        assert not files_of(play, "c02").exists(POINT)
        await hold(play)
        assert files_of(play, "c02").exists(f"{POINT}/etc/passwd")
        await released(play)


async def test_a_disk_is_given_back_to_a_new_service_that_has_not_seen_its_container_yet(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await hold(play)
        before = play.boots("a-n2")
        await play.site.cut("c02")
        await play.restart()
        assert "c02 does not answer now: a-n2 is released once it does" in play.controls.release("a-n2", "the tester")
        await play.site.mend("c02")
        await play.restarted("a-n2", before)


async def test_a_guest_that_does_not_power_off_is_held_all_the_same(tmp_path: Path) -> None:
    def quickly(files: SpecFiles) -> None:
        files.set_policy(stop_grace="1s", on_poweroff="honour")

    async with playground(tmp_path, vary=quickly) as play:
        await play.site.fail_command("c02", r"^virsh .*shutdown", times=None, status=0, stderr="")
        await hold(play)
        assert play.hosts_of("a-n2") == []
        await released(play)


async def test_a_guest_that_leaves_the_spec_while_it_is_held_is_put_aside_once_it_is_released(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await play.students_work("a-n2")
        await hold(play)
        with play.files.editing("clusters") as document:
            for cluster in document["clusters"]:
                cluster["nodes"]["count"] = 1
        for name in ("a-n2", "b-n2"):
            play.files.take(name)
        play.reload()
        await play.converged()
        (orphan,) = [o for o in play.controls.status()["orphans"] if o["name"] == "a-n2"]
        assert orphan["message"] == "held for rescue"
        play.controls.release("a-n2", "the tester")
        await play.until(lambda: play.kept("a-n2") == {"c02": "removed"}, "its disk is put aside")


async def test_a_mount_that_fails_is_told_and_can_be_taken_back(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await play.site.fail_command("c02", "^mount ", times=None, stderr="mount: Structure needs cleaning")
        play.controls.rescue("a-n2", "the tester")
        await play.until(lambda: play.controls.guest("a-n2")["trouble"] is not None, "it is told")
        assert "Structure needs cleaning" in play.controls.guest("a-n2")["trouble"]
        assert "vc.held" in play.live_volume("a-n2", "c02").tags
        await play.site.heal("c02")
        await released(play)


async def test_what_cannot_be_rescued_is_refused_with_what_to_do(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        play.controls.pause("cluster/a")
        with pytest.raises(Refused, match=r"cluster/a is paused.*`vcrecon resume cluster/a` first"):
            play.controls.rescue("a-n2", "the tester")
        play.controls.resume("cluster/a")
        with pytest.raises(Refused, match="a-n2 is not held for rescue"):
            play.controls.release("a-n2", "the tester")
        with pytest.raises(Refused, match="'c02' is a container; this needs a guest"):
            play.controls.rescue("c02", "the tester")
        await play.site.cut("c02")
        await play.until(lambda: not play.controller.world.reachable("c02"), "c02 is seen as lost")
        with pytest.raises(Refused, match="c02 does not answer, so the disk of a-n2 is out of reach"):
            play.controls.rescue("a-n2", "the tester")
        await play.site.mend("c02")


async def test_a_guest_that_was_never_made_cannot_be_rescued(tmp_path: Path) -> None:
    async with playground(tmp_path, converge=False) as play:
        await play.until(lambda: play.controller.world.reachable("c02"), "c02 is looked at")
        with pytest.raises(Refused, match=r"a-n2 has (no disk yet|not booted yet)"):
            play.controls.rescue("a-n2", "the tester")
        await play.converged()
