"""Every rule of the spec, with the exact position of its finding and the words that help."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vcrecon.errors import SpecError
from vcrecon.spec.load import load

# file, text to replace, replacement, the text where the finding must point, words of the message
CASES = {
    "an unknown key": (
        "site.yaml",
        "stop_grace: 60s",
        "stop_gracee: 60s",
        "stop_gracee",
        "did you mean 'stop_grace'?",
    ),
    "an unknown nested key": ("clusters.yaml", "{count: 2,", "{cuont: 2,", "cuont", "did you mean 'count'?"),
    "a duplicate key": (
        "site.yaml",
        "  storage: thin",
        "  storage: thin\n  storage: thick",
        "storage: thick",
        "duplicate key 'storage'; also at site.yaml:",
    ),
    "a duplicate container": (
        "containers.yaml",
        "name: c03",
        "name: c02",
        "c02",
        "duplicate container name 'c02'; also at containers.yaml:",
    ),
    "a duplicate VLAN": (
        "site.yaml",
        "vlan: 900",
        "vlan: 101",
        '"[101-102]"',
        "is taken by 'outside'; also at site.yaml:",
    ),
    "overlapping subnets": (
        "clusters.yaml",
        "10.1.[1-2].0/24",
        "10.[200-201].0.0/16",
        "10.200.0.0/24",
        "overlaps 10.200.0.0/16 of 'a'; also at clusters.yaml:",
    ),
    "a subnet on the provisioning network": (
        "clusters.yaml",
        "10.1.[1-2].0/24",
        "10.[64-65].0.0/24",
        "10.[64",
        "overlaps 10.64.0.0/24 of the provisioning network",
    ),
    "host bits in a subnet": (
        "site.yaml",
        "10.200.0.0/24",
        "10.200.0.1/24",
        "10.200.0.1/24",
        "host bits set; write 10.200.0.0/24",
    ),
    "an address outside its subnet": (
        "clusters.yaml",
        "10.200.0.[11-12]",
        "10.201.0.[11-12]",
        "10.201",
        "address 10.201.0.11 is outside 10.200.0.0/24",
    ),
    "a network address": (
        "clusters.yaml",
        "10.200.0.[11-12]",
        "10.200.0.[0-1]",
        "10.200.0.[",
        "is the network address",
    ),
    "a broadcast address": (
        "clusters.yaml",
        "10.200.0.[11-12]",
        "10.200.0.[254-255]",
        "10.200.0.[",
        "is the broadcast address",
    ),
    "a gateway's address": (
        "clusters.yaml",
        "10.200.0.[11-12]",
        "10.200.0.[1-2]",
        "10.200.0.[",
        "is the gateway of 'outside'",
    ),
    "a service address in a subnet": (
        "site.yaml",
        "10.255.0.1",
        "10.1.1.77",
        "10.1.1.77",
        "service address 10.1.1.77 lies in 10.1.1.0/24 (a)",
    ),
    "an allow rule into a cluster": (
        "site.yaml",
        "192.0.2.0/24",
        "10.1.1.0/24",
        "10.1.1.0/24",
        "clusters must not reach each other",
    ),
    "an allow rule to the containers": (
        "site.yaml",
        "192.0.2.0/24",
        "10.64.0.11/32",
        "10.64.0.11",
        "guests must not reach containers",
    ),
    "an unknown image": (
        "clusters.yaml",
        "head: {memory",
        "head: {image: debain-12, memory",
        "template: head",
        "unknown image 'debain-12'; did you mean 'debian-12'?",
    ),
    "an unknown template": (
        "clusters.yaml",
        "template: node",
        "template: nod",
        "nod}",
        "unknown template 'nod'; did you mean 'node'?",
    ),
    "an unknown network": (
        "clusters.yaml",
        "outside:",
        "outsid:",
        "outsid:",
        "unknown network 'outsid'; did you mean 'outside'?",
    ),
    "an unknown container": (
        "deployment.yaml",
        "c03:",
        "c04:",
        "c04:",
        "unknown container 'c04'; did you mean",
    ),
    "an unknown guest": ("deployment.yaml", "a-n1", "a-n7", "a-n7", "unknown guest 'a-n7'; did you mean"),
    "an unknown cordoned container": (
        "deployment.yaml",
        "deployment:",
        "cordoned: [c9]\ndeployment:",
        "c9]",
        "unknown container 'c9'",
    ),
    "a guest on two containers": (
        "deployment.yaml",
        "[b-head,",
        "[a-head, b-head,",
        "a-head, b-head",
        "placed twice; also at deployment.yaml:",
    ),
    "a guest on no container": (
        "deployment.yaml",
        ", b-n1]",
        "]",
        "deployment:",
        "guest 'b-n1' (clusters.yaml:",
    ),
    "too little memory": (
        "containers.yaml",
        "memory: 6GiB",
        "memory: 1GiB",
        "c01:",
        "need 1.5GiB of memory, it has 1GiB",
    ),
    "too little disk": (
        "containers.yaml",
        "disk: 60GiB",
        "disk: 11GiB",
        "c01:",
        "need 14GiB of disk, golden images included, it has 11GiB",
    ),
    "a VLAN above 4094": ("site.yaml", "vlan: 900", "vlan: 4095", "4095", "VLAN id 4095 is outside 1..4094"),
    "a VLAN below 1": ("clusters.yaml", "[101-102]", "[0-1]", '"[0-1]', "VLAN id 0 is outside 1..4094"),
    "a length mismatch": (
        "clusters.yaml",
        "[101-102]",
        "[101-103]",
        '"[101',
        "has 3 values and name '[a-b]' has 2 values",
    ),
    "a name that is no label": ("containers.yaml", "name: c03", "name: C_3", "C_3", "is not a host label"),
    "a name in capitals": ("containers.yaml", "name: c03", "name: C03", "C03", "write 'c03'"),
    "a name of 64 letters": ("containers.yaml", "name: c03", "name: " + "c" * 64, "c" * 64, "1 to 63 of a-z"),
    "a bad digest": ("images.yaml", "sha256: 5d", "sha256: zz", "zz", "expected 64 hexadecimal digits"),
    "a bad scheme": ("images.yaml", "http://", "ftp://", "ftp://", "begins with http:// or https://"),
    "a password in a URL": (
        "images.yaml",
        "http://",
        "http://me:secret@",
        "http://me",
        "must not hold a user or password",
    ),
    "an ambiguous size": (
        "images.yaml",
        "2GiB",
        "2GB",
        "2GB",
        "ambiguous size '2GB': units are KiB, MiB, GiB, TiB; write 2GiB?",
    ),
    "no memory at all": ("clusters.yaml", "memory: 512MiB", "memory: 0", "0, disk", "is below 32MiB"),
    "a size without a unit": ("containers.yaml", "6GiB", "6", "6   ", "is a unit missing"),
    "an image larger than the disk": (
        "clusters.yaml",
        "disk: 4GiB",
        "disk: 1GiB",
        "{count: 2",
        "is smaller than image 'debian-12', 2GiB",
    ),
    "a long interface name": (
        "containers.yaml",
        "trunk: eno1",
        "trunk: enp129s0f0np0xyz",
        "enp129",
        "too long: Linux allows 15",
    ),
    "a volume group LVM refuses": ("containers.yaml", "vg0", "-vg", "-vg", "not a name that LVM takes"),
    "a hypervisor nobody has": (
        "containers.yaml",
        "hypervisor: xen",
        "hypervisor: zen",
        "zen",
        "did you mean 'xen'?",
    ),
    "a container off the provisioning network": (
        "containers.yaml",
        "10.64.0.13",
        "10.65.0.13",
        "10.65.0.13",
        "outside the provisioning network 10.64.0.0/24",
    ),
    "two containers at one address": (
        "containers.yaml",
        "10.64.0.13",
        "10.64.0.12",
        "10.64.0.12,",
        "is that of 'c02'; also at containers.yaml:",
    ),
    "a bad tag": (
        "site.yaml",
        "site: small",
        "site: !!python/name:os.system x",
        "!!python",
        "is not allowed here",
    ),
    "a merge key": ("site.yaml", "  storage: thin", "  <<: {storage: thin}", "<<", "use a template instead"),
    "a second document": ("site.yaml", "session:", "---\nsession:", "---", "second document"),
    "broken YAML": ("site.yaml", "mirror: {", "mirror: {{", "{address", "a key must be a word"),
    "a line indented with a tab": ("deployment.yaml", "  c01: [", "\tc01: [", "\tc01", "with blanks, not with a tab"),
    "a missing password file": (
        "site.yaml",
        "secrets/root.hash",
        "secrets/none.hash",
        "template: head\n      net",
        "password file 'secrets/none.hash': no such file",
    ),
    "a missing required key": (
        "site.yaml",
        "provisioning:\n  network: 10.64.0.0/24",
        "provisioning: {}",
        "{}",
        "the key 'network' is missing in 'provisioning'",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_told_with_its_place_and_remedy(small, name: str) -> None:
    file, old, new, anchor, words = CASES[name]
    small.replace(file, old, new)
    found = small.findings()
    target = next(f for f in (file, "clusters.yaml", "deployment.yaml", "site.yaml") if anchor in small.read(f))
    expected = small.where(target, anchor) + ": error: "
    matching = [finding for finding in found if words in finding]
    assert any(finding.startswith(expected) for finding in matching), f"{expected}\n" + "\n".join(found)


def test_the_shipped_spec_has_no_findings(small) -> None:
    assert small.findings() == []


def test_many_mistakes_in_many_files_are_told_at_once(small) -> None:
    small.replace("site.yaml", "stop_grace", "stop_gracee")
    small.replace("images.yaml", "sha256: 5d", "sha256: zz")
    small.replace("containers.yaml", "name: c03", "name: c02")
    small.replace("clusters.yaml", "[101-102]", "[0-1]")
    small.replace("deployment.yaml", "c03:", "c99:")
    files = {finding.partition(":")[0] for finding in small.findings()}
    assert files == {"site.yaml", "images.yaml", "containers.yaml", "clusters.yaml"}, small.findings()


def test_a_head_that_shares_a_container_with_its_node_is_a_warning(small) -> None:
    small.replace("deployment.yaml", "a-head, b-n2", "a-head, a-n2")
    small.replace("deployment.yaml", "b-head, a-n2", "b-head, b-n2")
    place = small.where("deployment.yaml", "c01:")
    assert any(f.startswith(f"{place}: warning: head 'a-head' shares 'c01'") for f in small.findings())
    assert load(small.path).spec.placement["a-n2"] == "c01"


def test_a_pinned_guest_elsewhere_is_an_error(small) -> None:
    small.replace("clusters.yaml", "      template: head", "      template: head\n      pinned: c03")
    expected = small.where("deployment.yaml", "a-head") + ": error: guest 'a-head' is pinned to 'c03'"
    assert any(finding.startswith(expected) for finding in small.findings())


@pytest.mark.parametrize("key", ["mac", "ip"])
def test_a_mac_or_address_used_twice_is_an_error(small, key: str) -> None:
    other = {"mac": "mac: 52:54:00:06:50:01, vlan: 101, ip: 10.1.1.77", "ip": "vlan: 101, ip: 10.1.1.1/24"}[key]
    small.append("clusters.yaml", f"guests:\n  - {{name: x, template: head, interfaces: [{{{other}}}]}}\n")
    small.replace("deployment.yaml", "a-head", "x, a-head")
    expected = small.where("clusters.yaml", other.rpartition("ip: ")[2]) + ": error: "
    assert any(f.startswith(expected) and "taken by 'a-head'; also at clusters" in f for f in small.findings())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "site.yaml:0:0: error: the file is empty"),
        (b"# nothing\n", "site.yaml:0:0: error: the file is empty"),
        (b"site: \xff\n", "site.yaml:1:7: error: byte 0xff is not UTF-8"),
        (b"a: 1\nb: \0\n", "site.yaml:2:4: error: the file holds a NUL byte"),
        (b"a: 1\rb: \xff\n", "site.yaml:2:4: error: byte 0xff is not UTF-8"),
        (b"a: 1\xe2\x80\xa8b: \0\n", "site.yaml:2:4: error: the file holds a NUL byte"),
        (b"a: 1\r\n\tb: 1\rc: 2\n", "site.yaml:2:"),
        (b"x" * ((4 << 20) + 1), "site.yaml:0:0: error: the file is larger than 4 MiB"),
        (b"[" * 5000, "site.yaml:1:25: error: nested deeper than 24 levels"),
        (b"- 1\n", "site.yaml:1:1: error: the file: expected a mapping of keys and values, found a list"),
        (b"? [a]\n: 1\n", "site.yaml:1:3: error: a key must be a word"),
        (b"a: &a [*a]\n", "site.yaml:1:8: error: the alias *a stands inside its own anchor"),
        (b"a: *b\n", "site.yaml:1:4: error: the alias *b has no anchor"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_spec_are_told_as_such(small, content: bytes, words: str) -> None:
    small.write("site.yaml", content)
    assert any(finding.startswith(words) for finding in small.findings()), small.findings()


def test_a_yaml_bomb_is_refused_before_it_expands(small) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    small.write("site.yaml", "\n".join(levels) + "\n")
    assert any("more than 400,000 values, what aliases stand for included" in f for f in small.findings())


def test_a_missing_file_is_named_with_the_one_that_may_be_meant(small) -> None:
    (small.path / "images.yaml").rename(small.path / "images.yml")
    assert small.findings() == ["images.yaml:0:0: error: the file is missing; is 'images.yml' meant?"]


def test_a_fifo_in_the_place_of_a_file_does_not_block(small) -> None:
    (small.path / "images.yaml").unlink()
    os.mkfifo(small.path / "images.yaml")
    assert small.findings() == ["images.yaml:0:0: error: cannot be read: not a regular file"]


def test_a_missing_and_an_empty_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="not a spec directory"):
        load(tmp_path / "none")
    with pytest.raises(SpecError, match="no spec files here"):
        load(tmp_path)


def test_a_file_that_is_no_hash_is_refused_without_its_content(small) -> None:
    small.write("secrets/root.hash", "hunter2\n")
    found = small.findings()
    assert any("does not hold one crypt(3) hash" in finding for finding in found)
    assert "hunter2" not in "".join(found)


def test_a_file_without_a_last_newline_is_a_warning(small) -> None:
    small.write("site.yaml", small.read("site.yaml").rstrip())
    assert len(small.findings()) == 1
    assert "half-written" in small.findings()[0]


def test_an_empty_deployment_loads_for_placing_only(small) -> None:
    (small.path / "deployment.yaml").unlink()
    assert load(small.path, require_placement=False).spec.placement == {}
    with pytest.raises(SpecError, match=r"deployment\.yaml:0:0: error: the file is missing"):
        load(small.path)
