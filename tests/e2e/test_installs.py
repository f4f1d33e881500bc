"""Containers installed by the real controller, its machines simulated: from a blank disk to guests that run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from harness import Playground, playground
from machines import Machine, Switch, give_power, installable, installable_by_power

from vcrecon.errors import Refused
from vcrecon.shell.pins import Pins


async def with_c01_blank(play: Playground) -> None:
    await installable(play)
    await Machine(play, "c01").blank()


async def with_c01_blank_and_hasty(play: Playground) -> None:
    await installable(play, install_deadline="3s")
    await Machine(play, "c01").blank()


async def with_two_blank_and_one_slot(play: Playground) -> None:
    await installable(play)
    with play.files.editing("site") as site:
        site["limits"]["installs"] = 1
    for name in ("c01", "c02"):
        await Machine(play, name).blank()


def state_of(play: Playground, container: str) -> str:
    return str(next(c for c in play.controls.status()["containers"] if c["name"] == container)["state"])


async def test_a_blank_machine_becomes_a_container_whose_guests_run(tmp_path: Path) -> None:
    async with playground(tmp_path, bind=with_c01_blank, converge=False) as play:
        await play.blocked("container/c01", "never-booted")
        machine = Machine(play, "c01")
        machine.go_on.clear()
        machine.boot()
        # A state that no look falls into is not seen.
        await play.until(
            lambda: any("pxe → installing" in e["message"] for e in play.events("container/c01")), "it is installing"
        )
        machine.go_on.set()
        await play.converged()
        assert machine.log[-1] == "RunInstaller"
        assert "LocalBoot" not in machine.log
        assert sorted(play.hosts_of(guest)[0] for guest in ("a-head", "b-n2")) == ["c01", "c01"]
        event = await play.happened("container/c01", "installed")
        assert list(event["facts"]["steps"])[:3] == ["started", "disks", "partition"]
        assert [e["message"].partition(":")[0] for e in play.events("container/c01") if e["reason"] == "step"] == [
            "pxe → installing",
            "installing → installed",
            "installed → vlan-ready",
        ]
        assert play.record.memory.tickets == {}
        pins = Pins(play.state / "known_hosts")
        assert "vcrecon/c01/" in pins.over(play.controller.spec.containers["c01"], "")
        assert (play.state / "known_hosts").stat().st_mode & 0o777 == 0o600
        # And it is never installed again, whatever it asks for.
        machine.log.clear()
        machine.boot()
        await play.until(lambda: machine.log == ["LocalBoot"], "its own disk")
        await play.converged()


async def test_a_machine_that_is_off_is_switched_on(tmp_path: Path) -> None:
    async with playground(tmp_path, bind=with_c01_blank, converge=False) as play:
        give_power(play, "c01")
        switch = Switch(Machine(play, "c01"))
        play.reload()
        await play.converged()
        assert switch.pressed == ["netboot-once", "on"]


async def test_a_second_machine_waits_for_its_turn(tmp_path: Path) -> None:
    async with playground(tmp_path, bind=with_two_blank_and_one_slot, converge=False) as play:
        first, second = Machine(play, "c01"), Machine(play, "c02")
        first.go_on.clear()
        first.boot()
        await play.until(lambda: "c01" in play.record.memory.tickets, "the first begins")
        second.boot()
        await play.until(lambda: "c02: place 1 of 1" in second.log, "the second is told its place")
        found = {c["name"]: c["install"] for c in play.controls.status()["containers"]}
        assert found["c02"] == {"step": "queued", "place": 1, "of": 1, "begins_in_s": None}
        assert found["c01"]["step"] in ("started", "disks", "partition", "raid", "lvm", "filesystems")
        assert play.controls.status()["queues"]["installs"] == 1
        first.go_on.set()
        await play.converged()
        assert second.log[-1] == "RunInstaller"


async def test_a_controller_that_is_killed_goes_on_with_the_same_install(tmp_path: Path) -> None:
    async with playground(tmp_path, bind=with_c01_blank, converge=False) as play:
        machine = Machine(play, "c01")
        machine.go_on.clear()
        machine.boot()
        await play.until(lambda: state_of(play, "c01") == "installing", "the install is under way")
        nonce = play.record.memory.tickets["c01"].nonce
        async with asyncio.timeout(play.settings.shutdown_s):  # a stop does not wait for installs
            await play.restart()
        assert play.record.memory.tickets["c01"].nonce == nonce
        await play.until(lambda: play.desk is not None and "c01" in play.desk.tickets, "its ticket is open again")
        machine.go_on.set()
        await play.converged()
        assert len([e for e in play.events("container/c01") if e["reason"] == "installed"]) == 1


async def test_an_install_whose_last_word_was_lost_is_proved_by_ssh(tmp_path: Path) -> None:
    async with playground(tmp_path, bind=with_c01_blank, converge=False) as play:
        machine = Machine(play, "c01")
        machine.loses_its_last_word = True
        machine.boot()
        await play.converged()
        assert play.record.memory.tickets == {}


async def test_a_disk_that_is_not_blank_is_left_alone_until_a_person_says_so(tmp_path: Path) -> None:
    async with playground(tmp_path, bind=with_c01_blank, converge=False) as play:
        machine = Machine(play, "c01")
        machine.error = "disk-not-blank"
        machine.boot()
        await play.blocked("container/c01", "disk-not-blank")
        block = play.controller.ledger.block("container/c01")
        assert block is not None
        assert "vcrecon reinstall c01" in block.message
        assert play.record.memory.tickets == {}
        # Its next boot is from its own disk.
        machine.error = ""
        machine.log.clear()
        await play.passed("c01")
        machine.boot()
        await play.until(lambda: machine.log[-1:] == ["LocalBoot"], "its own disk")
        assert "switch c01 on" in play.controls.reinstall("c01", [], "a test")
        await play.blocked("container/c01", "switch-on")
        machine.boot()
        await play.converged()


async def test_a_failed_install_waits_in_line_and_is_tried_again(tmp_path: Path) -> None:
    async with playground(tmp_path, bind=with_c01_blank, converge=False) as play:
        machine = Machine(play, "c01")
        machine.error = "download-failed"
        machine.boot()
        await play.blocked("container/c01", "download-failed")
        machine.error = ""
        machine.log.clear()
        machine.boot()
        await play.converged()
        assert "LocalBoot" not in machine.log


async def test_a_machine_that_begins_anew_in_mid_install_gets_another_try(tmp_path: Path) -> None:
    async with playground(tmp_path, bind=with_c01_blank, converge=False) as play:
        machine = Machine(play, "c01")
        machine.go_on.clear()
        machine.boot()
        await play.until(lambda: state_of(play, "c01") == "installing", "the install is under way")
        first = play.record.memory.tickets["c01"].nonce
        machine.go_on.set()
        machine.log.clear()
        machine.boot()
        await play.converged()
        assert "LocalBoot" not in machine.log
        assert first not in Pins(play.state / "known_hosts").over(play.controller.spec.containers["c01"], "")


async def test_a_machine_that_never_calls_back_is_cycled_once_and_then_blocked(tmp_path: Path) -> None:
    async with playground(tmp_path, bind=with_c01_blank_and_hasty, converge=False) as play:
        machine = Machine(play, "c01")
        machine.stops_at = "lvm"
        switch = Switch(machine)
        machine.boot()
        await play.blocked("container/c01", "install-stuck")
        assert switch.pressed == ["netboot-once", "cycle"]
        assert play.record.memory.tickets == {}
        await play.passed("c01")
        assert switch.pressed == ["netboot-once", "cycle"]


async def test_one_that_never_claimed_is_not_cycled(tmp_path: Path) -> None:
    async with playground(tmp_path, bind=with_c01_blank_and_hasty, converge=False) as play:
        machine = Machine(play, "c01")
        machine.stops_at = "boot"
        switch = Switch(machine)
        machine.boot()
        await play.blocked("container/c01", "install-stuck")
        assert switch.pressed == []


class TestReinstall:
    async def test_is_refused_while_a_students_work_is_there(self, tmp_path: Path) -> None:
        async with playground(tmp_path, bind=installable_by_power) as play:
            await play.students_work("a-head")
            with pytest.raises(Refused, match=r"the work of a-head, b-n2 is on c01: `vcrecon evacuate c01` first"):
                play.controls.reinstall("c01", [], "a test")
            with pytest.raises(Refused, match="the work of b-n2 is on c01"):
                play.controls.reinstall("c01", ["a-head"], "a test")
            with pytest.raises(Refused, match="nothing of a-n1 is on c01"):
                play.controls.reinstall("c01", ["a-head", "b-n2", "a-n1"], "a test")
            assert play.controls.container("c01")["touched"] == ["a-head", "b-n2"]
            assert play.record.memory.consents == {}

    async def test_gives_up_what_was_named_and_makes_its_guests_anew(self, tmp_path: Path) -> None:
        async with playground(tmp_path, bind=installable_by_power) as play:
            await play.students_work("a-head")
            boots = play.boots("a-n1")
            switch = Switch(Machine(play, "c01"))
            for guest in ("a-head", "b-n2"):
                await play.site.consent(guest)
            play.controls.reinstall("c01", ["a-head", "b-n2"], "a test")
            await play.happened("container/c01", "finish-install")
            await play.converged()
            assert switch.pressed == ["netboot-once", "cycle"]
            assert play.record.memory.consents == {}
            assert await play.work_of("a-head") is None
            assert play.record.memory.claims["a-head"].epoch == 2
            assert play.hosts_of("a-head") == ["c01"]
            assert play.boots("a-n1") == boots  # the others noticed nothing

    async def test_of_an_emptied_container_asks_for_nothing(self, tmp_path: Path) -> None:
        async with playground(tmp_path, bind=installable_by_power) as play:
            play.files.move("a-head", "c02")
            play.files.move("b-n2", "c02")
            play.reload()
            await play.converged()
            assert play.controls.container("c01")["touched"] == []
            Switch(Machine(play, "c01"))
            play.controls.reinstall("c01", [], "a test")
            await play.happened("container/c01", "finish-install")
            await play.converged()

    async def test_can_be_taken_back_while_it_waits(self, tmp_path: Path) -> None:
        async with playground(tmp_path, bind=with_c01_blank, converge=False) as play:
            play.controls.reinstall("c01", [], "a test")
            await play.blocked("container/c01", "switch-on")
            assert play.controls.cancel_reinstall("c01", "a test") == "c01 stays as it is"
            await play.blocked("container/c01", "never-booted")
            with pytest.raises(Refused, match="nobody asked for c01"):
                play.controls.cancel_reinstall("c01", "a test")

    async def test_with_a_dead_power_control_is_tried_again(self, tmp_path: Path) -> None:
        async with playground(tmp_path, bind=installable_by_power) as play:
            switch = Switch(Machine(play, "c01"))
            for guest in ("a-head", "b-n2"):
                await play.site.consent(guest)
            switch.dead = True
            play.controls.reinstall("c01", ["a-head", "b-n2"], "a test")
            await play.blocked("container/c01", "power-timeout")
            assert play.hosts_of("a-head") == ["c01"]  # nothing was touched
            switch.dead = False
            await play.happened("container/c01", "finish-install")
            await play.converged()


class TestFence:
    async def test_by_power_control_switches_off_first(self, tmp_path: Path) -> None:
        async with playground(tmp_path, bind=installable) as play:
            switch = Switch(Machine(play, "c01"))
            await play.site.cut("c01")
            await play.until(lambda: not play.controller.world.reachable("c01"), "c01 is silent")
            await play.controls.power_fence("c01", "a test")
            assert switch.pressed == ["off"]
            assert "c01" in play.record.memory.fences

    async def test_by_a_dead_power_control_fences_nothing(self, tmp_path: Path) -> None:
        async with playground(tmp_path, bind=installable) as play:
            switch = Switch(Machine(play, "c01"))
            switch.dead = True
            await play.site.cut("c01")
            await play.until(lambda: not play.controller.world.reachable("c01"), "c01 is silent")
            with pytest.raises(Refused, match="c01 is not fenced, for it cannot be proved to be off"):
                await play.controls.power_fence("c01", "a test")
            assert play.record.memory.fences == {}
            await play.site.mend("c01")

    async def test_of_a_container_that_answers_is_refused(self, tmp_path: Path) -> None:
        async with playground(tmp_path, bind=installable) as play:
            switch = Switch(Machine(play, "c01"))
            with pytest.raises(Refused, match="answers, so it is not off"):
                await play.controls.power_fence("c01", "a test")
            assert switch.pressed == []
