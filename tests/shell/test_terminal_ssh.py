"""A person's terminal and streams joined to commands on a real OpenSSH server."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncssh
import pytest

from support import sshd
from vcrecon.errors import Unreachable
from vcrecon.shell.connect import Endpoint, Patience, connect
from vcrecon.shell.terminal import Streams, interact, stream

pytestmark = pytest.mark.skipif(sshd.SSHD is None, reason=sshd.SKIP_REASON)
DEADLINE_S = 20.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Sshd]:
    running = sshd.start(tmp_path_factory.mktemp("sshd"))
    yield running
    running.stop()


@pytest.fixture
async def connection(server: sshd.Sshd) -> AsyncIterator[asyncssh.SSHClientConnection]:
    made = await connect(
        Endpoint("c01", server.address, server.port, server.user),
        server.client_key,
        server.known_hosts(),
        asyncio.Semaphore(1),
        Patience(10.0, 10.0, 3),
    )
    yield made
    made.abort()


class Local:
    """A local terminal: `streams` are the command's side of it, `shown` is what a person would see."""

    def __init__(self) -> None:
        self._own, self.theirs = pty.openpty()
        self.streams = Streams(self.theirs, self.theirs, self.theirs)
        self.shown = ""
        self._news = asyncio.Event()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
        self.before = termios.tcgetattr(self.theirs)
        asyncio.get_running_loop().add_reader(self._own, self._read)

    def _read(self) -> None:
        self.shown += os.read(self._own, 65536).decode()
        self._news.set()

    def type(self, text: str) -> None:
        os.write(self._own, text.encode())

    async def sees(self, text: str) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while text not in self.shown:
                self._news.clear()
                await self._news.wait()
        self.shown = self.shown.partition(text)[2]

    @property
    def is_as_before(self) -> bool:
        return termios.tcgetattr(self.theirs) == self.before

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._own)
        os.close(self._own)
        os.close(self.theirs)


@pytest.fixture
async def local() -> AsyncIterator[Local]:
    made = Local()
    yield made
    made.close()


class Pipes:
    """Local standard streams that are no terminal."""

    def __init__(self, directory: Path, stdin: bytes = b"") -> None:
        for name, data in (("in", stdin), ("out", b""), ("err", b"")):
            (directory / name).write_bytes(data)
        self._directory = directory
        self.files = [(directory / "in").open("rb"), (directory / "out").open("wb"), (directory / "err").open("wb")]
        self.streams = Streams(*(file.fileno() for file in self.files))

    def got(self, name: str) -> bytes:
        return (self._directory / name).read_bytes()


class TestTerminal:
    async def test_a_command_has_a_terminal_of_the_persons_size_and_gives_its_status(
        self, connection: asyncssh.SSHClientConnection, local: Local
    ) -> None:
        work = asyncio.create_task(
            interact(connection, "stty size; read answer; exit $answer", "c01", streams=local.streams)
        )
        await local.sees("33 111\r\n")
        assert not local.is_as_before
        local.type("7\r")
        assert await asyncio.wait_for(work, DEADLINE_S) == 7
        assert local.is_as_before

    async def test_a_window_that_changes_its_size_changes_it_there(
        self, connection: asyncssh.SSHClientConnection, local: Local
    ) -> None:
        command = "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done"
        work = asyncio.create_task(interact(connection, command, "c01", streams=local.streams))
        await local.sees("ready")
        fcntl.ioctl(local.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 80, 0, 0))
        os.kill(os.getpid(), signal.SIGWINCH)
        await local.sees("25 80\r\n")
        assert await asyncio.wait_for(work, DEADLINE_S) == 0

    async def test_ctrl_c_goes_to_the_command_there(
        self, connection: asyncssh.SSHClientConnection, local: Local
    ) -> None:
        work = asyncio.create_task(
            interact(connection, "trap 'exit 5' INT; echo ready; sleep 60", "c01", streams=local.streams)
        )
        await local.sees("ready")
        local.type("\x03")
        assert await asyncio.wait_for(work, DEADLINE_S) == 5

    async def test_the_escape_leaves_also_what_does_not_listen(
        self, connection: asyncssh.SSHClientConnection, local: Local
    ) -> None:
        work = asyncio.create_task(
            interact(connection, "echo ready; sleep 60", "c01", escape=b"\x1d", streams=local.streams)
        )
        await local.sees("ready")
        local.type("\x1d")
        assert await asyncio.wait_for(work, DEADLINE_S) == 0
        assert local.is_as_before

    async def test_a_lost_connection_gives_the_terminal_back(
        self, connection: asyncssh.SSHClientConnection, local: Local, server: sshd.Sshd
    ) -> None:
        work = asyncio.create_task(interact(connection, "echo ready; sleep 60", "c01", streams=local.streams))
        await local.sees("ready")
        server.kill_sessions()
        with pytest.raises(Unreachable, match="c01: the connection was lost"):
            await asyncio.wait_for(work, DEADLINE_S)
        assert local.is_as_before

    async def test_a_cancelled_command_gives_the_terminal_back(
        self, connection: asyncssh.SSHClientConnection, local: Local
    ) -> None:
        work = asyncio.create_task(interact(connection, "echo ready; sleep 60", "c01", streams=local.streams))
        await local.sees("ready")
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        assert local.is_as_before

    async def test_bytes_from_a_file_reach_a_console_unchanged(
        self, connection: asyncssh.SSHClientConnection, tmp_path: Path
    ) -> None:
        pipes = Pipes(tmp_path, b"a\r\x03b")
        command = "echo ready; head -c 5 | od -An -tx1"
        status = await interact(connection, command, "c01", escape=b"\x1d", streams=pipes.streams)
        assert status == 0
        assert pipes.got("out").split() == [b"ready", b"61", b"0d", b"03", b"62", b"1d"]


class TestStreams:
    async def test_both_outputs_the_input_and_the_status_pass_through(
        self, connection: asyncssh.SSHClientConnection, tmp_path: Path
    ) -> None:
        pipes = Pipes(tmp_path, b"given\n")
        assert await stream(connection, "cat; echo oops >&2; exit 3", "c01", streams=pipes.streams) == 3
        assert (pipes.got("out"), pipes.got("err")) == (b"given\n", b"oops\n")

    async def test_input_of_the_callers_own(self, connection: asyncssh.SSHClientConnection, tmp_path: Path) -> None:
        pipes = Pipes(tmp_path, b"not this")
        big = os.urandom(3_000_000)
        assert await stream(connection, "cat", "c01", stdin=big, streams=pipes.streams) == 0
        assert pipes.got("out") == big

    async def test_death_by_signal_is_a_status_as_in_a_shell(
        self, connection: asyncssh.SSHClientConnection, tmp_path: Path
    ) -> None:
        assert await stream(connection, "kill -TERM $$", "c01", streams=Pipes(tmp_path).streams) == 128 + 15

    async def test_a_reader_that_has_seen_enough_ends_the_command(
        self, connection: asyncssh.SSHClientConnection, tmp_path: Path
    ) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        streams = Streams(Pipes(tmp_path).files[0].fileno(), writer, writer)
        assert await asyncio.wait_for(stream(connection, "yes", "c01", streams=streams), DEADLINE_S) == 128 + 13
        os.close(writer)
