"""Is there another DHCP server on the wire? Asked by `boot.services` before ours answers.

One DHCPDISCOVER (RFC 2131) goes out as a whole Ethernet frame over a packet socket, so it needs no address and no port
of ours; whoever offers within some seconds is named. A server that answers only machines it knows stays unseen.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from vcrecon.errors import Refused

LISTEN_S = 3.0
ASK_AGAIN_S = 1.0
_ETHERTYPE_IPV4 = 0x0800
_UDP = 17
_SERVER_PORT, _CLIENT_PORT = 67, 68
_BOOTREQUEST, _BOOTREPLY = 1, 2
_COOKIE = bytes([99, 130, 83, 99])
_PAD, _MESSAGE_TYPE, _SERVER_ID, _END = 0, 53, 54, 255
_DISCOVER, _OFFER, _ACK = 1, 2, 5
_HEADER = struct.Struct("!4BIHH4s4s4s4s16s64s128s")
_BROADCAST_FLAG = 0x8000
_FRAME_BYTES_MAX = 2048


@dataclass(frozen=True, slots=True)
class Offer:
    """A server, as it names itself, offered an address."""

    server: str
    address: str
    mac: str

    def __str__(self) -> str:
        return f"{self.server} ({self.mac})"


def discover(mac: bytes, transaction: int) -> bytes:
    """The frame that asks every server on the wire for an address, for the interface with this MAC (6 bytes)."""
    nowhere = bytes(4)
    message = _HEADER.pack(
        _BOOTREQUEST, 1, 6, 0, transaction, 0, _BROADCAST_FLAG, nowhere, nowhere, nowhere, nowhere, mac, b"", b""
    )
    message += _COOKIE + bytes([_MESSAGE_TYPE, 1, _DISCOVER, _END])
    # Some servers drop a message that is shorter than BOOTP's own (RFC 1542, 300 bytes).
    message = message.ljust(300, b"\0")
    udp = struct.pack("!4H", _CLIENT_PORT, _SERVER_PORT, 8 + len(message), 0) + message
    ip = struct.pack("!2B3H2BH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, _UDP, 0, nowhere, b"\xff" * 4)
    ip = ip[:10] + struct.pack("!H", _checksum(ip)) + ip[12:]
    return b"\xff" * 6 + mac + struct.pack("!H", _ETHERTYPE_IPV4) + ip + udp


def _checksum(header: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def offer(frame: bytes, transaction: int) -> Offer | None:
    """The offer in a frame, when it answers this transaction; None for every other frame, however broken."""
    if len(frame) < 14 + 20 or frame[12:14] != struct.pack("!H", _ETHERTYPE_IPV4):
        return None
    ip = frame[14:]
    length = (ip[0] & 0xF) * 4
    if ip[0] >> 4 != 4 or length < 20 or ip[9] != _UDP or int.from_bytes(ip[6:8], "big") & 0x1FFF:
        return None
    udp = ip[length:]
    if len(udp) < 8 or struct.unpack("!2H", udp[:4]) != (_SERVER_PORT, _CLIENT_PORT):
        return None
    message = udp[8:]
    if len(message) < _HEADER.size + 4 or message[0] != _BOOTREPLY or message[_HEADER.size :][:4] != _COOKIE:
        return None
    if int.from_bytes(message[4:8], "big") != transaction:
        return None
    options = _options(message[_HEADER.size + 4 :])
    if options.get(_MESSAGE_TYPE) not in (bytes([_OFFER]), bytes([_ACK])):
        return None
    named = options.get(_SERVER_ID, b"")
    server = named if len(named) == 4 else ip[12:16]
    return Offer(str(IPv4Address(server)), str(IPv4Address(message[16:20])), frame[6:12].hex(":"))


def _options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at] != _END:
        if data[at] == _PAD:
            at += 1
            continue
        if at + 1 >= len(data):
            break
        size = data[at + 1]
        if at + 2 + size > len(data):
            break
        found.setdefault(data[at], data[at + 2 : at + 2 + size])
        at += 2 + size
    return found


async def other_servers(interface: str, *, own: str, listen_s: float = LISTEN_S) -> list[Offer]:
    """Who offers an address on this interface within `listen_s` seconds; not the server with the address `own`.

    Asks once a second, and is content with the second in which somebody was found. Raises Refused when the
    interface is not there, or this process may not ask.
    """
    loop = asyncio.get_running_loop()
    transaction = secrets.randbits(32)
    found: dict[str, Offer] = {}
    try:
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(_ETHERTYPE_IPV4))
    except OSError as error:
        raise _cannot_ask(interface, error) from None
    with wire:
        try:
            wire.bind((interface, _ETHERTYPE_IPV4))
            # Not from /sys, which in a network namespace may be that of another.
            mac: bytes = wire.getsockname()[4]
            ends_s = loop.time() + listen_s
            while (now_s := loop.time()) < ends_s:
                wire.send(discover(mac, transaction))
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
                answer = offer(await loop.sock_recv(wire, _FRAME_BYTES_MAX), transaction)
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
