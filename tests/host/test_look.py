"""From the output of the real tools to facts; from garbage to Transient or UNKNOWN, never to absence."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcrecon.core.observation import ALL_PARTS, UNKNOWN, Domain, Part, Seen
from vcrecon.errors import Transient
from vcrecon.host.look import parse, parse_lvm, parse_network, script
from vcrecon.host.names import bridge_mac
from vcrecon.hypervisor import HYPERVISORS
from vcrecon.hypervisor.kvm import Kvm
from vcrecon.hypervisor.xen import Xen
from vcrecon.spec.model import Container

GOLDEN = Path(__file__).parents[1] / "golden"
BOOT_ID = "5b6f8f2e-95d1-4a41-9d0c-9f4f1a1f2b3c"
C1 = Container("c1", "c1.example", 22, "kvm", 2**35, 8, 2**39, "eno1", "vg", "pool", "1")
GIB = 1024**3
EXTENT = 4 * 1024**2


def golden(name: str) -> str:
    return (GOLDEN / name).read_text(encoding="utf-8")


def sections(**changes: str | None) -> str:
    """The whole output of a look; a section given as None ends with status 1, one given as "" is left out."""
    outputs = {
        "boot": BOOT_ID,
        "release": "hypervisor=kvm\ngeneration=7",
        "memory": "MemTotal:       32768000 kB",
        "images": "a" * 64 + "\n" + "b" * 64,
        "lvm": golden("lvm-fullreport.json"),
        "address": golden("ip-addr.json"),
        "route": golden("ip-route.json"),
        "firewall": "abc 123",
        "rules": "123  -",
        "answers": golden("ping.txt"),
    }
    text = ""
    for name, output in (outputs | changes).items():
        if output != "":
            text += f"@@ {name}\n{output or 'cannot'}\n@@ = {1 if output is None else 0}\n"
    return text


VIRSH = [golden("virsh-list-title.txt"), golden("virsh-domstats-state.txt")]


def looked(
    text: str, answers: list[str] | None = VIRSH, before: Seen | None = None, stderr: str = "", parts=ALL_PARTS
) -> Seen:  # type: ignore[no-untyped-def]
    return parse(
        text, answers, container=C1, site="lab", parts=parts, hypervisor=Kvm(), before=before, at_s=1.0, stderr=stderr
    )


class TestWholeLook:
    def test_everything_is_learned_in_one_go(self) -> None:
        seen = looked(sections())
        assert seen.trouble is None
        assert (seen.boot_id, seen.memory_bytes) == (BOOT_ID, 32768000 * 1024)
        assert seen.release == {"hypervisor": "kvm", "generation": "7"}
        assert seen.images == {"a" * 64, "b" * 64}
        assert seen.answers == {"10.1.1.11"}
        assert UNKNOWN not in (seen.storage, seen.network, seen.domains, seen.release)

    def test_a_host_without_a_release_file_was_not_installed_by_us(self) -> None:
        assert looked(sections(release="absent")).release is None

    def test_a_cheap_look_keeps_the_other_facts(self) -> None:
        full = looked(sections())
        cheap = looked(f"@@ boot\n{BOOT_ID}\n@@ = 0\n", ["", ""], before=full, parts={Part.GUESTS})
        assert (cheap.storage, cheap.network, cheap.domains) == (full.storage, full.network, ())

    def test_a_rebooted_host_keeps_nothing(self) -> None:
        full = looked(sections())
        other = looked(
            f"@@ boot\n{BOOT_ID[::-1].replace('-', '0')[:36]:0<36}\n@@ = 0\n",
            ["", ""],
            before=full,
            parts={Part.GUESTS},
        )
        assert (other.storage, other.network) == (UNKNOWN, UNKNOWN)

    @pytest.mark.parametrize(
        "noise", ["", "Last login: today\n", "sh: not found\n", "@@ boot\nno\n@@ = 0\n", "@@ boot\n" + BOOT_ID]
    )
    def test_output_of_something_else_is_no_observation(self, noise: str) -> None:
        with pytest.raises(Transient) as caught:
            looked(noise)
        assert caught.value.kind == "garbage"


class TestPartsThatFail:
    @pytest.mark.parametrize(
        ("section", "part", "field"),
        [
            ("memory", "system", "release"),
            ("lvm", "storage", "storage"),
            ("address", "network", "network"),
            ("route", "network", "network"),
        ],
    )
    @pytest.mark.parametrize("output", [None, "", "{", "garbage"])
    def test_a_failed_part_is_unknown_and_the_rest_is_known(
        self, section: str, part: str, field: str, output: str | None
    ) -> None:
        seen = looked(sections(**{section: output}), stderr="lvm: File descriptor 7 leaked on lvm\ncannot do it\n")
        assert getattr(seen, field) is UNKNOWN
        assert seen.trouble == {part: "cannot do it"}
        assert sum(f is UNKNOWN for f in (seen.release, seen.storage, seen.network, seen.domains)) == 1

    @pytest.mark.parametrize(
        ("section", "field"), [("release", "release"), ("firewall", "network"), ("rules", "network")]
    )
    @pytest.mark.parametrize("output", [None, ""])
    def test_a_part_whose_command_failed_is_unknown(self, section: str, field: str, output: str | None) -> None:
        assert getattr(looked(sections(**{section: output})), field) is UNKNOWN

    def test_a_silent_hypervisor_leaves_the_domains_unknown(self) -> None:
        seen = looked(sections(), None)
        assert seen.domains is UNKNOWN
        assert seen.trouble == {"guests": "kvm does not answer"}

    def test_what_was_known_before_is_unknown_after_a_failed_look(self) -> None:
        before = looked(sections())
        assert looked(sections(lvm=None), before=before).storage is UNKNOWN
        assert looked(sections(), None, before=before).domains is UNKNOWN

    @pytest.mark.parametrize(
        ("section", "part", "program", "package"),
        [("lvm", "storage", "lvm", "lvm2"), ("address", "network", "ip", "iproute2")],
    )
    def test_a_missing_program_is_named_with_its_package(
        self, section: str, part: str, program: str, package: str
    ) -> None:
        text = sections().replace(f"@@ {section}\n", f"@@ {section}\n@@ = 127\n@@ dropped\n")
        seen = looked(text, stderr=f"sh: 9: eval: {program}: not found\nsomething of another part\n")
        assert seen.missing == {part: program}
        assert seen.trouble is not None
        assert f"c1 has no {program}: `apt-get install {package}" in seen.trouble[part]
        assert looked(sections(), before=seen).missing is None, "installed meanwhile"

    @pytest.mark.parametrize("shell", ["sh: 1: virsh: not found", "bash: line 1: virsh: command not found"])
    def test_a_missing_virsh_is_known_from_what_the_shell_said(self, shell: str) -> None:
        said = f"c1 (c1.example): `virsh -q` ended with status 127: {shell}"
        seen = parse(
            sections(), None, container=C1, site="lab", parts=ALL_PARTS, hypervisor=Kvm(), before=None, at_s=1.0,
            tool_said=said,
        )  # fmt: skip
        assert seen.missing == {"guests": "virsh"}

    def test_a_virsh_that_fails_is_not_missing(self) -> None:
        said = "c1: `virsh -q` ended with status 1: error: Failed to connect socket: No such file or directory"
        seen = parse(
            sections(), None, container=C1, site="lab", parts=ALL_PARTS, hypervisor=Kvm(), before=None, at_s=1.0,
            tool_said=said,
        )  # fmt: skip
        assert seen.missing is None
        assert seen.trouble is not None
        assert "Failed to connect socket" in seen.trouble["guests"]

    def test_trouble_ends_when_the_part_answers_again(self) -> None:
        before = looked(sections(lvm=None), None)
        assert before.trouble is not None
        assert looked(sections(), before=before).trouble is None

    @pytest.mark.parametrize("loaded", ["abc 999", "", "abc"])
    def test_rules_that_are_not_what_was_applied_have_no_digest(self, loaded: str) -> None:
        assert looked(sections(firewall=loaded or "\n")).network.firewall == ""  # type: ignore[union-attr]
        assert looked(sections()).network.firewall == "abc"  # type: ignore[union-attr]


WHOLE = sections()


@given(st.integers(0, len(WHOLE)))
def test_output_cut_off_anywhere_raises_nothing_but_transient(length: int) -> None:
    try:
        seen = looked(WHOLE[:length])
    except Transient:
        return
    whole = looked(WHOLE)
    for field in ("storage", "network", "release"):
        assert getattr(seen, field) in (UNKNOWN, getattr(whole, field))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["report", "vg", "lv", "vg_name", "lv_name", "lv_tags", "ifname", "dst", "linkinfo"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(
    section=st.sampled_from(["lvm", "address", "route", "rules", "firewall", "memory", "images", "release"]),
    value=json_values,
)
def test_valid_json_of_another_shape_raises_nothing(section: str, value: object) -> None:
    looked(sections(**{section: json.dumps(value)}))


@given(st.text(max_size=200), st.text(max_size=200))
def test_garbage_raises_nothing_but_transient(text: str, answer: str) -> None:
    looked(sections(lvm=text or "x", address=text or "x", rules=text or "x"), [answer, text])
    with pytest.raises(Transient, match="c1 answered something else"):
        looked(text)


@given(st.lists(st.text(max_size=80), min_size=2, max_size=2), st.sampled_from(["kvm", "xen"]))
def test_garbage_of_a_hypervisor_is_a_value_error_or_nothing(answers: list[str], name: str) -> None:
    with contextlib.suppress(ValueError):
        HYPERVISORS[name].parse(answers, "lab", BOOT_ID)


class TestLvm:
    storage = parse_lvm(golden("lvm-fullreport.json"), "vg", "pool", "lab")

    def test_room(self) -> None:
        assert self.storage.group_free_bytes == 749 * EXTENT
        assert (self.storage.pool_bytes, self.storage.pool_data_percent, self.storage.pool_metadata_percent) == (
            2 * GIB,
            7.81,
            13.09,
        )
        assert self.storage.pool_free_bytes == int(2 * GIB * (1 - 7.81 / 100))

    def test_only_volumes_with_the_mark_of_this_site_are_ours(self) -> None:
        assert [v.name for v in self.storage.volumes] == [
            "vcg-alice",
            "vcg-bob",
            "vcg-carol",
            "vcg-thick",
            "vcq-alice-1",
        ]
        assert self.storage.strangers == {"vcg-foreign", "vcg-unmarked"}
        assert self.storage.goldens == {"c" * 64}

    def test_a_live_disk_with_its_witnesses(self) -> None:
        alice = self.storage.volumes[0]
        assert (alice.guest, alice.epoch, alice.boots, alice.touched, alice.live) == ("alice", 2, 3, True, True)
        assert (alice.image, alice.context) == ("c" * 64, "e" * 32)
        assert (alice.size_bytes, alice.used_bytes) == (GIB, GIB // 16)

    def test_unfinished_proved_kept_and_held_ones(self) -> None:
        _, bob, carol, thick, old = self.storage.volumes
        assert (bob.incoming, bob.copy_of) == (True, None)
        assert (carol.incoming, carol.copy_of) == (True, (3, 4))
        assert (old.quarantined, old.live, old.epoch) == ("rebuilt", False, 1)
        assert (thick.held, thick.used_bytes) == (True, GIB)

    def test_a_group_that_is_not_there(self) -> None:
        assert not parse_lvm(golden("lvm-fullreport.json"), "gone", "pool", "lab").group_present

    def test_of_two_tags_left_by_a_cut_off_step_the_greater_counts(self) -> None:
        text = golden("lvm-fullreport.json").replace("vc.boots=3,", "vc.boots=3,vc.boots=12,")
        assert parse_lvm(text, "vg", "pool", "lab").volumes[0].boots == 12

    def test_volumes_named_like_ours_without_the_mark_are_strangers(self) -> None:
        text = golden("lvm-fullreport.json").replace("vc.site=lab,", "")
        assert text != golden("lvm-fullreport.json")
        lost = parse_lvm(text, "vg", "pool", "lab")
        assert lost.volumes == ()
        assert {"vcg-alice", "vcq-alice-1"} <= lost.strangers
        assert "root" not in lost.strangers


class TestNetwork:
    facts = parse_network(golden("ip-addr.json"), golden("ip-route.json"), "lab")

    def test_only_bridges_with_the_mark_of_this_site_are_ours(self) -> None:
        assert set(self.facts.bridges) == {101}

    @pytest.mark.parametrize(("address", "ours"), [(bridge_mac(7), {7}), ("02:11:22:33:44:55", set())])
    def test_a_bridge_that_was_cut_off_before_it_had_its_alias_is_known_by_its_address(
        self, address: str, ours: set[int]
    ) -> None:
        link = {"ifname": "vcbr7", "flags": ["BROADCAST"], "address": address, "addr_info": []}
        assert set(parse_network(json.dumps([link]), "[]", "lab").bridges) == ours
        assert parse_network(json.dumps([link | {"ifalias": "vcrecon other"}]), "[]", "lab").bridges == {}

    def test_a_complete_bridge(self) -> None:
        bridge = self.facts.bridges[101]
        assert (bridge.up, bridge.trunked) == (True, True)
        assert (bridge.addresses, bridge.routes) == ({"192.0.2.1/32"}, {"10.1.1.0/24"})

    def test_a_port_without_a_bridge_is_loose(self) -> None:
        assert self.facts.loose == {"vcgdeadbeef0000"}

    @pytest.mark.parametrize(("old", "new"), [('"id":101', '"id":102'), ('"info_kind":"vlan"', '"info_kind":"veth"')])
    def test_a_wrong_vlan_link_is_not_trunked(self, old: str, new: str) -> None:
        text = golden("ip-addr.json")
        assert old in text
        assert not parse_network(text.replace(old, new), "[]", "lab").bridges[101].trunked


class TestScript:
    def test_virsh_is_asked_through_the_resident_tool_and_xl_in_the_script(self) -> None:
        assert "virsh" not in script(ALL_PARTS, Kvm())
        assert "xl list -v" in script(ALL_PARTS, Xen())

    def test_a_cheap_look_starts_no_expensive_tool(self) -> None:
        cheap = script({Part.GUESTS, Part.ANSWERS}, Kvm(), [("10.1.1.11", 101)])
        assert [tool for tool in ("lvm", "ip -j", "nft") if tool in cheap] == []
        assert "ping -c 1 -W 1 -n -q -I vcbr101 10.1.1.11 &" in cheap

    def test_domains_of_xen_come_from_the_script(self) -> None:
        text = sections(guests0=golden("xl-list-v.txt"), guests1=golden("xl-marks.txt"), guests2=golden("xl-logs.txt"))
        seen = parse(text, None, container=C1, site="lab", parts=ALL_PARTS, hypervisor=Xen(), before=None, at_s=1.0)
        assert isinstance(seen.domains, tuple)
        assert Domain("alice", "running", f"{BOOT_ID}/48", "", "d" * 32) in seen.domains

    def test_xl_that_fails_leaves_the_domains_unknown(self) -> None:
        text = sections(guests0=None, guests1=golden("xl-marks.txt"))
        seen = parse(text, None, container=C1, site="lab", parts=ALL_PARTS, hypervisor=Xen(), before=None, at_s=1.0)
        assert seen.domains is UNKNOWN
