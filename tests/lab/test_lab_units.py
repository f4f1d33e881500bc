"""What the lab is made of, without a lab: plans, command lines, the bound spec, frames."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vcrecon.boot.images import description
from vcrecon.cli import lab_bare_metal
from vcrecon.errors import Refused
from vcrecon.lab import boot_files, breakage, inside, lab, layout, machine, network, spare
from vcrecon.lab.bind import offer_installs, write_specs
from vcrecon.lab.images import ContainerImage
from vcrecon.lab.layout import PROVISIONING, Files, MachinePlan, SparePlan
from vcrecon.lab.recipes import CONTAINER, GUEST
from vcrecon.lab.vlan_port import tagged, untagged
from vcrecon.spec.adopt import adopt
from vcrecon.spec.load import load

LAB = Path(__file__).parents[2] / "specs" / "lab"
SMALL = Path(__file__).parents[2] / "specs" / "small"
SHA = "ab" * 32
ARTIFACTS = {part: (f"http://198.18.0.2:8080/{part}", SHA) for part in ("root", "kernel", "initrd")}
C01 = MachinePlan("c01", 0, "kvm", 1536, 24 * 1024**3, "vg0", "guests")
C03 = replace(C01, name="c03", number=2, hypervisor="xen")
SPARE2 = SparePlan("spare2", 5, 2)
IMAGE = ContainerImage(Path("disk.raw"), Path("vmlinuz"), Path("initrd"), Path("xen"))


def _bind(source: Path, target: Path, plans: tuple[MachinePlan, ...]) -> None:
    write_specs(source, target, site="lab-1", machines=plans, artifacts=ARTIFACTS, public_key="ssh-ed25519 AAAA lab")


@pytest.mark.parametrize("source", [LAB, SMALL], ids=["specs/lab", "specs/small"])
def test_a_bound_spec_is_valid_and_leads_to_the_lab(tmp_path: Path, source: Path) -> None:
    spec = load(source).spec
    plans = lab._lay_out(source, accelerated=False).machines
    target = tmp_path / "specs"
    _bind(source, target, plans)
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


class TestBareMetal:
    """A lab with --bare-metal can install machines, and installs nothing by itself."""

    @pytest.fixture
    def specs(self, tmp_path: Path) -> Path:
        _bind(LAB, tmp_path / "specs", lab._lay_out(LAB, accelerated=False).machines)
        offer_installs(tmp_path / "specs", tmp_path / "boot", SHA)
        return tmp_path / "specs"

    def test_vcrecon_serves_the_labs_own_network(self, specs: Path) -> None:
        provisioning = load(specs).spec.site.provisioning
        assert (provisioning.mode, provisioning.interface) == ("managed", layout.VETH)
        assert (provisioning.address, provisioning.strangers) == (layout.THIS_MACHINE, layout.STRANGERS)
        assert provisioning.images == specs.parent / "boot"

    def test_none_of_the_labs_own_containers_can_be_installed(self, specs: Path) -> None:
        containers = load(specs).spec.containers.values()
        assert {(container.mac, container.system) for container in containers} == {(None, None)}

    def test_a_spare_is_adopted_by_name_address_and_system(self, specs: Path) -> None:
        entry = SparePlan("spare1", 4, 1)
        mac, address = entry.provisioning_mac, entry.address
        adopt(specs, mac, name="c05", address=address, template=None, system=boot_files.SYSTEM).write()
        found = load(specs).spec
        assert found.containers["c05"].memory_bytes < entry.memory_mib * 1024**2
        assert found.containers["c05"].disk_bytes + found.containers["c05"].layout.root_bytes < entry.disk_bytes
        assert found.systems[boot_files.SYSTEM].root.url == "http://198.18.0.1:8067/images/system-kvm.tar.zst"
        assert found.containers["c05"].trunk == "eth1"
        assert "net.ifnames=0" in found.systems[boot_files.SYSTEM].cmdline

    def test_an_image_that_is_named_already_is_not_named_again(self, specs: Path) -> None:
        before = [(specs / name).stat().st_mtime_ns for name in ("images.yaml", "site.yaml")]
        offer_installs(specs, specs.parent / "boot", SHA)
        assert [(specs / name).stat().st_mtime_ns for name in ("images.yaml", "site.yaml")] == before
        offer_installs(specs, specs.parent / "boot", "cd" * 32)
        assert load(specs).spec.systems[boot_files.SYSTEM].root.sha256 == "cd" * 32


class TestBootFiles:
    def test_without_a_build_it_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(Refused, match="lab up --bare-metal"):
            boot_files.lay(tmp_path / "cache", Files(tmp_path / "lab"))

    def test_what_the_cache_has_is_given_as_plain_files(self, tmp_path: Path) -> None:
        files, source = Files(tmp_path / "lab"), tmp_path / "cache" / boot_files.DIRECTORY
        names = (*boot_files.INSTALLER, boot_files.system_file(source).name)
        for name in names:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_text(name)
        found = boot_files.lay(tmp_path / "cache", files)
        assert found == hashlib.sha256(names[-1].encode()).hexdigest()
        for name in names:
            assert (files.boot / name).read_text() == name
            assert not (files.boot / name).is_symlink(), "the boot server serves nothing outside its directory"

    def test_a_file_that_was_built_anew_takes_the_old_ones_place(self, tmp_path: Path) -> None:
        files, source = Files(tmp_path / "lab"), tmp_path / "cache" / boot_files.DIRECTORY
        system = boot_files.system_file(source)
        for text in ("first", "second"):
            source.mkdir(parents=True, exist_ok=True)
            system.unlink(missing_ok=True)
            system.write_text(text)
            boot_files.lay(tmp_path / "cache", files)
            assert boot_files.system_file(files.boot).read_text() == text


class TestSpares:
    def test_by_default_there_are_one_with_a_disk_and_one_with_two_alike(self) -> None:
        found = spare.lay_out((), {"c01": 0, "c02": 1}, bios=2, uefi=0)
        assert [(plan.name, plan.number, plan.disks) for plan in found] == [("spare1", 2, 1), ("spare2", 3, 2)]

    def test_asking_for_more_keeps_those_that_there_are(self) -> None:
        first = spare.lay_out((), {"c01": 0}, bios=2, uefi=0)
        more = spare.lay_out(first, {"c01": 0}, bios=2, uefi=1)
        assert more[:2] == first
        assert [(plan.name, plan.number, plan.firmware) for plan in more[2:]] == [("spare3", 3, "uefi")]
        assert spare.lay_out(more, {"c01": 0}, bios=0, uefi=0) == more, "none is ever taken away"

    def test_a_container_keeps_its_name(self) -> None:
        assert [plan.name for plan in spare.lay_out((), {"spare1": 0}, bios=1, uefi=0)] == ["spare2"]

    def test_its_disks_are_blank_and_take_no_space(self, tmp_path: Path) -> None:
        files = Files(tmp_path)
        spare.prepare(SPARE2, files)
        for disk in spare.disks(SPARE2, files):
            assert (disk.stat().st_size, disk.stat().st_blocks) == (SPARE2.disk_bytes, 0)

    def test_preparing_it_again_keeps_what_was_installed(self, tmp_path: Path) -> None:
        files = Files(tmp_path)
        spare.prepare(SPARE2, files)
        spare.disks(SPARE2, files)[0].write_text("a system")
        spare.prepare(SPARE2, files)
        assert spare.disks(SPARE2, files)[0].read_text() == "a system"

    def test_it_boots_from_its_disks_and_then_from_the_network(self, tmp_path: Path) -> None:
        command = spare.command(SPARE2, Files(tmp_path), accelerated=False)
        assert _boot_order(command) == ["drive=disk1", "drive=disk2", "netdev=provisioning"]
        assert not {"-kernel", "-initrd"} & set(command)
        assert any(word.startswith("reboot-timeout=") for word in command), "it asks again"

    def test_its_network_boot_is_not_taken_away_as_the_other_machines_is(self, tmp_path: Path) -> None:
        own = [word for word in spare.command(SPARE2, Files(tmp_path), accelerated=False) if "netdev=" in word]
        assert [word.endswith("romfile=") for word in own] == [False, True], "the trunk's has none"
        others = machine.command(C01, IMAGE, Files(tmp_path), accelerated=False)
        assert all("romfile=" in word for word in others if "netdev=" in word)

    def test_the_network_comes_first_when_a_person_says_so(self, tmp_path: Path) -> None:
        files = Files(tmp_path)
        spare.prepare(SPARE2, files)
        spare.boot_order(SPARE2, files, network_first=True)
        assert _boot_order(spare.command(SPARE2, files, accelerated=False))[0] == "netdev=provisioning"
        spare.boot_order(SPARE2, files, network_first=False)
        assert _boot_order(spare.command(SPARE2, files, accelerated=False))[-1] == "netdev=provisioning"

    def test_a_disk_is_taken_out_and_put_back(self, tmp_path: Path) -> None:
        files = Files(tmp_path)
        spare.prepare(SPARE2, files)
        spare.move_disk(SPARE2, files, 1, out=True)
        assert _boot_order(spare.command(SPARE2, files, accelerated=False))[0] == "drive=disk2"
        spare.move_disk(SPARE2, files, 1, out=False)
        assert _boot_order(spare.command(SPARE2, files, accelerated=False))[:2] == ["drive=disk1", "drive=disk2"]

    def test_a_disk_that_it_does_not_have_cannot_be_taken_out(self, tmp_path: Path) -> None:
        with pytest.raises(Refused, match="no disk 3; its disks are 1 to 2"):
            spare.move_disk(SPARE2, Files(tmp_path), 3, out=True)

    def test_a_lab_of_before_has_none(self, tmp_path: Path) -> None:
        (tmp_path / "lab.json").write_text('{"site": "lab-1", "accelerated": false, "machines": []}')
        assert lab.read_plan(Files(tmp_path)).spares == ()

    def test_its_host_key_is_the_one_that_vcrecon_made(self, tmp_path: Path) -> None:
        files = Files(tmp_path)
        plan = lab.Plan("lab-1", False, (C01,), (SPARE2,))
        lab.write_plan(plan, files)
        assert lab.read_plan(files) == plan
        command = inside.ssh_command("spare2", ["hostname"], files)
        assert command[-2:] == [f"root@{SPARE2.address}", "hostname"]
        assert any(word.startswith(f"UserKnownHostsFile={plan.record}/known_hosts ") for word in command)

    @pytest.mark.parametrize("what", ["pull-disk", "push-disk", "boot-network", "boot-disk"])
    def test_only_a_spare_machine_has_disks_and_firmware_to_play_with(self, tmp_path: Path, what: str) -> None:
        files = Files(tmp_path)
        lab.write_plan(lab.Plan("lab-1", False, (C01,), (SPARE2,)), files)
        with pytest.raises(Refused, match=r"c01 is no spare machine.*there are spare2"):
            breakage.break_it(what, "c01", files)


class TestBareMetalBuilds:
    """`vcrecon lab up --bare-metal`, as far as it goes without building."""

    def test_the_system_is_a_kvm_container_that_the_lab_knows_by_name(self) -> None:
        recipe = lab_bare_metal.system_recipe()
        assert (recipe.name, recipe.kind, recipe.hypervisor) == (boot_files.SYSTEM, "container", "kvm")
        assert set(CONTAINER.units_masked) <= set(recipe.units_masked)

    def test_an_image_counts_as_built_only_while_recipe_and_file_are_the_same(self, tmp_path: Path) -> None:
        recipe, system = lab_bare_metal.system_recipe(), boot_files.system_file(tmp_path)
        assert not lab_bare_metal.is_current(tmp_path, recipe), "nothing is there"
        system.write_text("an image")
        root = description.digest_of(system)
        found = description.Description(
            recipe.name, recipe.kind, root, "", "built", hypervisor="kvm", recipe_sha256=recipe.digest
        )
        found.write(tmp_path)
        assert lab_bare_metal.is_current(tmp_path, recipe)
        assert not lab_bare_metal.is_current(tmp_path, replace(recipe, packages=(*recipe.packages, "vim")))
        system.write_text("a cut-off image")
        assert not lab_bare_metal.is_current(tmp_path, recipe)


def _boot_order(command: list[str]) -> list[str]:
    """The devices that the firmware tries, the first one first, each by the first of its properties."""
    found = []
    for word in command:
        properties = dict(part.partition("=")[::2] for part in word.split(","))
        if "bootindex" in properties:
            found.append((int(properties["bootindex"]), word.split(",")[1]))
    return [name for _, name in sorted(found)]


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
        assert command[command.index("-accel") + 1].startswith("tcg,thread=multi")
        assert "-smap,-smep" in command[command.index("-cpu") + 1]
        assert command[command.index("-smp") + 1] == "1,maxcpus=2"
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


def test_a_login_that_outlived_its_lab_counts_as_a_process_of_the_lab(tmp_path: Path) -> None:
    key, other = tmp_path / "client_key", tmp_path / "other_key"
    sleep = ["ssh", "-c", "import time; time.sleep(60)", "-i"]
    with (
        subprocess.Popen([*sleep, str(key)], executable=sys.executable) as login,
        subprocess.Popen([*sleep, str(other)], executable=sys.executable) as elsewhere,
    ):
        try:
            assert network._logins(key) == [login.pid]
        finally:
            login.kill()
            elsewhere.kill()
