"""What systemd hears from us, and what happens when it does not listen."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from vcrecon.shell.notify import Notifier, watchdog_interval_s


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A socket like systemd's, and its address as NOTIFY_SOCKET gives it."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@vcrecon-test-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        listener.settimeout(5)
        yield address, listener


def test_every_message_reaches_systemd(systemd: tuple[str, socket.socket]) -> None:
    address, listener = systemd
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": address})
    notifier.ready("64 containers")
    notifier.status("converging")
    notifier.watchdog()
    notifier.stopping()
    heard = [listener.recv(1024).decode() for _ in range(4)]
    assert heard == ["READY=1\nSTATUS=64 containers", "STATUS=converging", "WATCHDOG=1", "STOPPING=1"]


def test_status_cannot_smuggle_in_another_key(systemd: tuple[str, socket.socket]) -> None:
    address, listener = systemd
    Notifier(address).status("busy\nWATCHDOG=trigger")
    assert listener.recv(1024) == b"STATUS=busy WATCHDOG=trigger"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_without_a_socket_nothing_is_sent_and_nothing_fails(environ: dict[str, str]) -> None:
    notifier = Notifier.from_environ(environ)
    notifier.ready()
    notifier.watchdog()


def test_socket_nobody_listens_on_does_not_stop_the_work(tmp_path: Path) -> None:
    Notifier(str(tmp_path / "gone")).ready()


def test_full_socket_does_not_block(systemd: tuple[str, socket.socket]) -> None:
    address, listener = systemd
    notifier = Notifier(address)
    for _ in range(2000):
        notifier.watchdog()
    assert listener.recv(1024) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "42"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "43"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog_interval_is_half_of_systemds_deadline(environ: dict[str, str], interval_s: float | None) -> None:
    assert watchdog_interval_s(environ, pid=42) == interval_s
