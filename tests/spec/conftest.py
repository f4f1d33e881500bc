"""A copy of specs/small for each test, with helpers that read as sentences."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from vcrecon.errors import SpecError
from vcrecon.spec.load import load

ROOT = Path(__file__).parents[2]
SMALL = ROOT / "specs" / "small"


@dataclass
class Directory:
    path: Path

    def replace(self, file: str, old: str, new: str) -> None:
        text = (self.path / file).read_text()
        assert old in text, f"{old!r} is not in {file}"
        (self.path / file).write_text(text.replace(old, new, 1))

    def append(self, file: str, text: str) -> None:
        with (self.path / file).open("a") as stream:
            stream.write(text)

    def write(self, file: str, content: str | bytes) -> None:
        (self.path / file).write_bytes(content.encode() if isinstance(content, str) else content)

    def read(self, file: str) -> str:
        return (self.path / file).read_text()

    def where(self, file: str, text: str) -> str:
        """`file:line:column` of the first occurrence of `text`."""
        before = self.read(file).partition(text)[0]
        return f"{file}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"

    def findings(self) -> list[str]:
        """All that `load` says, warnings included."""
        try:
            return [str(problem) for problem in load(self.path).warnings]
        except SpecError as error:
            return [str(problem) for problem in error.problems]


@pytest.fixture
def small(tmp_path: Path) -> Directory:
    shutil.copytree(SMALL, tmp_path / "small")
    return Directory(tmp_path / "small")
