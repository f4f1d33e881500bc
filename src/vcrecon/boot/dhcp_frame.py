"""DHCP messages as whole Ethernet frames, for who speaks over a packet socket: no address or port of one's own needed.

Pure (RFC 2131, 2132). Called by `dhcp_probe`, and by the simulated machines of benchmarks/.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

ETHERTYPE_IPV4 = 0x0800
MESSAGE_TYPE, SERVER_ID = 53, 54
DISCOVER, OFFER, REQUEST, ACK = 1, 2, 3, 5
FRAME_BYTES_MAX = 2048
_UDP = 17
_SERVER_PORT, _CLIENT_PORT = 67, 68
_BOOTREQUEST, _BOOTREPLY = 1, 2
_COOKIE = bytes([99, 130, 83, 99])
_PAD, _END = 0, 255
_HEADER = struct.Struct("!4BIHH4s4s4s4s16s64s128s")
_BROADCAST_FLAG = 0x8000
_MESSAGE_BYTES_MIN = 300
"""Of BOOTP (RFC 1542): some servers drop what is shorter."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered. `address` is the machine's, `next_server` and `boot_file` are where it boots from.

    `sender` and `mac` are where the frame came from. `options` are by number.
    """

    address: IPv4Address
    next_server: IPv4Address
    boot_file: bytes
    options: Mapping[int, bytes]
    sender: IPv4Address
    mac: bytes

    @property
    def kind(self) -> int:
        """Its message type; 0 without one that can be read."""
        found = self.options.get(MESSAGE_TYPE, b"")
        return found[0] if len(found) == 1 else 0


def request(mac: bytes, transaction: int, options: Mapping[int, bytes], *, broadcast: bool = True) -> bytes:
    """The frame that asks every server on the wire, from the interface with this MAC (6 bytes).

    `broadcast`: the answer must be one too, for who cannot receive a unicast before it has its address.
    """
    nowhere, flags = bytes(4), _BROADCAST_FLAG if broadcast else 0
    message = _HEADER.pack(
        _BOOTREQUEST, 1, 6, 0, transaction, 0, flags, nowhere, nowhere, nowhere, nowhere, mac, b"", b""
    )
    message += _COOKIE + b"".join(bytes([code, len(value)]) + value for code, value in options.items()) + bytes([_END])
    message = message.ljust(_MESSAGE_BYTES_MIN, b"\0")
    udp = struct.pack("!4H", _CLIENT_PORT, _SERVER_PORT, 8 + len(message), 0) + message
    ip = struct.pack("!2B3H2BH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, _UDP, 0, nowhere, b"\xff" * 4)
    ip = ip[:10] + struct.pack("!H", _checksum(ip)) + ip[12:]
    return b"\xff" * 6 + mac + struct.pack("!H", ETHERTYPE_IPV4) + ip + udp


def _checksum(header: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def reply(frame: bytes, transaction: int) -> Reply | None:
    """The answer in a frame, when it is to this transaction; None for every other frame, however broken."""
    if len(frame) < 14 + 20 or frame[12:14] != struct.pack("!H", ETHERTYPE_IPV4):
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
    fields = _HEADER.unpack(message[: _HEADER.size])
    if fields[4] != transaction:
        return None
    return Reply(
        address=IPv4Address(fields[8]),
        next_server=IPv4Address(fields[9]),
        boot_file=fields[13].rstrip(b"\0"),
        options=_options(message[_HEADER.size + 4 :]),
        sender=IPv4Address(ip[12:16]),
        mac=frame[6:12],
    )


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
