"""Provisioning, systems, and machines' MACs, disks and power: what they become, and what is wrong with them where."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vcrecon.spec.load import load
from vcrecon.spec.model import Build, DiskLayout, DiskMatch, Power, Provisioning, Spec
from vcrecon.spec.text import json_schema

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "spec.md").read_text()


def documented(file: str) -> str:
    (found,) = re.findall(rf"```yaml\n# in {file}, to install containers\n(.*?)```", DOCUMENT, re.DOTALL)
    return str(found)


@pytest.fixture
def bare(small):
    """The small site, with what docs/spec.md says of installs."""
    small.replace("site.yaml", re.search(r"provisioning:\n.*\n", small.read("site.yaml"))[0], documented("site.yaml"))  # type: ignore[index]
    small.append("images.yaml", documented("images.yaml"))
    small.write("containers.yaml", documented("containers.yaml"))
    for name in ("bmc", "bmc-ca.pem"):
        small.write(f"secrets/{name}", "user:password\n")
        (small.path / "secrets" / name).chmod(0o600)
    return small


def spec_of(directory) -> Spec:
    loaded = load(directory.path)
    assert loaded.warnings == ()
    return loaded.spec


def test_the_documented_site_can_be_installed(bare) -> None:
    spec = spec_of(bare)
    assert spec.site.provisioning == Provisioning(
        "10.64.0.0/24",
        "managed",
        "eno2",
        "10.64.0.1",
        8067,
        "10.64.0.254",
        ("10.64.0.1",),
        ("10.64.0.200", "10.64.0.250"),
        Path("/var/lib/vcrecon/images"),
        1800.0,
        bare.path / "secrets/root.hash",
        "no_timer_check",
    )
    assert spec.systems["debian-kvm"].hypervisor == "kvm"
    assert [(c.mac, c.system) for c in spec.containers.values()] == [
        (f"52:54:00:00:00:0{n}", "debian-kvm") for n in (1, 2, 3)
    ]


def test_disks_and_power_are_taken_field_by_field_from_the_nearest_place(bare) -> None:
    first, second, third = spec_of(bare).containers.values()
    secrets = bare.path / "secrets"
    assert first.power == Power("redfish", "https://10.65.0.11", secrets / "bmc", secrets / "bmc-ca.pem")
    assert second.power.address == "https://10.65.0.12"
    assert third.power == Power("manual")
    match = (DiskMatch("SAMSUNG*", "*", 200 << 30),)
    assert first.layout == DiskLayout(match, "auto", 8 << 30, 0)
    assert third.layout == DiskLayout(match, "mirror", 8 << 30, 0)


def test_a_site_without_any_of_it_is_as_before(small) -> None:
    spec = load(small.path).spec
    assert spec.site.provisioning == Provisioning("10.64.0.0/24")
    assert {(c.mac, c.system, c.power) for c in spec.containers.values()} == {(None, None, Power("manual"))}
    assert spec.systems == {}


def test_builds_are_read_and_are_no_part_of_what_the_site_should_be(bare) -> None:
    spec = spec_of(bare)
    firmware = ("main", "non-free-firmware")
    assert spec.builds == {
        "debian-kvm": Build("debian-kvm", "container", "kvm", "bookworm", firmware, ("firmware-bnx2", "htop")),
        "debian-12": Build("debian-12", "guest", packages=("openmpi-bin",)),
        "installer": Build("installer", "installer", components=firmware, packages=("firmware-bnx2",)),
    }
    bare.replace("images.yaml", "packages: [openmpi-bin]", "packages: htop")
    assert spec_of(bare) == spec
    assert spec_of(bare).builds["debian-12"].packages == ("htop",)


def test_what_an_install_needs_is_part_of_the_digest(bare) -> None:
    before = spec_of(bare).digest
    bare.replace("images.yaml", "6d7f7d", "7d7f7d")
    assert spec_of(bare).digest != before


# file, text to replace, replacement, the text where the finding must point, words of the message
CASES = {
    "a mode that is none": ("site.yaml", "mode: managed", "mode: manged", "manged", "did you mean 'managed'?"),
    "managed without an interface": (
        "site.yaml", "  interface: eno2\n", "", "managed", "mode managed needs 'interface': the interface",
    ),
    "managed without an address": (
        "site.yaml", "  address: 10.64.0.1\n", "", "managed", "mode managed needs 'address': the master's own",
    ),
    "external without an address": (
        "site.yaml", "mode: managed\n  interface: eno2\n  address: 10.64.0.1\n", "mode: external\n", "external",
        "mode external needs 'address'",
    ),
    "a master off its network": (
        "site.yaml", "address: 10.64.0.1\n", "address: 10.66.0.1\n", "10.66.0.1",
        "the master's address 10.66.0.1 is not a host address of 10.64.0.0/24",
    ),
    "a gateway off the network": (
        "site.yaml", "10.64.0.254 ", "10.65.0.254 ", "10.65.0.254", "gateway 10.65.0.254 is not a host address",
    ),
    "a name server that is none": ("site.yaml", "dns: [10.64.0.1]", "dns: [ns1]", "ns1", "is not an IPv4 address"),
    "strangers among containers": (
        "site.yaml", "[10.64.0.200, 10.64.0.250]", "[10.64.0.13, 10.64.0.20]", "[10.64.0.13",
        "for strangers holds 10.64.0.13, of 'c03'; keep them apart",
    ),
    "strangers at the master's address": (
        "site.yaml", "[10.64.0.200, 10.64.0.250]", "[10.64.0.1, 10.64.0.2]", "[10.64.0.1, ", "the master's own",
    ),
    "strangers at the gateway's address": (
        "site.yaml", "[10.64.0.200, 10.64.0.250]", "[10.64.0.200, 10.64.0.254]", "[10.64.0.200", "the gateway's",
    ),
    "strangers upside down": (
        "site.yaml", "[10.64.0.200, 10.64.0.250]", "[10.64.0.250, 10.64.0.200]", "[10.64.0.250",
        "write the lower address first",
    ),
    "strangers off the network": (
        "site.yaml", "[10.64.0.200,", "[10.63.0.200,", "10.63.0.200", "stranger's address 10.63.0.200 is not a host",
    ),
    "a password file that is not there": (
        "site.yaml", "root_password: secrets/root.hash  # opt", "root_password: secrets/none.hash  # opt",
        "secrets/none.hash", "no such file",
    ),
    "a build of a kind that is none": (
        "images.yaml", "kind: guest", "kind: gest", "gest", "did you mean 'guest'?",
    ),
    "a component that the archive has not": (
        "images.yaml", "non-free-firmware], packages: [firmware-bnx2, htop]", "firmware]", "firmware]",
        "non-free-firmware",
    ),
    "a build without main": (
        "images.yaml", "[main, non-free-firmware], packages: [firmware-bnx2, htop]", "[non-free-firmware]",
        "[non-free-firmware]", "without 'main' there is no system to build",
    ),
    "packages in one word": (
        "images.yaml", "[openmpi-bin]", "'openmpi-bin, htop'", "'openmpi-bin, htop'", "give one package a line",
    ),
    "a package that would be an option": ("images.yaml", "[openmpi-bin]", "[--x]", "--x", "is not the name"),
    "a guest with a hypervisor": (
        "images.yaml", "kind: guest,", "kind: guest, hypervisor: xen,", "xen", "is not for one hypervisor"
    ),
    "a second installer": (
        "images.yaml", "  installer: {kind: installer", "  other: {kind: installer", "installer",
        "an installer is called 'installer'",
    ),
    "a suite that is none": ("images.yaml", "suite: bookworm", "suite: Book worm", "Book worm", "pattern"),
    "kernel words that iPXE would act on": (
        "site.yaml", "kernel_args: no_timer_check", "kernel_args: quiet ${x}", "quiet ${x}", "word for the kernel"
    ),
    "kernel words of vcrecon's own": (
        "site.yaml", "kernel_args: no_timer_check", "kernel_args: vcrecon.token=x", "vcrecon.token", "vcrecon itself"
    ),
    "a system that is none": (
        "containers.yaml", "system: debian-kvm", "system: debian-kmv", "name: \"c[01-02]\"",
        "unknown system 'debian-kmv'; did you mean 'debian-kvm'?",
    ),
    "a system of another hypervisor": (
        "containers.yaml", "disks: {raid: mirror}", "hypervisor: xen", "{name: c03",
        "system 'debian-kvm' is for kvm, and 'c03' is a xen container",
    ),
    "a system without a digest": ("images.yaml", "sha256: 6d7f", "sha266: 6d7f", "sha266", "did you mean 'sha256'?"),
    "too few MACs": (
        "containers.yaml", "[52:54:00:00:00:01, 52:54:00:00:00:02]", "[52:54:00:00:00:01]", "[52:54:00:00:00:01]",
        "1 MACs for 2 names",
    ),
    "mac and macs": (
        "containers.yaml", "    macs: [", "    mac: 52:54:00:00:00:09\n    macs: [", "[52:54", "either 'mac' or 'macs'",
    ),
    "a MAC that is none": (
        "containers.yaml", "mac: 52:54:00:00:00:03", "mac: 52:54:00:00:00:0g", "52:54:00:00:00:0g", "is not a MAC",
    ),
    "two machines with one MAC": (
        "containers.yaml", "mac: 52:54:00:00:00:03", "mac: 52:54:00:00:00:02", "52:54:00:00:00:02,",
        "MAC 52:54:00:00:00:02 of 'c03' is taken by 'c02'; also at containers.yaml:",
    ),
    "a guest with a container's MAC": (
        "containers.yaml", "mac: 52:54:00:00:00:03", "mac: 52:54:00:06:50:01", None,
        "MAC 52:54:00:06:50:01 of 'a-head' is taken by 'c03'; also at containers.yaml:",
    ),
    "redfish without credentials": (
        "containers.yaml", "credentials: secrets/bmc, ", "", "{address: \"https", "redfish needs 'credentials'",
    ),
    "power without a kind": (
        "containers.yaml", "power: {kind: redfish, ", "power: {", "{address: \"https", "power without 'kind'",
    ),
    "a Redfish address that is no URL": (
        "containers.yaml", "https://10.65.0.[11-12]", "10.65.0.[11-12]", "\"10.65.0", "redfish needs one such as https://",
    ),
    "a password in a URL": (
        "containers.yaml", "https://10.65.0.[", "https://root:calvin@10.65.0.[", "\"https://root",
        "a URL must not hold a user or password",
    ),
    "an IPMI address that is a URL": (
        "containers.yaml", "power: {kind: manual}", "power: {kind: ipmi, address: \"http://x\"}", "\"http://x\"",
        "ipmi needs a name or an address",
    ),
    "two containers at one switch": (
        "containers.yaml", "power: {kind: manual}", "power: {address: \"https://10.65.0.12\"}", "{address: \"https://10.65.0.12",
        "of 'c03' is that of 'c02'; also at containers.yaml:",
    ),
    "a disk that cannot fit": ("containers.yaml", "min: 200GiB", "min: 200GiB, max: 1GiB", None, "max is below min"),
    "a root that is too small": ("containers.yaml", "root: 8GiB", "root: 8MiB", "8MiB", "is below 1GiB"),
    "a RAID that is none": ("containers.yaml", "raid: auto", "raid: 5", "5,", "expected 'auto', 'mirror' or 'single'"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_what_is_wrong_is_told_with_its_place(bare, case: tuple[str, str, str, str | None, str]) -> None:
    file, old, new, place, words = case
    bare.replace(file, old, new)
    where = bare.where(file, place) + ": error: " if place else ""
    found = bare.findings()
    assert any(f.startswith(where) and words in f and "error:" in f for f in found), found


def test_a_password_file_that_others_may_read_is_warned_of(bare) -> None:
    (bare.path / "secrets" / "bmc").chmod(0o640)
    assert all("chmod 600 secrets/bmc" in finding and "warning" in finding for finding in bare.findings())
    assert bare.findings()


def test_credentials_and_certificates_that_are_not_there_are_warned_of(bare) -> None:
    for name in ("bmc", "bmc-ca.pem"):
        (bare.path / "secrets" / name).unlink()
    text = "\n".join(bare.findings())
    assert "'secrets/bmc' is not there: write user:password into it" in text
    assert "'secrets/bmc-ca.pem' is not there" in text
    assert "error" not in text


def test_dhcp_cannot_give_one_address_to_two_machines(bare) -> None:
    bare.replace("containers.yaml", "10.64.0.13,", "10.64.0.12, port: 2222,")
    assert any("DHCP cannot give 10.64.0.12 to both 'c02' and 'c03'" in finding for finding in bare.findings())


def test_the_json_schema_knows_the_fields() -> None:
    definitions = json_schema()["$defs"]
    assert {"mode", "strangers", "install_deadline"} <= definitions["ProvisioningText"]["properties"].keys()
    assert {"mac", "macs", "system", "disks", "power"} <= definitions["ContainerText"]["properties"].keys()
