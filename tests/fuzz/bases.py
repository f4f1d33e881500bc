"""What inputs are made from: the shipped specs, and one that uses every key there is. Used by all of the fuzzer.

A `Case` is a base and what differs from it; a `Workshop` lays it out on disk and puts everything back afterwards.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from vcrecon.spec.text import FILES

ROOT = Path(__file__).parents[2]
RICH = Path(__file__).parent / "rich"

Oddity = Literal["missing", "directory", "loop", "dangling", "fifo", "socket", "device", "broken", "locked"]
"""What may be in the place of a file. A `broken` one fails when it is read, a `locked` one when it is opened."""
ODDITIES: tuple[Oddity, ...] = get_args(Oddity)


@dataclass(frozen=True)
class Base:
    """A sound spec directory: its files by relative path."""

    name: str
    path: Path

    @cached_property
    def files(self) -> dict[str, bytes]:
        found = (path for path in sorted(self.path.rglob("*")) if path.is_file())
        return {str(path.relative_to(self.path)): path.read_bytes() for path in found}

    @cached_property
    def others(self) -> list[str]:
        """The files beside the five: host keys, secrets, hooks."""
        return [name for name in self.files if name not in FILES]

    @cached_property
    def trees(self) -> dict[str, Any]:
        """The five files as plain values; scalars are text, as the loader takes them: a MAC is no number."""
        return {name: yaml.load(self.files[name], Loader=yaml.CBaseLoader) for name in FILES}

    @cached_property
    def words(self) -> list[str]:
        """Every scalar in the five files: names, addresses, sizes, ranges."""
        found: dict[str, None] = {}
        for name in FILES:
            for event in yaml.parse(self.files[name], Loader=yaml.CSafeLoader):
                if isinstance(event, yaml.ScalarEvent):
                    found[event.value] = None
        return list(found)


BASES: Mapping[str, Base] = {
    base.name: base
    for base in (
        *(Base(name, ROOT / "specs" / name) for name in ("small", "lab", "tutorial")),
        Base("rich", RICH),
    )
}


@dataclass(frozen=True)
class Case:
    """One input: what stands in which file of a base, and in words how it came about."""

    base: str
    changes: Mapping[str, bytes | Oddity]
    how: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.base}: {'; '.join(self.how) or 'unchanged'}"


class Workshop:
    """A scratch directory with a copy of each base."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch

    @contextmanager
    def laid_out(self, case: Case) -> Iterator[Path]:
        """The directory of `case`, while the context lasts."""
        base = BASES[case.base]
        directory = self._scratch / case.base
        if not directory.exists():
            shutil.copytree(base.path, directory)
            for secret in (directory / "secrets").glob("*"):
                secret.chmod(0o600)
        try:
            for name, content in case.changes.items():
                path = directory / name
                if isinstance(content, bytes):
                    path.write_bytes(content)
                else:
                    path.unlink()
                    self._put(path, content)
            yield directory
        finally:
            for name, content in case.changes.items():
                path = directory / name
                if not isinstance(content, bytes):
                    _remove(path)
                    shutil.copy(base.path / name, path)
                    if path.parent.name == "secrets":
                        path.chmod(0o600)
                else:
                    path.write_bytes(base.files[name])

    def _put(self, path: Path, oddity: Oddity) -> None:
        match oddity:
            case "missing":
                pass
            case "directory":
                path.mkdir()
            case "loop":
                path.symlink_to(path.name)
            case "dangling":
                path.symlink_to("nowhere")
            case "fifo":
                os.mkfifo(path)
            case "socket":
                with socket.socket(socket.AF_UNIX) as listener:
                    # Bound by its short name: the address of a socket has room for 107 bytes.
                    before = Path.cwd()
                    os.chdir(path.parent)
                    try:
                        listener.bind(path.name)
                    finally:
                        os.chdir(before)
            case "device":
                path.symlink_to("/dev/zero")
            case "broken":
                path.symlink_to("/proc/self/mem")
            case "locked":
                path.touch(mode=0)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
