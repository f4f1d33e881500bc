"""A pseudo-terminal of a simulated host: the kernel's line discipline between an SSH session and its programs.

Made by `sim.server` when a client asks for a terminal; the shell and the console tools find it as `terminal` on
their standard input. Knows what termios(3) calls ICANON, ECHO, ISIG, ICRNL and OPOST.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import asyncssh

INTERRUPT, END, ERASE, KILL = 0x03, 0x04, 0x7F, 0x15


class Terminal:
    """One terminal. `modes` are those of the pty request (RFC 4254, section 8); `size` is (columns, lines)."""

    def __init__(self, modes: Mapping[int, int], size: tuple[int, int], name: str) -> None:
        self.size = size
        self.name = name
        self.canonical = bool(modes.get(asyncssh.PTY_ICANON, 1))
        self.echo = bool(modes.get(asyncssh.PTY_ECHO, 1))
        self.signals = bool(modes.get(asyncssh.PTY_ISIG, 1))
        self.maps_return = bool(modes.get(asyncssh.PTY_ICRNL, 1))
        self.processes_output = bool(modes.get(asyncssh.PTY_OPOST, 1))
        self._line = bytearray()

    def typed(self, data: bytes) -> tuple[bytes, bytes, bool]:
        """What a program may read of `data`, what the terminal shows of it, and whether the input ended."""
        if not self.canonical:
            return data, data if self.echo else b"", False
        ready, shown, ended = bytearray(), bytearray(), False
        for byte in data:
            if byte == 0x0D and self.maps_return:
                byte = 0x0A
            if byte == INTERRUPT and self.signals:
                self._line.clear()
                shown += b"^C\r\n" if self.echo else b""
                # What a shell at its prompt does with SIGINT: the line is gone, a new prompt comes.
                ready += b"\n"
            elif byte == END:
                ended = ended or not self._line
                ready += self._line
                self._line.clear()
            elif byte in (ERASE, KILL):
                count = len(self._line) if byte == KILL else min(1, len(self._line))
                del self._line[len(self._line) - count :]
                shown += b"\b \b" * count if self.echo else b""
            else:
                self._line.append(byte)
                shown += self._shown(byte)
                if byte == 0x0A:
                    ready += self._line
                    self._line.clear()
        return bytes(ready), bytes(shown), ended

    def _shown(self, byte: int) -> bytes:
        if not self.echo:
            return b""
        if byte == 0x0A:
            return b"\r\n"
        return bytes([0x5E, byte + 0x40]) if byte < 0x20 and byte != 0x09 else bytes([byte])

    def printed(self, data: bytes) -> bytes:
        """What the client gets of a program's output."""
        return data.replace(b"\n", b"\r\n") if self.processes_output else data

    @contextlib.contextmanager
    def raw(self) -> Iterator[None]:
        """As `cfmakeraw` leaves it, for a program such as `virsh console`."""
        names = ("canonical", "echo", "signals", "maps_return", "processes_output")
        before = {name: getattr(self, name) for name in names}
        for name in names:
            setattr(self, name, False)
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)


def terminal_of(stream: Any) -> Terminal | None:
    """The terminal behind a process's stream; None when there is none."""
    found = getattr(stream, "terminal", None)
    return found if isinstance(found, Terminal) else None
