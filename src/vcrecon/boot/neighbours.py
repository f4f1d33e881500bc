"""Who is really at an address: the kernel's neighbour table. Called by `boot.server` for each request.

A machine says its MAC itself; the table says from which MAC its packets came. Only machines on our own wire are
in it, so it also proves that a request did not come through a router.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

_TABLE = Path("/proc/net/arp")
_COMPLETE = 0x2
"""ATF_COM of if_arp.h: the MAC is known."""


class Neighbours(Protocol):
    def mac_of(self, address: str) -> str | None:
        """The MAC (lower case, colons) of the neighbour with this IPv4 address, or None when there is none."""


class KernelNeighbours:
    """The table of the kernel, read anew for each question; on `interface` only, or on any when it is ""."""

    def __init__(self, interface: str, table: Path = _TABLE) -> None:
        self._interface, self._table = interface, table

    def mac_of(self, address: str) -> str | None:
        try:
            text = self._table.read_text(encoding="ascii", errors="replace")
        except OSError:
            return None
        return parse(text, self._interface).get(address)


def parse(text: str, interface: str) -> dict[str, str]:
    """MAC by address from the text of /proc/net/arp, entries that are not complete left out."""
    found = {}
    for line in text.splitlines()[1:]:
        match line.split():
            case [address, _, flags, mac, _, device] if int(flags, 16) & _COMPLETE and interface in ("", device):
                found[address] = mac.lower()
    return found
