"""Edits of deployment.yaml for people: place, cordon, uncordon, evacuate. Called by the command line.

Nothing is written until `Edit.write()`; the caller shows `Edit.diff()` first.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vcrecon.errors import Refused
from vcrecon.spec.draft import DEPLOYMENT
from vcrecon.spec.load import load
from vcrecon.spec.model import Spec
from vcrecon.spec.nodes import parse
from vcrecon.spec.place import place
from vcrecon.spec.splice import Lists, change_lists

_HEADER = "# Which container holds which guests. Move a guest by moving its name.\n"


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of deployment.yaml that is not written yet.

    `moved` has (guest, from, to), from being None for a guest that was nowhere; `stuck` has (guest, reason).
    """

    path: Path
    old_text: str
    new_text: str
    moved: tuple[tuple[str, str | None, str], ...] = ()
    stuck: tuple[tuple[str, str], ...] = ()
    existed: bool = True

    @property
    def changed(self) -> bool:
        return self.old_text != self.new_text

    def diff(self) -> str:
        """The change as a unified diff; empty when there is none."""
        name = self.path.name
        old, new = self.old_text.splitlines(keepends=True), self.new_text.splitlines(keepends=True)
        lines = difflib.unified_diff(old, new, f"a/{name}", f"b/{name}")
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)

    def write(self) -> None:
        """Replace the file in one step, keeping its mode. Does nothing when there is no change.

        Raises Refused when the file is no longer what the edit was made from, or cannot be written.
        """
        if not self.changed:
            return
        # A link stays a link: the file it points to is replaced.
        target = Path(os.path.realpath(self.path))
        current = _read(target)
        if current != (self.old_text.encode() if self.existed else None):
            raise Refused(f"{self.path}: the file changed in the meantime; run the command again")
        temporary = ""
        try:
            mode = target.stat().st_mode & 0o7777 if self.existed else 0o644
            descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(self.new_text.encode())
                stream.flush()
                os.fchmod(stream.fileno(), mode)
                os.fsync(stream.fileno())
            os.replace(temporary, target)
            _sync(target.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise Refused(f"{self.path}: not written: {error.strerror or error}; the file is as before") from error


def place_directory(directory: Path, rebalance: bool = False) -> Edit:
    """Place the guests that are nowhere or where they cannot be; with `rebalance`, spread all of them.

    Raises SpecError when the spec is wrong in other ways than placement.
    """
    opened = _Opened(directory)
    spec = opened.spec
    placement = place(spec, spec.deployment, spec.cordoned, rebalance=rebalance)
    lists = _deployment_lists(spec.deployment, placement.deployment)
    moved = tuple((move.guest, move.source, move.target) for move in placement.moves)
    stuck = tuple((entry.guest, entry.reason) for entry in placement.stuck)
    return opened.edit(lists, moved, stuck)


def cordon(directory: Path, container: str) -> Edit:
    """Keep new guests off `container`. Raises SpecError, or Refused for an unknown container."""
    opened = _Opened(directory)
    opened.must_know(container)
    return opened.edit(opened.cordon_lists(container))


def uncordon(directory: Path, container: str) -> Edit:
    """Let guests be placed on `container` again. Raises SpecError, or Refused for an unknown container."""
    opened = _Opened(directory)
    opened.must_know(container)
    if container not in opened.cordoned:
        return opened.edit({})
    return opened.edit({("cordoned",): tuple(name for name in opened.cordoned if name != container)})


def evacuate(directory: Path, container: str) -> Edit:
    """Cordon `container` and move its guests to others; those that cannot go stay and are in `stuck`.

    Raises SpecError, or Refused for an unknown container.
    """
    opened = _Opened(directory)
    opened.must_know(container)
    spec = opened.spec
    leaving = [guest for guest in spec.guests_on(container) if guest.pinned is None]
    names = {guest.name for guest in leaving}
    before = {name: tuple(g for g in guests if g not in names) for name, guests in spec.deployment.items()}
    placement = place(spec, before, spec.cordoned | {container})
    home = {name: where for where, guests in placement.deployment.items() for name in guests}
    reasons = {entry.guest: entry.reason for entry in placement.stuck}
    after = dict(spec.deployment)
    moved: list[tuple[str, str | None, str]] = []
    stuck: list[tuple[str, str]] = []
    for guest in spec.guests_on(container):
        target = home.get(guest.name)
        if guest.pinned is not None:
            stuck.append((guest.name, f"it is pinned to {guest.pinned!r}; remove the pin in clusters.yaml"))
        elif target is None or target == container:
            stuck.append((guest.name, reasons.get(guest.name, "no other container takes it")))
        else:
            moved.append((guest.name, container, target))
            after[container] = tuple(name for name in after[container] if name != guest.name)
            after[target] = (*after[target], guest.name)
    lists = {**_deployment_lists(spec.deployment, after), **opened.cordon_lists(container)}
    return opened.edit(lists, tuple(moved), tuple(stuck))


class _Opened:
    """A spec directory and the text of its deployment file, read for an edit."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / DEPLOYMENT
        # The text is read first: when the file changes before `load`, `write` refuses.
        data = _read(self.path)
        self.spec: Spec = load(directory, require_placement=False).spec
        self.existed = data is not None
        self.source = parse(DEPLOYMENT, data or b"")
        self.text = (data or b"").decode("utf-8", "replace")
        plain = self.source.root.plain() if self.source.root is not None else None
        listed = plain.get("cordoned") if isinstance(plain, dict) else None
        self.cordoned: tuple[str, ...] = tuple(listed) if isinstance(listed, list) else ()

    def must_know(self, container: str) -> None:
        if container in self.spec.containers:
            return
        close = difflib.get_close_matches(container, list(self.spec.containers), n=1)
        hint = f"did you mean {close[0]!r}?" if close else "see containers.yaml for the names"
        raise Refused(f"no container {container!r} in the spec; {hint}")

    def cordon_lists(self, container: str) -> Lists:
        return {} if container in self.cordoned else {("cordoned",): (*self.cordoned, container)}

    def edit(
        self,
        lists: Lists,
        moved: tuple[tuple[str, str | None, str], ...] = (),
        stuck: tuple[tuple[str, str], ...] = (),
    ) -> Edit:
        text = change_lists(self.source, lists) if lists else self.text
        if lists and not self.existed:
            text = _HEADER + text
        return Edit(self.path, self.text, text, moved, stuck, self.existed)


def _deployment_lists(
    before: Mapping[str, tuple[str, ...]], after: Mapping[str, tuple[str, ...]]
) -> dict[tuple[str, ...], tuple[str, ...]]:
    return {("deployment", name): guests for name, guests in after.items() if guests != before.get(name, ())}


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError:
        return None


def _sync(directory: Path) -> None:
    """Make the rename itself durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
