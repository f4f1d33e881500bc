"""What a host can do to us: refuse, change its key, hang, answer garbage, be full, lose its disks, be cut off.

In each of them the other containers go on as if nothing were, and everything converges once it is mended.
"""

from __future__ import annotations

from pathlib import Path

from running import (
    GUESTS,
    Place,
    Service,
    Status,
    blocked,
    boots,
    container,
    guest,
    running,
    serving,
    settings,
    site_of,
    until,
    words,
)

ON_C03 = ("a-n1", "b-n1")
OTHERS = ("a-head", "a-n2", "b-head", "b-n2")


async def _others_run(service: Service) -> None:
    await service.until("the guests of the other containers run", lambda s: running(s, OTHERS))


async def _healed(place: Place, service: Service, name: str) -> None:
    """A guest that dies now is running again."""
    before = place.site.witness.boots[name]
    await place.site.kill_guest(name)
    await service.until(f"{name} is healed", lambda s: place.site.witness.boots[name] > before and running(s, (name,)))


class TestWhoIsThere:
    async def test_a_container_that_refuses_our_key_is_named_and_taken_up_once_it_lets_us_in(
        self, tmp_path: Path
    ) -> None:
        async with site_of(tmp_path) as place:
            await place.site.refuse_key("c03")
            async with serving(place) as service:
                await _others_run(service)
                status = await service.until("the reason", lambda s: blocked(s, "c03") == ["permission-denied"])
                assert "authorized_keys" in words(status, "c03")
                assert "client_key" in words(status, "c03"), "it says which key"
                await place.site.refuse_key("c03", False)
                await service.converged()

    async def test_a_changed_host_key_halts_work_on_that_host_until_the_new_key_is_pinned(self, tmp_path: Path) -> None:
        """S9: nothing is sent to a host that is not who it was, not even a look."""
        async with site_of(tmp_path) as place, serving(place) as service:
            await service.converged()
            await place.site.change_host_key("c03")
            status = await service.until("the reason", lambda s: blocked(s, "c03") == ["host-key-changed"])
            assert "pinned is" in words(status, "c03")
            ran = len((await place.site.commands("c03"))["log"])
            await place.site.kill_guest("a-n1")
            await _healed(place, service, "a-head")
            await service.control.refresh()
            await _healed(place, service, "b-head")
            assert len((await place.site.commands("c03"))["log"]) == ran, "no command reached it"
            assert place.site.witness.boots["a-n1"] == 1
            known_hosts = place.specs / "known_hosts"
            known_hosts.write_text("".join(h.server.known_host() for h in place.site.hosts.values()))
            await service.until("a-n1 is healed", lambda s: place.site.witness.boots["a-n1"] == 2)
            await service.converged()

    async def test_no_pinned_key_means_no_word_to_the_host(self, tmp_path: Path) -> None:
        async with site_of(tmp_path) as place:
            known_hosts = place.specs / "known_hosts"
            pins = known_hosts.read_text()
            known_hosts.unlink()
            async with serving(place) as service:
                status = await service.until(
                    "the reason", lambda s: all(blocked(s, name) == ["no-host-key"] for name in place.site.hosts)
                )
                assert "ssh-keyscan" in words(status, "c01")
                assert [name for name in place.site.hosts if (await place.site.commands(name))["log"]] == []
                known_hosts.write_text(pins)
                await service.converged()


class TestWhatItSays:
    async def test_a_host_that_answers_garbage_is_believed_in_nothing(self, tmp_path: Path) -> None:
        async with site_of(tmp_path) as place, serving(place) as service:
            await service.converged()
            await place.site.garbage("c03", "output")
            # Its programs are asked anew, as after an update of the host's shell.
            await _drop_connections(place, "c03")
            status = await service.until("the reason", lambda s: blocked(s, "c03") == ["garbage"])
            assert "answered something else than asked" in words(status, "c03")
            assert [guest(status, name)["state"] for name in ON_C03] == ["running", "running"], "the last known state"
            await _healed(place, service, "a-head")
            await place.site.garbage("c03", None)
            await _drop_connections(place, "c03")
            await service.converged()
            assert {
                name: count for name, count in (await boots(place.site)).items() if name in ON_C03
            } == dict.fromkeys(ON_C03, 1)

    async def test_garbage_from_the_first_look_on_makes_nothing(self, tmp_path: Path) -> None:
        async with site_of(tmp_path) as place:
            await place.site.garbage("c03", "output")
            async with serving(place) as service:
                await service.until("the reason", lambda s: blocked(s, "c03") == ["garbage"])
                await place.site.garbage("c03", None)
                await _drop_connections(place, "c03")
                await service.converged()

    async def test_a_port_where_something_else_than_ssh_answers_is_named(self, tmp_path: Path) -> None:
        async with site_of(tmp_path) as place, serving(place) as service:
            await service.converged()
            await place.site.garbage("c03", "banner")
            status = await service.until("the reason", lambda s: blocked(s, "c03") == ["protocol"])
            assert "not SSH" in words(status, "c03")
            await _healed(place, service, "a-head")
            await place.site.garbage("c03", None)
            await service.converged()
            assert place.site.witness.boots["a-n1"] == 1


async def _drop_connections(place: Place, name: str) -> None:
    await place.site.hosts[name].server.restart()


class TestWhenItHangs:
    async def test_a_look_that_hangs_costs_one_host_and_nothing_is_concluded(self, tmp_path: Path) -> None:
        async with site_of(tmp_path) as place, serving(place) as service:
            await service.converged()
            await place.site.hang_command("c03", "boot_id|virsh|xl list", times=None)
            status = await service.until("the reason", lambda s: blocked(s, "c03") == ["deadline"])
            assert "within 3 s" in words(status, "c03")
            assert not container(status, "c03")["reachable"]
            await _healed(place, service, "a-head")
            await place.site.heal("c03")
            await _drop_connections(place, "c03")
            await service.until("c03 is back", lambda s: container(s, "c03")["reachable"])
            await service.converged()
            assert place.site.witness.boots["a-n1"] == 1

    async def test_a_step_that_hangs_holds_up_its_own_guest_only(self, tmp_path: Path) -> None:
        async with site_of(tmp_path) as place:
            await place.site.hang_command("c03", r"^tar .*-x|^tar -x", times=1)
            async with serving(place) as service:
                await _others_run(service)
                await until("the image is being unpacked", lambda: not place.site.hosts["c03"].faults.waiting)
                await service.until(
                    "it says so", lambda s: "under way" in _said(s, "a-n1") or "image" in _said(s, "a-n1")
                )
                await place.site.reboot("c03")
                await service.converged()

    async def test_a_first_boot_that_hangs_is_tried_again_and_boots_once(self, tmp_path: Path) -> None:
        async with site_of(tmp_path) as place:
            await place.site.hang_command("c01", "^virsh .*start b-n2", times=1)
            async with serving(place) as service:
                await service.until("the others run", lambda s: running(s, tuple(set(GUESTS) - {"b-n2"})))
                assert place.site.witness.boots["b-n2"] == 0
                await _drop_connections(place, "c01")
                for task in list(place.site.hosts["c01"].programs.tasks):
                    task.cancel()
                await service.converged()
                assert place.site.witness.boots["b-n2"] == 1
                assert place.site.witness.boots["a-head"] == 1, "its neighbour was left alone"


def _said(status: Status, name: str) -> str:
    return str(guest(status, name)["message"])


class TestItsDisks:
    async def test_a_full_pool_is_refused_before_anything_is_written(self, tmp_path: Path) -> None:
        async with site_of(tmp_path) as place:
            await place.site.fill_pool("c03", 99.9)
            async with serving(place) as service:
                await _others_run(service)
                status = await service.until("the reason", lambda s: blocked(s, "a-n1") == ["pool-full"])
                assert "MiB free" in words(status, "a-n1")
                assert not any("lvcreate" in line for line in (await place.site.commands("c03"))["log"])
                await place.site.fill_pool("c03", 0.0)
                await service.converged()

    async def test_full_thin_metadata_is_refused_before_anything_is_written(self, tmp_path: Path) -> None:
        async with site_of(tmp_path) as place:
            await place.site.fill_pool("c03", 10.0, 99.0)
            async with serving(place) as service:
                status = await service.until("the reason", lambda s: blocked(s, "a-n1") == ["pool-full"])
                assert "metadata 99 % used" in words(status, "a-n1")
                await place.site.fill_pool("c03", 0.0, 0.0)
                await service.converged()

    async def test_no_space_in_the_middle_of_a_step_is_named_and_tried_again_later(self, tmp_path: Path) -> None:
        async with site_of(tmp_path) as place:
            await place.site.fail_command(
                "c03", "^(tar|zstd)", times=1, status=2, stderr="tar: No space left on device"
            )
            async with serving(place) as service:
                await _others_run(service)
                status = await service.until("the reason", lambda s: blocked(s, "c03") == ["no-space"])
                assert "No space left on device" in words(status, "c03")
                assert "try 2 in" in words(status, "c03")
                assert "waiting for image debian-12" in _said(status, "a-n1")

    async def test_a_volume_group_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        async with site_of(tmp_path) as place:
            await place.site.remove_volume_group("c03")
            async with serving(place) as service:
                await _others_run(service)
                status = await service.until(
                    "the reason", lambda s: blocked(s, "a-n1") == ["no-storage"] and blocked(s, "c03")
                )
                assert "vg0" in words(status, "c03")
                assert place.site.witness.boots["a-n1"] == 0

    async def test_a_volume_group_that_vanishes_under_running_guests_is_named_and_nothing_is_made_anew(
        self, tmp_path: Path
    ) -> None:
        async with site_of(tmp_path) as place, serving(place) as service:
            await service.converged()
            await place.site.remove_volume_group("c03")
            made = await _made(place, "c03")
            await service.control.refresh()
            await service.until("the reason", lambda s: blocked(s, "c03"))
            await _healed(place, service, "a-head")
            assert place.site.witness.boots["a-n1"] == 1
            assert await _made(place, "c03") == made, "no volume was made"


async def _made(place: Place, name: str) -> int:
    """How many volumes were ever made on a host."""
    return int((await place.site.commands(name))["counts"].get("lvcreate", 0))


class TestCutOff:
    async def test_a_cut_host_keeps_its_guests_and_they_are_started_nowhere_else(self, tmp_path: Path) -> None:
        quick = settings(look_deadline_s=1.5, connect_deadline_s=1.0)
        async with site_of(tmp_path) as place, serving(place, settings=quick) as service:
            await service.converged()
            await place.site.cut("c03")
            status = await service.until("it is seen as lost", lambda s: not container(s, "c03")["reachable"])
            assert all(guest(status, name)["state"] == "running" for name in ON_C03), "silence is not absence"
            await _healed(place, service, "a-head")
            await place.site.mend("c03")
            await service.converged()
            assert {place.site.witness.boots[name] for name in ON_C03} == {1}

    async def test_a_host_that_lost_power_starts_its_guests_again_when_it_is_back(self, tmp_path: Path) -> None:
        async with site_of(tmp_path) as place, serving(place) as service:
            await service.converged()
            await place.site.power_off("c03")
            await service.until("it is seen as lost", lambda s: blocked(s, "c03") == ["refused"])
            await place.site.power_on("c03")
            await service.until(
                "its guests run again", lambda s: s["converged"] and place.site.witness.boots["a-n1"] == 2
            )
            assert place.site.witness.boots["b-n1"] == 2
            assert place.site.witness.boots["a-head"] == 1
