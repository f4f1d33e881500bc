"""Reads contextualization hooks: the scripts behind a guest's `hooks`. Used by `spec.recipe`.

A hook belongs to the generation of the spec that names it (S4): its content is read with the YAML files, and one
that cannot be read refuses them all. Which files of a directory are hooks follows run-parts(8).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path, PurePosixPath

from vcrecon.spec.files import open_at_once
from vcrecon.spec.model import Hook
from vcrecon.spec.values import shorten

HOOK_BYTES_MAX = 256 << 10
HOOKS_PER_DIRECTORY_MAX = 64
_RUN_PARTS = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_FILE_NAME = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_INTERPRETER = re.compile(r"#![ \t]*(/[!-~]*)(?:[ \t]+([ -~]*[!-~]))?[ \t]*", re.ASCII)

Read = tuple[tuple[Hook, ...], tuple[str, ...], tuple[str, ...]]
"""The hooks, what is wrong with them, and what is odd."""


def read_hooks(directory: Path, written: str) -> Read:
    """The hooks behind one path, relative to the spec directory: a script, or a directory of scripts.

    In a directory those count whose name is made of letters, digits, `-` and `_`, in the order of their names.
    """
    path = PurePosixPath(written)
    if path.is_absolute() or written.startswith("~") or ".." in path.parts or not path.parts:
        where = "give a path inside the spec directory: hooks are a part of the spec"
        return (), (f"hooks: {shorten(written)} leads out of the spec directory; {where}",), ()
    place = directory / path
    try:
        if not place.is_dir():
            hook = _read(place, str(path))
            return (hook,), (), ()
        names = sorted(entry.name for entry in place.iterdir() if _RUN_PARTS.fullmatch(entry.name))
    except ValueError as error:
        return (), (f"hooks: {error}",), ()
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        return (), (f"hooks: {shorten(written)}: {reason}; give a script or a directory of scripts",), ()
    return _read_all(place, path, names)


def _read_all(place: Path, path: PurePosixPath, names: list[str]) -> Read:
    found, errors, warnings = [], [], []
    for name in names:
        try:
            mode = (place / name).stat().st_mode
            if stat.S_ISDIR(mode):
                continue
            if stat.S_ISREG(mode) and not mode & 0o111:
                shown = shorten(f"{path}/{name}")
                warnings.append(f"hooks: {shown} is not executable and so is skipped; `chmod +x` it, or rename it")
                continue
            found.append(_read(place / name, f"{path}/{name}"))
        except ValueError as error:
            errors.append(f"hooks: {error}")
        except OSError as error:
            shown = shorten(f"{path}/{name}")
            errors.append(f"hooks: {shown}: {(error.strerror or 'cannot be read').lower()}; make it readable")
    if len(found) > HOOKS_PER_DIRECTORY_MAX:
        errors.append(f"hooks: {shorten(str(path))} holds more than {HOOKS_PER_DIRECTORY_MAX} hooks; join some")
    if not found and not errors and not warnings:
        names_are = "letters, digits, '-' and '_', without a dot"
        warnings.append(
            f"hooks: {shorten(str(path))} holds no hook; a hook is an executable file named with {names_are}"
        )
    return tuple(found), tuple(errors), tuple(warnings)


def _read(path: Path, name: str) -> Hook:
    """One hook. Raises ValueError with what is wrong, OSError when it cannot be opened."""
    shown = shorten(name)
    if not _FILE_NAME.fullmatch(path.name):
        raise ValueError(f"{shown}: a hook's name has letters, digits, '-', '_' and '.' only; rename it")
    with open_at_once(path) as stream:
        before = os.fstat(stream.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise ValueError(f"{shown} is not a regular file; a hook is a script")
        if not before.st_mode & 0o111:
            raise ValueError(f"{shown} is not executable; `chmod +x` it")
        content = stream.read(HOOK_BYTES_MAX + 1)
        after = os.fstat(stream.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ValueError(f"{shown} changed while it was read; save it again")
    if len(content) > HOOK_BYTES_MAX:
        raise ValueError(f"{shown} is larger than {HOOK_BYTES_MAX >> 10} KiB; let it fetch what it needs")
    if not content.strip():
        raise ValueError(f"{shown} is empty: is it half-written?")
    if b"\0" in content:
        raise ValueError(f"{shown} is not a script: it holds a NUL byte; wrap a program in a script")
    if not content.endswith(b"\n"):
        raise ValueError(f"{shown} has no newline at its end: is it half-written?")
    return Hook(name, _interpreter(content, shown), hashlib.sha256(content).hexdigest(), content)


def _interpreter(content: bytes, shown: str) -> tuple[str, ...]:
    """The program that runs the hook and its one argument, as the kernel would read its first line."""
    line = content.partition(b"\n")[0]
    if line.endswith(b"\r"):
        raise ValueError(f"{shown} has lines that end in CR LF; save it with LF")
    if not line.startswith(b"#!"):
        return ("/bin/sh",)
    match = _INTERPRETER.fullmatch(line.decode("utf-8", "replace"))
    if match is None:
        raise ValueError(f"{shown}: its first line names no interpreter; write '#!/bin/sh' or '#!/usr/bin/python3'")
    return (match[1],) if match[2] is None else (match[1], match[2])
