"""Guests that die, are switched off, crash again and again, or lose their disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import STUDENT_TEXT, Playground, SpecFiles, playground

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDlvHWzhVvMyWQ2rNEJRdoBy8ILnDpc8BpQzcSgjSkwY teacher"


async def test_a_guest_that_died_is_restarted_on_the_disk_it_had(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await play.students_work("a-n2")
        disk = play.live_volume("a-n2", "c02")
        boots = play.boots("a-n2")
        await play.site.kill_guest("a-n2")
        await play.restarted("a-n2", boots)
        assert play.boots("a-n2") == boots + 1
        assert play.live_volume("a-n2", "c02") is disk
        assert await play.work_of("a-n2") == STUDENT_TEXT
        await play.happened("guest/a-n2", "healed")
        assert "vcrecon_heal_seconds_count 1.0" in play.metrics.render().decode()


async def test_a_guest_on_xen_is_restarted_on_the_disk_it_had(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await play.students_work("a-n1")
        boots = play.boots("a-n1")
        await play.site.kill_guest("a-n1")
        await play.restarted("a-n1", boots)
        assert await play.work_of("a-n1") == STUDENT_TEXT


async def test_the_other_guests_run_on_while_one_is_healed(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        before = play.all_boots()
        await play.site.kill_guest("b-n2")
        await play.restarted("b-n2", before["b-n2"])
        await play.converged()
        assert play.all_boots() == {**before, "b-n2": before["b-n2"] + 1}


async def test_a_guest_that_switches_itself_off_is_started_again(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        boots = play.boots("b-head")
        await play.site.shutdown_guest("b-head")
        await play.restarted("b-head", boots)


@pytest.mark.parametrize(("guest", "container"), [("b-head", "c02"), ("a-n1", "c03")], ids=["kvm", "xen"])
async def test_a_clean_power_off_is_honoured_when_the_spec_says_so(tmp_path: Path, guest: str, container: str) -> None:
    def honour(files: SpecFiles) -> None:
        files.set_policy(on_poweroff="honour")

    async with playground(tmp_path, vary=honour) as play:
        boots = play.boots(guest)
        await play.site.shutdown_guest(guest)
        await play.until(lambda: play.state_of(guest) == "stopped", f"{guest} is seen off")
        await play.relisted(container, times=2)
        assert play.boots(guest) == boots
        assert play.controller.converged


@pytest.mark.parametrize("guest", ["b-n2", "a-n1"], ids=["kvm", "xen"])
async def test_a_power_off_that_vcrecon_asked_for_is_not_honoured(tmp_path: Path, guest: str) -> None:
    def honour(files: SpecFiles) -> None:
        files.set_policy(on_poweroff="honour")
        files.set_session("preparing")

    async with playground(tmp_path, vary=honour) as play:
        boots = play.boots(guest)
        with play.files.editing("clusters") as document:
            document["templates"]["node"]["authorized_keys"] = [KEY]
        play.reload()
        await play.happened(f"guest/{guest}", "contextualize")
        await play.restarted(guest, boots)


@pytest.mark.parametrize("guest", ["b-head", "a-n1"], ids=["kvm", "xen"])
async def test_a_crash_is_healed_even_where_a_clean_power_off_is_honoured(tmp_path: Path, guest: str) -> None:
    def honour(files: SpecFiles) -> None:
        files.set_policy(on_poweroff="honour")

    async with playground(tmp_path, vary=honour) as play:
        boots = play.boots(guest)
        await play.site.kill_guest(guest)
        await play.restarted(guest, boots)


async def test_a_guest_that_dies_again_and_again_is_restarted_ever_more_slowly(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        boots, mark = play.boots("a-n2"), play.last_event_id()
        for died in (1, 2):
            await play.site.kill_guest("a-n2")
            await play.restarted("a-n2", boots + died - 1)
        starts = [e for e in play.events("guest/a-n2", mark) if e["reason"] == "start-guest"]
        assert starts[1]["at_s"] - starts[0]["at_s"] > 0.9, "the second restart waited for at least half of 2 s"
        await play.site.kill_guest("a-n2")
        await play.blocked("a-n2", "crash-loop")
        assert play.record.memory.attempts["guest/a-n2"].count == 2
        assert play.boots("a-n2") == boots + 2


async def test_a_start_that_fails_is_tried_again_and_the_failure_is_told(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        boots = play.boots("a-n2")
        await play.site.fail_command("c02", r"^virsh .*start", stderr="error: no room for you")
        await play.site.kill_guest("a-n2")
        failed = await play.happened("guest/a-n2", "failed")
        assert "no room for you" in failed["message"]
        await play.restarted("a-n2", boots)


async def lose_disk(play: Playground, guest: str, container: str) -> None:
    """Somebody switches the guest off and removes its disk, behind vcrecon's back."""
    play.site.witness.consent(guest)
    await play.site.kill_guest(guest)
    await play.site.remove_volume(container, guest)


async def test_a_vanished_disk_with_student_work_is_never_replaced_without_consent(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        before = play.all_boots()
        await lose_disk(play, "a-n2", "c02")
        await play.blocked("a-n2", "disk-lost")
        await play.relisted("c02", times=2)
        assert play.volumes("a-n2") == {}
        said = play.controls.consent("rebuild", ["a-n2"])
        assert said[0].startswith("a-n2 is rebuilt")
        await play.restarted("a-n2", before["a-n2"])
        await play.converged()
        assert play.all_boots() == {**before, "a-n2": before["a-n2"] + 1}


async def test_a_guest_whose_disk_vanished_under_it_runs_on_until_somebody_gives_the_disk_up(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        boots = play.boots("a-n2")
        play.site.witness.consent("a-n2")
        await play.site.remove_volume("c02", "a-n2")
        play.controls.refresh()
        await play.blocked("a-n2", "disk-lost")
        assert play.hosts_of("a-n2") == ["c02"]
        play.controls.consent("rebuild", ["a-n2"])
        await play.restarted("a-n2", boots)
        assert play.live_volume("a-n2", "c02").ever_booted


async def test_a_vanished_disk_that_never_booted_is_made_anew_without_asking(tmp_path: Path) -> None:
    async with playground(tmp_path, converge=False) as play:
        await play.site.fail_command("c02", r"^chpasswd", times=None)
        await play.happened("guest/a-n2", "failed")
        play.site.hosts["c02"].machine.remove_volume("vcg-a-n2")
        await play.site.heal("c02")
        await play.runs_on("a-n2", "c02")


async def test_before_the_session_a_vanished_disk_is_made_anew_without_asking(tmp_path: Path) -> None:
    def preparing(files: SpecFiles) -> None:
        files.set_session("preparing")

    async with playground(tmp_path, vary=preparing) as play:
        boots = play.boots("a-n2")
        await lose_disk(play, "a-n2", "c02")
        await play.restarted("a-n2", boots)
        assert play.live_volume("a-n2", "c02").ever_booted


async def test_a_guest_is_rebuilt_on_request_and_its_old_disk_is_kept(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await play.students_work("a-n2")
        boots = play.boots("a-n2")
        play.controls.consent("rebuild", ["a-n2"])
        await play.restarted("a-n2", boots)
        assert await play.work_of("a-n2") is None
        assert play.kept("a-n2") == {"c02": "rebuilt"}
        await play.converged()
        assert play.boots("a-n2") == boots + 1, "consent is spent by one rebuild"


async def test_a_whole_cluster_is_rebuilt_and_no_other(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        before = play.all_boots()
        said = play.controls.consent("rebuild", ["b"])
        assert [line.split()[0] for line in said] == ["b-head", "b-n1", "b-n2"]
        for guest in ("b-head", "b-n1", "b-n2"):
            await play.restarted(guest, before[guest])
        await play.converged()
        assert play.all_boots() == {g: n + (g.startswith("b-")) for g, n in before.items()}
        assert {guest for guest in before if play.kept(guest)} == {"b-head", "b-n1", "b-n2"}


@pytest.mark.parametrize("subject", ["a-n2", "a", "c02", "site"])
async def test_what_is_paused_is_left_alone_until_it_is_resumed(tmp_path: Path, subject: str) -> None:
    async with playground(tmp_path) as play:
        boots = play.boots("a-n2")
        play.controls.pause(subject)
        await play.site.kill_guest("a-n2")
        await play.relisted("c02", times=2)
        assert play.boots("a-n2") == boots
        play.controls.resume(subject)
        await play.restarted("a-n2", boots)


async def test_a_pause_of_one_cluster_leaves_the_other_in_our_hands(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        boots = play.boots("b-n2")
        play.controls.pause("a")
        await play.site.kill_guest("b-n2")
        await play.restarted("b-n2", boots)


async def test_a_new_controller_without_the_record_restarts_and_reinstalls_nothing(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        before = play.all_boots()
        disks = {guest: play.volumes(guest) for guest in before}
        await play.restart(without_record=True)
        await play.converged()
        await play.relisted("c02")
        assert play.all_boots() == before
        assert {guest: play.volumes(guest) for guest in before} == disks
        done = {e["reason"] for e in play.controls.events(None, 0, 1000)}
        assert done.isdisjoint({"start-guest", "stop-guest", "create-volume", "contextualize", "discard"})


async def test_without_the_record_a_guest_that_died_meanwhile_is_still_healed_on_its_disk(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await play.students_work("a-n2")
        boots = play.boots("a-n2")
        await play.stop()
        await play.site.kill_guest("a-n2")
        await play.restart(without_record=True)
        await play.restarted("a-n2", boots)
        assert await play.work_of("a-n2") == STUDENT_TEXT
