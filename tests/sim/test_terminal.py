"""A simulated host's terminals: what a person sees who asks for one over SSH, and what keeps a mount busy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncssh
import pytest
from test_server import CLIENT_KEY, connect

from vcrecon.sim.domains import Domain, parse_domain
from vcrecon.sim.machine import Machine
from vcrecon.sim.programs import Programs
from vcrecon.sim.server import HostServer
from vcrecon.sim.tools import TOOLS


@pytest.fixture
async def host() -> AsyncIterator[HostServer]:
    machine = Machine("c01", hypervisor="kvm", memory_bytes=4 << 30, cores=1, disk_bytes=8 << 30)
    programs = Programs(TOOLS)
    server = HostServer(machine, programs, CLIENT_KEY.convert_to_public())
    await server.start()
    yield server
    programs.kill_all()
    server.close()


class Person:
    """Types into a terminal and reads what it shows."""

    def __init__(self, process: asyncssh.SSHClientProcess[str]) -> None:
        self.process = process

    def type(self, text: str) -> None:
        self.process.stdin.write(text)

    async def sees(self, text: str) -> None:
        async with asyncio.timeout(10):
            await self.process.stdout.readuntil(text)


async def at_a_terminal(host: HostServer, command: str | None = None, **more: object) -> Person:
    connection = await connect(host)
    return Person(await connection.create_process(command, term_type="vt100", term_size=(100, 40), **more))


async def test_a_shell_on_a_terminal_prompts_echoes_and_ends_with_its_status(host: HostServer) -> None:
    person = await at_a_terminal(host)
    await person.sees("# ")
    person.type("echo $((6 * 7))\r")
    await person.sees("echo $((6 * 7))\r\n42\r\n# ")
    person.type("exit 5\r")
    assert (await person.process.wait()).exit_status == 5


async def test_a_mistake_does_not_end_a_shell_on_a_terminal(host: HostServer) -> None:
    person = await at_a_terminal(host)
    for mistake in (")", "echo ${x?gone}", "nonsense"):
        await person.sees("# ")
        person.type(f"{mistake}\r")
        await person.sees("sh: ")
    person.type("\x04")
    await person.process.wait()


async def test_keys_edit_the_line_before_the_program_reads_it(host: HostServer) -> None:
    person = await at_a_terminal(host, "cat")
    person.type("wrong\x15rigt\x7fht\r")
    await person.sees("\r\nright\r\n")
    person.type("\x04")
    assert (await person.process.wait()).exit_status == 0


async def test_programs_know_a_terminal_and_its_size(host: HostServer) -> None:
    person = await at_a_terminal(host)
    person.type("stty size; test -t 0 && echo yes; tty\r")
    await person.sees("40 100\r\nyes\r\n/dev/pts/")
    person.process.change_terminal_size(80, 25)
    person.type("stty size\r")
    await person.sees("25 80\r\n")
    async with await connect(host) as connection:
        answer = await connection.run("test -t 0 || echo no; tty; stty size")
        assert answer.stdout == "no\nnot a tty\n"
        assert "Inappropriate ioctl" in str(answer.stderr)


async def test_a_mount_is_busy_while_a_shell_is_in_it(host: HostServer) -> None:
    person = await at_a_terminal(host)
    person.type("mkdir /mnt/x && mount -t tmpfs none /mnt/x && cd /mnt/x && echo there\r")
    await person.sees("\r\nthere\r\n")
    async with await connect(host) as connection:
        busy = await connection.run("umount /mnt/x; for p in /proc/[0-9]*; do ls -l $p/cwd; cat $p/comm; done")
        assert busy.stderr == "umount: /mnt/x: target is busy.\n"
        assert "-> /mnt/x\n" in str(busy.stdout)
        person.type("cd /; echo left\r")
        await person.sees("\r\nleft\r\n")
        assert (await connection.run("umount /mnt/x")).exit_status == 0


async def test_a_console_needs_a_terminal_and_a_guest_that_runs(host: HostServer) -> None:
    host.machine.domains.define(_domain("root=/dev/vda console=ttyS0"))
    async with await connect(host) as connection:
        answer = await connection.run("virsh console alice")
        assert (answer.exit_status, answer.stderr) == (1, "error: The domain is not running\n")
        host.machine.domains.start(host.machine.domains.by_name["alice"])
        answer = await connection.run("virsh console alice")
        assert "Cannot run interactive console without a controlling TTY" in str(answer.stderr)


async def test_a_console_ends_with_its_guest(host: HostServer) -> None:
    host.machine.domains.define(_domain("console=ttyS0"))
    host.machine.domains.start(host.machine.domains.by_name["alice"])
    person = await at_a_terminal(host, "virsh console alice")
    await person.sees("Escape character is ^] (Ctrl + ])\r\n")
    person.type("\r")
    await person.sees("alice login: ")
    host.machine.kill_domain("alice")
    await person.process.wait()


async def test_a_guest_whose_kernel_has_another_console_is_silent_on_this_one(host: HostServer) -> None:
    host.machine.files.mkdir("/boot", parents=True)
    host.machine.files.write("/boot/kernel", b"k")
    host.machine.domains.define(_domain("console=hvc0", kernel="/boot/kernel"))
    host.machine.domains.start(host.machine.domains.by_name["alice"])
    person = await at_a_terminal(host, "virsh console alice")
    await person.sees("Escape character is ^] (Ctrl + ])\r\n")
    person.type("\r\x1d")
    answer = await person.process.wait()
    assert "login" not in str(answer.stdout)


def _domain(cmdline: str, kernel: str = "") -> Domain:
    inner = f"<kernel>{kernel}</kernel>" if kernel else ""
    return parse_domain(
        f"<domain><name>alice</name><memory unit='MiB'>64</memory><os>{inner}<cmdline>{cmdline}</cmdline></os></domain>"
    )
