"""A real OpenSSH server on loopback for tests and benchmarks: own keys and configuration, a port of its own.

Used by tests/shell and benchmarks/ssh_fleet. It runs as the calling user (root is not needed), lets that
user in with one key, and is ended by process id. HOME is its own directory: a personal ~/.bashrc can cost a
second a command, and must not decide a test.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
SKIP_REASON = "OpenSSH's server is not installed (Debian package openssh-server)"


def make_key(path: Path, *, passphrase: str = "") -> Path:
    """Make an ed25519 key pair; `path` is the private one."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def free_port(address: str = "127.0.0.1") -> int:
    with socket.socket() as sock:
        sock.bind((address, 0))
        port: int = sock.getsockname()[1]
        return port


@dataclass
class Sshd:
    """A running server. `known_hosts` pins its key for `address`; `client_key` may log in as `user`."""

    directory: Path
    address: str
    port: int
    user: str
    host_key: Path
    client_key: Path
    process: subprocess.Popen[bytes]

    def known_hosts(self, *names: str) -> str:
        """known_hosts content that pins the host key for the given names, by default the own address."""
        algorithm, key = (self.host_key.with_suffix(".pub")).read_text().split()[:2]
        return "".join(f"[{name}]:{self.port} {algorithm} {key}\n" for name in names or (self.address,))

    def sessions(self) -> list[int]:
        """Process ids of everything under the listener: a server for each connection, and its commands."""
        return _descendants(self.process.pid)

    def kill_sessions(self) -> None:
        """Cut every connection as a crash would: its server is killed, and its commands."""
        for pid in self.sessions():
            _kill(pid)

    def stop(self) -> None:
        """End the listener and everything under it."""
        children = self.sessions()
        self.process.terminate()
        for pid in children:
            _kill(pid)
        self.process.wait(timeout=10)


def start(
    directory: Path,
    *,
    port: int | None = None,
    host_key: Path | None = None,
    client_key: Path | None = None,
    listen: str = "127.0.0.1",
    max_sessions: int = 100,
    max_startups: str = "1000",
    kex: str | None = None,
    environment: dict[str, str] | None = None,
    inside: Sequence[str] = (),
    listens: Callable[[], bool] | None = None,
    more: str = "",
) -> Sshd:
    """Start a server and wait until it accepts. Keys are made in `directory` unless given.

    `inside` is a command that runs another in its place, such as `nsenter` with its options; `listens` tells whether
    the server is there, where a connect may not get through; `more` are further lines of the configuration.
    """
    assert SSHD is not None, SKIP_REASON
    directory.mkdir(parents=True, exist_ok=True)
    host_key = host_key or make_key(directory / "host_key")
    client_key = client_key or make_key(directory / "client_key")
    port = port or free_port()
    (directory / "authorized_keys").write_bytes(client_key.with_suffix(".pub").read_bytes())
    config = directory / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress {listen}\nHostKey {host_key}\n"
        f"AuthorizedKeysFile {directory / 'authorized_keys'}\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
        f"SetEnv HOME={directory}\nPidFile none\nPrintMotd no\n"
        f"MaxSessions {max_sessions}\nMaxStartups {max_startups}\n" + (f"KexAlgorithms {kex}\n" if kex else "") + more
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # privilege separation insists on it
    with (directory / "sshd.log").open("ab") as log:
        process = subprocess.Popen(
            [*inside, SSHD, "-D", "-e", "-f", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
        )
    address = "127.0.0.1" if listen == "0.0.0.0" else listen
    wait_until_it_accepts(process, port, directory / "sshd.log", listens or (lambda: _accepts(address, port)))
    return Sshd(directory, address, port, getpass.getuser(), host_key, client_key, process)


def wait_until_it_accepts(
    process: subprocess.Popen[bytes], port: int, log: Path, listens: Callable[[], bool] | None = None
) -> None:
    """Until something listens on the port. Raises RuntimeError, with the log, when the server ended."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if listens() if listens else _accepts("127.0.0.1", port):
            return
        time.sleep(0.01)
    process.kill()
    raise RuntimeError(f"sshd did not start: {log.read_text()}")


def _accepts(address: str, port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((address, port)) == 0


def _descendants(root: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found, queue = [], [root]
    while queue:
        children = parents.get(queue.pop(), [])
        found += children
        queue += children
    return found


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class TcpServer:
    """A loopback server that speaks as told: `greeting` first, then silence or the end. For faults."""

    def __init__(self, greeting: bytes = b"", *, then_close: bool = False) -> None:
        self._greeting = greeting
        self._then_close = then_close
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0

    async def __aenter__(self) -> TcpServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        writer.write(self._greeting)
        if self._then_close:
            await writer.drain()
            writer.close()

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
