"""A person works on the disk of a halted guest: held, changed, given back; whatever happens meanwhile."""

from __future__ import annotations

from pathlib import Path

from harness import STUDENT_TEXT, Playground, playground

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
