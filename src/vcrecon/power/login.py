"""User and password of a power controller, from a file that nobody else can read. Used by the switches.

Read again for every question, so that a corrected file counts at once and no secret is kept.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from vcrecon.errors import Permanent

_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Login:
    """The password shows neither in `repr` nor in a message (S10)."""

    user: str
    password: str = field(repr=False)


def read_login(path: Path | None, title: str) -> Login:
    """The login in `path`, a file of one line `user:password` with mode 0600. `title` begins every message.

    Raises Permanent (power-credentials); its message says what to type and holds nothing of the file's content.
    """
    if path is None:
        raise _wrong(f"{title}: no credentials are given; name a file with `user:password` under power.credentials")
    user, colon, password = _only_line(path, title).partition(":")
    if not colon or not user or not password:
        raise _wrong(f"{title}: {path} is not one line `user:password`; write it so")
    return Login(user, password)


def _only_line(path: Path, title: str) -> str:
    try:
        # Without O_NONBLOCK a named pipe in its place would hold the whole service up.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _wrong(f"{title}: {path} is no file; put `user:password` into one and name it")
            if stat.S_IMODE(status.st_mode) & 0o077:
                raise _wrong(f"{title}: others may read {path}; type: chmod 600 {path}")
            content = file.read(_BYTES_MAX + 1)
    except OSError as error:
        raise _wrong(
            f"{title}: cannot read {path}: {error.strerror}; write `user:password` into it, with mode 0600"
        ) from None
    try:
        text = content.decode().removesuffix("\n")
    except UnicodeDecodeError:
        # `from None`: the error would carry the secret itself.
        raise _wrong(f"{title}: {path} is not UTF-8 text; write `user:password` into it") from None
    if len(content) > _BYTES_MAX or not text.isprintable():
        raise _wrong(f"{title}: {path} is not one line `user:password`; write it so")
    return text


def _wrong(message: str) -> Permanent:
    return Permanent(message, kind="power-credentials")
