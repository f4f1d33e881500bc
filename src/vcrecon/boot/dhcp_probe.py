"""Is there another DHCP server on the wire? Asked by `boot.services` before ours answers.

One DHCPDISCOVER (RFC 2131) goes out as a whole Ethernet frame over a packet socket, so it needs no address and no port
of ours; whoever offers within some seconds is named. A server that answers only machines it knows stays unseen.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address

from vcrecon.boot.dhcp_frame import (
    ACK,
    DISCOVER,
    ETHERTYPE_IPV4,
    FRAME_BYTES_MAX,
    MESSAGE_TYPE,
    OFFER,
    SERVER_ID,
    reply,
    request,
)
from vcrecon.errors import Refused

LISTEN_S = 3.0
ASK_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Offer:
    """A server, as it names itself, offered an address."""

    server: str
    address: str
    mac: str

    def __str__(self) -> str:
        return f"{self.server} ({self.mac})"


def offer(frame: bytes, transaction: int) -> Offer | None:
    """The offer in a frame, when it answers this transaction; None for every other frame, however broken."""
    found = reply(frame, transaction)
    if found is None or found.kind not in (OFFER, ACK):
        return None
    named = found.options.get(SERVER_ID, b"")
    server = IPv4Address(named) if len(named) == 4 else found.sender
    return Offer(str(server), str(found.address), found.mac.hex(":"))


async def other_servers(interface: str, *, own: str, listen_s: float = LISTEN_S) -> list[Offer]:
    """Who offers an address on this interface within `listen_s` seconds; not the server with the address `own`.

    Asks once a second, and is content with the second in which somebody was found. Raises Refused when the
    interface is not there, or this process may not ask.
    """
    loop = asyncio.get_running_loop()
    transaction = secrets.randbits(32)
    found: dict[str, Offer] = {}
    try:
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ETHERTYPE_IPV4))
    except OSError as error:
        raise _cannot_ask(interface, error) from None
    with wire:
        try:
            wire.bind((interface, ETHERTYPE_IPV4))
            # Not from /sys, which in a network namespace may be that of another.
            mac: bytes = wire.getsockname()[4]
            ends_s = loop.time() + listen_s
            while (now_s := loop.time()) < ends_s:
                wire.send(request(mac, transaction, {MESSAGE_TYPE: bytes([DISCOVER])}))
                await _collect(wire, transaction, found, min(ends_s, now_s + ASK_AGAIN_S))
                if found.keys() - {own}:
                    break  # one is enough to keep ours off the wire
        except OSError as error:
            raise _cannot_ask(interface, error) from None
    return [one for server, one in sorted(found.items()) if server != own]


async def _collect(wire: socket.socket, transaction: int, found: dict[str, Offer], until_s: float) -> None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout_at(until_s):
            while True:
                answer = offer(await loop.sock_recv(wire, FRAME_BYTES_MAX), transaction)
                if answer is not None:
                    found[answer.server] = answer
    except TimeoutError:
        return


def _cannot_ask(interface: str, error: OSError) -> Refused:
    why = error.strerror or error
    return Refused(
        f"cannot look for other DHCP servers on {interface}: {why}; is the interface there and up "
        "(`ip -br link`), and does vcrecon run as root?"
    )
