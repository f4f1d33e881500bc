"""Containers whose network, rules or power somebody took away: put back, and no guest pays for it."""

from __future__ import annotations

from pathlib import Path

from harness import STUDENT_TEXT, Playground, playground

from vcrecon.sim.network import Link


def links(play: Playground, container: str) -> dict[str, Link]:
    return play.site.hosts[container].machine.network.links


def taps_of(play: Playground, guest: str, container: str) -> list[Link]:
    domain = play.site.hosts[container].machine.domains.by_name[guest]
    return [links(play, container)[tap] for tap in domain.taps]


def rules(play: Playground, container: str) -> str:
    """All rules loaded on a container, as `nft list ruleset` shows them."""
    return "\n".join(table.text() for table in play.site.hosts[container].machine.nft.tables.values())


async def test_a_deleted_bridge_is_put_back_with_the_ports_of_the_guests_that_run_on(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        before = play.all_boots()
        await play.site.wipe_bridge("c01", 101)
        assert taps_of(play, "a-head", "c01")[0].master == ""
        await play.until(lambda: taps_of(play, "a-head", "c01")[0].master == "vcbr101", "its tap is on the bridge")
        await play.converged()
        assert play.all_boots() == before
        assert links(play, "c01")["vcvl101"].master == "vcbr101"


async def test_a_deleted_bridge_on_xen_is_put_back_with_its_ports(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        before = play.all_boots()
        await play.site.wipe_bridge("c03", 102)
        await play.until(lambda: taps_of(play, "b-n1", "c03")[0].master == "vcbr102", "its port is on the bridge")
        await play.converged()
        assert play.all_boots() == before


async def test_a_deleted_vlan_device_is_put_back(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        before = play.all_boots()
        await play.site.delete_vlan("c01", 900)
        await play.until(lambda: "vcvl900" in links(play, "c01"), "VLAN 900 is back")
        await play.converged()
        assert links(play, "c01")["vcvl900"].master == "vcbr900"
        assert play.all_boots() == before


async def test_a_bridge_that_somebody_took_down_is_up_again(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        links(play, "c01")["vcbr101"].up = False
        await play.until(lambda: links(play, "c01")["vcbr101"].up, "it is up")


async def test_a_service_address_that_somebody_removed_is_put_back(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        bridge = links(play, "c01")["vcbr101"]
        wanted = list(bridge.addresses)
        assert wanted
        for address in wanted:
            play.site.hosts["c01"].machine.network.remove_address("vcbr101", address)
        await play.until(lambda: sorted(bridge.addresses) == sorted(wanted), "its addresses are back")


async def test_flushed_rules_are_loaded_again(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        wanted, boots = rules(play, "c02"), play.all_boots()
        await play.site.flush_rules("c02")
        assert rules(play, "c02") == ""
        await play.until(lambda: rules(play, "c02") == wanted, "the rules are back")
        await play.converged()
        assert play.all_boots() == boots


async def test_a_rule_that_somebody_added_by_hand_is_taken_out_of_our_tables(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        nft, wanted = play.site.hosts["c02"].machine.nft, rules(play, "c02")
        family, name = next(iter(nft.tables))
        chain = next(iter(nft.find(family, name).chains))
        nft.apply(f"add rule {family} {name} {chain} accept")
        assert rules(play, "c02") != wanted
        await play.until(lambda: rules(play, "c02") == wanted, "the rules are as they were")


async def test_a_table_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        nft = play.site.hosts["c02"].machine.nft
        nft.apply("table inet theirs { chain c { type filter hook input priority 10; policy accept; } }")
        await play.site.flush_rules("c02")
        nft.apply("table inet theirs { chain c { type filter hook input priority 10; policy accept; } }")
        await play.until(lambda: len(nft.tables) > 1, "our rules are back")
        await play.converged()
        assert nft.find("inet", "theirs") is not None


async def test_after_a_reboot_the_network_is_back_and_the_guests_run_on_the_disks_they_had(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        before = play.all_boots()
        await play.students_work("a-head")
        disks = {guest: play.live_volume(guest, "c01") for guest in ("a-head", "b-n2")}
        await play.site.reboot("c01")
        for guest, disk in disks.items():
            await play.restarted(guest, before[guest])
            assert play.live_volume(guest, "c01") is disk
        await play.converged()
        assert play.all_boots() == {g: n + (g in disks) for g, n in before.items()}
        assert await play.work_of("a-head") == STUDENT_TEXT
        log = await play.log_of("c01")
        assert sum(line.startswith("mkfs") for line in log) == 1, "the golden image was made once, before"


async def test_a_xen_container_that_reboots_gets_its_guests_back(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        before = play.all_boots()
        await play.students_work("b-n1")
        await play.site.reboot("c03")
        for guest in ("a-n1", "b-n1"):
            await play.restarted(guest, before[guest])
        assert await play.work_of("b-n1") == STUDENT_TEXT


async def test_guests_of_a_container_without_power_are_unknown_and_started_nowhere_else(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        before = play.all_boots()
        await play.site.power_off("c02")
        await play.until(lambda: not play.controller.world.reachable("c02"), "c02 is seen as lost")
        for container in ("c01", "c03"):
            await play.relisted(container, times=2)
        assert play.all_boots() == before
        status = play.controls.status()
        lost = next(c for c in status["containers"] if c["name"] == "c02")
        assert lost["reachable"] is False
        assert lost["blocked"]
        details = {g["name"]: g["detail"] for g in status["guests"]}
        assert details["a-n2"] == details["b-head"] == "c02 does not answer"
        await play.site.power_on("c02")
        for guest in ("a-n2", "b-head"):
            await play.restarted(guest, before[guest])


async def test_a_hanging_container_costs_the_others_nothing(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await play.site.slow("c03", 3600.0)
        boots = play.boots("a-head")
        await play.site.kill_guest("a-head")
        await play.restarted("a-head", boots)
        await play.site.heal("c03")


async def test_a_context_tag_that_vanished_from_a_touched_disk_is_reported_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    async with playground(tmp_path) as play:
        await play.students_work("a-n2")
        before = play.all_boots()
        await play.site.remove_tag("c02", "a-n2", "vc.context=")
        await play.relisted("c02")
        message = next(g["message"] for g in play.controls.status()["guests"] if g["name"] == "a-n2")
        assert message == "running; differs from the spec in context"
        assert play.all_boots() == before
        assert await play.work_of("a-n2") == STUDENT_TEXT


async def test_a_touched_tag_that_vanished_during_the_session_is_set_again(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        volume = play.live_volume("a-n2", "c02")
        await play.site.remove_tag("c02", "a-n2", "vc.touched")
        await play.until(lambda: "vc.touched" in volume.tags, "it is marked as touched again")


async def test_a_disk_that_lost_its_marks_is_never_taken_for_a_free_place(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await play.students_work("a-n2")
        volume = play.live_volume("a-n2", "c02")
        await play.site.kill_guest("a-n2")
        await play.site.remove_tag("c02", "a-n2", "vc")
        await play.blocked("a-n2", "volume-taken")
        block = play.controller.ledger.block("guest/a-n2")
        assert block is not None
        assert "has lost vcrecon's tags and may hold a student's work" in block.message
        await play.relisted("c02", times=2)
        assert volume in play.site.hosts["c02"].machine.all_volumes()
