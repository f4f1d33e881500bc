"""What a guest is made of, from its lines, template and defaults. Used by `spec.guests`."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from vcrecon.spec.draft import Draft
from vcrecon.spec.files import open_at_once
from vcrecon.spec.findings import At
from vcrecon.spec.hooks import read_hooks
from vcrecon.spec.model import Hook
from vcrecon.spec.text import GuestFields, PoliciesText
from vcrecon.spec.values import human_bytes, shorten

# sha512crypt and yescrypt: what crypt(5) recommends and Debian has used since releases 5 and 11.
_HASH = re.compile(rb"\$(?:6\$(?:rounds=\d{1,9}\$)?[^$:\s]{1,16}\$[./A-Za-z0-9]{86}|y\$[./A-Za-z0-9$]{20,150})")
_HASH_FILE_BYTES_MAX = 4096

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Recipe:
    """The fields of a guest that do not depend on its name or place."""

    image: str
    memory_bytes: int
    cores: int
    disk_bytes: int
    root_password: str
    authorized_keys: tuple[str, ...]
    storage: Literal["thin", "thick"]
    on_poweroff: Literal["restart", "honour"]
    hooks: tuple[Hook, ...]


class Recipes:
    """Resolves layers of fields; the first layer that has a value wins."""

    def __init__(self, draft: Draft, defaults: GuestFields, policies: PoliciesText) -> None:
        self._draft = draft
        self._defaults = defaults
        self._policies = policies

    def resolve(self, at: At, who: str, entry: GuestFields, template: GuestFields | None) -> Recipe | None:
        """The recipe of `who` at `at`; None once it is noted what is missing or does not fit."""
        layers = [layer for layer in (entry, template, self._defaults) if layer is not None]
        image_name = _first([layer.image for layer in layers])
        memory = _first([layer.memory for layer in layers])
        password = _first([layer.root_password for layer in layers])
        required = {"image": image_name, "memory": memory, "root_password": password}
        missing = [key for key, value in required.items() if value is None]
        if missing and "guest" not in self._draft.gaps:
            keys = ", ".join(missing)
            hint = "give it here, in a template, or under 'defaults' in site.yaml"
            self._draft.findings.error(at, f"no {keys} for {who}; {hint}")
        if image_name is None or memory is None or password is None:
            return None
        image = self._draft.images.get(image_name)
        disk = _first([layer.disk for layer in layers])
        if image is None:
            self._draft.unknown(at / "image", "image", image_name, self._draft.images)
            return None
        if disk is not None and disk < image.disk_bytes:
            least = human_bytes(image.disk_bytes)
            self._draft.findings.error(
                at / "disk", f"a disk of {human_bytes(disk)} is smaller than image {image_name!r}, {least}"
            )
        return Recipe(
            image=image_name,
            memory_bytes=memory,
            cores=_first([layer.cores for layer in layers]) or 1,
            disk_bytes=disk or image.disk_bytes,
            root_password=password,
            authorized_keys=_first([layer.authorized_keys for layer in layers]) or (),
            storage=_first([layer.storage for layer in layers]) or self._policies.storage,
            on_poweroff=_first([layer.on_poweroff for layer in layers]) or self._policies.on_poweroff,
            hooks=self._hooks(at / "hooks", _first([layer.hooks for layer in layers]) or ()),
        )

    def _hooks(self, at: At, paths: Sequence[str]) -> tuple[Hook, ...]:
        """The hooks behind `paths`, in their order; what is wrong with them is noted."""
        found: list[Hook] = []
        for path in paths:
            if path not in self._draft.hooks:
                hooks, errors, warnings = read_hooks(self._draft.directory, path)
                for message in errors:
                    self._draft.findings.error(at, message)
                for message in warnings:
                    self._draft.findings.warning(at, message)
                self._draft.hooks[path] = hooks
            found += self._draft.hooks[path]
        return tuple(found)

    def password_file(self, at: At, text: str, cluster: str | None) -> Path | None:
        """The file that `text` names; None once it is noted that it is absent or holds no hash."""
        if "{cluster}" in text and cluster is None:
            self._draft.findings.error(
                at / "root_password", "{cluster} stands for nothing here: this guest is in no cluster"
            )
            return None
        return secret_file(self._draft, at / "root_password", text.replace("{cluster}", cluster or ""))


def secret_file(draft: Draft, at: At, text: str) -> Path | None:
    """The file with a password's hash that `text` names; None once it is noted that it is absent or holds none."""
    path = spec_path(draft.directory, text)
    if path not in draft.secrets:
        content = _read_hash(path, text)
        if isinstance(content, str):
            draft.findings.error(at, content)
            draft.secrets[path] = None
        else:
            draft.secrets[path] = hashlib.sha256(content).hexdigest()
    return path if draft.secrets[path] is not None else None


def spec_path(directory: Path, text: str) -> Path:
    """A path as the spec writes it: `~` is the home directory, the rest is relative to `directory`."""
    path = Path(text)
    if text.startswith("~"):
        try:
            path = path.expanduser()
        except RuntimeError:  # no such user, or no home: keep it as written, its absence is reported later
            path = Path(text)
    return directory.absolute() / path


def _first(values: list[Value | None]) -> Value | None:
    return next((value for value in values if value is not None), None)


def _read_hash(path: Path, written: str) -> bytes | str:
    """The hash in `path`, or a message that says why there is none; never any content in it (S10).

    `written` is the path as the spec has it.
    """
    make, file = "make one with: mkpasswd -m sha-512 > FILE", f"password file {shorten(written)}"
    try:
        with open_at_once(path) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                return f"{file} is not a regular file; {make}"
            content = stream.read(_HASH_FILE_BYTES_MAX)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "cannot be read"
        return f"{file}: {reason.lower()}; {make}"
    if _HASH.fullmatch(content.strip()) is None:
        return f"{file} does not hold one crypt(3) hash ($6$… or $y$…); {make}"
    return content.strip()
