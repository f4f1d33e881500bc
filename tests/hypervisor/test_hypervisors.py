"""virsh and xl: parsers on their real output, definitions accepted by the real libvirt, guards in real sh."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

import pytest
from worlds import a_guest

from vcrecon.core.observation import Domain
from vcrecon.hypervisor import HYPERVISORS
from vcrecon.hypervisor.base import Launch, Port
from vcrecon.hypervisor.kvm import Kvm, domain_xml
from vcrecon.hypervisor.xen import Xen, config

GOLDEN = Path(__file__).parents[1] / "golden"
DEFINITION = "d" * 32
UUID = "00000000-0000-4000-8000-000000000001"
PORTS = (
    Port("52:54:00:00:01:01", "vcbr101", "vcg0123456789ab"),
    Port("52:54:00:00:02:01", "vcbr200", "vcgba9876543210"),
)
LAUNCH = Launch(
    a_guest("alice"),
    "lab",
    UUID,
    DEFINITION,
    "/dev/vg/vcg-alice",
    PORTS,
    "root=/dev/vda rw",
    "/images/kernel",
    "/images/initrd",
)


def golden(name: str) -> str:
    return (GOLDEN / name).read_text(encoding="utf-8")


MARK_OF_ALICE = next(line for line in golden("xl-marks.txt").splitlines() if "/alice.cfg:" in line)


class TestVirshParser:
    def domains(self, site: str = "lab") -> tuple[Domain, ...]:
        return Kvm().parse([golden("virsh-list-title.txt"), golden("virsh-domstats-state.txt")], site, "boot")

    def test_only_domains_with_the_mark_of_this_site_are_ours(self) -> None:
        assert [d.guest for d in self.domains()] == ["alice", "a-head.x", "bob"]
        assert [(d.guest, d.state) for d in self.domains("elsewhere")] == [("other", "paused")]

    def test_all_others_are_strangers(self) -> None:
        answers = [golden("virsh-list-title.txt"), golden("virsh-domstats-state.txt")]
        third_site = {"teacher", "a-head", "a-n1", "b-n1"}
        assert Kvm().strangers(answers, "lab") == {"test", "other"} | third_site
        assert Kvm().strangers(answers, "elsewhere") == {"test", "alice", "a-head.x", "bob"} | third_site

    def test_a_running_domain_has_a_serial_and_a_stopped_one_a_reason(self) -> None:
        assert self.domains() == (
            Domain("alice", "running", "boot/9", "", DEFINITION),
            Domain("a-head.x", "off", "", "destroyed", DEFINITION),
            Domain("bob", "off", "", "crashed", DEFINITION),
        )

    @pytest.mark.parametrize(
        ("said", "state", "reason"),
        [
            ("in shutdown", "stopping", ""),
            ("pmsuspended", "paused", ""),
            ("crashed", "off", "crashed"),
            ("dying", "stopping", ""),
            ("idle", "running", ""),
        ],
    )
    def test_states_of_virsh(self, said: str, state: str, reason: str) -> None:
        (domain,) = Kvm().parse([f" 7   alice   {said}   vcrecon site=lab def=x", ""], "lab", "boot")
        assert (domain.state, domain.reason) == (state, reason)

    @pytest.mark.parametrize("number", range(9))
    def test_every_reason_of_libvirt_has_a_name(self, number: int) -> None:
        stats = f"Domain: 'alice'\n  state.state=5\n  state.reason={number}\n"
        (domain,) = Kvm().parse([" -   alice   shut off   vcrecon site=lab def=x", stats], "lab", "boot")
        assert domain.reason

    @pytest.mark.parametrize(
        "said", ["error: failed to connect to the hypervisor", " 1   alice   unheard-of   vcrecon"]
    )
    def test_an_error_message_is_not_an_empty_list(self, said: str) -> None:
        with pytest.raises(ValueError, match="virsh list said"):
            Kvm().parse([said, ""], "lab", "boot")


class TestConsole:
    def test_each_hypervisor_joins_a_terminal_to_the_guest(self) -> None:
        assert {name: h.console("alice") for name, h in HYPERVISORS.items()} == {
            "kvm": "virsh console alice",
            "xen": "xl console alice",
        }

    @pytest.mark.parametrize(
        ("told", "given"),
        [
            ("root=/dev/vda rw console=ttyS0", "root=/dev/xvda rw console=hvc0"),
            ("console=ttyS0,115200n8 quiet", "console=hvc0 quiet"),
            ("console=ttyS0,115200 console=tty0", "console=hvc0 console=tty0"),
            ("console=ttyS01 console=hvc0", "console=ttyS01 console=hvc0"),
        ],
    )
    def test_a_xen_guest_is_told_its_own_name_of_the_serial_console(self, told: str, given: str) -> None:
        assert f'cmdline = "{given}"\n' in config(replace(LAUNCH, cmdline=told))


class TestXlParser:
    def domains(self, site: str = "lab") -> dict[str, Domain]:
        found = Xen().parse([golden("xl-list-v.txt"), golden("xl-marks.txt"), golden("xl-logs.txt")], site, "boot")
        return {d.guest: d for d in found}

    def test_states(self) -> None:
        assert {name: d.state for name, d in self.domains().items()} == {
            "alice": "running",
            "bob": "stopping",
            "carol": "stopping",
            "dave": "paused",
            "erin": "off",
        }

    def test_domains_without_our_mark_and_marks_of_another_site_are_strangers(self) -> None:
        answers = [golden("xl-list-v.txt"), golden("xl-marks.txt"), ""]
        assert Xen().strangers(answers, "lab") == {
            *("Domain-0", "not-ours", "frank"),
            *("a-n2", "cf-a", "odd-xen"),  # others that were on the container
        }

    def test_why_a_domain_is_off_is_the_last_word_of_its_log(self) -> None:
        assert self.domains()["erin"].reason == "shutdown"
        assert self.domains()["alice"].reason == "", "it runs: its log tells of a reboot"

    @pytest.mark.parametrize(("code", "reason"), [(0, "shutdown"), (1, "rebooted"), (3, "crashed"), (9, "unknown")])
    def test_every_code_of_xen_has_a_reason(self, code: int, reason: str) -> None:
        log = f"/var/log/xen/xl-alice.log:Domain 5 has shut down, reason code {code} 0x{code:x}\n"
        head, mark = golden("xl-list-v.txt").splitlines()[0], MARK_OF_ALICE
        (domain,) = Xen().parse([head, mark, log], "lab", "boot")
        assert domain.reason == reason

    def test_a_nameless_domain_that_is_torn_down_still_uses_its_disk(self) -> None:
        assert self.domains()["carol"].active

    def test_a_new_domain_counts_more_than_the_one_torn_down_before_it(self) -> None:
        row = f"{{name:<40}} 9 512 1     {{flags}}  0.1 {UUID}  - -\n"
        head = golden("xl-list-v.txt").splitlines()[0] + "\n"
        mark = MARK_OF_ALICE
        rows = [row.format(name="(null)", flags="--ps-d"), row.format(name="alice", flags="-b----")]
        for order in (rows, rows[::-1]):
            (domain,) = Xen().parse([head + "".join(order), mark, ""], "lab", "boot")
            assert domain.state == "running"

    def test_marks_of_another_site_are_not_ours(self) -> None:
        assert list(self.domains("elsewhere")) == ["frank"]

    def test_a_domain_with_our_uuid_has_a_serial_and_its_definition(self) -> None:
        assert self.domains()["alice"] == Domain("alice", "running", "boot/48", "", DEFINITION)

    @pytest.mark.parametrize("listing", ["", "xl: cannot open /dev/xen/privcmd", golden("xl-list-v.txt")[:300]])
    def test_anything_else_than_a_list_is_an_error(self, listing: str) -> None:
        with pytest.raises(ValueError, match="xl list said"):
            Xen().parse([listing, "", ""], "lab", "boot")


class TestDomainXml:
    @pytest.mark.parametrize(
        "launch",
        [
            LAUNCH,
            replace(LAUNCH, kernel=None, initrd=None),
            replace(LAUNCH, cmdline="a='<&>\"'"),
            replace(LAUNCH, ports=()),
        ],
    )
    def test_libvirts_own_schema_accepts_it(
        self, launch: Launch, program: Callable[[str], str], tmp_path: Path
    ) -> None:
        file = tmp_path / "domain.xml"
        file.write_text(domain_xml(launch))
        said = subprocess.run(
            [program("virt-xml-validate"), file, "domain"], capture_output=True, text=True, check=False
        )
        assert said.returncode == 0, said.stderr

    def test_it_says_what_the_spec_says(self) -> None:
        root = ElementTree.fromstring(domain_xml(LAUNCH))
        assert root.findtext("memory") == str(1024**3)
        assert [i.find("target").get("dev") for i in root.iter("interface")] == [p.tap for p in PORTS]  # type: ignore[union-attr]
        assert root.findtext("os/cmdline") == "root=/dev/vda rw"
        assert {root.findtext(tag) for tag in ("on_poweroff", "on_crash")} == {"destroy"}

    def test_odd_characters_survive(self) -> None:
        odd = "console=ttyS0 x='<&>\"'"
        assert ElementTree.fromstring(domain_xml(replace(LAUNCH, cmdline=odd))).findtext("os/cmdline") == odd

    def test_real_libvirt_shows_our_mark_back(self, program: Callable[[str], str], tmp_path: Path) -> None:
        file = tmp_path / "domain.xml"
        file.write_text(domain_xml(LAUNCH).replace("type='kvm'", "type='test'", 1))
        script = f"define {file}\nlist --all --title\nstart alice\nlist --all --title\ndomstats --state\n"
        said = subprocess.run(
            [program("virsh"), "-q", "-c", "test:///default"], input=script, capture_output=True, text=True, check=True
        ).stdout
        parts = [part.partition("\n") for part in said.split("virsh # ")]
        listings = [rest for command, _, rest in parts if command.startswith("list")]
        stats = next(rest for command, _, rest in parts if command.startswith("domstats"))
        (before,) = Kvm().parse([listings[0], ""], "lab", "boot")
        (after,) = Kvm().parse([listings[1], stats], "lab", "boot")
        assert (before.state, before.definition) == ("off", DEFINITION)
        assert (after.state, after.serial) == ("running", "boot/2")


class TestXenConfig:
    def test_its_first_line_is_the_mark_that_the_parser_reads(self) -> None:
        first = config(LAUNCH).splitlines()[0]
        head = golden("xl-list-v.txt").splitlines()[0]
        (domain,) = Xen().parse([head, f"/run/vcrecon/xen/alice.cfg:{first}", ""], "lab", "boot")
        assert domain == Domain("alice", "off", definition=DEFINITION)

    def test_it_says_what_the_spec_says(self) -> None:
        text = config(LAUNCH)
        assert "memory = 1024\n" in text
        assert "disk = ['phy:/dev/vg/vcg-alice,xvda,w']\n" in text
        assert "vifname=vcg0123456789ab" in text
        assert 'cmdline = "root=/dev/xvda rw"\n' in text

    @pytest.mark.parametrize("part", [0, 40, -7], ids=["nothing", "some", "all but the last word"])
    def test_a_definition_that_was_cut_off_replaces_nothing(self, tmp_path: Path, part: int) -> None:
        lines, stdin = Xen().define(LAUNCH)
        script = "set -eu\n" + "\n".join(lines).replace("/run/vcrecon/xen", str(tmp_path))
        whole = subprocess.run(["sh", "-c", script], input=stdin, check=False)
        assert (whole.returncode, (tmp_path / "alice.cfg").read_bytes()) == (0, stdin)
        cut = subprocess.run(["sh", "-c", script], input=stdin[:part], capture_output=True, check=False)
        assert cut.returncode == 1
        assert b"cut off on its way" in cut.stderr
        assert (tmp_path / "alice.cfg").read_bytes() == stdin


class TestRequireOff:
    """Real sh, with a stub of the hypervisor's tool: a disk is only touched when its guest is proved off."""

    def status(self, hypervisor: str, tool: str, tmp_path: Path) -> int:
        binary = tmp_path / ("virsh" if hypervisor == "kvm" else "xl")
        binary.write_text(f"#!/bin/sh\n{tool}\n")
        binary.chmod(0o755)
        script = "set -eu\n" + "\n".join(HYPERVISORS[hypervisor].require_off("alice", 77))
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        return subprocess.run(["sh", "-c", script], env=environment, stderr=-3, check=False).returncode

    RUNS: ClassVar = {"kvm": "printf 'bob\\nalice\\n\\n'", "xen": "echo 'Name  ID'; echo 'alice   3  512'"}
    OFF: ClassVar = {"kvm": "printf 'bob\\nalice2\\nmy-alice\\n\\n'", "xen": "echo 'Name  ID'; echo 'alice2  3  512'"}

    @pytest.mark.parametrize("hypervisor", ["kvm", "xen"])
    def test_refuses_while_the_guest_runs(self, hypervisor: str, tmp_path: Path) -> None:
        assert self.status(hypervisor, self.RUNS[hypervisor], tmp_path) == 77

    @pytest.mark.parametrize("hypervisor", ["kvm", "xen"])
    def test_goes_on_when_it_does_not(self, hypervisor: str, tmp_path: Path) -> None:
        assert self.status(hypervisor, self.OFF[hypervisor], tmp_path) == 0

    @pytest.mark.parametrize("hypervisor", ["kvm", "xen"])
    def test_a_tool_that_does_not_answer_is_not_taken_for_off(self, hypervisor: str, tmp_path: Path) -> None:
        assert self.status(hypervisor, "echo 'error: failed to connect' >&2; exit 1", tmp_path) == 1
