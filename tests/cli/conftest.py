"""A fake site behind a real socket, and commands typed at it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_site import FakeControls, Type, Typed, served

SMALL = Path(__file__).parents[2] / "specs" / "small"


@pytest.fixture
def vcrecon(tmp_path: Path) -> Type:
    """`vcrecon("check", "specs")` types a command."""
    return lambda *arguments: Typed(tuple(map(str, arguments)), tmp_path)


@pytest.fixture
def controls() -> FakeControls:
    return FakeControls()


@pytest.fixture
def state(tmp_path: Path, controls: FakeControls) -> Iterator[Path]:
    """A state directory whose service is `controls`."""
    directory = tmp_path / "state"
    directory.mkdir()
    with served(controls, directory / "control.sock"):
        yield directory


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    """A copy of specs/small."""
    return Path(shutil.copytree(SMALL, tmp_path / "specs"))
