"""When a container is installed: what calls, what a person said, and what keeps vcrecon's hands off."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest
from worlds import (
    NOW_S,
    REDFISH,
    SYSTEM,
    ASite,
    a_spec,
    an_installable,
    arriving,
    disk,
    kept_disk,
    running,
    seen,
    silent,
    students_disk,
)

from vcrecon.core.actions import Install
from vcrecon.core.concern import mended
from vcrecon.core.decisions import Block, Do, Wait
from vcrecon.core.install_rules import first_word, forgotten, residents, spent
from vcrecon.core.memory import Attempts
from vcrecon.core.observation import Observation, Unseen
from vcrecon.core.states import ContainerState
from vcrecon.spec.model import Provisioning, Spec

ONE = {"c1": ["alice"]}
SUBJECT = "container/c1"


def a_machine(**changes: object) -> ASite:
    """A container that nothing is known of and that does not answer."""
    return ASite(an_installable(a_spec(ONE), **changes), unanswered("c1"))


def unanswered(container: str) -> Unseen:
    return Unseen(container, NOW_S, "no-host-key", "no host key is pinned for it")


def a_host(*volumes: object, spec: Spec | None = None, **changes: object) -> ASite:
    """A container that runs, with these disks."""
    site = spec or an_installable(a_spec(ONE), **changes)
    return ASite(site, seen("c1", volumes, release={"hypervisor": "kvm", "system": "e" * 64}))  # type: ignore[arg-type]


def install(site: ASite) -> Install:
    decision = site.decision("c1", SUBJECT)
    assert isinstance(decision, Do), decision
    assert isinstance(decision.action, Install), decision
    return decision.action


def state(site: ASite, container: str = "c1") -> ContainerState | None:
    return site.plan(container).statuses[0].state  # type: ignore[return-value]


def failed(site: ASite, error: str, *, ago_s: float = 1000.0) -> None:
    site.memory.attempts[SUBJECT] = Attempts(1, NOW_S - ago_s, error, f"c1: {error}")


class TestAMachineThatWasNeverSeen:
    def test_is_waited_for(self) -> None:
        site = a_machine()
        block = site.block("c1", SUBJECT)
        assert block.reason == "never-booted"
        assert "MAC 52:54:00:00:00:01" in block.message
        assert state(site) is None

    def test_is_installed_without_wiping_when_it_boots_from_the_network(self) -> None:
        site = a_machine()
        site.netboot("c1")
        action = install(site)
        assert (action.system, action.mac) == (SYSTEM.name, "52:54:00:00:00:01")
        assert (action.wipe, action.rouse) == (False, "follow")
        assert state(site) is ContainerState.PXE

    def test_is_no_longer_installed_when_its_call_is_a_minute_old(self) -> None:
        site = a_machine()
        site.netboot("c1", ago_s=61)
        assert site.block("c1", SUBJECT).reason == "never-booted"

    def test_is_held_in_line_before_it_was_looked_at(self) -> None:
        site = a_machine()
        assert first_word(site.spec, site.memory, "c1") != ""
        assert site.plan("c1").hold != ""

    def test_is_switched_on_when_its_switch_says_off(self) -> None:
        site = a_machine(power=REDFISH)
        site.switch("c1", "off")
        action = install(site)
        assert (action.rouse, action.wipe) == ("switch-on", False)

    @pytest.mark.parametrize("power", ["on", "unknown"])
    def test_is_never_cycled(self, power: str) -> None:
        site = a_machine(power=REDFISH)
        site.switch("c1", power)  # type: ignore[arg-type]
        block = site.block("c1", SUBJECT)
        assert (block.reason, f"its switch says {power}" in block.message) == ("never-booted", True)

    def test_is_installed_though_the_record_is_not_complete_for_its_disk_is_the_witness(self) -> None:
        site = a_machine(power=REDFISH)
        site.memory.claims_complete = False  # as on every new site of three machines and more
        site.switch("c1", "off")
        assert install(site).wipe is False
        site.netboot("c1")
        assert install(site).wipe is False

    def test_that_runs_a_system_of_somebody_elses_is_left_alone(self) -> None:
        site = a_machine(power=REDFISH)
        site.switch("c1", "off")
        site.observe(Unseen("c1", NOW_S, "permission-denied", "refuses our key"))
        assert site.block("c1", SUBJECT).reason == "permission-denied"

    @pytest.mark.parametrize("change", [{"mac": None}, {"system": None}])
    def test_cannot_be_installed_without_a_mac_and_a_system(self, change: dict[str, None]) -> None:
        site = a_machine(**change)
        site.netboot("c1")
        assert site.block("c1", SUBJECT).reason == "no-host-key"

    def test_is_left_alone_where_provisioning_is_off(self) -> None:
        site = a_machine()
        off = replace(site.spec.site, provisioning=Provisioning("10.64.0.0/24"))
        site.adopt(replace(site.spec, site=off))
        site.netboot("c1")
        assert site.block("c1", SUBJECT).reason == "no-host-key"

    @pytest.mark.parametrize("subject", [SUBJECT, "site"])
    def test_is_left_alone_while_paused(self, subject: str) -> None:
        site = a_machine()
        site.netboot("c1")
        site.memory.paused[subject] = NOW_S
        assert site.kinds("c1") == []
        assert site.plan("c1").hold == ""

    def test_waits_while_the_site_is_frozen(self) -> None:
        spec = an_installable(a_spec({"c1": [], "c2": [], "c3": [], "c4": []}))
        site = ASite(spec, unanswered("c1"), *(silent(c) for c in ("c2", "c3", "c4")))
        site.memory.seen.update({"c2": NOW_S, "c3": NOW_S, "c4": NOW_S})
        site.netboot("c1")
        assert site.block("c1", SUBJECT).reason == "site-frozen"

    def test_whose_disk_is_not_blank_is_not_tried_again(self) -> None:
        site = a_machine()
        failed(site, "disk-not-blank")
        site.netboot("c1")
        assert site.block("c1", SUBJECT).reason == "disk-not-blank"
        assert site.plan("c1").hold == ""

    def test_that_failed_waits_in_line_until_it_is_tried_again(self) -> None:
        site = a_machine()
        failed(site, "download-failed", ago_s=-20)
        site.netboot("c1")
        assert site.block("c1", SUBJECT).reason == "download-failed"
        assert site.plan("c1").hold != ""
        site.now_s += 30
        site.netboot("c1")
        assert install(site).wipe is False

    def test_that_never_called_back_is_only_tried_when_it_calls(self) -> None:
        site = a_machine(power=REDFISH)
        failed(site, "install-stuck")
        site.switch("c1", "off")
        assert site.block("c1", SUBJECT).reason == "install-stuck"
        site.netboot("c1")
        assert install(site).rouse == "follow"


class TestAContainerThatWasSeen:
    def test_is_not_installed_when_it_boots_from_the_network(self) -> None:
        site = a_host()
        site.observe(silent("c1"))
        site.netboot("c1")
        block = site.block("c1", SUBJECT)
        assert block.reason == "unreachable"
        assert "booted from the network 1 s ago and was sent to its own disk" in block.message
        assert site.plan("c1").hold == ""

    def test_is_not_installed_though_the_record_forgot_it_but_for_a_claim(self) -> None:
        site = a_machine()
        site.claim("alice", "c1")
        site.netboot("c1")
        assert site.kinds("c1") == []
        assert first_word(site.spec, site.memory, "c1") == ""

    def test_is_not_switched_on(self) -> None:
        site = a_host(power=REDFISH)
        site.observe(silent("c1"))
        site.switch("c1", "off")
        assert site.kinds("c1") == []

    def test_says_that_its_system_is_older_and_nothing_is_done(self) -> None:
        site = ASite(an_installable(a_spec({"c1": []})), seen("c1", release={"hypervisor": "kvm", "system": "f" * 64}))
        assert "runs an older system than debian-kvm" in site.plan("c1").statuses[0].detail
        assert site.plan("c1").settled

    def test_installed_by_hand_says_nothing_of_its_system(self) -> None:
        site = ASite(an_installable(a_spec({"c1": []})), seen("c1"))
        assert site.plan("c1").statuses[0].detail == ""


class TestReinstall:
    def test_wipes_and_reboots_a_container_without_a_switch(self) -> None:
        site = a_host()
        site.reinstall("c1")
        action = install(site)
        assert (action.wipe, action.rouse) == (True, "reboot")
        assert state(site) is ContainerState.PXE

    def test_cycles_the_power_where_there_is_a_switch(self) -> None:
        site = a_host(power=REDFISH)
        site.reinstall("c1")
        assert install(site).rouse == "power-cycle"

    def test_of_a_silent_container_without_a_switch_waits_for_a_person_to_switch_it_on(self) -> None:
        site = a_host()
        site.observe(silent("c1"))
        site.reinstall("c1")
        assert site.block("c1", SUBJECT).reason == "switch-on"
        site.netboot("c1", ago_s=0)
        action = install(site)
        assert (action.wipe, action.rouse) == (True, "follow")

    def test_does_not_wait_for_a_machine_that_called_before_anybody_asked(self) -> None:
        site = a_host(power=REDFISH)
        site.netboot("c1", ago_s=5)
        site.reinstall("c1")
        assert install(site).rouse == "power-cycle"

    def test_of_a_machine_that_was_never_seen_wipes_it(self) -> None:
        site = a_machine()
        site.reinstall("c1")
        site.netboot("c1", ago_s=0)
        assert install(site).wipe is True

    def test_does_nothing_to_guests_there_meanwhile(self) -> None:
        site = a_host(disk("alice"), spec=an_installable(a_spec(ONE, session="preparing")))
        site.reinstall("c1")
        assert site.kinds("c1") == ["install"]

    def test_of_a_destination_keeps_guests_where_they_are(self) -> None:
        spec = an_installable(a_spec({"c1": ["alice"], "c2": []}))
        site = ASite(spec, seen("c1"), seen("c2", [students_disk("alice")], [running("alice")]))
        site.reinstall("c1")
        block = site.block("c2", "alice")
        assert (block.reason, "c1 is installed anew" in block.message) == ("destination-not-ready", True)

    def test_waits_for_a_step_on_a_guest_there_to_end(self) -> None:
        site = a_host()
        site.reinstall("c1")
        site.busy = frozenset({"guest/alice"})
        site.observe(seen("c1", [disk("alice")]))
        assert isinstance(site.decision("c1", SUBJECT), Wait)

    def test_is_refused_while_a_students_work_is_there(self) -> None:
        site = a_host(students_disk("alice"))
        site.reinstall("c1")
        plan = site.plan("c1")
        block = next(b for b in plan.blocked if b.subject == SUBJECT)
        assert block.reason == "gives-up-work"
        assert "vcrecon reinstall c1 --give-up alice" in block.message
        assert [action.kind for action in plan.actions] == ["start-guest"]  # the rest goes on

    def test_is_refused_also_while_the_container_is_silent(self) -> None:
        site = a_host(students_disk("alice"))
        site.observe(silent("c1"))
        site.reinstall("c1")
        assert site.block("c1", SUBJECT).reason == "gives-up-work"

    def test_goes_on_once_the_disk_is_given_up_by_name(self) -> None:
        site = a_host(students_disk("alice", 2))
        site.reinstall("c1", {"alice": 2})
        assert install(site).wipe is True

    def test_is_refused_when_the_word_was_for_an_older_disk(self) -> None:
        site = a_host(students_disk("alice", 2))
        site.reinstall("c1", {"alice": 1})
        assert site.block("c1", SUBJECT).reason == "gives-up-work"

    def test_does_not_begin_while_the_site_is_frozen(self) -> None:
        spec = an_installable(a_spec({"c1": [], "c2": [], "c3": [], "c4": []}))
        site = ASite(spec, seen("c1"), *(silent(c) for c in ("c2", "c3", "c4")))
        site.memory.seen.update({"c2": NOW_S, "c3": NOW_S, "c4": NOW_S})
        site.reinstall("c1")
        assert site.block("c1", SUBJECT).reason == "site-frozen"

    def test_does_not_begin_before_a_new_start_has_looked_at_all(self) -> None:
        site = ASite(an_installable(a_spec({"c1": [], "c2": []})), seen("c1"))
        site.reinstall("c1")
        assert isinstance(site.decision("c1", SUBJECT), Wait)
        site.observe(silent("c2"))
        assert install(site).wipe is True

    def test_does_not_begin_while_paused(self) -> None:
        site = a_host()
        site.reinstall("c1")
        site.memory.paused["site"] = NOW_S
        assert site.kinds("c1") == []

    def test_after_a_deadline_waits_for_the_machine_or_a_person(self) -> None:
        site = a_host(power=REDFISH)
        site.reinstall("c1")
        failed(site, "install-stuck")
        assert site.block("c1", SUBJECT).reason == "install-stuck"


class TestWhileATicketIsOpen:
    def test_the_install_is_planned_so_that_a_restarted_controller_goes_on(self) -> None:
        site = a_machine()
        site.ticket("c1", "claimed", wipe=True)
        action = install(site)
        assert (action.resumed, action.wipe, action.rouse) == (True, True, "follow")
        assert state(site) is ContainerState.INSTALLING

    def test_its_progress_is_shown(self) -> None:
        site = a_machine()
        site.ticket("c1", "claimed")
        site.busy = frozenset({SUBJECT})
        site.says("c1", "download", 40.0)
        status = site.plan("c1").statuses[0]
        assert (status.state, status.detail) == (ContainerState.INSTALLING, "download 40 %, about 60 s left")
        assert isinstance(site.decision("c1", SUBJECT), Wait)

    def test_one_that_did_not_call_yet_is_roused_again_after_a_restart(self) -> None:
        site = a_machine(power=REDFISH)
        site.ticket("c1", wipe=True)
        assert install(site).rouse == "power-cycle"
        assert state(site) is ContainerState.PXE
        site.netboot("c1")
        assert install(site).rouse == "follow"

    def test_a_machine_that_nobody_spoke_for_is_switched_on_and_not_cycled(self) -> None:
        site = a_machine(power=REDFISH)
        site.ticket("c1", wipe=False)
        assert install(site).rouse == "switch-on"

    @pytest.mark.parametrize("subject", [SUBJECT, "site"])
    def test_a_pause_lets_it_end_and_touches_no_switch(self, subject: str) -> None:
        site = a_machine(power=REDFISH)
        site.ticket("c1", wipe=True)
        site.memory.paused[subject] = NOW_S
        assert install(site).rouse == "follow"

    def test_it_does_not_count_as_lost(self) -> None:
        spec = an_installable(a_spec({c: [] for c in ("c1", "c2", "c3", "c4")}))
        site = ASite(spec, *(silent(c) for c in spec.containers))
        for container in spec.containers:
            site.memory.seen[container] = NOW_S
            site.ticket(container, "claimed")
        assert [type(site.decision(c, f"container/{c}")) for c in spec.containers] == [Do] * 4


class TestOnceInstalled:
    def after(self, observation: Observation, ago_s: float = 10.0) -> ASite:
        site = ASite(an_installable(a_spec(ONE)), observation)
        site.memory.seen["c1"] = NOW_S - 10
        site.ticket("c1", "installed", ago_s=ago_s)
        return site

    def test_it_is_waited_for(self) -> None:
        site = self.after(unanswered("c1"))
        assert isinstance(site.decision("c1", SUBJECT), Wait)
        assert state(site) is ContainerState.INSTALLING
        assert site.plan("c1").hold == ""

    def test_one_that_does_not_answer_is_blocked(self) -> None:
        site = self.after(unanswered("c1"), ago_s=1801)
        assert site.block("c1", SUBJECT).reason == "install-no-answer"

    def test_it_is_not_installed_again_when_it_boots_from_the_network(self) -> None:
        site = self.after(unanswered("c1"), ago_s=1801)
        site.netboot("c1")
        assert site.kinds("c1") == []

    def test_the_ordinary_rules_have_the_word_when_it_answers(self) -> None:
        site = self.after(seen("c1"))
        assert "install" not in site.kinds("c1")
        assert state(site) is ContainerState.VLAN_READY

    def test_a_person_may_ask_again(self) -> None:
        site = self.after(unanswered("c1"), ago_s=1801)
        site.reinstall("c1")
        site.netboot("c1", ago_s=0)
        assert install(site).wipe is True


class TestWhoseWorkIsThere:
    TWO: ClassVar = {"c1": ["alice"], "c2": ["bob"]}

    def there(self, site: ASite) -> dict[str, int]:
        return residents(site.spec, site.world, site.memory, "c1")

    def test_touched_disks_and_those_that_ran_in_the_session(self) -> None:
        site = ASite(a_spec(self.TWO), seen("c1", [students_disk("alice", 3), disk("bob", 1, boots=1)]))
        assert self.there(site) == {"alice": 3, "bob": 1}

    def test_not_disks_that_were_never_used(self) -> None:
        spec = a_spec(self.TWO, session="preparing")
        assert self.there(ASite(spec, seen("c1", [disk("alice", boots=2)]))) == {}

    def test_disks_put_aside_count(self) -> None:
        assert self.there(ASite(a_spec(self.TWO), seen("c1", [kept_disk("gone", 2)]))) == {"gone": 2}

    def test_disks_of_guests_that_moved_on_do_not(self) -> None:
        site = ASite(
            a_spec(self.TWO), seen("c1", [kept_disk("bob", 1, "moved")]), seen("c2", [students_disk("bob", 2)])
        )
        assert self.there(site) == {}

    def test_a_copy_that_is_all_there_is_counts(self) -> None:
        site = ASite(a_spec(self.TWO), seen("c1", [arriving("alice", (2, 1))]), seen("c2"))
        assert self.there(site) == {"alice": 2}

    def test_a_copy_of_a_disk_that_is_still_there_does_not(self) -> None:
        site = ASite(a_spec(self.TWO), seen("c1", [arriving("alice", (2, 1))]), seen("c2", [students_disk("alice", 2)]))
        assert self.there(site) == {}

    def test_each_of_two_disks_with_one_epoch_does(self) -> None:
        site = ASite(a_spec(self.TWO), *(seen(c, [students_disk("alice", 2)]) for c in ("c1", "c2")))
        assert self.there(site) == {"alice": 2}

    def test_the_record_knows_of_those_on_a_container_not_seen_since_a_restart(self) -> None:
        site = ASite(a_spec(self.TWO), silent("c1"))
        site.claim("alice", "c1", 4)
        assert self.there(site) == {"alice": 4}

    def test_an_install_leaves_the_count_of_epochs_and_no_worth(self) -> None:
        site = a_host(students_disk("alice", 4))
        site.reinstall("c1", {"alice": 4})
        assert [(c.guest, c.epoch, c.touched) for c in forgotten(site.memory, "c1", site.spec)] == [("alice", 4, False)]
        assert spent(site.memory, "c1") == ["c1", "c1/alice"]


def test_after_a_reinstall_its_guests_are_made_anew() -> None:
    site = a_host(students_disk("alice", 4))
    site.observe(seen("c1", [students_disk("alice", 4)], [running("alice")]))
    site.reinstall("c1", {"alice": 4})
    done = [action.kind for action in site.settle()]
    assert done == ["install", "set-up-network", "fetch-image", "create-volume", "contextualize", "start-guest"]
    assert site.live("alice") == {"c1": 5}
    assert site.memory.consents == {}


@pytest.mark.parametrize(
    ("change", "again"),
    [({"system": "newer"}, True), ({"mac": "52:54:00:00:00:99"}, True), ({"cores": 9}, False)],
)
def test_an_install_that_failed_is_tried_again_when_the_spec_says_otherwise(
    change: dict[str, object], again: bool
) -> None:
    old = an_installable(a_spec(ONE))
    new = an_installable(a_spec(ONE), **change)
    assert (SUBJECT in mended(old, new, {SUBJECT: "disk-not-blank"})) is again


def test_a_block_of_an_install_needs_a_person() -> None:
    site = a_machine()
    assert site.plan("c1").stuck(site.memory)
    assert isinstance(site.decision("c1", SUBJECT), Block)
