"""What templates, ranges and single entries become, on the shipped specs and the examples of docs/spec.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vcrecon.spec.load import load
from vcrecon.spec.model import Spec
from vcrecon.spec.text import FILES, json_schema
from vcrecon.spec.values import derived_mac, expand_range, size_bytes

ROOT = Path(__file__).parents[2]


@pytest.fixture
def documented(small) -> Spec:
    """The spec of docs/spec.md."""
    text = (ROOT / "docs" / "spec.md").read_text()
    examples = dict(re.findall(r"```yaml\n# file: (\S+)\n(.*?)```", text, re.DOTALL))
    assert examples.keys() == FILES.keys()
    for file, content in examples.items():
        small.write(file, content)
    loaded = load(small.path)
    assert loaded.warnings == ()
    return loaded.spec


def test_the_tutorial_has_131_guests_on_64_containers() -> None:
    loaded = load(ROOT / "specs" / "tutorial")
    spec = loaded.spec
    assert loaded.warnings == ()
    assert (len(spec.containers), len(spec.clusters), len(spec.guests)) == (64, 26, 131)
    assert len(spec.guests["instructor"].interfaces) == 27
    assert spec.guests["z-n4"].interfaces[0].address == "10.1.26.14/24"


def test_the_small_site_has_a_xen_container_and_two_clusters_of_three() -> None:
    spec = load(ROOT / "specs" / "small").spec
    assert sorted(c.hypervisor for c in spec.containers.values()) == ["kvm", "kvm", "xen"]
    assert [len(cluster.guests) for cluster in spec.clusters.values()] == [3, 3]


def test_groups_of_nodes_differ_and_count_on(documented: Spec) -> None:
    assert documented.clusters["mixed"].guests == (
        "mixed-head", "mixed-n1", "mixed-n2", "mixed-store1", "mixed-extra",
    )  # fmt: skip
    store = documented.guests["mixed-store1"]
    assert [(i.network, i.address) for i in store.interfaces] == [
        ("mixed", "10.1.10.13/24"),
        ("storage", "10.201.0.10/24"),
    ]
    assert store.disk_bytes == 20 << 30


def test_the_instructor_is_on_every_cluster_s_network(documented: Spec) -> None:
    instructor = documented.guests["instructor"]
    assert [i.address for i in instructor.interfaces] == [
        "10.200.0.10/24", "10.1.1.250/24", "10.1.2.250/24", "10.1.10.250/24",
    ]  # fmt: skip
    assert [i.gateway for i in instructor.interfaces] == ["10.200.0.1", None, None, None]
    assert instructor.pinned == "c03"


def test_an_explicit_mac_is_taken_without_quotes(documented: Spec) -> None:
    assert documented.guests["mixed-extra"].interfaces[0].mac == "52:54:00:aa:00:01"


def test_the_digest_follows_values_and_not_their_spelling(small) -> None:
    before = load(small.path).spec
    small.replace("clusters.yaml", "512MiB", "0.5GiB")
    small.append("clusters.yaml", "# a comment\n")
    assert load(small.path).spec == before
    small.replace("clusters.yaml", "0.5GiB", "768MiB")
    assert load(small.path).spec.digest != before.digest


def test_a_new_password_hash_is_a_new_generation(small) -> None:
    before = load(small.path).spec.digest
    text = small.read("secrets/root.hash").strip()
    small.write("secrets/root.hash", text[:-1] + ("a" if text[-1] != "a" else "b"))
    assert load(small.path).spec.digest != before


def test_the_digest_does_not_depend_on_the_directory(small) -> None:
    assert load(small.path).spec.digest == load(ROOT / "specs" / "small").spec.digest


def test_derived_macs_of_neighbours_differ() -> None:
    assert derived_mac(101, 1) == "52:54:00:06:50:01"
    assert len({derived_mac(vlan, host) for vlan in (1, 2, 4094) for host in range(4096)}) == 3 * 4096


def test_ranges_count_with_zeros_and_letters() -> None:
    assert expand_range("c[08-11]") == ["c08", "c09", "c10", "c11"]
    assert expand_range("[a-c]-[1-3]") == ["a-1", "b-2", "c-3"]
    with pytest.raises(ValueError, match=r"\[1-3\] has 3 and \[1-2\] has 2"):
        expand_range("[1-3].[1-2]")


def test_sizes_are_binary_or_plain_bytes() -> None:
    assert [size_bytes(text) for text in ("1.5GiB", "4096", "2 KiB")] == [3 << 29, 4096, 2048]


def test_the_schema_has_a_definition_for_each_file() -> None:
    schema = json_schema()
    assert set(schema["properties"]) == set(FILES)
    for reference in schema["properties"].values():
        assert reference["$ref"].removeprefix("#/$defs/") in schema["$defs"]
