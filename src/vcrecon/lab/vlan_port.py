"""`python -m vcrecon.lab.vlan_port LINK VLAN TAP`: an untagged port on one VLAN of the lab's trunk.

Started by `network.serve`. The machine that the lab runs on may have a kernel without 802.1Q, so this process
does what a switch's access port does: frames of that VLAN on LINK come out of TAP without their tag, and what
enters TAP goes out tagged. It ends by a signal.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import socket
import struct
import sys

_TUNSETIFF = 0x400454CA
_IFF_TAP_NO_PI = 0x0002 | 0x1000
_ETH_P_ALL = 0x0003
_SOL_PACKET, _PACKET_AUXDATA, _PACKET_OUTGOING = 263, 8, 4
_TP_STATUS_VLAN_VALID = 1 << 4
_TPID = 0x8100
_FRAME_BYTES_MAX = 65536


def tagged(frame: bytes, vlan: int) -> bytes:
    """An Ethernet frame with an 802.1Q tag put behind its two addresses."""
    return frame[:12] + struct.pack("!HH", _TPID, vlan) + frame[12:]


def untagged(frame: bytes, vlan: int) -> bytes | None:
    """The frame without its 802.1Q tag; None when it has none or belongs to another VLAN."""
    if len(frame) < 18:
        return None
    tpid, control = struct.unpack_from("!HH", frame, 12)
    return frame[:12] + frame[16:] if tpid == _TPID and control & 0x0FFF == vlan else None


def _received(link: socket.socket, vlan: int) -> bytes | None:
    """The next frame of the VLAN on `link`, without its tag. The kernel hands the tag over beside the frame."""
    frame, controls, _, sender = link.recvmsg(_FRAME_BYTES_MAX, 256)
    if sender[2] == _PACKET_OUTGOING:
        return None
    for level, kind, data in controls:
        if level == _SOL_PACKET and kind == _PACKET_AUXDATA:
            # struct tpacket_auxdata: status, len, snaplen, mac, net, vlan_tci, vlan_tpid
            status, _, _, _, _, control, _ = struct.unpack_from("=IIIHHHH", data)
            if status & _TP_STATUS_VLAN_VALID:
                return frame if control & 0x0FFF == vlan else None
    return untagged(frame, vlan)


def main(arguments: list[str]) -> None:
    """Pass frames on until a signal ends it."""
    name, vlan, tap_name = arguments[0], int(arguments[1]), arguments[2]
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH", tap_name.encode(), _IFF_TAP_NO_PI))
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    link.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
    link.bind((name, _ETH_P_ALL))
    selector = selectors.DefaultSelector()
    selector.register(link, selectors.EVENT_READ)
    selector.register(tap, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is link:
                frame = _received(link, vlan)
                if frame is not None:
                    _write(tap, frame)
            else:
                _send(link, tagged(os.read(tap, _FRAME_BYTES_MAX), vlan))


def _write(tap: int, frame: bytes) -> None:
    # A tap that is down or full loses a frame, as any cable may.
    try:
        os.write(tap, frame)
    except OSError:
        return


def _send(link: socket.socket, frame: bytes) -> None:
    try:
        link.send(frame)
    except OSError:
        return


if __name__ == "__main__":
    main(sys.argv[1:])
