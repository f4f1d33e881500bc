"""Host keys of the containers that vcrecon installed: STATE/known_hosts, which outranks the spec's for them (S9).

Written by `shell.install` when an installer claims its job; read by `shell.connector` for every connection. The file
is a known_hosts file that `ssh -o UserKnownHostsFile=…` takes as well; the last word of a line names container and
install. The key of an install that failed is taken back, since what was there before may still be there.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from vcrecon.errors import Transient
from vcrecon.spec.model import Container

NAME = "known_hosts"
_BEFORE = "#before "
_HEADER = "# Written by vcrecon: host keys of the containers that it installed. They outrank those of site.yaml.\n"


class Pins:
    """One for each state directory. `path` need not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def over(self, container: Container, pinned_keys: str) -> str:
        """The known_hosts lines for a container: its own when vcrecon installed it, else those given."""
        line = self._lines().get(container.name)
        if line is None:
            return pinned_keys
        _, kind, key, word = line.split(" ", 3)
        return f"{_pattern(container)} {kind} {key} {word}\n"

    def pin(self, container: Container, public: bytes, nonce: str) -> None:
        """Trust this key alone from now on. Raises Transient when it cannot be made to last."""
        kind, key = public.decode("ascii").split(" ")[:2]
        line = f"{_pattern(container)} {kind} {key} vcrecon/{container.name}/{nonce}"
        lines = self._lines()
        before = lines.get(container.name)
        if before == line:
            return
        lines[container.name] = line
        if before is not None:
            lines[_BEFORE + container.name] = _BEFORE + before
        self._write(lines)

    def keep(self, name: str) -> None:
        """The install succeeded: the key of the one before is of no use any more."""
        lines = self._lines()
        if lines.pop(_BEFORE + name, None) is not None:
            self._write(lines)

    def restore(self, name: str, nonce: str) -> None:
        """The install `nonce` failed: back to what was trusted before it."""
        lines = self._lines()
        if not lines.get(name, "").endswith(f" vcrecon/{name}/{nonce}"):
            return
        del lines[name]
        before = lines.pop(_BEFORE + name, None)
        if before is not None:
            lines[name] = before.removeprefix(_BEFORE)
        self._write(lines)

    def _lines(self) -> dict[str, str]:
        """By container, and by `#before container` what to go back to. A file that cannot be read holds none."""
        try:
            text = self.path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return {}
        found = {}
        for line in text.splitlines():
            prefix = _BEFORE if line.startswith(_BEFORE) else ""
            words = line.removeprefix(prefix).split(" ")
            if len(words) == 4 and words[3].startswith("vcrecon/"):
                found[prefix + words[3].split("/")[1]] = line
        return found

    def _write(self, lines: dict[str, str]) -> None:
        text = _HEADER + "".join(f"{line}\n" for _, line in sorted(lines.items()))
        temporary = ""
        try:
            handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{NAME}.")  # mode 0600
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            why = error.strerror or error
            raise Transient(f"{self.path}: cannot write the pinned host keys: {why}", kind="record") from error


def _pattern(container: Container) -> str:
    return container.address if container.port == 22 else f"[{container.address}]:{container.port}"
