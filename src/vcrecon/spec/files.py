"""Opens files of a spec directory. Called by `load`, `recipe` and `hooks`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO


def open_at_once(path: Path) -> BinaryIO:
    """Open a file for reading; a FIFO or device in its place does not block us, and a directory leaves nothing open.

    Raises OSError, and ValueError for a path that no file can have. `os.fdopen` would not do: it refuses a directory
    and leaves the descriptor to its caller, one more with every look at the spec.
    """
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
