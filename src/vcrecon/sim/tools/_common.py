"""What all simulated tools share: option parsing with GNU's messages, paths, and the table of tools."""

from __future__ import annotations

import getopt
import posixpath
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from vcrecon.sim.process import Process, Tool

CHUNK_BYTES = 256 << 10
Body = Callable[[Process, Sequence[str]], Awaitable[int]]


class Failure(Exception):
    """Ends a tool: `message` (may be empty) goes to standard error, `status` is the exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


def reason(error: OSError) -> str:
    """The kernel's words for an error."""
    return error.strerror or str(error)


def tool(table: dict[str, Tool], *names: str, status: int = 1) -> Callable[[Body], Body]:
    """Register a tool under its names. An OSError it lets out becomes `NAME: PATH: words` with `status`."""

    def wrap(body: Body) -> Body:
        async def run(process: Process) -> int:
            name = posixpath.basename(process.argv[0])
            try:
                return await body(process, process.argv[1:])
            except Failure as failure:
                if failure.message:
                    await process.fail(failure.message)
                return failure.status
            except BrokenPipeError:
                return 141  # killed by SIGPIPE
            except OSError as error:
                where = f"{error.filename}: " if error.filename else ""
                return await process.fail(f"{name}: {where}{reason(error)}", status)

        for name in names:
            table[name] = run
        return body

    return wrap


def options(
    name: str,
    args: Sequence[str],
    short: str = "",
    long: Sequence[str] = (),
    *,
    status: int = 1,
    gnu: bool = True,
) -> tuple[dict[str, list[str]], list[str]]:
    """Options by their spelling (`-f`, `--quiet`) with their values in order, and the other arguments.

    Raises Failure in getopt_long's words.
    """
    try:
        parse = getopt.gnu_getopt if gnu else getopt.getopt
        pairs, rest = parse(list(args), short, list(long))
    except getopt.GetoptError as error:
        tail = f"\nTry '{name} --help' for more information."
        if len(error.opt) == 1:
            if "requires argument" in error.msg:
                raise Failure(f"{name}: option requires an argument -- '{error.opt}'{tail}", status) from None
            raise Failure(f"{name}: invalid option -- '{error.opt}'{tail}", status) from None
        if "requires argument" in error.msg:
            raise Failure(f"{name}: option '--{error.opt}' requires an argument{tail}", status) from None
        raise Failure(f"{name}: unrecognized option '--{error.opt}'{tail}", status) from None
    found: dict[str, list[str]] = {}
    for option, value in pairs:
        found.setdefault(option, []).append(value)
    return found, rest


def last(found: dict[str, list[str]], *names: str) -> str | None:
    """The last value given for any of `names`."""
    values = [value for name in names for value in found.get(name, [])]
    return values[-1] if values else None


def given(found: dict[str, list[str]], *names: str) -> bool:
    return any(name in found for name in names)


def need_operand(name: str, rest: Sequence[str], status: int = 1) -> None:
    if not rest:
        raise Failure(f"{name}: missing operand\nTry '{name} --help' for more information.", status)


def full(process: Process, path: str) -> str:
    """`path` made absolute with the shell's working directory."""
    return posixpath.join(process.env.get("PWD", "/"), path) if not path.startswith("/") else path


STDIN = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")


async def read_input(process: Process, path: str) -> bytes:
    """All bytes of a file, or of standard input for `-` and /dev/stdin."""
    if path in STDIN:
        return await process.stdin.read()
    return process.machine.files.read(full(process, path))


async def chunks(process: Process, path: str) -> AsyncIterator[bytes]:
    """The same bit by bit, so that a pipeline runs with bounded memory."""
    if path not in STDIN:
        data = process.machine.files.read(full(process, path))
        for start in range(0, len(data), CHUNK_BYTES):
            yield data[start : start + CHUNK_BYTES]
        return
    while data := await process.stdin.read(CHUNK_BYTES):
        yield data


def lines_of(data: bytes) -> list[bytes]:
    """Lines with their newlines; the last may lack one."""
    parts = data.split(b"\n")
    lines = [part + b"\n" for part in parts[:-1]]
    return [*lines, parts[-1]] if parts[-1] else lines
