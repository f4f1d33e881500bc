"""A step: one script for one host. Scripts use stock Debian commands only, and read as one would type them.

Exit statuses that mean something to the caller: LOCKED, CORRUPT, UNSAFE, IN_USE.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from vcrecon.errors import HostError, Permanent, Transient

LOCKED = 75
"""Another step still works on the same object (EX_TEMPFAIL)."""
CORRUPT = 65
"""Data does not match its SHA-256 (EX_DATAERR)."""
UNSAFE = 77
"""The step refused, to protect data (EX_NOPERM)."""
IN_USE = 69
"""A person still works with what the step is about (EX_UNAVAILABLE)."""


@dataclass(frozen=True, slots=True)
class Step:
    """One script on `container`. `stdin` may hold secrets and is never shown (S10)."""

    container: str
    script: str
    stdin: bytes | None = None
    deadline_s: float = 60.0


def quote(word: str) -> str:
    return shlex.quote(word)


def locked(name: str, lines: Iterable[str]) -> str:
    """A script that runs under a lock on the host.

    A step whose controller was killed may still run there: the next one must not start beside it (S7).
    """
    script = "set -eu\n" + "\n".join(lines)
    return f"flock -n -E {LOCKED} /run/lock/vcrecon.{name} sh -c {quote(script)}"


def failure(what: str, where: str, status: int, stderr: bytes) -> HostError:
    """The error for a step that ended with `status`: its class, kind and message."""
    last = stderr.decode(errors="replace").strip().splitlines()
    said = last[-1][:300] if last else "it said nothing"
    if status == LOCKED:
        return Transient(f"{what} on {where}: an earlier step is still at work there", delay_s=5, kind="locked")
    if status == CORRUPT:
        return Transient(f"{what} on {where}: {said}", delay_s=10, kind="corrupt")
    if status == IN_USE:
        return Transient(f"{what} on {where}: {said}", delay_s=2, kind="in-use")
    if status == UNSAFE:
        return Permanent(f"{what} on {where} refused: {said}", kind="unsafe")
    if "No space left" in said or "insufficient free space" in said.lower():
        return Transient(f"{what} on {where}: {said}", delay_s=30, kind="no-space")
    return Transient(f"{what} on {where}: {said} (exit status {status})", delay_s=2, kind="command-failed")
