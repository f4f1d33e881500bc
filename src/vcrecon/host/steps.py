"""A step: one script for one host. Scripts use stock Debian commands only, and read as one would type them.

Exit statuses that mean something to the caller: LOCKED, CORRUPT, UNSAFE, IN_USE, REFUSED.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from vcrecon.core import programs
from vcrecon.errors import HostError, Permanent, Transient

LOCKED = 75
"""Another step still works on the same object (EX_TEMPFAIL)."""
CORRUPT = 65
"""Data does not match its SHA-256 (EX_DATAERR)."""
UNSAFE = 77
"""The step refused, to protect data (EX_NOPERM)."""
IN_USE = 69
"""A person still works with what the step is about (EX_UNAVAILABLE)."""

NOT_FOUND = 127
"""A program is missing (POSIX 2.8.2)."""
REFUSED = 78
"""The last line of standard error is `REASON: what is wrong and what to do` (EX_CONFIG); see `refuse`."""
_REASON = re.compile(r"(?P<reason>[a-z]+(?:-[a-z]+)*): (?P<words>.+)")
_NOT_FOUND = re.compile(r"(?:^|\s)[\w/]*sh: .*?(?P<program>[\w.+-]+): (?:command )?not found$", re.MULTILINE)
_NO_EXEC = re.compile(r"^tar \(child\): (?P<program>[\w.+-]+): Cannot exec", re.MULTILINE)
_LIBXL = re.compile(r"libxl: error: [\w.]+:\d+:\w+: (?P<words>.+)")
_NO_SPACE = re.compile(r"^.*(?:No space left|insufficient free space).*$", re.MULTILINE | re.IGNORECASE)
_SAID_MAX = 300
_WORDS: tuple[tuple[str, re.Pattern[str], str], ...] = (
    (
        "no-trunk",
        re.compile(r'Cannot find device "(?!vc)(?P<thing>[^"]+)"'),
        "{where} has no network interface {thing}: correct 'trunk' in containers.yaml; `ip -br link` there shows "
        "what it has",
    ),
    (
        "no-vlan",
        re.compile(r"^(?P<thing>.*(?:Unknown device type|RTNETLINK answers: Operation not supported).*)$", re.M),
        "{where} cannot make VLANs and bridges ({thing}): `modprobe -a 8021q bridge` there, or install a kernel that "
        "has them",
    ),
    (
        "name-taken",
        re.compile(r"domain '(?P<thing>[^']+)' already exists with uuid"),
        "{where} has a virtual machine {thing} that is not vcrecon's: stop it and `virsh domrename {thing} NEW-NAME` "
        "there, or rename the guest",
    ),
    (
        "no-space",
        re.compile(r"(?P<thing>curl: \(23\).*)"),
        "{where} cannot write what it downloads ({thing}): `df -h /var/lib/vcrecon` there, and make room",
    ),
)
"""What tools say when the container, and not vcrecon, must be changed: reason, their words, what to type."""


@dataclass(frozen=True, slots=True)
class Step:
    """One script on `container`. `stdin` may hold secrets and is never shown (S10)."""

    container: str
    script: str
    stdin: bytes | None = None
    deadline_s: float = 60.0


def quote(word: str) -> str:
    return shlex.quote(word)


def refuse(reason: str, words: str) -> str:
    """A line that ends the script with `reason`, a short code. The shell expands parameters in `words`, no more."""
    for special in ("\\", '"', "`"):
        words = words.replace(special, f"\\{special}")
    return f"printf '%s\\n' \"{reason}: {words}\" >&2; exit {REFUSED}"


def locked(name: str, lines: Iterable[str]) -> str:
    """A script that runs under a lock on the host.

    A step whose controller was killed may still run there: the next one must not start beside it (S7).
    """
    script = "set -eu\n" + "\n".join(lines)
    # -o: a process that a tool leaves behind (xl create does, for each domain) must not inherit the lock.
    return f"flock -n -o -E {LOCKED} /run/lock/vcrecon.{name} sh -c {quote(script)}"


def printable(text: str) -> str:
    """Without control characters: what a host says ends up in logs and on terminals."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text.replace("\t", " ").replace("\r", ""))


def not_found(text: str) -> str:
    """The program that a shell, or tar, says is missing; nothing when none is."""
    match = _NOT_FOUND.search(text) or _NO_EXEC.search(text)
    return match["program"] if match else ""


def _cause(lines: list[str]) -> str:
    """The line that tells why. Most tools end with it; libxl begins with it, or quotes the script that failed."""
    told = [match["words"] for line in lines if (match := _LIBXL.match(line))]
    quoted = [words for words in told if words.startswith("script: ")]
    return next(iter(quoted or told), lines[-1])


def failure(what: str, where: str, status: int, stderr: bytes) -> HostError:
    """The error for a step that ended with `status`: its class, kind and message."""
    text = printable(stderr.decode(errors="replace")).strip()
    last = text.splitlines()
    said = _cause(last)[:_SAID_MAX] if last else "it said nothing"
    if status == LOCKED:
        return Transient(f"{what} on {where}: an earlier step is still at work there", delay_s=5, kind="locked")
    reasoned = _REASON.fullmatch(last[-1]) if status == REFUSED and last else None
    if reasoned is not None:
        return Transient(f"{where}: {reasoned['words'][:600]}", delay_s=5, kind=reasoned["reason"])
    if status == CORRUPT:
        return Transient(f"{what} on {where}: {said}", delay_s=10, kind="corrupt")
    if status == IN_USE:
        return Transient(f"{what} on {where}: {said}", delay_s=2, kind="in-use")
    if status == UNSAFE:
        return Permanent(f"{what} on {where} refused: {said}", kind="unsafe")
    program = not_found(text)
    if program:
        reason, message = programs.missing(program, where)
        return Transient(message, delay_s=5, kind=reason)
    for reason, pattern, message in _WORDS:
        match = pattern.search(text)
        if match is not None:
            words = message.format(what=what, where=where, thing=match["thing"].strip()[:_SAID_MAX])
            return Transient(words, delay_s=5, kind=reason)
    full = _NO_SPACE.search(text)
    if full is not None:
        return Transient(f"{what} on {where}: {full[0].strip()[:_SAID_MAX]}", delay_s=30, kind="no-space")
    return Transient(f"{what} on {where}: {said} (exit status {status})", delay_s=2, kind="command-failed")
