"""Which file a path below /images/ or /installer/ means, or none. Called by `boot.server`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@=~-]{0,199}")
_DEPTH_MAX = 8


def found_file(root: Path, parts: Sequence[str]) -> Path | None:
    """The regular file `parts` below `root`; None for anything hidden, odd, or that leads out of it by a link."""
    if not 0 < len(parts) <= _DEPTH_MAX or not all(_PART.fullmatch(part) for part in parts):
        return None
    try:
        base = root.resolve(strict=True)
        path = base.joinpath(*parts).resolve(strict=True)
    except (OSError, RuntimeError):
        return None
    return path if path.is_relative_to(base) and path.is_file() else None
