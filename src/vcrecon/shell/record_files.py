"""The files around the record: state directory, lock and site key. Called by `shell.record` only.

Everything here is private to the user that runs vcrecon: directory 0700, files 0600. A directory that
vcrecon did not make keeps its mode (it may be anybody's), but one that others can write to is refused.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from pathlib import Path

from vcrecon.errors import Refused

KEY_BYTES = 32
_PRIVATE = os.O_CLOEXEC | os.O_NOFOLLOW


def prepare_directory(directory: Path) -> None:
    """Make the state directory (0700) unless it is there. Raises Refused when it cannot serve."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        mode = directory.stat().st_mode
    except OSError as error:
        raise Refused(
            f"{directory}: cannot make the state directory: {error.strerror}; "
            "name a writable one with --state, or fix its owner and mode"
        ) from error
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Refused(
            f"{directory}: other users can write to the state directory, so its secrets are not safe; "
            f"type: chmod 0700 {directory}"
        )


def make_private(path: Path) -> bool:
    """Give a file of ours mode 0600, making it empty when it is missing. True when it was made here.

    An existing file is never opened: closing any descriptor of a database drops SQLite's locks on it.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PRIVATE, 0o600))
        return True
    except FileExistsError:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o600)
        return False


class DirectoryLock:
    """Held by the one controller that may write to a state directory; the kernel frees it when we die."""

    def __init__(self, path: Path) -> None:
        """Take the lock. Raises Refused, with the holder's pid, when another process has it."""
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | _PRIVATE, 0o600)
        except OSError as error:
            raise Refused(
                f"{path}: cannot open the lock file: {error.strerror}; run vcrecon as the owner of "
                f"{path.parent}, or name another directory with --state"
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise Refused(
                f"{path.parent}: another vcrecon (pid {holder}) is at work on this record; "
                "stop it first, or name another directory with --state"
            ) from None
        except OSError as error:
            os.close(self._fd)
            raise Refused(
                f"{path}: this file system cannot lock files ({error.strerror}); "
                "keep the state directory on a local disk"
            ) from error
        # The pid is a courtesy to the reader of the message above; the lock itself is the kernel's.
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(self._fd)
            raise Refused(f"{path}: cannot write the lock file: {error.strerror}; free some space") from error

    def release(self) -> None:
        """Let the next controller in. The file stays: removing it would let two of them in."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_site_key(path: Path) -> bytes | None:
    """The site key, or None when there is no such file. Raises Refused when it is damaged or unreadable."""
    try:
        fd = os.open(path, os.O_RDONLY | _PRIVATE)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(f"{path}: cannot read the site key: {error.strerror}; run as its owner") from error
    try:
        key = os.read(fd, KEY_BYTES + 1)
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
    finally:
        os.close(fd)
    if len(key) != KEY_BYTES:
        raise Refused(
            f"{path}: the site key is damaged ({len(key)} bytes read, {KEY_BYTES} expected); restore it "
            "from a backup, or delete the file to have a new one made"
        )
    if mode & 0o077:
        raise Refused(f"{path}: other users may read the site key (mode {mode:04o}); type: chmod 0600 {path}")
    return key


def make_site_key(path: Path) -> bytes:
    """Make the site key: 32 random bytes, complete on disk before they are first used."""
    key = secrets.token_bytes(KEY_BYTES)
    half_made = path.with_name(path.name + ".new")
    try:
        half_made.unlink(missing_ok=True)
        fd = os.open(half_made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PRIVATE, 0o600)
        try:
            os.write(fd, key)
            os.fsync(fd)
        finally:
            os.close(fd)
        half_made.rename(path)
        directory_fd = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory_fd)
        finally:
            os.close(directory_fd)
    except OSError as error:
        raise Refused(f"{path}: cannot write the site key: {error.strerror}; make room or fix its mode") from error
    return key


def passing_key() -> bytes:
    """A key for this process only, where no site key was ever made."""
    return secrets.token_bytes(KEY_BYTES)


def exists(path: Path) -> bool:
    """Whether the file is there. Raises Refused when this user may not even look."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise Refused(
            f"{path.parent}: cannot look into the state directory: {error.strerror}; run as its owner"
        ) from error
    return True
