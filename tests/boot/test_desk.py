"""The desk: what controller and machines learn of each other, and what survives a lost message."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from boot_site import MAC, NOW_S, a_boot_spec, a_ticket

from vcrecon.boot.desk import NETBOOTS_MAX, Desk
from vcrecon.core.installs import Ended, LocalBoot, Netboot, Progress, RunInstaller, Ticket, WaitInLine
from vcrecon.core.mastery import UNCLEAR, Quiet
from vcrecon.errors import Transient


class Site:
    """A desk with a clock that is set by hand, and lists of what it told the controller."""

    def __init__(self, *, record_fails: bool = False) -> None:
        self.now_s = NOW_S
        self.claimed: list[Ticket] = []
        self.woken: list[str] = []
        self._record_fails = record_fails
        self.desk = Desk(clock=lambda: self.now_s, claim=self._claim, on_change=self.woken.append)
        self.desk.adopt(a_boot_spec())

    def _claim(self, ticket: Ticket) -> None:
        if self._record_fails:
            raise Transient("disk full")
        self.claimed.append(ticket)

    def boots(self, mac: str = MAC, uuid: str = "") -> object:
        return self.desk.answer(Netboot(mac, self.now_s, "10.9.0.11", uuid=uuid))


@pytest.fixture
def site() -> Site:
    return Site()


def test_an_opened_ticket_runs_the_installer_until_it_is_closed(site: Site) -> None:
    site.desk.open(a_ticket())
    during = site.boots()
    site.desk.close("c1")
    assert (during, type(site.boots())) == (RunInstaller(a_ticket()), LocalBoot)


def test_an_expired_ticket_boots_the_local_disk(site: Site) -> None:
    site.desk.open(a_ticket())
    site.now_s = a_ticket().expires_at_s
    assert isinstance(site.boots(), LocalBoot)


def test_a_machine_in_the_queue_is_told_the_latest_message(site: Site) -> None:
    site.desk.hold({"c1": "3 before you"}.get)
    site.desk.hold({"c1": "2 before you"}.get)
    assert site.boots() == WaitInLine("2 before you")


def test_while_another_master_holds_the_site_no_machine_is_kept_or_installed(site: Site) -> None:
    site.desk.open(a_ticket())
    site.desk.hold({"c1": "3 before you"}.get)
    site.desk.quiet = Quiet("other-master", "held by m2")
    assert site.boots() == LocalBoot("c1: held by m2")
    assert (site.desk.claim(a_ticket(), "10.9.0.11"), site.claimed) == ("quiet", [])
    site.desk.quiet = None
    assert site.boots() == RunInstaller(a_ticket())
    assert site.desk.claim(a_ticket(), "10.9.0.11") == "ok"


def test_machines_wait_until_it_is_known_who_the_master_is(site: Site) -> None:
    site.desk.quiet = UNCLEAR
    assert site.boots() == WaitInLine(f"c1: {UNCLEAR.message}")
    assert isinstance(site.boots("52:54:00:aa:00:99"), LocalBoot)


def test_an_install_that_was_claimed_goes_on_when_another_master_takes_the_site(site: Site) -> None:
    site.desk.open(a_ticket())
    assert site.desk.claim(a_ticket(), "10.9.0.11") == "ok"
    site.desk.quiet = Quiet("other-master", "held by m2")
    assert site.desk.is_bound(a_ticket(), "10.9.0.11")
    site.desk.report(Progress("c1", "download", site.now_s, site.now_s))
    assert site.desk.progress["c1"].step == "download"


def test_a_boot_wakes_the_pass_of_its_container(site: Site) -> None:
    site.boots()
    assert site.woken == ["c1"]


def test_a_stranger_is_remembered_and_wakes_nobody(site: Site) -> None:
    site.boots("52:54:00:aa:00:99")
    assert (list(site.desk.netboots), site.woken) == (["52:54:00:aa:00:99"], [])


def test_only_the_newest_machines_are_remembered(site: Site) -> None:
    for number in range(NETBOOTS_MAX + 5):
        site.boots(f"52:54:00:bb:{number >> 8:02x}:{number & 255:02x}")
    site.boots("52:54:00:bb:00:05")
    assert len(site.desk.netboots) == NETBOOTS_MAX
    assert "52:54:00:bb:00:04" not in site.desk.netboots
    assert list(site.desk.netboots)[-1] == "52:54:00:bb:00:05"


def test_a_claim_is_durable_before_it_is_granted(site: Site) -> None:
    site.desk.open(a_ticket())
    assert site.desk.claim(a_ticket(), "10.9.0.11") == "ok"
    assert site.claimed == [replace(a_ticket(), state="claimed")]
    assert site.desk.tickets["c1"].state == "claimed"


def test_a_ticket_is_spent_by_its_claim(site: Site) -> None:
    site.desk.open(a_ticket())
    site.desk.claim(a_ticket(), "10.9.0.11")
    assert site.desk.claim(a_ticket(), "10.9.0.11") == "spent"


def test_a_claim_that_cannot_be_recorded_can_be_tried_again() -> None:
    site = Site(record_fails=True)
    site.desk.open(a_ticket())
    with pytest.raises(Transient):
        site.desk.claim(a_ticket(), "10.9.0.11")
    assert site.desk.tickets["c1"].state == "open"


@pytest.mark.parametrize("late", [False, True], ids=["closed", "expired"])
def test_a_ticket_that_is_over_cannot_be_claimed(site: Site, late: bool) -> None:
    site.desk.open(a_ticket())
    if late:
        site.now_s = a_ticket().expires_at_s
    else:
        site.desk.close("c1")
    assert site.desk.claim(a_ticket(), "10.9.0.11") == "expired"


def test_opening_a_ticket_again_does_not_make_it_unspent(site: Site) -> None:
    site.desk.open(a_ticket())
    site.desk.claim(a_ticket(), "10.9.0.11")
    site.desk.open(a_ticket())
    assert site.desk.tickets["c1"].state == "claimed"


def test_only_the_address_that_claimed_speaks_for_the_ticket(site: Site) -> None:
    site.desk.open(a_ticket())
    site.desk.claim(a_ticket(), "10.9.0.11")
    assert site.desk.is_bound(a_ticket(), "10.9.0.11")
    assert not site.desk.is_bound(a_ticket(), "10.9.0.12")


def test_after_a_restart_the_first_address_that_is_heard_is_bound(site: Site) -> None:
    site.desk.open(replace(a_ticket(), state="claimed"))
    assert site.desk.is_bound(a_ticket(), "10.9.0.11")
    assert not site.desk.is_bound(a_ticket(), "10.9.0.12")


def test_progress_keeps_when_the_install_began(site: Site) -> None:
    site.desk.open(a_ticket())
    site.desk.claim(a_ticket(), "10.9.0.11")
    site.desk.report(Progress("c1", "download", NOW_S + 60, NOW_S + 60, 40.0))
    assert site.desk.progress["c1"] == Progress("c1", "download", NOW_S + 60, NOW_S, 40.0)


async def test_the_installers_last_word_ends_the_wait(site: Site) -> None:
    site.desk.open(a_ticket())
    wait = asyncio.create_task(site.desk.ended("c1"))
    await asyncio.sleep(0)
    site.desk.end(Ended("c1", "nonce-1", NOW_S, "no-disk", "none found"))
    assert await wait == Ended("c1", "nonce-1", NOW_S, "no-disk", "none found")


async def test_an_end_that_came_first_is_not_missed_and_not_overwritten(site: Site) -> None:
    site.desk.open(a_ticket())
    site.desk.end(Ended("c1", "nonce-1", NOW_S))
    site.desk.end(Ended("c1", "nonce-1", NOW_S, "no-disk"))
    assert (await site.desk.ended("c1")).error == ""


async def test_a_silent_installer_ends_at_the_deadline(site: Site) -> None:
    site.desk.open(a_ticket())
    site.now_s = a_ticket().expires_at_s
    ended = await site.desk.ended("c1")
    assert (ended.error, ended.nonce) == ("deadline", "nonce-1")
    assert "30 minutes" in ended.message


async def test_the_deadline_is_met_while_waiting() -> None:
    loop = asyncio.get_running_loop()
    desk = Desk(clock=lambda: NOW_S + loop.time() - began_s, claim=lambda ticket: None, on_change=lambda name: None)
    began_s = loop.time()
    desk.open(replace(a_ticket(), expires_at_s=NOW_S + 0.05))
    assert (await desk.ended("c1")).error == "deadline"


async def test_a_claimed_machine_that_boots_again_began_anew(site: Site) -> None:
    site.desk.open(a_ticket())
    site.desk.claim(a_ticket(), "10.9.0.11")
    answers = [site.boots(), site.boots()]
    assert (await site.desk.ended("c1")).error == "began-anew"
    assert [type(found) for found in answers] == [WaitInLine, WaitInLine]


async def test_an_installed_machine_that_boots_again_is_sent_to_its_disk(site: Site) -> None:
    site.desk.open(a_ticket())
    site.desk.claim(a_ticket(), "10.9.0.11")
    site.desk.end(Ended("c1", "nonce-1", NOW_S))
    assert isinstance(site.boots(), LocalBoot)
    assert (await site.desk.ended("c1")).error == ""


async def test_closing_ends_the_wait(site: Site) -> None:
    site.desk.open(a_ticket())
    wait = asyncio.create_task(site.desk.ended("c1"))
    await asyncio.sleep(0)
    site.desk.close("c1")
    assert (await wait).error == "closed"


async def test_a_new_ticket_ends_the_wait_for_the_old_one_and_forgets_its_end(site: Site) -> None:
    site.desk.open(a_ticket())
    site.desk.end(Ended("c1", "nonce-1", NOW_S, "no-disk"))
    site.desk.open(replace(a_ticket(), nonce="nonce-2"))
    assert not site.desk.has_ended(site.desk.tickets["c1"])
    assert site.desk.has_ended(a_ticket())


async def test_a_second_machine_with_the_same_mac_neither_installs_nor_ends_the_install(site: Site) -> None:
    site.desk.open(a_ticket())
    site.boots(uuid="aa-1")
    site.desk.claim(a_ticket(), "10.9.0.11")
    second = site.boots(uuid="aa-2")
    assert isinstance(second, LocalBoot)
    assert "another machine" in second.reason
    assert not site.desk.has_ended(a_ticket())


async def test_firmware_without_a_uuid_of_its_own_is_no_other_machine(site: Site) -> None:
    site.desk.open(a_ticket())
    site.boots(uuid="aa-1")
    assert site.boots(uuid="00000000-0000-0000-0000-000000000000") == RunInstaller(a_ticket())
