"""A record that begins anew on a site where some containers do not answer (S1)."""

from __future__ import annotations

from pathlib import Path

from harness import Playground, playground


async def with_two_cut(play: Playground) -> None:
    for name in ("c02", "c03"):
        await play.site.cut(name)


async def with_one_cut(play: Playground) -> None:
    await play.site.cut("c03")


async def test_guests_wait_while_most_of_a_small_site_is_silent(tmp_path: Path) -> None:
    async with playground(tmp_path, bind=with_two_cut, converge=False) as play:
        await play.blocked("a-head", "may-live-elsewhere")
        assert play.all_boots() == {}
        for name in ("c02", "c03"):
            await play.site.mend(name)
        await play.converged()


async def test_one_silent_container_of_three_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async with playground(tmp_path, bind=with_one_cut, converge=False) as play:
        await play.runs_on("a-head", "c01")
        await play.runs_on("b-head", "c02")
        await play.site.mend("c03")
        await play.converged()
