"""The serial console of a simulated guest: a getty that asks for a login, and lets nobody in.

Called by the `console` commands of `sim.tools.virsh` and `sim.tools.xl`. A guest whose kernel was not told to use
this console is silent on it, as a real one is.
"""

from __future__ import annotations

import asyncio
import contextlib
import re

from vcrecon.sim.domains import Domain, DomainEvent
from vcrecon.sim.process import Process
from vcrecon.sim.terminal import terminal_of

ESCAPE = 0x1D


async def join(process: Process, domain: Domain, device: str) -> None:
    """Join the process's streams to the console `device` of `domain`, until ^], the end of input, or of the guest."""
    gone = asyncio.Event()
    number = domain.id

    def on_event(event: DomainEvent) -> None:
        if event.domain == domain.name and domain.id != number:
            gone.set()

    stop = process.machine.on_domain_event(on_event)
    terminal = terminal_of(process.stdin)
    try:
        with terminal.raw() if terminal is not None else contextlib.nullcontext():
            reading = asyncio.ensure_future(_converse(process, domain, device))
            ending = asyncio.ensure_future(gone.wait())
            try:
                await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    reading.result()
            finally:
                reading.cancel()
                ending.cancel()
                await asyncio.gather(reading, ending, return_exceptions=True)
    finally:
        stop()


async def _converse(process: Process, domain: Domain, device: str) -> None:
    getty = _Getty(domain.name, device)
    listens = re.search(rf"(^|\s)console={device}(,\S*)?(\s|$)", domain.cmdline) is not None or not domain.kernel
    while data := await process.stdin.read(256):
        before, found, _ = data.partition(bytes([ESCAPE]))
        up = process.machine.timing.now() >= domain.answers_at
        answer = b"".join(getty.typed(byte) for byte in before) if listens and up else b""
        if answer:
            await process.stdout.write(answer)
        if found:
            return


class _Getty:
    """agetty and login, as far as they go without a right password."""

    def __init__(self, host: str, device: str) -> None:
        self._banner = f"\r\nDebian GNU/Linux 12 {host} {device}\r\n\r\n{host} login: ".encode()
        self._prompt = f"\r\nLogin incorrect\r\n{host} login: ".encode()
        self._name = b""
        self._asked_password = False

    def typed(self, byte: int) -> bytes:
        if byte in (0x0A, 0x0D):
            if self._asked_password:
                self._asked_password, self._name = False, b""
                return b"\r\n" + self._prompt
            if not self._name:
                return self._banner
            self._asked_password = True
            return b"\r\nPassword: "
        if self._asked_password:
            return b""
        self._name += bytes([byte])
        return bytes([byte])
