"""Redirections of the simulated shell: from `> file` to open streams. Called by `sim.shell` only."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

from vcrecon.sim.shell_errors import RedirectionError, ShellError
from vcrecon.sim.shell_expand import text
from vcrecon.sim.shell_tree import HereDoc, Redirect
from vcrecon.sim.streams import BytesReader, FileWriter, FullWriter, NullWriter

if TYPE_CHECKING:
    from vcrecon.sim.shell import Shell


async def redirected(shell: Shell, redirects: tuple[Redirect, ...]) -> dict[int, Any]:
    """The open files after `redirects`. Raises RedirectionError with dash's message."""
    fds = dict(shell.fds)
    for redirect in redirects:
        if isinstance(redirect.target, HereDoc):
            body = await text(shell, redirect.target.body)
            fds[redirect.fd] = BytesReader(body.encode("utf-8", "surrogateescape"))
            continue
        target = await text(shell, redirect.target)
        if redirect.operator in (">&", "<&"):
            _duplicate(fds, redirect.fd, target)
        else:
            fds[redirect.fd] = _open(shell, fds, redirect.operator, target)
    return fds


def held_files(fds: dict[int, Any]) -> list[str]:
    """The files that stay open with these descriptors."""
    return [stream.path for stream in fds.values() if isinstance(stream, BytesReader | FileWriter) and stream.path]


def _duplicate(fds: dict[int, Any], fd: int, target: str) -> None:
    if target == "-":
        fds.pop(fd, None)
    elif not target.isdigit():
        raise ShellError("Syntax error: Bad fd number")
    elif int(target) not in fds:
        raise RedirectionError(f"{target}: Bad file descriptor")
    else:
        fds[fd] = fds[int(target)]


def _open(shell: Shell, fds: dict[int, Any], operator: str, target: str) -> Any:
    special = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
    if target in special or target.startswith(("/dev/fd/", "/proc/self/fd/")):
        number = special.get(target)
        number = int(posixpath.basename(target)) if number is None else number
        if number in fds:
            return fds[number]
    reading = operator == "<"
    if target == "/dev/null":
        return BytesReader() if reading else NullWriter()
    if target == "/dev/full" and not reading:
        return FullWriter()
    path = shell.resolve(target)
    files: Any = shell.machine.files
    try:
        if reading:
            return BytesReader(files.read(path), path)
        return FileWriter(shell.machine, path, append=operator == ">>", mode=0o666 & ~shell.umask)
    except FileNotFoundError:
        verb, reason = ("open", "No such file") if reading else ("create", "Directory nonexistent")
    except IsADirectoryError:
        if reading:
            return BytesReader()
        verb, reason = "create", "Is a directory"
    except OSError as error:
        verb, reason = ("open" if reading else "create"), error.strerror or str(error)
    raise RedirectionError(f"cannot {verb} {target}: {reason}")
