"""Two masters on one site: the second keeps its hands off, a promoted one takes over, and no guest notices."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from harness import QUICK, Playground, playground

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


async def test_a_master_that_is_gone_is_followed_by_the_next_once_its_leases_end(tmp_path: Path) -> None:
    settings = replace(QUICK, lease_s=2)
    async with playground(tmp_path, settings=settings) as play:
        boots = play.all_boots()
        async with another_master(play, tmp_path / "second") as other:
            await outranked(other)
            await play.stop()
            await other.converged()
            assert play.all_boots() == boots
            play.start()
            await outranked(play)


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
