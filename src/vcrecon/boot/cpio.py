"""Writes a tree as a cpio archive in the kernel's "newc" form. Called by `installer.build`.

Debian's cpio would do, but is not part of a minimal system. Names are sorted, times, owners and permissions are
constant, so that equal trees give equal bytes whoever made them.
The form: Documentation/driver-api/early-userspace/buffer-format.rst in Linux.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_CONSOLE = (5, 1)


def write_tree(tree: Path, stream: BinaryIO, *, mtime_s: int) -> None:
    """All of `tree`, and the console device that the kernel opens for init before anything is mounted."""
    number = 1
    for path in _walk(tree):
        entry = path.lstat()
        if stat.S_ISLNK(entry.st_mode):
            data = os.fsencode(os.readlink(path))
        elif stat.S_ISREG(entry.st_mode):
            data = path.read_bytes()
        elif stat.S_ISDIR(entry.st_mode):
            data = b""
        else:
            continue
        _entry(stream, number, path.relative_to(tree).as_posix(), _mode(entry.st_mode), data, mtime_s)
        number += 1
    _entry(stream, number, "dev/console", stat.S_IFCHR | 0o600, b"", mtime_s, _CONSOLE)
    _entry(stream, 0, "TRAILER!!!", 0, b"", 0)


def _mode(mode: int) -> int:
    """The kind, and permissions that say only whether it can be run: there is no user but root."""
    runs = not stat.S_ISREG(mode) or mode & stat.S_IXUSR
    return stat.S_IFMT(mode) | (0o755 if runs else 0o644)


def _walk(tree: Path) -> Iterator[Path]:
    for path in sorted(tree.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)


def _entry(
    stream: BinaryIO, number: int, name: str, mode: int, data: bytes, mtime_s: int, device: tuple[int, int] = (0, 0)
) -> None:
    encoded = os.fsencode(name) + b"\0"
    fields = (number, mode, 0, 0, 1, mtime_s, len(data), 0, 0, *device, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    stream.write(header + b"\0" * (-len(header) % 4))
    stream.write(data + b"\0" * (-len(data) % 4))
