"""Inputs near or over the limits on size: few, because each takes the loader seconds. Called by `inputs`."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.fuzz.bases import Base

from vcrecon.spec.nodes import FILE_BYTES_MAX

Made = tuple[str, str, bytes]
"""The file, what it is in words, and its content."""


def heavy(rng: random.Random, base: Base) -> Made:
    """One file that is as large as may be."""
    return rng.choice(HEAVY)(rng, base)


def _fill(start: str, entry: str, end: str = "") -> bytes:
    """As many entries as a file may have."""
    room = FILE_BYTES_MAX - len(start) - len(end)
    return (start + entry * (room // len(entry)) + end).encode()


def _wrong_entries(rng: random.Random, base: Base) -> Made:
    file, key = rng.choice(
        [("containers.yaml", "containers"), ("clusters.yaml", "clusters"), ("clusters.yaml", "guests")]
    )
    entry = rng.choice(["x, ", "{}, ", "[], ", "{x: y}, ", "~, "])
    return file, f"{entry!r} over and over", _fill(f"{key}: [", entry, "]\n")


def _unknown_keys(rng: random.Random, base: Base) -> Made:
    keys = "".join(f"k{i}: \n" for i in range(400_000))
    return rng.choice(["site.yaml", "deployment.yaml"]), "400,000 unknown keys", keys.encode()


def _one_key(rng: random.Random, base: Base) -> Made:
    return rng.choice(["site.yaml", "images.yaml"]), "one key over and over", _fill("", "site: a\n")


def _aliases(rng: random.Random, base: Base) -> Made:
    """A million values by a few bytes: just under what the reader takes."""
    rows = "[" + ", ".join(["&w [" + "x, " * 990 + "]"] + ["*w"] * 990) + "]"
    file, key = rng.choice(
        [("containers.yaml", "containers"), ("clusters.yaml", "guests"), ("deployment.yaml", "deployment"),
         ("deployment.yaml", "cordoned"), ("site.yaml", "site"), ("images.yaml", "images")]
    )  # fmt: skip
    return file, "a million values by aliases", f"{key}: {rows}\n".encode()


def _guest_aliases(rng: random.Random, base: Base) -> Made:
    guest = "&g {name: x, networks: all-clusters, memory: 1GiB, image: debian-12}"
    clusters = "clusters: [{name: 'k[0-3999]', vlan: '[1-4000]', subnet: '10.0.0.0/8', head: {template: t}}]\n"
    return "clusters.yaml", "aliases of one guest", f"{clusters}guests: [{guest}{', *g' * 60_000}]\n".encode()


def _many_guests(rng: random.Random, base: Base) -> Made:
    lines = ["templates: {t: {memory: 1GiB}}\nclusters:\n"]
    for block in range(10):
        lines.append(
            f"  - {{name: 'k{block}-[1-250]', vlan: '[{block * 250 + 1}-{block * 250 + 250}]', subnet: "
            f"'10.{block}.[1-250].0/24', head: {{template: t}}, nodes: {{count: 19, template: t}}}}\n"
        )
    return "clusters.yaml", "50,000 guests on no container", "".join(lines).encode()


def _wide_containers(rng: random.Random, base: Base) -> Made:
    entries = "".join(
        f"  - {{name: 'r{i}x[0-9999]', address: '10.{i}.0.[0-9999]', memory: 1GiB, cores: 1, disk: 1GiB, trunk: e}}\n"
        for i in range(20_000)
    )
    alike = (
        "  - &c {name: 'c[0-9999]', address: '10.0.0.[0-9999]', memory: 1GiB, cores: 1, disk: 1GiB}\n"
        + "  - *c\n" * 5000
    )
    return "containers.yaml", "ranges of 10,000 containers", ("containers:\n" + rng.choice([entries, alike])).encode()


def _wide_clusters(rng: random.Random, base: Base) -> Made:
    guests = "".join(f"  - {{name: g{i}, networks: all-clusters, template: t}}\n" for i in range(9000))
    entry = "{name: 'k[1-4000]', vlan: '[1-4000]', subnet: '10.0.0.0/24'}"
    return "clusters.yaml", "many guests on many clusters", f"clusters: [{entry}]\nguests:\n{guests}".encode()


def _wide_networks(rng: random.Random, base: Base) -> Made:
    networks = ", ".join(f"n{i}: '10.{i % 250}.0.[1-4000]'" for i in range(2000))
    group = f"{{count: 4000, template: node, networks: {{outside: x, {networks}}}}}"
    entry = f"{{name: a, vlan: 5, subnet: 10.9.0.0/16, nodes: [{group}]}}"
    return "clusters.yaml", "a range for each of many networks", f"clusters: [{entry}]\n".encode()


def _deep(rng: random.Random, base: Base) -> Made:
    piece = rng.choice(["[", "{a: ", "- ", "? ", "[{", "a:\n "])
    return "site.yaml", f"{piece!r} over and over", _fill("", piece)


def _long(rng: random.Random, base: Base) -> Made:
    start, end = rng.choice(
        [("site: ", "\n"), ("", ": x\n"), ('site: "', '"\n'), ("site: [", "]\n"), ("# ", "\n"), ("&", " x\n")]
    )
    piece = rng.choice(["x", "é", "\U0001f600", "1", "[1-9]", "x ", "\\n"])
    room = FILE_BYTES_MAX - rng.choice([0, 1, 100]) - len(start) - len(end)
    return "site.yaml", f"one text of {piece!r}", (start + piece * (room // len(piece.encode())) + end).encode()


def _large(rng: random.Random, base: Base) -> Made:
    return (
        rng.choice(["site.yaml", "clusters.yaml"]),
        "larger than a file may be",
        _fill("", "# x\n") + b"# over the limit\n",
    )


def _anchors(rng: random.Random, base: Base) -> Made:
    return (
        "images.yaml",
        "an anchor for each of many values",
        "".join(f"- &a{i}\n- *a{i}\n" for i in range(180_000)).encode(),
    )


def _unknown_guests(rng: random.Random, base: Base) -> Made:
    names = ", ".join(f"g{i}" for i in range(400_000))
    return "deployment.yaml", "400,000 guests that are not there", f"deployment: {{c01: [{names}]}}\n".encode()


HEAVY: tuple[Callable[[random.Random, Base], Made], ...] = (
    *(
        _wrong_entries,
        _unknown_keys,
        _one_key,
        _aliases,
        _guest_aliases,
        _many_guests,
        _wide_containers,
        _wide_clusters,
    ),
    *(_wide_networks, _deep, _long, _large, _anchors, _unknown_guests),
)
