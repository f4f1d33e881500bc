"""What the lab is made of, without a lab: plans, command lines, the bound spec, frames."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vcrecon.errors import Refused
from vcrecon.lab import breakage, inside, lab, machine, network
from vcrecon.lab.bind import write_specs
from vcrecon.lab.images import ContainerImage
from vcrecon.lab.layout import PROVISIONING, Files, MachinePlan
from vcrecon.lab.recipes import CONTAINER, GUEST
from vcrecon.lab.vlan_port import tagged, untagged
from vcrecon.spec.load import load

LAB = Path(__file__).parents[2] / "specs" / "lab"
SMALL = Path(__file__).parents[2] / "specs" / "small"
SHA = "ab" * 32
ARTIFACTS = {part: (f"http://198.18.0.2:8080/{part}", SHA) for part in ("root", "kernel", "initrd")}
C01 = MachinePlan("c01", 0, "kvm", 1536, 24 * 1024**3, "vg0", "guests")
C03 = replace(C01, name="c03", number=2, hypervisor="xen")
IMAGE = ContainerImage(Path("disk.raw"), Path("vmlinuz"), Path("initrd"), Path("xen"))


@pytest.mark.parametrize("source", [LAB, SMALL], ids=["specs/lab", "specs/small"])
def test_a_bound_spec_is_valid_and_leads_to_the_lab(tmp_path: Path, source: Path) -> None:
    spec = load(source).spec
    plans = lab._lay_out(source, accelerated=False).machines
    target = tmp_path / "specs"
    write_specs(source, target, site="lab-1", machines=plans, artifacts=ARTIFACTS, public_key="ssh-ed25519 AAAA lab")
    bound = load(target).spec
    assert bound.site.name == "lab-1"
    assert bound.placement == spec.placement
    assert {c.name: c.address for c in bound.containers.values()} == {p.name: p.address for p in plans}
    assert {c.name: c.hypervisor for c in bound.containers.values()} == {
        c.name: c.hypervisor for c in spec.containers.values()
    }
    assert all(container.trunk == "eth1" for container in bound.containers.values())
    assert all("ssh-ed25519 AAAA lab" in guest.authorized_keys for guest in bound.guests.values())
    assert {image.root.url for image in bound.images.values()} == {"http://198.18.0.2:8080/root"}
    assert (source / "site.yaml").read_text().splitlines()[0] == (target / "site.yaml").read_text().splitlines()[0]


def test_machines_have_addresses_and_macs_of_their_own() -> None:
    plans = [replace(C01, number=number) for number in range(20)]
    for field in ("address", "provisioning_mac", "trunk_mac", "provisioning_tap", "trunk_tap"):
        assert len({getattr(plan, field) for plan in plans}) == 20
    assert all(plan.address.startswith(PROVISIONING.removesuffix("0/24")) for plan in plans)


def test_a_xen_container_boots_xen_with_linux_as_its_module(tmp_path: Path) -> None:
    command = machine.command(C03, IMAGE, Files(tmp_path), accelerated=False)
    assert command[command.index("-kernel") + 1] == "xen"
    assert command[command.index("-initrd") + 1].startswith("vmlinuz console=hvc0 root=/dev/vda")
    assert command[command.index("-initrd") + 1].endswith(",initrd")
    assert "dom0_mem=1024M" in command[command.index("-append") + 1]


def test_an_emulated_machine_has_the_processor_that_was_proved(tmp_path: Path) -> None:
    for plan in (C01, C03):
        command = machine.command(plan, IMAGE, Files(tmp_path), accelerated=False)
        assert command[command.index("-accel") + 1].startswith("tcg,thread=single")
        assert "-smap,-smep" in command[command.index("-cpu") + 1]
        assert command[command.index("-smp") + 1] == "1"
        assert "kvm" in machine.command(plan, IMAGE, Files(tmp_path), accelerated=True)


def test_the_seed_holds_its_files_with_their_modes() -> None:
    archive = machine.seed({"etc/hostname": (b"c01\n", 0o644), "etc/key": (b"secret", 0o600)})
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert {info.name: info.mode for info in tar} == {"etc/hostname": 0o644, "etc/key": 0o600}


def test_an_edited_recipe_is_another_image() -> None:
    assert CONTAINER.digest != GUEST.digest
    assert replace(GUEST, packages=(*GUEST.packages, "vim")).digest != GUEST.digest
    assert replace(GUEST).digest == GUEST.digest


class TestVlanPort:
    FRAME = bytes(range(12)) + b"\x08\x00" + b"payload of an IPv4 packet"

    def test_a_frame_keeps_everything_but_the_tag(self) -> None:
        assert untagged(tagged(self.FRAME, 900), 900) == self.FRAME

    def test_the_tag_is_802_1q(self) -> None:
        assert tagged(self.FRAME, 900)[12:16] == b"\x81\x00\x03\x84"

    @pytest.mark.parametrize("frame", [FRAME, tagged(FRAME, 101), b"short"], ids=["untagged", "other VLAN", "runt"])
    def test_other_frames_do_not_come_out(self, frame: bytes) -> None:
        assert untagged(frame, 900) is None

    def test_priority_bits_do_not_hide_the_vlan(self) -> None:
        frame = tagged(self.FRAME, 900)
        assert untagged(frame[:14] + bytes([frame[14] | 0xE0]) + frame[15:], 900) == self.FRAME


class TestRefusals:
    """Each says what to type."""

    @pytest.mark.parametrize(
        "ask",
        [
            lambda files: lab.status(files),
            lambda files: inside.ssh_command("c01", [], files),
            lambda files: breakage.break_it("reset", "c01", files),
        ],
        ids=["status", "ssh", "break"],
    )
    def test_without_a_lab(self, tmp_path: Path, ask: Callable[[Files], object]) -> None:
        with pytest.raises(Refused, match="vcrecon lab up"):
            ask(Files(tmp_path))

    def test_an_unknown_breakage(self, tmp_path: Path) -> None:
        with pytest.raises(Refused, match="vcrecon lab break"):
            breakage.break_it("hammer", "c01", Files(tmp_path))

    def test_a_breakage_without_a_victim_gives_an_example(self, tmp_path: Path) -> None:
        with pytest.raises(Refused, match="vcrecon lab break kill a-head"):
            breakage.break_it("kill", "", Files(tmp_path))

    def test_a_name_that_is_neither_container_nor_guest(self, tmp_path: Path) -> None:
        files = Files(tmp_path)
        shutil.copytree(LAB, files.specs)
        files.plan.write_text('{"site": "lab-1", "accelerated": false, "machines": []}')
        with pytest.raises(Refused, match="there are c01, c02, c03, c04, a-head"):
            inside.ssh_command("c99", [], files)

    def test_a_machine_that_is_off(self, tmp_path: Path) -> None:
        assert not machine.is_on("c01", Files(tmp_path))
        with pytest.raises(Refused, match="c01 is off"):
            machine.ask("c01", Files(tmp_path), "system_reset")

    def test_a_failing_tool_is_quoted(self) -> None:
        with pytest.raises(Refused, match="No such file"):
            network.run("ls", "/nowhere/at/all")


def test_a_guest_is_reached_by_way_of_its_container(tmp_path: Path) -> None:
    files = Files(tmp_path)
    shutil.copytree(LAB, files.specs)
    plans = lab._lay_out(LAB, accelerated=False)
    lab.write_plan(plans, files)
    assert lab.read_plan(files) == plans
    command = inside.ssh_command("a-n2", ["hostname"], files)
    assert command[-2:] == ["root@10.1.1.12", "hostname"]
    assert any("root@198.18.0.13" in word and word.startswith("ProxyCommand=") for word in command)
