"""The transport against hosts that are missing, strange or hung: each gets its own kind and advice."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from support import sshd
from vcrecon.errors import HostError, Permanent, Unreachable
from vcrecon.shell.transport import Endpoint, SshHost

DEADLINE_S = 20.0


class Door(asyncssh.SSHServer):
    """Lets one user in with any key, or nobody."""

    def __init__(self, opens: bool = True) -> None:
        self._opens = opens

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return self._opens


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    for name in ("client", "host", "other"):
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(directory / name)
        asyncssh.read_private_key(directory / name).write_public_key(directory / f"{name}.pub")
    return directory


def pinned(keys: Path, port: int, key: str = "host") -> str:
    return f"[127.0.0.1]:{port} {(keys / f'{key}.pub').read_text()}"


def make_host(
    keys: Path,
    port: int,
    *,
    client_key: Path | None = None,
    pins: str | None = None,
    address: str = "127.0.0.1",
    limiter: asyncio.Semaphore | None = None,
    connect_deadline_s: float = 0.3,
) -> SshHost:
    return SshHost(
        Endpoint("c01", address, port, "root"),
        client_key=client_key or keys / "client",
        pinned_keys=pinned(keys, port) if pins is None else pins,
        limiter=limiter or asyncio.Semaphore(8),
        connect_deadline_s=connect_deadline_s,
        keepalive_interval_s=0.1,
        keepalive_count=2,
    )


async def failure_of(host: SshHost) -> HostError:
    with pytest.raises(HostError) as caught:
        await host.run("echo up", deadline_s=DEADLINE_S)
    await host.close()
    return caught.value


@pytest.fixture
async def door(keys: Path) -> AsyncIterator[int]:
    """A server that lets us in and answers every command with `up`."""

    def answer(process: asyncssh.SSHServerProcess[str]) -> None:
        process.stdout.write("up\n")
        if process.command != "hang":
            process.exit(0)

    server = await asyncssh.create_server(
        Door, "127.0.0.1", 0, server_host_keys=[keys / "host"], process_factory=answer
    )
    yield server.get_port()
    server.close()


class TestHostKeys:
    async def test_a_pinned_host_is_talked_to(self, keys: Path, door: int) -> None:
        host = make_host(keys, door, connect_deadline_s=DEADLINE_S)
        assert (await host.run("echo up", deadline_s=DEADLINE_S)).stdout == b"up\n"
        await host.close()

    async def test_a_key_pinned_under_the_name_counts_as_well(self, keys: Path, door: int) -> None:
        pins = f"c01 {(keys / 'host.pub').read_text()}"
        host = make_host(keys, door, pins=pins, connect_deadline_s=DEADLINE_S)
        assert (await host.run("echo up", deadline_s=DEADLINE_S)).status == 0
        await host.close()

    @pytest.mark.parametrize("pins", ["", "# nothing yet\n", "other ssh-ed25519 AAAA\n"])
    async def test_without_a_pinned_key_nothing_is_even_tried(self, keys: Path, pins: str) -> None:
        error = await failure_of(make_host(keys, 9, pins=pins))
        assert isinstance(error, Permanent)
        assert error.kind == "no-host-key"
        assert "ssh-keyscan -p 9 127.0.0.1" in str(error)
        assert "known_hosts file that site.yaml names" in str(error)

    async def test_a_changed_key_halts_and_shows_both(self, keys: Path, door: int) -> None:
        error = await failure_of(make_host(keys, door, pins=pinned(keys, door, "other"), connect_deadline_s=DEADLINE_S))
        assert isinstance(error, Permanent)
        assert error.kind == "host-key-changed"
        for name in ("host", "other"):
            assert asyncssh.read_private_key(keys / name).get_fingerprint() in str(error)

    async def test_a_revoked_key_halts(self, keys: Path, door: int) -> None:
        pins = pinned(keys, door) + "@revoked " + pinned(keys, door)
        error = await failure_of(make_host(keys, door, pins=pins, connect_deadline_s=DEADLINE_S))
        assert error.kind == "host-key-changed"

    async def test_a_new_pin_is_taken_into_use(self, keys: Path, door: int) -> None:
        host = make_host(keys, door, pins="", connect_deadline_s=DEADLINE_S)
        with pytest.raises(Permanent):
            await host.run("echo up", deadline_s=DEADLINE_S)
        host.pin(pinned(keys, door))
        assert (await host.run("echo up", deadline_s=DEADLINE_S)).status == 0
        await host.close()


class TestClientKeys:
    async def test_a_refused_key_names_user_and_key(self, keys: Path) -> None:
        server = await asyncssh.create_server(
            lambda: Door(opens=False), "127.0.0.1", 0, server_host_keys=[keys / "host"]
        )
        error = await failure_of(make_host(keys, server.get_port(), connect_deadline_s=DEADLINE_S))
        server.close()
        assert isinstance(error, Permanent)
        assert error.kind == "permission-denied"
        assert f"user root with key {keys / 'client'}" in str(error)

    async def test_a_missing_key_file_is_named(self, keys: Path) -> None:
        error = await failure_of(make_host(keys, 9, client_key=keys / "nowhere"))
        assert (type(error), error.kind) == (Permanent, "client-key")
        assert "nowhere cannot be read (No such file or directory)" in str(error)

    async def test_a_file_that_is_no_key_is_named(self, keys: Path) -> None:
        error = await failure_of(make_host(keys, 9, client_key=keys / "host.pub"))
        assert (type(error), error.kind) == (Permanent, "client-key")
        assert "is not an SSH private key" in str(error)

    @pytest.mark.skipif(sshd.SSHD is None, reason=sshd.SKIP_REASON)
    async def test_a_passphrase_is_said_to_be_the_trouble(self, keys: Path, tmp_path: Path) -> None:
        locked = sshd.make_key(tmp_path / "locked", passphrase="secret")
        error = await failure_of(make_host(keys, 9, client_key=locked))
        assert (type(error), error.kind) == (Permanent, "client-key")
        assert "protected by a passphrase" in str(error)


class TestNoWayThere:
    async def test_a_closed_port_is_refused(self, keys: Path) -> None:
        error = await failure_of(make_host(keys, sshd.free_port()))
        assert (type(error), error.kind) == (Unreachable, "refused")

    async def test_a_name_that_does_not_resolve(self, keys: Path) -> None:
        pins = f"c01 {(keys / 'host.pub').read_text()}"
        error = await failure_of(
            make_host(keys, 22, address="no-such-host.invalid", pins=pins, connect_deadline_s=10.0)
        )
        assert (type(error), error.kind) == (Unreachable, "dns")

    async def test_a_black_hole_ends_at_the_connect_deadline(self, keys: Path) -> None:
        with FullBacklog() as port:
            error = await failure_of(make_host(keys, port))
        assert (type(error), error.kind) == (Unreachable, "timeout")

    async def test_a_server_that_says_nothing(self, keys: Path) -> None:
        async with sshd.TcpServer() as server:
            error = await failure_of(make_host(keys, server.port))
        assert (type(error), error.kind) == (Unreachable, "silent")

    async def test_a_server_that_hangs_after_its_banner(self, keys: Path) -> None:
        async with sshd.TcpServer(b"SSH-2.0-hung\r\n") as server:
            error = await failure_of(make_host(keys, server.port))
        assert (type(error), error.kind) == (Unreachable, "silent")

    async def test_a_server_that_closes_at_once(self, keys: Path) -> None:
        async with sshd.TcpServer(then_close=True) as server:
            error = await failure_of(make_host(keys, server.port))
        assert (type(error), error.kind) == (Unreachable, "connection-lost")

    async def test_a_server_that_closes_after_its_banner(self, keys: Path) -> None:
        async with sshd.TcpServer(b"SSH-2.0-gone\r\n", then_close=True) as server:
            error = await failure_of(make_host(keys, server.port))
        assert (type(error), error.kind) == (Unreachable, "connection-lost")

    @pytest.mark.parametrize(
        "greeting",
        [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\x00\x02\x02", b"x" * 20_000, b"\n" * 5000],
    )
    async def test_garbage_instead_of_ssh_is_shown(self, keys: Path, greeting: bytes) -> None:
        async with sshd.TcpServer(greeting, then_close=True) as server:
            error = await failure_of(make_host(keys, server.port))
        assert (type(error), error.kind) == (Unreachable, "protocol")
        assert "which is not SSH" in str(error)

    async def test_garbage_after_the_banner_is_a_broken_protocol(self, keys: Path) -> None:
        async with sshd.TcpServer(b"SSH-2.0-x\r\n" + b"\xff" * 4000) as server:
            error = await failure_of(make_host(keys, server.port))
        assert (type(error), error.kind) == (Unreachable, "protocol")

    async def test_an_ssh_1_server_is_a_broken_protocol(self, keys: Path) -> None:
        async with sshd.TcpServer(b"SSH-1.5-old\r\n") as server:
            error = await failure_of(make_host(keys, server.port))
        assert (type(error), error.kind) == (Unreachable, "protocol")

    async def test_hung_hosts_hold_no_login_slot(self, keys: Path, door: int) -> None:
        limiter = asyncio.Semaphore(1)
        async with sshd.TcpServer() as hung:
            stuck = [make_host(keys, hung.port, limiter=limiter, connect_deadline_s=60) for _ in range(5)]
            waiting = [asyncio.create_task(host.run("echo up", deadline_s=60)) for host in stuck]
            await asyncio.sleep(0.05)
            healthy = make_host(keys, door, limiter=limiter, connect_deadline_s=DEADLINE_S)
            assert (await healthy.run("echo up", deadline_s=5.0)).status == 0
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, *(host.close() for host in [*stuck, healthy]), return_exceptions=True)

    async def test_a_caller_that_gives_up_does_not_take_the_connect_from_the_others(
        self, keys: Path, door: int
    ) -> None:
        host = make_host(keys, door, connect_deadline_s=DEADLINE_S)
        first = asyncio.create_task(host.run("echo up", deadline_s=DEADLINE_S))
        second = asyncio.create_task(host.run("echo up", deadline_s=DEADLINE_S))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).stdout == b"up\n"
        await host.close()


class TestStrangeServers:
    async def test_a_peer_that_falls_silent_is_given_up_by_keepalive(self, keys: Path, door: int) -> None:
        async with Relay(door) as relay:
            pins = pinned(keys, relay.port)
            host = make_host(keys, relay.port, pins=pins, connect_deadline_s=DEADLINE_S)
            lines = host.lines("hang")
            assert await anext(lines) == "up"
            relay.frozen = True
            with pytest.raises(Unreachable, match="not responding to keepalive") as caught:
                await asyncio.wait_for(anext(lines), DEADLINE_S)
            assert caught.value.kind == "connection-lost"
            await host.close()

    async def test_a_server_that_refuses_channels_is_transient(self, keys: Path) -> None:
        class NoSessions(Door):
            def session_requested(self) -> bool:
                return False

        server = await asyncssh.create_server(NoSessions, "127.0.0.1", 0, server_host_keys=[keys / "host"])
        error = await failure_of(make_host(keys, server.get_port(), connect_deadline_s=DEADLINE_S))
        server.close()
        assert error.kind == "channel-refused"

    async def test_a_restricted_shell_is_still_asked_by_exec(self, keys: Path, door: int) -> None:
        """The server answers `up` whatever it is given, so no resident shell can be kept there."""
        host = make_host(keys, door, connect_deadline_s=DEADLINE_S)
        assert (await host.ask("echo up", deadline_s=DEADLINE_S)).stdout == b"up\n"
        await host.close()


class Relay:
    """Passes bytes to a server until `frozen`: then it takes everything and answers nothing."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.frozen = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            self._tasks.append(asyncio.create_task(self._move(source, sink)))

    async def _move(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if not self.frozen:
                sink.write(data)
        sink.close()

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class FullBacklog:
    """A listener whose queue is full: further connects get no answer, as from a host that is off."""

    def __enter__(self) -> int:
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        port: int = self._listener.getsockname()[1]
        self._fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            self._fillers.append(filler)
        return port

    def __exit__(self, *_: object) -> None:
        for sock in [self._listener, *self._fillers]:
            sock.close()
