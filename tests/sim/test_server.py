"""A simulated host over real SSH: sessions, streams, and what happens when the network or the power fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncssh
import pytest

from vcrecon.sim.machine import Machine
from vcrecon.sim.process import Process
from vcrecon.sim.programs import Programs
from vcrecon.sim.server import HostServer

CLIENT_KEY = asyncssh.generate_private_key("ssh-ed25519")


async def cat(process: Process) -> int:
    while data := await process.stdin.read(65536):
        await process.stdout.write(data)
    return 0


async def forever(process: Process) -> int:
    await asyncio.Event().wait()
    return 0


@pytest.fixture
async def host() -> AsyncIterator[HostServer]:
    machine = Machine("c01", hypervisor="kvm", memory_bytes=1 << 30, cores=1, disk_bytes=1 << 30)
    programs = Programs({"cat": cat, "forever": forever})
    server = HostServer(machine, programs, CLIENT_KEY.convert_to_public())
    await server.start()
    yield server
    programs.kill_all()
    server.close()


async def connect(host: HostServer, key: asyncssh.SSHKey = CLIENT_KEY) -> asyncssh.SSHClientConnection:
    pinned = asyncssh.import_known_hosts(host.known_host())
    return await asyncssh.connect(
        "127.0.0.1",
        host.port,
        username="root",
        client_keys=[key],
        known_hosts=pinned,
        config=None,
        agent_path=None,
    )


async def test_a_command_gets_its_input_and_gives_output_errors_and_status(host: HostServer) -> None:
    async with await connect(host) as connection:
        answer = await connection.run("cat; echo oops >&2; exit 3", input="given")
        assert (answer.stdout, answer.stderr, answer.exit_status) == ("given", "oops\n", 3)


async def test_ten_megabytes_pass_through_unchanged(host: HostServer) -> None:
    sent = bytes(range(256)) * 40_000
    async with await connect(host) as connection:
        answer = await connection.run("cat | cat", input=sent, encoding=None)
        assert answer.stdout == sent


async def test_fifty_channels_of_one_connection_do_not_mix(host: HostServer) -> None:
    async with await connect(host) as connection:
        answers = await asyncio.gather(*(connection.run(f"read x; echo $x-{n}", input="in\n") for n in range(50)))
        assert [answer.stdout for answer in answers] == [f"in-{n}\n" for n in range(50)]


async def test_a_resident_shell_answers_each_block_before_the_next_arrives(host: HostServer) -> None:
    async with await connect(host) as connection:
        shell = await connection.create_process("sh")
        for block, expected in [
            ("x=1; echo one $x\n", "one 1\n"),
            ("( exit 7 ); echo $?\n", "7\n"),
            ("if true\nthen echo kept $x\nfi\n", "kept 1\n"),
            ("read y <<'E'\nhere\nE\necho $y\n", "here\n"),
        ]:
            shell.stdin.write(block)
            assert await shell.stdout.readline() == expected
        shell.stdin.write_eof()
        assert (await shell.wait()).exit_status == 0


async def test_a_command_outlives_its_client_and_dies_of_its_next_write(host: HostServer) -> None:
    connection = await connect(host)
    process = await connection.create_process("echo on; read x; : >/tmp/survived; echo gone; : >/tmp/not-reached")
    assert await process.stdout.readline() == "on\n"
    connection.abort()
    await asyncio.wait(host.programs.tasks, timeout=10)
    assert host.machine.files.exists("/tmp/survived")
    assert not host.machine.files.exists("/tmp/not-reached")


async def test_a_terminating_signal_ends_the_command(host: HostServer) -> None:
    async with await connect(host) as connection:
        process = await connection.create_process("echo up; forever")
        await process.stdout.readline()
        process.terminate()
        assert (await asyncio.wait_for(process.wait(), 10)).exit_signal is not None


async def test_a_cut_host_is_silent_and_what_it_held_back_arrives_after_mending(host: HostServer) -> None:
    async with await connect(host) as connection:
        process = await connection.create_process("sh")
        host.cut_off()
        process.stdin.write("echo answer\n")
        reading = asyncio.ensure_future(process.stdout.readline())
        newcomer = asyncio.ensure_future(connect(host))
        done, _ = await asyncio.wait([reading, newcomer], timeout=0.2)
        assert not done
        host.mend()
        assert await asyncio.wait_for(reading, 10) == "answer\n"
        (await asyncio.wait_for(newcomer, 10)).abort()


async def test_a_host_without_power_resets_and_refuses_and_comes_back_on_its_port(host: HostServer) -> None:
    connection = await connect(host)
    host.stop()
    await asyncio.wait_for(connection.wait_closed(), 10)
    with pytest.raises(ConnectionRefusedError):
        await connect(host)
    await host.start()
    async with await connect(host) as back:
        assert (await back.run("echo back")).stdout == "back\n"


async def test_only_the_sites_key_is_accepted(host: HostServer) -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        await connect(host, asyncssh.generate_private_key("ssh-ed25519"))
    host.refuses_key = True
    with pytest.raises(asyncssh.PermissionDenied):
        await connect(host)


async def test_a_changed_host_key_does_not_match_the_pinned_one(host: HostServer) -> None:
    pinned = asyncssh.import_known_hosts(host.known_host())
    host.host_key = asyncssh.generate_private_key("ssh-ed25519")
    await host.restart()
    with pytest.raises(asyncssh.HostKeyNotVerifiable):
        await asyncssh.connect(
            "127.0.0.1", host.port, username="root", client_keys=[CLIENT_KEY], known_hosts=pinned, config=None
        )


async def test_garbage_can_replace_the_banner_or_the_output(host: HostServer) -> None:
    host.garbage = "output"
    async with await connect(host) as connection:
        answer = await connection.run("echo fine", encoding=None)
        assert isinstance(answer.stdout, bytes)
        assert b"fine" not in answer.stdout
    host.garbage = "banner"
    await host.restart()
    with pytest.raises((asyncssh.Error, OSError)):
        await connect(host)
