"""Tell systemd how we are: ready, busy with what, still alive, stopping. Called by the controller.

The protocol of sd_notify(3): one datagram of `KEY=value` lines to the socket in NOTIFY_SOCKET. Without that
variable nothing is sent, so the same code runs under systemd, in a terminal and in a test.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

import structlog

_log = structlog.get_logger(__name__)


class Notifier:
    """Sends to systemd, or nowhere. Never raises and never blocks: supervision must not stop the work."""

    def __init__(self, address: str | None) -> None:
        """`address` is a path, or an abstract socket's name after "@"; None sends nothing."""
        if address and address[0] not in "/@":
            _log.warning(
                "NOTIFY_SOCKET is not a path nor an abstract name: systemd is not told anything",
                value=address,
            )
            address = None
        self._address = "\0" + address[1:] if address and address.startswith("@") else address

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Notifier:
        return cls(environ.get("NOTIFY_SOCKET") or None)

    def ready(self, status: str = "") -> None:
        """Start-up is over: units that wait for us may start."""
        self._send("READY=1", *_status(status))

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(*_status(text or "-"))

    def watchdog(self) -> None:
        """Still alive. Call it every `watchdog_interval_s()` seconds from the loop that does the work."""
        self._send("WATCHDOG=1")

    def stopping(self, status: str = "") -> None:
        """Shutdown has begun."""
        self._send("STOPPING=1", *_status(status))

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            _log.debug("systemd was not told", error=str(error), lines=lines)


def _status(text: str) -> tuple[str, ...]:
    # A newline would start another key of the protocol.
    return (f"STATUS={' '.join(text.split())}",) if text else ()


def watchdog_interval_s(environ: Mapping[str, str] = os.environ, *, pid: int | None = None) -> float | None:
    """How often to call `Notifier.watchdog`, in seconds: half of systemd's deadline.

    So advises sd_watchdog_enabled(3). None when systemd set no deadline, or set it for another process.
    """
    wanted_pid = environ.get("WATCHDOG_PID", "")
    if wanted_pid and wanted_pid != str(os.getpid() if pid is None else pid):
        return None
    try:
        deadline_us = int(environ.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return None
    return deadline_us / 2e6 if deadline_us > 0 else None
