"""What installers say while they work, one file a container: STATE/installs/CONTAINER.log. Called by `boot.server`.

The log of the install before is kept beside it (`.log.1`). Both are for root's eyes only.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

LOG_FILE_BYTES_MAX = 4 << 20
_FULL = "\n--- the log is full: the rest is not kept ---\n"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class InstallLogs:
    """Bounded logs below `directory`, which is made when the first is begun. Methods raise OSError."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, container: str) -> Path:
        """Where a container's log is. Raises ValueError for what cannot be a container's name."""
        if not _NAME.fullmatch(container):
            raise ValueError(f"{container!r} is no container's name")
        return self._directory / f"{container}.log"

    def begin(self, container: str, heading: str) -> None:
        """Start a new log with a line about this install."""
        path = self.path(container)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists():
            path.replace(path.with_suffix(".log.1"))
        self._write(path, f"--- {heading} ---\n")

    def append(self, container: str, text: str) -> None:
        """Add to the log; what goes beyond 4 MiB is dropped, and the log says so once."""
        path = self.path(container)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        size = path.stat().st_size if path.exists() else 0
        if size >= LOG_FILE_BYTES_MAX:
            return
        data = text.encode()
        room = LOG_FILE_BYTES_MAX - size
        if len(data) > room:
            text = data[:room].decode("utf-8", "ignore") + _FULL
        self._write(path, text)

    def _write(self, path: Path, text: str) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
