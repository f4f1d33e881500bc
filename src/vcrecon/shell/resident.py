"""Programs that stay running on a host and answer over one channel: a shell, and tools such as `virsh -q`.

Used by `shell.transport` behind `Host.ask` and `Host.ask_tool`. Starting a program is what a look at a host
costs (0.8 s for one virsh on a slow host), so these are started once and asked many times. An exchange that
does not end cleanly closes the program: a late answer must never be taken for the next one's.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence

from vcrecon.shell.channel import Channel, Reply

# Built-in commands with literal words: they cannot exit, change the shell or fail to parse, so the fork that
# guards it from everything else (0.2 ms of the host's CPU) is saved. A probe such as `echo up` is one.
_HARMLESS = re.compile(r"(?::|true|false|echo(?: [A-Za-z0-9_./:=@%+,-]+)*)", re.ASCII)


class Died(Exception):
    """The program ended before it answered; `tail` is the last of what it said. Never leaves `shell`."""

    def __init__(self, tail: str, status: int | None) -> None:
        super().__init__(tail)
        self.tail = tail
        self.status = status


class ResidentShell:
    """A POSIX shell that runs one block at a time. Callers take turns (the owner holds a lock)."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @property
    def alive(self) -> bool:
        return self._channel.usable

    def close(self) -> None:
        self._channel.abort()

    async def start(self) -> None:
        """Wait for the shell and drop whatever a login script printed. Raises Died."""
        mark = _new_mark()
        await _exchange(self._channel, f"printf '\\n%s\\n' {mark}\n", _ends_with_line(mark))
        self._channel.stderr.clear()

    async def ask(self, script: str) -> Reply:
        """Run `script` in a subshell and return its output and exit status. Raises Died or Permanent.

        Standard output may hold any bytes; standard error loses NUL bytes and extra newlines at its end.
        Standard input is empty. The script may exit, fail to parse or change directory without harm.
        """
        mark = _new_mark()
        raw = await _exchange(self._channel, frame(script, mark), _ends_with_line(mark))
        stdout, _, trailer = raw.partition(f"\n{mark} ".encode())
        status, _, rest = trailer.partition(b"\n")
        stderr = rest.removesuffix(f"\n{mark}\n".encode())
        return Reply(stdout, stderr + b"\n" if stderr else b"", int(status))


def frame(script: str, mark: str) -> str:
    """The lines that make a shell run `script` and print: output, newline, mark, status, errors, mark.

    Errors are caught in a variable and follow the output on the same stream, so that one packet carries
    both and no order between two streams matters. `eval` of one quoted word keeps an unbalanced quote or
    parenthesis from swallowing what comes after it.
    """
    if _HARMLESS.fullmatch(script):
        return f"{script}; printf '\\n{mark} %d\\n\\n{mark}\\n' $?\n"
    quoted = "'" + script.replace("'", "'\\''") + "'"
    return (
        f"{{ vcrecon_err=$(eval {quoted} 2>&1 >&3 3>&- </dev/null); }} 3>&1; "
        f"printf '\\n{mark} %d\\n%s\\n{mark}\\n' $? \"$vcrecon_err\"\n"
    )


class ResidentTool:
    """An interactive tool that reads lines and has an `echo` command, as virsh does.

    Without a terminal virsh prints its prompt and repeats each line, and its `echo MARK` prints no newline
    before the next prompt. Both habits are learned in `start`, so a tool with others works too.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._gap = b""
        self._repeats = False

    @property
    def alive(self) -> bool:
        return self._channel.usable

    def close(self) -> None:
        self._channel.abort()

    async def start(self) -> None:
        """Wait for the tool and learn its prompt. Raises Died with what it said when it did not start."""
        first, second = _new_mark(), _new_mark()
        between = re.compile(
            rf"(?<!echo ){first}(?P<gap>\n?[^\n]*?)(?P<repeat>echo {second}\n)?{second}(?P=gap)".encode()
        )

        def find(buffer: bytearray, _start: int) -> int:
            match = between.search(buffer)
            if match is None:
                return -1
            self._gap = bytes(match["gap"])
            self._repeats = match["repeat"] is not None
            return match.end()

        await _exchange(self._channel, f"echo {first}\necho {second}\n", find)

    async def ask(self, lines: Sequence[str]) -> list[str]:
        """Give the tool `lines` and return its answer to each, in order. Raises Died or Permanent.

        Raises ValueError for a line with a control character: a tab would ask the tool for completion, and
        a newline would make two questions of one.
        """
        for line in lines:
            if not line.isprintable():
                raise ValueError(f"a line for a resident tool must be printable text: {line!r}")
        mark = _new_mark()
        request = "".join(f"{line}\necho {mark}.{index}.\n" for index, line in enumerate(lines))
        if not request:
            return []
        last = self._end(f"{mark}.{len(lines) - 1}.") + self._gap

        def find(buffer: bytearray, start: int) -> int:
            at = buffer.find(last, max(start - len(last), 0))
            return -1 if at < 0 else at + len(last)

        raw = await _exchange(self._channel, request, find)
        answers, position = [], 0
        for index, line in enumerate(lines):
            position = self._skip_repeat(raw, position, line)
            end = self._prompt + self._end(f"{mark}.{index}.")
            at = raw.find(end, position)
            answers.append(raw[position:at].decode("utf-8", "replace"))
            position = at + len(end) + len(self._gap)
        return answers

    @property
    def _prompt(self) -> bytes:
        return self._gap.lstrip(b"\n")

    def _end(self, mark: str) -> bytes:
        return (f"echo {mark}\n{mark}" if self._repeats else mark).encode()

    def _skip_repeat(self, raw: bytes, position: int, line: str) -> int:
        if not self._repeats:
            return position
        repeat = line.encode() + b"\n"
        if raw.startswith(repeat, position):
            return position + len(repeat)
        # A line longer than the tool believes the screen to be is repeated scrolled, but still as one line.
        return raw.index(b"\n", position) + 1


async def _exchange(channel: Channel, request: str, find: Callable[[bytearray, int], int]) -> bytes:
    """Send `request` and return the output up to the position that `find(buffer, searched)` gives, or -1.

    Closes the channel when the exchange does not end cleanly, cancellation included. Raises Died.
    """
    buffer = channel.stdout
    searched = 0
    try:
        channel.write_now(request.encode())
        while (end := find(buffer, searched)) < 0:
            searched = len(buffer)
            channel.raise_if_overflowed()
            if channel.ended:
                raise Died(_tail(channel), channel.status)
            await channel.changed()
    except BrokenPipeError:
        raise Died(_tail(channel), channel.status) from None
    except BaseException:
        channel.abort()
        raise
    raw = bytes(buffer[:end])
    if len(buffer) > end:
        channel.abort()  # a background process goes on writing: nobody could tell its output from an answer
    buffer.clear()
    return raw


def _ends_with_line(mark: str) -> Callable[[bytearray, int], int]:
    line = f"\n{mark}\n".encode()

    def find(buffer: bytearray, start: int) -> int:
        at = buffer.find(line, max(start - len(line), 0))
        return -1 if at < 0 else at + len(line)

    return find


def _tail(channel: Channel) -> str:
    """The last lines of what a dead program said, errors last, for a message."""
    text = (bytes(channel.stdout[-400:]) + bytes(channel.stderr[-400:])).decode("utf-8", "replace")
    return " / ".join(line.strip() for line in text.splitlines() if line.strip())[-400:]


def _new_mark() -> str:
    return f"vcr{secrets.token_hex(8)}"
