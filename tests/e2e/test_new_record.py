"""A record that begins anew on a site where some containers do not answer (S1)."""

from __future__ import annotations

from pathlib import Path

from harness import Playground, playground


async def with_two_cut(play: Playground) -> None:
    for name in ("c02", "c03"):
        await play.site.cut(name)


async def with_one_cut(play: Playground) -> None:
    await play.site.cut("c03")


async def with_one_mute(play: Playground) -> None:
    await play.site.fail_command("c02", "^virsh|^lvm", times=None)


async def test_guests_wait_while_a_container_of_a_new_record_does_not_show_what_it_holds(tmp_path: Path) -> None:
    async with playground(tmp_path, bind=with_one_mute, converge=False) as play:
        await play.blocked("a-head", "may-live-elsewhere")
        assert play.all_boots() == {}
        await play.site.heal("c02")
        await play.converged()


async def test_guests_wait_while_most_of_a_small_site_is_silent(tmp_path: Path) -> None:
    async with playground(tmp_path, bind=with_two_cut, converge=False) as play:
        await play.blocked("a-head", "may-live-elsewhere")
        assert play.all_boots() == {}
        for name in ("c02", "c03"):
            await play.site.mend(name)
        await play.converged()


async def test_a_silent_container_that_leaves_the_spec_before_it_was_seen_still_counts(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        before = play.all_boots()
        await play.stop()
        await play.site.cut("c03")
        await play.restart(without_record=True)
        await play.until(lambda: not play.controller.world.reachable("c03") and "c03" in play.controller.world.current)
        with play.files.editing("containers") as document:
            document["containers"] = [entry for entry in document["containers"] if entry["name"] != "c03"]
        with play.files.editing("deployment") as document:
            document["deployment"]["c01"] += document["deployment"].pop("c03")
        play.reload()
        await play.blocked("a-n1", "may-live-elsewhere")
        assert play.hosts_of("a-n1") == ["c03"]
        assert play.all_boots() == before
        await play.site.power_off("c03")
        play.controls.fence("c03", "a person")
        await play.runs_on("a-n1", "c01")


async def test_one_silent_container_of_three_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async with playground(tmp_path, bind=with_one_cut, converge=False) as play:
        await play.runs_on("a-head", "c01")
        await play.runs_on("b-head", "c02")
        await play.site.mend("c03")
        await play.converged()


async def all_on_c03(play: Playground) -> None:
    with play.files.editing("deployment") as document:
        everyone = [guest for guests in document["deployment"].values() for guest in guests]
        document["deployment"] = {"c01": [], "c02": [], "c03": everyone}


async def test_a_silent_container_that_holds_all_guests_is_not_taken_for_empty(tmp_path: Path) -> None:
    """No other one has a trace of a guest, nor of an image: their leases tell that the site was in use."""
    async with playground(tmp_path, bind=all_on_c03) as play:
        before = play.all_boots()
        await play.stop()
        await play.site.cut("c03")
        play.files.move("a-head", "c01")
        await play.restart(without_record=True)
        await play.blocked("a-head", "may-live-elsewhere")
        assert play.hosts_of("a-head") == ["c03"]
        assert play.all_boots() == before
        await play.site.mend("c03")
        await play.runs_on("a-head", "c01")
