"""Who a controller is among masters: the same after its state was lost, another on another path."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from vcrecon.errors import Refused
from vcrecon.shell.mastery import GENERATION_FILE, read_generation, this_master, write_generation


def test_a_master_without_its_state_is_the_same_master(tmp_path: Path) -> None:
    before = this_master(tmp_path / "state", lease_s=90)
    (tmp_path / "state").mkdir()
    assert this_master(tmp_path / "state", lease_s=90) == before
    assert before.generation == 1


def test_another_state_directory_is_another_master(tmp_path: Path) -> None:
    assert this_master(tmp_path / "a", lease_s=90).name != this_master(tmp_path / "b", lease_s=90).name


def test_the_title_says_where_it_runs(tmp_path: Path) -> None:
    assert this_master(tmp_path / "state", lease_s=90).title.endswith(f":{tmp_path}/state")


def test_a_generation_that_was_written_is_read(tmp_path: Path) -> None:
    write_generation(tmp_path, 1_800_000_000)
    assert read_generation(tmp_path) == 1_800_000_000
    assert stat.S_IMODE((tmp_path / GENERATION_FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [GENERATION_FILE]


@pytest.mark.parametrize("junk", [b"", b"one", b"-1", b"9" * 16, b"\xff"])
def test_a_damaged_generation_is_refused_with_what_to_type(junk: bytes, tmp_path: Path) -> None:
    (tmp_path / GENERATION_FILE).write_bytes(junk)
    with pytest.raises(Refused, match="delete"):
        read_generation(tmp_path)


def test_a_state_directory_that_is_not_there_cannot_be_promoted(tmp_path: Path) -> None:
    with pytest.raises(Refused):
        write_generation(tmp_path / "nowhere", 2)
