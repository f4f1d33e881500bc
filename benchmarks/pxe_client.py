"""What a machine speaks while it boots from the network: DHCP, TFTP and HTTP, each bound to one interface.

Used by `boot_clients`, where 64 machines live in one namespace, each on a macvlan interface with a MAC of its own. DHCP
goes over a packet socket (RFC 2131, and RFC 4578 for what PXE adds), TFTP is RFC 1350 with the options of RFC 2347 to
2349 and the block size that iPXE asks for, HTTP is one request a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import random
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from vcrecon.boot.dhcp_frame import (
    ACK,
    DISCOVER,
    ETHERTYPE_IPV4,
    FRAME_BYTES_MAX,
    MESSAGE_TYPE,
    OFFER,
    REQUEST,
    SERVER_ID,
    Reply,
    reply,
    request,
)

BLOCK_BYTES = 1432
"""What iPXE asks for (its tftp.h)."""
FIRMWARE = {60: b"PXEClient:Arch:00000:UNDI:002001", 93: b"\x00\x00", 94: b"\x01\x02\x01", 97: b"\x00" + bytes(16)}
"""Options of a BIOS that boots by PXE."""
IPXE = {**FIRMWARE, 77: b"iPXE", 175: b"\xb1\x01\x01"}
PLAIN: Mapping[int, bytes] = {}
"""Options of an installer's own DHCP client."""

_MASK, _REQUESTED, _LIST, _BOOT_FILE = 1, 50, 55, 67
_ASK = bytes([1, 3, 6, 12, 15, 43, 54, 60, 66, 67, 128, 175])
_SIOCSIFADDR, _SIOCSIFNETMASK = 0x8916, 0x891C
_RECEIVE_BYTES = 256 << 10
_TFTP_PATIENCE_S = 1.0
_TFTP_TRIES = 30
_HTTP_SILENCE_S = 60.0


class Failed(Exception):
    """A server did not answer as it must; the message says which, and how."""


# --- DHCP ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lease:
    """What the server gave; `boot_file` is to be had at `server` by TFTP."""

    address: str
    mask: str
    server: str
    boot_file: str


async def dhcp(link: str, mac: str, options: Mapping[int, bytes], *, deadline_s: float = 60.0) -> Lease:
    """DISCOVER, OFFER, REQUEST, ACK; asked again after 1, 2, 4, … seconds as firmware does. Raises Failed."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0) as wire:
        wire.bind((link, ETHERTYPE_IPV4))
        try:
            async with asyncio.timeout(deadline_s):
                offer = await _exchange(wire, mac, DISCOVER, OFFER, options)
                chosen = {**options, _REQUESTED: offer.address.packed, SERVER_ID: offer.options[SERVER_ID]}
                given = await _exchange(wire, mac, REQUEST, ACK, chosen)
        except TimeoutError:
            raise Failed(f"{mac}: no DHCP server answered within {deadline_s:.0f} s") from None
    name = given.options.get(_BOOT_FILE, given.boot_file).rstrip(b"\0").decode()
    server = given.next_server if int(given.next_server) else IPv4Address(given.options[SERVER_ID])
    return Lease(str(given.address), str(IPv4Address(given.options[_MASK])), str(server), name)


async def _exchange(wire: socket.socket, mac: str, kind: int, wanted: int, options: Mapping[int, bytes]) -> Reply:
    loop, transaction, pause_s = asyncio.get_running_loop(), random.getrandbits(32), 1.0
    asked = {MESSAGE_TYPE: bytes([kind]), _LIST: _ASK, **options}
    # Firmware cannot receive a unicast before it has its address.
    broadcast = 60 in options and 175 not in options
    while True:
        wire.send(request(bytes.fromhex(mac.replace(":", "")), transaction, asked, broadcast=broadcast))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                while True:
                    found = reply(await loop.sock_recv(wire, FRAME_BYTES_MAX), transaction)
                    if found is not None and found.kind == wanted:
                        return found
        pause_s = min(2 * pause_s, 8.0)


def set_address(link: str, lease: Lease) -> None:
    """Put the address on the interface; the route to its network comes with it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, value in ((_SIOCSIFADDR, lease.address), (_SIOCSIFNETMASK, lease.mask)):
            address = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(value))
            fcntl.ioctl(control, request, struct.pack("16s16s", link.encode(), address))


# --- TFTP ------------------------------------------------------------------------------------------------------


class Tftp:
    """One read by TFTP. `received_bytes` counts payload as it comes; `data` holds it when it is kept."""

    def __init__(self, link: str, server: str, name: str, *, keep: bool = True) -> None:
        self._server, self._name, self._keep = server, name, keep
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
        self._buffer = bytearray(2048)
        self._block, self._size, self._connected = 0, 512, False
        self._last = b""
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.data = bytearray()
        self.received_bytes = 0
        self.retries = 0

    async def run(self) -> bytes:
        """Fetch all of it. Raises Failed."""
        loop = asyncio.get_running_loop()
        options = (b"octet", b"blksize", str(BLOCK_BYTES).encode(), b"tsize", b"0")
        self._last = struct.pack("!H", 1) + b"\0".join([self._name.encode(), *options]) + b"\0"
        self._socket.sendto(self._last, (self._server, 69))
        loop.add_reader(self._socket, self._readable)
        try:
            await self._patiently()
        finally:
            loop.remove_reader(self._socket)
            self._socket.close()
        return bytes(self.data)

    async def _patiently(self) -> None:
        """Send the last packet again when nothing came for a second."""
        silent, seen = 0, (-1, 0)
        while True:
            done, _ = await asyncio.wait([self._done], timeout=_TFTP_PATIENCE_S)
            if done:
                return self._done.result()
            now = (self._block, self.received_bytes)
            silent, seen = (silent + 1 if now == seen or not self._connected else 0), now
            if silent > _TFTP_TRIES:
                raise Failed(f"TFTP of {self._name} from {self._server}: silence")
            if silent:
                self.retries += 1
                self._send()

    def _send(self) -> None:
        if self._connected:
            self._socket.send(self._last)
        else:
            self._socket.sendto(self._last, (self._server, 69))

    def _readable(self) -> None:
        try:
            size, sender = self._socket.recvfrom_into(self._buffer)
        except (BlockingIOError, ConnectionError):
            return
        if not self._connected:
            self._socket.connect(sender)  # the transfer has a port of its own
            self._connected = True
        kind, number = struct.unpack_from("!2H", self._buffer)
        if kind == 3:
            self._take(number, size - 4)
        elif kind == 6:
            words = bytes(self._buffer[2:size]).split(b"\0")
            self._size = int(dict(zip(words[::2], words[1::2], strict=False)).get(b"blksize", b"512"))
            self._acknowledge(0)
        elif kind == 5 and not self._done.done():
            self._done.set_exception(Failed(f"TFTP of {self._name}: {bytes(self._buffer[4:size])!r}"))

    def _take(self, number: int, size: int) -> None:
        if number == (self._block + 1) & 0xFFFF:
            self._block = number
            self.received_bytes += size
            if self._keep:
                self.data += self._buffer[4 : 4 + size]
        elif number != self._block:
            return
        self._acknowledge(number)
        if size < self._size and not self._done.done():
            self._done.set_result(None)

    def _acknowledge(self, number: int) -> None:
        self._last = struct.pack("!2H", 4, number)
        self._socket.send(self._last)


# --- HTTP ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """`body` is empty when it was counted only; `size_bytes` is its length either way."""

    status: int
    body: bytes
    size_bytes: int


async def http(
    link: str,
    method: str,
    url: str,
    *,
    token: str = "",
    body: bytes = b"",
    counted: Callable[[int], None] | None = None,
) -> Answer:
    """One request. With `counted` the body is not kept: its pieces' lengths are told as they come. Raises Failed."""
    host, _, path = url.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    head = [f"{method} /{path} HTTP/1.1", f"Host: {host}", "Connection: close", f"Content-Length: {len(body)}"]
    if token:
        head.append(f"Authorization: Bearer {token}")
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
        try:
            async with asyncio.timeout(_HTTP_SILENCE_S):
                await loop.sock_connect(connection, (name, int(port or 80)))
                await loop.sock_sendall(connection, "\r\n".join([*head, "", ""]).encode() + body)
            return await _answer(connection, url, counted)
        except (OSError, TimeoutError) as error:
            raise Failed(f"{method} {url}: {error or 'silence'}") from None


async def _answer(connection: socket.socket, url: str, counted: Callable[[int], None] | None) -> Answer:
    loop = asyncio.get_running_loop()
    buffer = memoryview(bytearray(_RECEIVE_BYTES))
    have = b""
    while b"\r\n\r\n" not in have:
        async with asyncio.timeout(_HTTP_SILENCE_S):
            piece = await loop.sock_recv(connection, _RECEIVE_BYTES)
        if not piece:
            raise Failed(f"{url}: the answer was cut off")
        have += piece
    head, _, rest = have.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    fields = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:])}
    status = int(lines[0].split(" ")[1])
    total = 0 if status == 204 else int(fields["content-length"])
    body, size = bytearray(b"" if counted else rest), len(rest)
    if counted:
        counted(size)
    while size < total:
        async with asyncio.timeout(_HTTP_SILENCE_S):
            got = await loop.sock_recv_into(connection, buffer)
        if not got:
            raise Failed(f"{url}: cut off after {size} of {total} bytes")
        size += got
        if counted:
            counted(got)
        else:
            body += buffer[:got]
    return Answer(status, bytes(body), size)
