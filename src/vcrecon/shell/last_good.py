"""Keeps the spec that is in force, so that a service that starts beside broken spec files still heals (S4).

Written and read by `service`, in its own state directory (0700) only: unpickling is safe there and nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import tempfile
from pathlib import Path

import vcrecon
from vcrecon.spec.model import Spec

_NAME = "last-good-spec"


def save(state: Path, spec: Spec) -> None:
    """Replace the kept spec at once or not at all. A failure is no reason to stop: it is kept at the next edit."""
    with contextlib.suppress(OSError):
        handle, temporary = tempfile.mkstemp(dir=state, prefix=f".{_NAME}.")
        with os.fdopen(handle, "wb") as file:
            pickle.dump((vcrecon.__version__, spec), file)
        Path(temporary).replace(state / _NAME)


def read(state: Path) -> Spec | None:
    """The kept spec; None when there is none, or when another version of vcrecon wrote it."""
    try:
        version, spec = pickle.loads((state / _NAME).read_bytes())  # noqa: S301 - our own file, in our own directory
    except Exception:
        return None
    return spec if version == vcrecon.__version__ and isinstance(spec, Spec) else None
