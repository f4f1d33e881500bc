"""A program that says that it worked, and did nothing: its action is not repeated as fast as it ends (S8)."""

from __future__ import annotations

from pathlib import Path

from harness import Playground, SpecFiles, playground

from vcrecon.sim.process import Process


async def does_nothing(process: Process) -> int:
    return 0


def before_the_class(files: SpecFiles) -> None:
    files.set_session("preparing")


async def removals(play: Playground) -> int:
    return sum(line.startswith("lvremove") for line in await play.log_of("c03"))


async def test_what_succeeds_without_effect_backs_off_and_is_told(tmp_path: Path) -> None:
    async with playground(tmp_path, vary=before_the_class) as play:
        tools = play.site.hosts["c03"].programs.tools
        works, tools["lvremove"] = tools["lvremove"], does_nothing
        play.files.move("a-n1", "c01")
        play.reload()
        await play.blocked("a-n1", "no-effect")
        event = await play.happened("guest/a-n1", "no-effect")
        assert "c03" in event["message"]
        assert "shows no change" in event["message"]
        assert await removals(play) < 8
        tools["lvremove"] = works
        await play.converged()
        assert play.hosts_of("a-n1") == ["c01"]
