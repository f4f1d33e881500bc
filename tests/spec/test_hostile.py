"""What `tests.fuzz` found, or would after days: each made the loader leak, babble, or work for hours."""

from __future__ import annotations

import os

import pytest

from vcrecon.errors import Problem
from vcrecon.spec.findings import At, Findings
from vcrecon.spec.nodes import FILE_BYTES_MAX, parse

FINDINGS_MAX = 2100
"""What nobody reads any more; see `spec.findings` and `spec.nodes` for where it ends."""


@pytest.mark.parametrize("file", ["site.yaml", "secrets/root.hash"])
def test_a_directory_in_the_place_of_a_file_leaves_nothing_open(small, file: str) -> None:
    (small.path / file).unlink()
    (small.path / file).mkdir()
    small.findings()
    before = len(os.listdir("/proc/self/fd"))
    findings = small.findings()
    assert any("directory" in finding for finding in findings)
    assert len(os.listdir("/proc/self/fd")) == before


WORDS = {
    "a range": ("containers.yaml", "name: c03", 'name: "[a\\0-b]"', r"[a\x00-b] is not a range"),
    "a key": ("site.yaml", "  mirror: {address", '  "a\\nb": {addres', r"'a\nb'"),
    "the key of a wrong value": ("site.yaml", "  mirror: {", '  "a\\nb": 5\n  mirror: {', r"a\nb: expected a mapping"),
    "a key that begins with a blank": (
        "site.yaml", "  mirror: {", '  " a": 5\n  mirror: {', "' a': expected a mapping",
    ),
    "a prefix": (
        "clusters.yaml", "outside: 10.200.0.[11-12]", 'outside: "10.200.0.[11-12]/2\\r4"', r"/2\r4 is not the prefix",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WORDS)
def test_what_cannot_be_printed_is_told_in_one_line(small, name: str) -> None:
    file, old, new, words = WORDS[name]
    small.replace(file, old, new)
    findings = small.findings()
    assert any(words in finding for finding in findings), findings
    assert all(finding.isprintable() for finding in findings)


LONG = "x" * 9000
TEXTS = {
    "a container's name": ("containers.yaml", "name: c03", f"name: {LONG}"),
    "a container's name without an address": (
        "containers.yaml",
        "c03, address: 10.64.0.13",
        f"{LONG}, address: '[1-2]'",
    ),
    "a cluster's name": ("clusters.yaml", '"[a-b]"', f'"{LONG}[a-b]"'),
    "a group's name": ("clusters.yaml", "{count: 2, template: node}", f"{{count: 2, name: {LONG}}}"),
    "a guest's name": ("clusters.yaml", "clusters:\n", f"guests: [{{name: {LONG}, cluster: b}}]\nclusters:\n"),
    "a password file": ("site.yaml", "secrets/root.hash", LONG),
    "host keys": ("site.yaml", "known_hosts: known_hosts", f"known_hosts: {LONG}"),
    "a key of a map": ("site.yaml", "  mirror: {", f"  ? {LONG[:900]}\n  : 5\n  mirror: {{"),
    "unequal ranges": ("containers.yaml", "10.64.0.[11-12]", "".join(f"[1-{n}]" for n in range(1, 300))),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_long_text_is_not_told_whole(small, name: str) -> None:
    small.replace(*TEXTS[name])
    findings = small.findings()
    assert findings
    assert max(map(len, findings)) < 500


def test_a_prefix_of_more_than_two_digits_is_none(small) -> None:
    small.replace("clusters.yaml", "10.1.[1-2].0/24", "10.1.[1-2].0/00245")
    assert any("'10.1.1.0/00245' is not a subnet" in finding for finding in small.findings())


@pytest.mark.parametrize("address", ['"https://10.65.0.13/\\n"', "https://10.65.0.13/²"])
def test_a_power_address_is_one_line_of_ascii(small, address: str) -> None:
    power = f"power: {{kind: redfish, credentials: secrets/root.hash, address: {address}}}"
    small.replace("containers.yaml", "{name: c03, ", f"{{{power}, name: c03, ")
    assert any("is not a URL" in finding for finding in small.findings())


def filled(start: str, entry: str, end: str = "") -> str:
    """As much as a file may hold."""
    return start + entry * ((FILE_BYTES_MAX - len(start) - len(end)) // len(entry)) + end


CONTAINER = "{name: 'c[0-9999]', address: '10.0.0.[0-9999]', memory: 1GiB, cores: 1, disk: 1GiB}"
CLUSTER = "{name: 'k[1-4000]', vlan: '[1-4000]', subnet: '10.[1-4000].0.0/24'}"
LARGE = {
    "wrong entries": ("containers.yaml", lambda: filled("containers: [", "x, ", "]\n"), "more than 400,000 values"),
    "fewer wrong entries": ("containers.yaml", lambda: f"containers: [{'x, ' * 20_000}]\n", "20,000 values are wrong"),
    "unknown keys": ("site.yaml", lambda: "".join(f"k{i}: \n" for i in range(20_000)), "values are wrong"),
    "one key": ("site.yaml", lambda: "site: a\n" * 20_000, "too much is wrong to read on"),
    "unknown guests": (
        "deployment.yaml", lambda: f"deployment: {{c01: [{', '.join(f'g{i}' for i in range(9000))}]}}\n",
        "more findings in this file",
    ),
    "wide containers": (
        "containers.yaml", lambda: f"containers:\n  - &c {CONTAINER}\n" + "  - *c\n" * 5000,
        "this makes more than 10,000 containers",
    ),
    "wide ranges that do not fit": (
        "containers.yaml", lambda: "containers:\n" + "  - {name: c, address: '[0-9999]'}\n" * 2000,
        "'[0-9999]' has 10000",
    ),
    "guests on all clusters": (
        "clusters.yaml",
        lambda: f"clusters: [{CLUSTER}]\nguests:\n" + "  - {name: g, networks: all-clusters}\n" * 2000,
        "this makes more than 200,000 interfaces of guests",
    ),
    "guests by an alias": (
        "clusters.yaml", lambda: "guests:\n  - &g {name: g}\n" + "  - *g\n" * 60_000,
        "this makes more than 50,000 guests",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_a_large_file_that_is_wrong_is_refused_in_seconds_and_in_few_words(small, name: str) -> None:
    file, content, words = LARGE[name]
    small.write(file, content())
    findings = small.findings()
    assert any(words in finding for finding in findings), findings[:5]
    assert len(findings) < FINDINGS_MAX


def test_what_is_not_told_counts_as_an_error() -> None:
    """Warnings alone fill what is told; the error behind them still refuses the spec."""
    findings = Findings({"site.yaml": parse("site.yaml", b"[" + b"a, " * 1200 + b"]")})
    for index in range(1100):
        findings.warning(At("site.yaml", (index,)), "odd")
    findings.error(At("site.yaml", (1100,)), "wrong")
    assert findings.has_errors
    assert findings.sorted()[0] == Problem("site.yaml", 0, 0, "and 101 more findings in this file", "error")
