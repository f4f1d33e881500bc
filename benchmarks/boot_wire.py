"""A cable with a delay: two taps of this process, and every frame comes out of the other one later.

    ip netns exec … python -m benchmarks.boot_wire NEAR FAR DELAY_MS

Started by `boot` in the master's namespace, since this kernel has no netem; FAR is moved to the machines' namespace.
Frames are taken as large as the kernel makes them (TSO: up to 64 KiB), so the cable costs little beside what it
carries, and everything on it is delayed alike: ARP, DHCP, TFTP, HTTP. Says "ready" and runs until its input ends.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import sys
import time
from collections import deque

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_CSUM, _TSO4, _TSO6 = 0x01, 0x02, 0x04
_FRAME_BYTES_MAX = (64 << 10) + 1024
_BURST = 32
"""So many frames are taken from one side before those that are due are passed on."""


def tap(name: str) -> int:
    """A new tap that lives as long as the handle which is returned."""
    handle = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(handle, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR))
    fcntl.ioctl(handle, _TUNSETOFFLOAD, _CSUM | _TSO4 | _TSO6)
    return handle


def carry(ends: tuple[int, int], delay_s: float) -> None:
    """Pass frames both ways until standard input ends."""
    stop = sys.stdin.fileno()
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    under_way: deque[tuple[float, int, bytes]] = deque()
    now = time.perf_counter
    while True:
        timeout_s = max(0.0, under_way[0][0] - now()) if under_way else None
        readable, _, _ = select.select([*ends, stop], [], [], timeout_s)
        if stop in readable:
            return
        for handle in readable:
            _take(handle, other[handle], under_way, now() + delay_s)
        while under_way and under_way[0][0] <= now():
            _, handle, frame = under_way.popleft()
            try:
                os.write(handle, frame)
            except OSError:
                continue  # the interface is down, or its queue full: frames get lost on cables


def _take(handle: int, to: int, under_way: deque[tuple[float, int, bytes]], due_s: float) -> None:
    for _ in range(_BURST):
        try:
            under_way.append((due_s, to, os.read(handle, _FRAME_BYTES_MAX)))
        except OSError:
            return


def main() -> None:
    near, far, delay_ms = sys.argv[1:]
    ends = (tap(near), tap(far))
    print("ready", flush=True)
    carry(ends, float(delay_ms) / 1000)


if __name__ == "__main__":
    main()
