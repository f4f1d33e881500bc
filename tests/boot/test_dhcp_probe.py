"""The search for another DHCP server: what is asked, and which frames are an answer."""

from __future__ import annotations

import struct

import pytest

from vcrecon.boot.dhcp_frame import DISCOVER, MESSAGE_TYPE, request
from vcrecon.boot.dhcp_probe import Offer, offer

MAC = bytes.fromhex("525400aa0001")
SERVER_MAC = bytes.fromhex("525400bb0001")
TRANSACTION = 0x12345678


def an_offer(
    *,
    transaction: int = TRANSACTION,
    options: bytes = b"\x35\x01\x02\x36\x04\x0a\x09\x00\x4d\xff",
    ports: tuple[int, int] = (67, 68),
    ethertype: int = 0x0800,
    ip_options: bytes = b"",
    fragment: int = 0,
    opcode: int = 2,
) -> bytes:
    """A frame from 10.9.0.2 that offers 10.9.0.100; as the server that calls itself 10.9.0.77."""
    message = struct.pack("!4BI", opcode, 1, 6, 0, transaction) + bytes(8) + bytes([10, 9, 0, 100]) + bytes(8) + MAC
    message = message.ljust(236, b"\0") + bytes([99, 130, 83, 99]) + options
    udp = struct.pack("!4H", *ports, 8 + len(message), 0) + message
    first = 0x40 | (5 + len(ip_options) // 4)
    ip = struct.pack("!2B3H2BH4s4s", first, 0, 20 + len(ip_options) + len(udp), 0, fragment, 64, 17, 0,
                     bytes([10, 9, 0, 2]), b"\xff" * 4)  # fmt: skip
    return MAC + SERVER_MAC + struct.pack("!H", ethertype) + ip + ip_options + udp


def test_an_offer_names_server_address_and_mac() -> None:
    assert offer(an_offer(), TRANSACTION) == Offer("10.9.0.77", "10.9.0.100", "52:54:00:bb:00:01")


def test_an_offer_without_a_server_is_from_where_it_came() -> None:
    found = offer(an_offer(options=b"\x00\x00\x35\x01\x02\xff"), TRANSACTION)
    assert found is not None
    assert found.server == "10.9.0.2"


def test_ip_options_are_skipped() -> None:
    assert offer(an_offer(ip_options=b"\x01" * 8), TRANSACTION) is not None


@pytest.mark.parametrize(
    "frame",
    [
        an_offer(transaction=1),
        an_offer(ports=(68, 67)),
        an_offer(ethertype=0x86DD),
        an_offer(fragment=0x10),
        an_offer(opcode=1),
        an_offer(options=b"\x35\x01\x06\xff"),
        an_offer(options=b""),
        an_offer(options=b"\x35"),
        an_offer(options=b"\x35\xff\x02"),
    ],
    ids=[
        "of another",
        "a request",
        "IPv6",
        "a fragment",
        "BOOTREQUEST",
        "a refusal",
        "no type",
        "cut",
        "a lie in length",
    ],
)
def test_every_other_frame_is_no_offer(frame: bytes) -> None:
    assert offer(frame, TRANSACTION) is None


def test_no_frame_is_too_broken_to_be_looked_at() -> None:
    whole = an_offer()
    cut = [offer(whole[:length], TRANSACTION) for length in range(len(whole))]
    assert [found for found in cut if found is not None and found.address != "10.9.0.100"] == []
    assert cut[:285] == [None] * 285


def test_what_is_asked_is_a_whole_discover_from_our_mac() -> None:
    frame = request(MAC, TRANSACTION, {MESSAGE_TYPE: bytes([DISCOVER])})
    assert frame[:14] == b"\xff" * 6 + MAC + b"\x08\x00"
    ip, message = frame[14:34], frame[42:]
    assert sum(struct.unpack("!10H", ip)) % 0xFFFF == 0
    assert struct.unpack("!2H", frame[34:38]) == (68, 67)
    assert int.from_bytes(message[4:8], "big") == TRANSACTION
    assert message[236:243] == bytes([99, 130, 83, 99, 53, 1, 1])
    assert len(message) >= 300
