"""No bytes whatsoever make the loader raise anything but SpecError, and large specs load quickly."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcrecon.errors import SpecError
from vcrecon.spec.load import load
from vcrecon.spec.place import place
from vcrecon.spec.text import FILES

SMALL = Path(__file__).parents[2] / "specs" / "small"
WORDS = [
    b"[",
    b"]",
    b"{",
    b"}",
    b"*a",
    b"&a ",
    b"!!set ",
    b": ",
    b"- ",
    b"\xff",
    b"\0",
    b"~",
    b"[0-99999999]",
]
WORDS += [
    b"9" * 5000,
    b"\xef\xbb\xbf",
    b"255.255.255.255/31",
    b"{cluster}",
    b"...\n",
    b"\t",
    b"<<",
    b"\r\n",
    b"-1",
]


def load_or_say_why(directory: Path, *, require_placement: bool = True) -> bool:
    """Whether the directory is a spec or at least one finding; every other exception comes through."""
    try:
        load(directory, require_placement=require_placement)
    except SpecError as error:
        return bool(error.problems)
    return True


@pytest.mark.parametrize("file", FILES)
def test_a_file_cut_at_any_byte_is_a_spec_or_a_finding(small, file: str) -> None:
    whole = (small.path / file).read_bytes()
    for length in range(len(whole)):
        small.write(file, whole[:length])
        assert load_or_say_why(small.path)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    file=st.sampled_from(list(FILES)),
    cuts=st.lists(
        st.tuples(st.integers(0, 1500), st.integers(0, 12), st.sampled_from(WORDS) | st.binary(max_size=4)),
        min_size=1,
        max_size=4,
    ),
)
def test_mutated_files_never_raise_anything_but_findings(file: str, cuts: list[tuple[int, int, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "small"
        shutil.copytree(SMALL, directory)
        data = (directory / file).read_bytes()
        for start, length, piece in cuts:
            start %= len(data) + 1
            data = data[:start] + piece + data[start + length :]
        (directory / file).write_bytes(data)
        assert load_or_say_why(directory)
        assert load_or_say_why(directory, require_placement=False)


def test_ten_thousand_guests_on_a_thousand_containers_load_in_seconds(small) -> None:
    small.replace("site.yaml", "10.64.0.0/24", "10.64.0.0/16")
    small.replace("site.yaml", "10.200.0.0/24", "172.16.0.0/16")
    small.replace("site.yaml", "gateway: 10.200.0.1", "gateway: 172.16.0.1")
    entries = [f"  - {{name: 'r{rack}-[001-250]', address: '10.64.{rack}.[1-250]'}}\n" for rack in range(1, 5)]
    fields = "{memory: 30GiB, cores: 32, disk: 900GiB, trunk: eno1, volume_group: vg0}"
    small.write("containers.yaml", f"defaults: {fields}\ncontainers:\n" + "".join(entries))
    lines = ["templates: {t: {memory: 1GiB}}\nclusters:\n"]
    for block in range(8):
        first = 1000 + block * 250
        lines.append(
            f"  - {{name: 'k{block}-[1-250]', vlan: '[{first}-{first + 249}]',"
            f" subnet: '10.{100 + block}.[1-250].0/24',"
            " head: {template: t}, nodes: {count: 4, template: t}}\n"
        )
    small.write("clusters.yaml", "".join(lines))
    unplaced = load_unplaced(small)
    placement = place(unplaced, {}, ())
    assert not placement.stuck
    rows = [f"  {name}: [{', '.join(guests)}]\n" for name, guests in placement.deployment.items()]
    small.write("deployment.yaml", "deployment:\n" + "".join(rows))
    began = time.process_time()
    spec = load(small.path).spec
    assert (len(spec.containers), len(spec.guests)) == (1000, 10_000)
    assert time.process_time() - began < 10


def load_unplaced(small):
    small.write("deployment.yaml", "")
    return load(small.path, require_placement=False).spec
