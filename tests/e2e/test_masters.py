"""Two masters on one site: the second keeps its hands off, a promoted one takes over, and no guest notices."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from harness import QUICK, Playground, playground
from machines import Machine, installable

from vcrecon.host.lease import LEASE_FILE
from vcrecon.shell.mastery import write_generation

CONTAINERS = ("c01", "c02", "c03")


@contextlib.asynccontextmanager
async def another_master(play: Playground, state: Path, generation: int = 1) -> AsyncIterator[Playground]:
    """A second controller on the same site and spec, with a state directory of its own."""
    _promoted(state, generation)
    other = Playground(play.site, play.files, state, play.settings)
    other.start()
    try:
        yield other
    finally:
        await other.stop()


def _promoted(state: Path, generation: int) -> None:
    state.mkdir(mode=0o700)
    write_generation(state, generation)


async def outranked(master: Playground) -> None:
    for name in CONTAINERS:
        await master.blocked(f"container/{name}", "other-master")


async def test_a_second_master_does_not_act_and_says_who_does(tmp_path: Path) -> None:
    async with playground(tmp_path) as play, another_master(play, tmp_path / "second") as other:
        await outranked(other)
        block = other.controller.ledger.block("container/c01")
        assert block is not None
        assert f"{tmp_path}/state" in block.message
        assert "vcrecon master promote" in block.message
        play.files.move("a-n1", "c02")
        other.reload()
        await play.site.kill_guest("b-n1")
        await play.restarted("b-n1", 1)
        for name in CONTAINERS:
            await other.relisted(name)
        assert not other.controller.converged
        assert play.hosts_of("a-n1") == ["c03"], "the second master knows of the move, and the first does not"
        assert [e for e in other.events("guest/a-n1") if e["reason"] == "stop-guest"] == []


async def test_a_promoted_master_takes_over_and_the_first_one_stops_acting(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        boots = play.all_boots()
        async with another_master(play, tmp_path / "second", generation=2) as other:
            await other.converged()
            await outranked(play)
            assert play.all_boots() == boots
            await play.site.kill_guest("a-n2")
            await other.restarted("a-n2", boots["a-n2"])
            for name in CONTAINERS:
                await play.relisted(name)
            await outranked(play)
            assert play.all_boots() == boots | {"a-n2": boots["a-n2"] + 1}
            assert starts(play, "a-n2") == ["first boot"], "the first master did nothing more"


def starts(master: Playground, guest: str) -> list[str]:
    """Why a master started a guest, each time that it did."""
    return [e["message"] for e in master.events(f"guest/{guest}") if e["reason"] == "start-guest"]


async def test_a_master_that_stops_is_followed_by_the_next_at_once(tmp_path: Path) -> None:
    settings = replace(QUICK, lease_s=100_000)
    async with playground(tmp_path, settings=settings) as play:
        boots = play.all_boots()
        async with another_master(play, tmp_path / "second") as other:
            await outranked(other)
            await play.stop()
            await other.converged()
            assert play.all_boots() == boots
            play.start()
            await outranked(play)
            await play.stop()
            await other.relisted("c01")
            assert other.controller.converged, "a master without a lease gives none up"


async def test_a_master_that_is_killed_is_followed_by_the_next_once_its_leases_end(tmp_path: Path) -> None:
    settings = replace(QUICK, lease_s=3)
    async with playground(tmp_path, settings=settings) as play:
        boots = play.all_boots()
        leases = {name: play.site.hosts[name].machine.files.read(LEASE_FILE) for name in CONTAINERS}
        await play.stop()
        for name, lease in leases.items():  # as a kill leaves it
            play.site.hosts[name].machine.files.write(LEASE_FILE, lease)
        async with another_master(play, tmp_path / "second") as other:
            await other.converged()
            assert play.all_boots() == boots


async def test_a_container_that_does_not_answer_keeps_no_master_from_stopping(tmp_path: Path) -> None:
    settings = replace(QUICK, lease_s=100_000)
    async with playground(tmp_path, settings=settings) as play:
        await play.site.hang_command("c02", "flock -w", None)
        await play.stop()
        leases = {n: play.site.hosts[n].machine.files.read(LEASE_FILE).decode() for n in CONTAINERS}
        assert [name for name, text in leases.items() if not text.startswith("- ")] == ["c02"]


async def test_a_container_that_boots_anew_still_belongs_to_the_master_that_ranks_higher(tmp_path: Path) -> None:
    async with playground(tmp_path) as play, another_master(play, tmp_path / "second", generation=2) as other:
        await other.converged()
        await play.site.reboot("c03")
        await other.converged()
        await play.relisted("c03")
        await play.blocked("container/c03", "other-master")
        await other.runs_on("a-n1", "c03")


async def test_a_lease_that_cannot_be_kept_stops_the_work_on_that_container_alone(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        machine = play.site.hosts["c02"].machine
        machine.files.remove("/run/vcrecon/master")
        machine.files.mkdir("/run/vcrecon/master")
        await play.blocked("container/c02", "master-unclear")
        await play.passed("c01")
        assert play.controller.ledger.block("container/c01") is None
        machine.files.remove("/run/vcrecon/master", recursive=True)
        await play.converged()


async def with_c01_blank(play: Playground) -> None:
    await installable(play)
    await Machine(play, "c01").blank()


async def test_an_outranked_master_serves_no_boots_and_the_promoted_one_installs(tmp_path: Path) -> None:
    async with playground(tmp_path, bind=with_c01_blank, converge=False) as play:
        await play.blocked("container/c01", "never-booted")
        await play.runs_on("b-n1", "c03")
        boots = play.all_boots()
        async with another_master(play, tmp_path / "second", generation=2) as other:
            await play.until(lambda: play.controller.ledger.block("site") is not None, "the first one is quiet")
            assert play.metrics.render().decode().count('vcrecon_blocked{object="site",reason="other-master"} 1.0') == 1
            sent_away = Machine(play, "c01")
            sent_away.boot()
            await play.until(lambda: sent_away.log == ["LocalBoot"], "the first master sends it away")
            await play.site.power_off("c01")
            assert play.record.memory.tickets == {}
            machine = Machine(other, "c01")
            machine.boot()
            await other.converged()
            assert machine.log[-1] == "RunInstaller"
            assert other.all_boots() == boots | dict.fromkeys(other.controller.spec.deployment["c01"], 1)
            await outranked(play)
        # It ended well, but may be started anew: the first waits, until the leases run out.
        await play.relisted("c02")
        assert play.controller.ledger.block("site") is not None
        for name in CONTAINERS:
            play.site.hosts[name].machine.files.remove(LEASE_FILE)
        await play.until(lambda: play.controller.ledger.block("site") is None, "the first serves boots again")
        assert play.desk is not None
        assert play.desk.quiet is None
