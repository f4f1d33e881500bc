"""What a changed spec may and may not do: nothing is deleted because it shrank; what is not ours stays (S2, S3, S5)."""

from __future__ import annotations

from pathlib import Path

from harness import STUDENT_TEXT, Playground, SpecFiles, playground


def one_single(files: SpecFiles) -> None:
    files.add_single("x", "c02", "10.200.0.50")


def two_singles(files: SpecFiles) -> None:
    one_single(files)
    files.add_single("y", "c02", "10.200.0.51")


async def drop(play: Playground, *guests: str) -> None:
    """Take guests out of the spec, and wait until their disks are put aside."""
    for guest in guests:
        play.files.remove_single(guest)
    play.reload()
    for guest in guests:
        await play.until(lambda guest=guest: play.kept(guest) == {"c02": "removed"}, f"{guest} is put aside")


async def test_a_guest_that_left_the_spec_is_stopped_and_its_disk_is_kept(tmp_path: Path) -> None:
    async with playground(tmp_path, vary=one_single) as play:
        before = play.all_boots()
        await drop(play, "x")
        await play.converged()
        assert play.hosts_of("x") == []
        assert play.all_boots() == before
        orphans = play.controls.status()["orphans"]
        assert [(o["name"], o["container"], o["disks"]) for o in orphans] == [("x", "c02", 1)]


async def test_a_guest_that_comes_back_into_the_spec_has_its_disk_again(tmp_path: Path) -> None:
    async with playground(tmp_path, vary=one_single) as play:
        await play.students_work("x")
        disk = play.live_volume("x", "c02")
        await drop(play, "x")
        play.files.add_single("x", "c02", "10.200.0.50")
        play.reload()
        await play.runs_on("x", "c02")
        assert play.live_volume("x", "c02") is disk
        assert await play.work_of("x") == STUDENT_TEXT


async def test_a_guest_that_comes_back_on_another_container_has_its_work_again(tmp_path: Path) -> None:
    async with playground(tmp_path, vary=one_single) as play:
        await play.students_work("x")
        await drop(play, "x")
        play.files.add_single("x", "c01", "10.200.0.50")
        play.reload()
        await play.runs_on("x", "c01")
        assert await play.work_of("x") == STUDENT_TEXT
        await play.converged()
        assert play.hosts_of("x") == ["c01"]


async def test_a_guest_that_left_the_spec_and_does_not_listen_is_stopped_though_an_old_disk_of_it_is_kept_elsewhere(
    tmp_path: Path,
) -> None:
    async with playground(tmp_path, vary=one_single) as play:
        play.files.move("x", "c01")
        play.reload()
        await play.runs_on("x", "c01")
        await play.until(lambda: play.kept("x") == {"c02": "moved"}, "the old copy is kept")
        play.site.hosts["c01"].machine.domains.by_name["x"].deaf = True
        play.files.set_policy(stop_grace="3s")
        play.files.remove_single("x")
        play.reload()
        await play.until(lambda: play.kept("x") == {"c01": "removed", "c02": "moved"}, "it is put aside")


async def test_prune_removes_the_named_disk_and_no_other(tmp_path: Path) -> None:
    async with playground(tmp_path, vary=two_singles) as play:
        await drop(play, "x", "y")
        await play.converged()
        play.site.witness.consent("x")
        play.controls.consent("prune", ["x"])
        await play.until(lambda: play.volumes("x") == {}, "x's disk is gone")
        await play.converged()
        assert play.kept("y") == {"c02": "removed"}
        assert [r["guest"] for r in (await play.site.audit())["removals"]] == ["x"]


async def test_a_word_to_rebuild_is_not_one_about_the_disks_that_are_made_after_a_prune(tmp_path: Path) -> None:
    """Their numbers begin anew, and each was put aside until they passed the one that was given up."""
    async with playground(tmp_path, vary=one_single) as play:
        play.site.witness.consent("x")
        play.controls.consent("rebuild", ["x"])
        await play.until(lambda: play.kept("x") == {"c02": "rebuilt"}, "its old disk is put aside")
        await play.runs_on("x", "c02")
        await drop(play, "x")
        await play.converged()
        play.controls.consent("prune", ["x"])
        await play.until(lambda: play.volumes("x") == {}, "its disks are gone")
        await play.converged()
        play.files.add_single("x", "c02", "10.200.0.50")
        play.reload()
        await play.runs_on("x", "c02")
        assert play.kept("x") == {}


async def test_prune_frees_the_old_copy_of_a_moved_guest_and_not_the_live_one(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await play.students_work("a-n2")
        play.files.move("a-n2", "c01")
        play.reload()
        await play.runs_on("a-n2", "c01")
        await play.until(lambda: play.kept("a-n2") == {"c02": "moved"}, "the old copy is kept")
        await play.converged()
        play.site.witness.consent("a-n2")
        play.controls.consent("prune", ["a-n2"])
        await play.until(lambda: not play.kept("a-n2"), "the old copy is gone")
        await play.converged()
        assert list(play.volumes("a-n2")) == [("c01", "vcg-a-n2")]
        assert await play.work_of("a-n2") == STUDENT_TEXT


async def test_a_spec_that_would_stop_many_guests_waits_for_a_persons_word(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        before = play.all_boots()
        for guest, container in {"a-head": "c02", "a-n1": "c01", "b-head": "c01"}.items():
            play.files.move(guest, container)
        play.reload()
        for guest in ("a-head", "a-n1", "b-head"):
            await play.blocked(guest, "needs-confirmation")
        assert play.controls.status()["spec"]["held_back"] is not None
        await play.relisted("c01", times=2)
        assert play.all_boots() == before
        assert play.site.witness.live("a-head") == ["c01"]
        play.controls.confirm()
        for guest, container in {"a-head": "c02", "a-n1": "c01", "b-head": "c01"}.items():
            await play.runs_on(guest, container)


async def test_those_who_wait_for_a_persons_word_wait_on_when_one_of_them_dies(tmp_path: Path) -> None:
    """Then no more are to be stopped than may be without it."""
    async with playground(tmp_path) as play:
        moves = {"a-head": "c02", "a-n1": "c01", "b-head": "c01"}
        for guest, container in moves.items():
            play.files.move(guest, container)
        play.reload()
        for guest in moves:
            await play.blocked(guest, "needs-confirmation")
        before = play.all_boots()
        await play.site.kill_guest("a-head")
        await play.restarted("a-head", before["a-head"])
        await play.restart()
        await play.blocked("a-n1", "needs-confirmation")
        assert {guest: play.boots(guest) for guest in ("a-n1", "b-head")} == {"a-n1": 1, "b-head": 1}
        play.controls.confirm()
        for guest, container in moves.items():
            await play.runs_on(guest, container)


async def test_a_large_removal_is_withdrawn_by_putting_the_spec_back(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        before, clusters = play.all_boots(), (play.files.directory / "clusters.yaml").read_text()
        deployment = (play.files.directory / "deployment.yaml").read_text()
        for guest in ("b-head", "b-n1", "b-n2"):
            play.files.take(guest)
        with play.files.editing("clusters") as document:
            cluster = document["clusters"][0]
            cluster["name"], cluster["vlan"], cluster["subnet"] = "a", 101, "10.1.1.0/24"
            cluster["head"]["networks"]["outside"] = "10.200.0.11"
        play.reload()
        for guest in ("b-head", "b-n1", "b-n2"):
            await play.blocked(guest, "needs-confirmation")
        (play.files.directory / "clusters.yaml").write_text(clusters)
        (play.files.directory / "deployment.yaml").write_text(deployment)
        play.reload()
        await play.converged()
        assert play.all_boots() == before


async def test_before_the_session_a_changed_password_rewrites_guests_and_from_then_on_it_does_not(
    tmp_path: Path,
) -> None:
    def preparing(files: SpecFiles) -> None:
        files.set_session("preparing")
        files.add_single("x", "c02", "10.200.0.50")

    async with playground(tmp_path, vary=preparing) as play:
        boots = play.boots("x")
        assert "vc.touched" not in play.live_volume("x", "c02").tags
        change_address(play.files, "10.200.0.60")
        play.reload()
        await play.restarted("x", boots)
        await play.converged()
        play.files.set_session("running")
        play.site.witness.preparing = False
        play.reload()
        await play.until(lambda: "vc.touched" in play.live_volume("x", "c02").tags, "x is marked as touched")
        await play.students_work("x")
        boots = play.boots("x")
        change_address(play.files, "10.200.0.61")
        play.reload()
        await play.relisted("c02", times=2)
        message = next(g["message"] for g in play.controls.status()["guests"] if g["name"] == "x")
        assert "differs from the spec in context" in message
        assert play.boots("x") == boots
        assert await play.work_of("x") == STUDENT_TEXT


def change_address(files: SpecFiles, address: str) -> None:
    with files.editing("clusters") as document:
        document["guests"][0]["interfaces"][0]["address"] = address


async def test_an_orphan_with_our_marks_is_reported_and_kept(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        machine = play.site.hosts["c02"].machine
        tags = {"vcrecon", "vc.site=small", "vc.guest=ghost", "vc.epoch=3", "vc.boots=2", "vc.touched"}
        ghost = machine.lvm.create_thin("vg0", "guests", "vcg-ghost", 1 << 30, tags)
        await play.relisted("c02", times=2)
        await play.until(lambda: any(o["name"] == "ghost" for o in play.controls.status()["orphans"]), "it is shown")
        assert ghost in machine.all_volumes()
        assert play.hosts_of("ghost") == []


async def test_what_does_not_carry_our_mark_is_never_touched(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        machine = play.site.hosts["c02"].machine
        await shell(play, "c02", "lvcreate -y --thin -V 1g -n theirs vg0/guests")
        await shell(play, "c02", "lvcreate -y --thin -V 1g -n vcg-lookalike vg0/guests")
        await shell(play, "c02", "ip link add name theirbr type bridge")
        await shell(play, "c02", "virsh -q define /dev/stdin", THEIR_DOMAIN)
        await shell(play, "c02", "virsh -q start their-machine")
        boots = play.boots("their-machine")
        for _ in range(2):
            await play.relisted("c02")
        await play.site.kill_guest("a-n2")
        await play.restarted("a-n2", 1)
        await play.converged()
        assert play.hosts_of("their-machine") == ["c02"]
        assert play.boots("their-machine") == boots
        assert {"theirs", "vcg-lookalike"} <= {volume.name for volume in machine.all_volumes()}
        assert "theirbr" in machine.network.links
        await play.site.kill_guest("their-machine")
        await play.relisted("c02", times=2)
        assert play.boots("their-machine") == boots


THEIR_DOMAIN = b"""<domain type='kvm'><name>their-machine</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64'>hvm</type></os></domain>"""


async def shell(play: Playground, container: str, command: str, stdin: bytes | None = None) -> None:
    """What somebody with a login on the container does there by hand."""
    reply = await play.controller.stations[container].host.run(command, stdin=stdin, deadline_s=30)
    assert reply.status == 0, reply.stderr


async def test_a_guest_that_leaves_while_a_step_is_under_way_keeps_the_steps_intent(tmp_path: Path) -> None:
    """There may be no trace of it yet: its disk is about to be made (S7)."""
    async with playground(tmp_path) as play:
        await play.site.hang_command("c01", "^lvcreate")
        play.files.add_single("extra", "c01", "10.200.0.77")
        play.reload()
        await play.until(lambda: "guest/extra" in play.controller.admission.busy)
        play.files.remove_single("extra")
        play.reload()
        assert "guest/extra" in play.controller.memory.intents
