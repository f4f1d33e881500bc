"""The commands on containers as machines: what they say, what they ask, what reaches the service, what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest
from fake_site import NOW_S, FakeControls, Type, a_container, a_found_container, a_status, blocked

SYSTEMS = """
systems:
  debian-kvm:
    root: {url: "http://10.64.0.1:8067/images/debian-kvm.tar.zst", sha256: %s}
""" % ("e" * 64)
MAC = "52:54:00:00:00:09"


@pytest.fixture(autouse=True)
def _ann(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ann")


class TestReinstall:
    def test_says_what_is_lost_and_asks(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        controls.machine = a_found_container(guests=["a-head", "a-n1"], touched=["a-head"])
        result = vcrecon("reinstall", "c01", "--give-up", "a-head", "--state", state)
        assert result.code == 1
        assert "Students' work that you give up: a-head" in result.out
        assert "Guests without work there, made anew: a-n1" in result.out
        assert "needs your word" in result.err
        assert controls.asked == []

    def test_reaches_the_service_with_the_names(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        controls.machine = a_found_container(guests=["a-head", "a-n1"], touched=["a-head", "a-n1"])
        named = ("--give-up", "a-head", "--give-up", "guest/a-n1")
        result = vcrecon("reinstall", "c01", *named, "--yes", "--state", state)
        assert result.code == 0
        assert controls.asked == [("reinstall", "c01", ["a-head", "a-n1"], "ann")]
        assert "c01 is installed anew" in result.out

    def test_is_refused_while_work_is_there(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        controls.machine = a_found_container(guests=["a-head"], touched=["a-head"])
        result = vcrecon("reinstall", "c01", "--yes", "--state", state)
        assert result.code == 1
        assert "Take it away first: `vcrecon evacuate c01`" in result.err
        assert "vcrecon reinstall c01 --give-up a-head" in result.err
        assert controls.asked == []

    def test_can_be_taken_back(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        result = vcrecon("reinstall", "c01", "--cancel", "--state", state)
        assert (result.out, controls.asked) == ("c01 stays as it is\n", [("cancel-reinstall", "c01", "ann")])

    def test_warns_of_what_is_not_known(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        controls.machine = a_found_container(looked_at=False, reachable=False)
        result = vcrecon("reinstall", "c01", "--yes", "--state", state)
        assert "disks kept aside there are not known" in result.out

    def test_a_name_that_is_none_is_refused(self, vcrecon: Type, state: Path) -> None:
        assert "the site has no object 'container/c1'" in vcrecon("reinstall", "c1", "--state", state).err


class TestFence:
    @pytest.fixture(autouse=True)
    def _power(self, controls: FakeControls) -> None:
        silent = a_container("c01", reachable=False, power="redfish", blocked=blocked("timeout", "no answer"))
        controls.site = a_status([silent, a_container("c02")])

    def test_uses_the_power_control(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        result = vcrecon("fence", "c01", "--yes", "--state", state)
        assert (result.code, controls.asked) == (0, [("power-fence", "c01", "ann")])
        assert result.out.endswith("c01 was switched off\n")

    def test_asks_before_it_does(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        result = vcrecon("fence", "c01", "--state", state)
        assert (result.code, controls.asked) == (1, [])
        assert "Guests that may still run there: a-head" in result.out

    def test_confirmed_stays_the_persons_word(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        assert vcrecon("fence", "c01", "--confirmed", "--state", state).code == 0
        assert controls.asked == [("fence", "c01", "ann")]


class TestAdopt:
    @pytest.fixture
    def adopted(self, specs: Path) -> Path:
        with (specs / "images.yaml").open("a") as images:
            images.write(SYSTEMS)
        return specs

    def test_writes_the_next_name_and_address_and_keeps_the_rest(self, vcrecon: Type, adopted: Path) -> None:
        before = (adopted / "containers.yaml").read_text()
        result = vcrecon("adopt", MAC.upper(), "--yes", "--specs", adopted)
        assert result.code == 0, result.err
        entry = f"  - {{name: c04, address: 10.64.0.14, mac: {MAC}, system: debian-kvm}}\n"
        assert (adopted / "containers.yaml").read_text() == before + entry
        assert vcrecon("check", adopted).code == 0

    def test_takes_what_the_person_says(self, vcrecon: Type, adopted: Path) -> None:
        said = ("--name", "rack9", "--address", "10.64.0.99", "--system", "debian-kvm")
        assert vcrecon("adopt", MAC, *said, "--yes", "--specs", adopted).code == 0
        assert "{name: rack9, address: 10.64.0.99," in (adopted / "containers.yaml").read_text()

    def test_a_dry_run_writes_nothing(self, vcrecon: Type, adopted: Path) -> None:
        before = (adopted / "containers.yaml").read_text()
        result = vcrecon("adopt", MAC, "--dry-run", "--specs", adopted)
        assert "+  - {name: c04" in result.out
        assert (adopted / "containers.yaml").read_text() == before

    def test_an_entry_that_would_make_the_spec_bad_is_not_written(self, vcrecon: Type, adopted: Path) -> None:
        before = (adopted / "containers.yaml").read_text()
        result = vcrecon("adopt", MAC, "--address", "10.64.0.11", "--yes", "--specs", adopted)
        assert "address 10.64.0.11 of 'c04' is that of 'c01'" in result.err
        assert (adopted / "containers.yaml").read_text() == before

    def test_a_machine_that_is_a_container_already_is_refused(self, vcrecon: Type, adopted: Path) -> None:
        vcrecon("adopt", MAC, "--yes", "--specs", adopted)
        assert f"{MAC} is c04 already" in vcrecon("adopt", MAC, "--yes", "--specs", adopted).err

    def test_without_a_system_it_asks_for_one(self, vcrecon: Type, specs: Path) -> None:
        assert "say --system" in vcrecon("adopt", MAC, "--yes", "--specs", specs).err

    def test_a_mac_that_is_none_is_refused(self, vcrecon: Type, adopted: Path) -> None:
        assert "is not a MAC address" in vcrecon("adopt", "c04", "--yes", "--specs", adopted).err

    def test_a_comment_at_the_end_stays_at_the_end(self, vcrecon: Type, adopted: Path) -> None:
        path = adopted / "containers.yaml"
        path.write_text(path.read_text() + "# the last word\n")
        vcrecon("adopt", MAC, "--yes", "--specs", adopted)
        assert path.read_text().endswith("system: debian-kvm}\n# the last word\n")

    def test_entries_over_several_lines_are_no_hindrance(self, vcrecon: Type, adopted: Path) -> None:
        path = adopted / "containers.yaml"
        flow = "  - {name: c03, address: 10.64.0.13, hypervisor: xen}\n"
        block = "  - name: c03\n    address: 10.64.0.13\n    hypervisor: xen   # the old one\n"
        path.write_text(path.read_text().replace(flow, block))
        assert vcrecon("adopt", MAC, "--yes", "--specs", adopted).code == 0
        assert f"# the old one\n  - {{name: c04, address: 10.64.0.14, mac: {MAC}" in path.read_text()


class TestStatus:
    INSTALLING: ClassVar = {
        "step": "download", "percent": 43.2, "bytes_done": 1, "bytes_total": 2, "message": "", "eta_s": 61.0,
        "since_s": NOW_S - 45, "system": "debian-kvm", "wipe": False,
    }  # fmt: skip

    def test_shows_installs_and_the_queue(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        queued = {"step": "queued", "place": 1, "of": 2, "begins_in_s": 90.0}
        controls.site = a_status(
            [
                a_container("c01", state="installing", reachable=False, install=self.INSTALLING),
                a_container("c02", state="pxe", reachable=False, install=queued),
            ]
        )
        out = vcrecon("status", "--state", state).out
        assert "download 43 %, about 60 s left, for 45 s" in out
        assert "waits for its install: place 1 of 2, begins in about 2 min" in out
        assert "2 to install" in out
        assert "unreachable" not in out

    def test_shows_strangers_and_what_to_type(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        stranger = {
            "mac": MAC, "address": "10.64.0.200", "at_s": NOW_S - 5, "since_s": NOW_S - 600, "platform": "efi",
            "serial": "S1",
        }  # fmt: skip
        controls.site = a_status(strangers=[stranger])
        out = vcrecon("status", "--state", state).out
        assert "Strangers that booted from the network (1):" in out
        assert f"`vcrecon adopt {MAC}` makes it a container" in out
        found = json.loads(vcrecon("status", "--json", "--state", state).out)
        assert found["strangers"] == [stranger]

    def test_shows_what_ails_the_boot_services(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        controls.site = a_status(boot={"mode": "managed", "problem": "another DHCP server answers on eno2"})
        assert "Boot services: another DHCP server answers on eno2" in vcrecon("status", "--state", state).out
