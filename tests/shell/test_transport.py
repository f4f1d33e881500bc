"""The transport against a real OpenSSH server: commands, resident programs, streams, lost connections."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from support import sshd
from vcrecon.errors import Permanent, Transient, Unreachable
from vcrecon.shell.transport import Endpoint, Reply, SshHost, copy

pytestmark = pytest.mark.skipif(sshd.SSHD is None, reason=sshd.SKIP_REASON)
DEADLINE_S = 20.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Sshd]:
    running = sshd.start(tmp_path_factory.mktemp("sshd"))
    yield running
    running.stop()


@pytest.fixture
async def host(server: sshd.Sshd) -> AsyncIterator[SshHost]:
    connected = make_host(server)
    yield connected
    await connected.close()


def make_host(server: sshd.Sshd, *, output_bytes_max: int = 64 * 1024 * 1024) -> SshHost:
    return SshHost(
        Endpoint("c01", server.address, server.port, server.user),
        client_key=server.client_key,
        pinned_keys=server.known_hosts(),
        limiter=asyncio.Semaphore(8),
        output_bytes_max=output_bytes_max,
    )


class TestRun:
    async def test_a_command_gives_both_outputs_and_its_status(self, host: SshHost) -> None:
        reply = await host.run("echo out; echo err >&2; exit 3", deadline_s=DEADLINE_S)
        assert reply == Reply(b"out\n", b"err\n", 3)

    async def test_a_command_without_stdin_sees_its_end(self, host: SshHost) -> None:
        assert await host.run("cat", deadline_s=DEADLINE_S) == Reply(b"", b"", 0)

    async def test_death_by_signal_is_a_status_as_in_a_shell(self, host: SshHost) -> None:
        assert (await host.run("kill -TERM $$", deadline_s=DEADLINE_S)).status == 128 + 15

    async def test_ten_megabytes_of_stdin_arrive_whole(self, host: SshHost) -> None:
        data = os.urandom(10_000_000)
        reply = await host.run("sha256sum", stdin=data, deadline_s=DEADLINE_S)
        assert reply.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()

    async def test_a_command_that_ignores_its_stdin_still_gives_its_status(self, host: SshHost) -> None:
        reply = await host.run("exit 7", stdin=b"x" * 10_000_000, deadline_s=DEADLINE_S)
        assert reply.status == 7

    async def test_a_hanging_command_ends_at_its_deadline_and_spares_the_connection(self, host: SshHost) -> None:
        with pytest.raises(Unreachable, match=r"c01 .*no end of `sleep 60` within 0.3 s") as caught:
            await host.run("sleep 60", deadline_s=0.3)
        assert caught.value.kind == "deadline"
        assert host.connected
        assert (await host.run("echo on", deadline_s=DEADLINE_S)).stdout == b"on\n"

    async def test_too_much_output_is_refused(self, server: sshd.Sshd) -> None:
        small = make_host(server, output_bytes_max=1000)
        with pytest.raises(Permanent, match="more than 1000 bytes") as caught:
            await small.run("head -c 100000 /dev/zero; sleep 60", deadline_s=DEADLINE_S)
        assert caught.value.kind == "output-too-large"
        await small.close()

    async def test_a_closed_host_says_so(self, server: sshd.Sshd) -> None:
        gone = make_host(server)
        await gone.run(":", deadline_s=DEADLINE_S)
        await gone.close()
        with pytest.raises(Unreachable) as caught:
            await gone.run(":", deadline_s=DEADLINE_S)
        assert caught.value.kind == "closed"


class TestAsk:
    @pytest.mark.parametrize(
        ("script", "expected"),
        [
            ("echo up", Reply(b"up\n", b"", 0)),
            ("false", Reply(b"", b"", 1)),
            ("printf 'no newline'", Reply(b"no newline", b"", 0)),
            (r"printf '\000\377\n\n'", Reply(b"\x00\xff\n\n", b"", 0)),
            ("echo bad >&2; exit 4", Reply(b"", b"bad\n", 4)),
            ("set -e; false; echo never", Reply(b"", b"", 1)),
            ("cat; echo 'it''s'", Reply(b"its\n", b"", 0)),
            ("cd /; pwd", Reply(b"/\n", b"", 0)),
            ("exec echo replaced", Reply(b"replaced\n", b"", 0)),
        ],
    )
    async def test_a_block_answers_as_a_command_would(self, host: SshHost, script: str, expected: Reply) -> None:
        assert await host.ask(script, deadline_s=DEADLINE_S) == expected

    @pytest.mark.parametrize("script", ["exit 9", "if (", "echo 'open", "set -e; false", "trap 'exit' EXIT", "}"])
    async def test_no_block_harms_the_shell(self, host: SshHost, script: str) -> None:
        before = (await host.ask("echo $$ $PWD", deadline_s=DEADLINE_S)).stdout
        await host.ask(script, deadline_s=DEADLINE_S)
        assert (await host.ask("echo $$ $PWD", deadline_s=DEADLINE_S)).stdout == before

    async def test_large_output_arrives_whole(self, host: SshHost) -> None:
        reply = await host.ask("head -c 5000000 /dev/zero", deadline_s=DEADLINE_S)
        assert (len(reply.stdout), reply.status) == (5_000_000, 0)

    async def test_too_much_output_is_refused_and_the_next_answer_is_right(self, server: sshd.Sshd) -> None:
        small = make_host(server, output_bytes_max=1000)
        with pytest.raises(Permanent):
            await small.ask("head -c 100000 /dev/zero", deadline_s=DEADLINE_S)
        assert (await small.ask("echo on", deadline_s=DEADLINE_S)).stdout == b"on\n"
        await small.close()

    async def test_fifty_questions_at_once_get_their_own_answers(self, host: SshHost) -> None:
        replies = await asyncio.gather(
            *(host.ask(f"echo {n}; sleep 0.00{n % 3}", deadline_s=DEADLINE_S) for n in range(50))
        )
        assert [int(reply.stdout) for reply in replies] == list(range(50))

    async def test_after_a_cancelled_question_the_next_answer_is_right(self, host: SshHost) -> None:
        await host.ask(":", deadline_s=DEADLINE_S)
        for delay_s in (0.0, 0.005, 0.05):
            question = asyncio.create_task(host.ask("sleep 0.02; echo stale", deadline_s=DEADLINE_S))
            await asyncio.sleep(delay_s)
            question.cancel()
            await asyncio.gather(question, return_exceptions=True)
            assert (await host.ask("echo fresh", deadline_s=DEADLINE_S)).stdout == b"fresh\n"

    async def test_after_a_deadline_the_next_answer_is_right(self, host: SshHost) -> None:
        with pytest.raises(Unreachable):
            await host.ask("sleep 30; echo stale", deadline_s=0.2)
        assert (await host.ask("echo fresh", deadline_s=DEADLINE_S)).stdout == b"fresh\n"
        resident = (await host.ask("echo $$", deadline_s=DEADLINE_S)).stdout
        assert (await host.ask("echo $$", deadline_s=DEADLINE_S)).stdout == resident

    async def test_a_killed_shell_is_replaced(self, host: SshHost) -> None:
        first = (await host.ask("echo $$", deadline_s=DEADLINE_S)).stdout
        await host.run(f"kill -9 {int(first)}", deadline_s=DEADLINE_S)
        second = (await host.ask("echo $$", deadline_s=DEADLINE_S)).stdout
        third = (await host.ask("echo $$", deadline_s=DEADLINE_S)).stdout
        assert first != third
        assert second  # answered, by the dying shell's stand-in or by the new shell

    async def test_a_shell_that_dies_while_it_answers_is_stood_in_for(self, host: SshHost) -> None:
        shell = int((await host.ask("echo $$", deadline_s=DEADLINE_S)).stdout)
        script = f"[ $$ = {shell} ] && kill -9 $$; echo survived"
        assert (await host.ask(script, deadline_s=DEADLINE_S)).stdout == b"survived\n"

    async def test_a_background_process_cannot_slip_into_the_next_answer(self, host: SshHost) -> None:
        await host.ask("(sleep 0.05; echo late) 2>/dev/null & echo now", deadline_s=DEADLINE_S)
        await asyncio.sleep(0.1)
        assert (await host.ask("echo clean", deadline_s=DEADLINE_S)).stdout.endswith(b"clean\n")


@pytest.mark.skipif(shutil.which("virsh") is None, reason="virsh is not installed (libvirt-clients)")
class TestAskVirsh:
    VIRSH = "virsh -q -c test:///default"

    async def test_each_line_gets_its_answer(self, host: SshHost) -> None:
        names, nothing, state = await host.ask_tool(
            self.VIRSH, ["list --all --name", "uri >/dev/null", "domstate test"], deadline_s=DEADLINE_S
        )
        assert (names.strip(), state.strip()) == ("test", "running")
        assert "error" in nothing

    async def test_a_failed_line_answers_with_the_error(self, host: SshHost) -> None:
        wrong, right = await host.ask_tool(self.VIRSH, ["nonsense", "domstate test"], deadline_s=DEADLINE_S)
        assert wrong == "error: unknown command: 'nonsense'\n"
        assert right == "running\n"

    async def test_a_line_longer_than_any_screen_is_no_part_of_the_answer(self, host: SshHost) -> None:
        long = "x" * 12_000
        answer, after = await host.ask_tool(self.VIRSH, [f"domstate {long}", "domstate test"], deadline_s=DEADLINE_S)
        assert answer == f"error: failed to get domain '{long}'\n"
        assert after == "running\n"

    async def test_the_same_process_answers_again(self, host: SshHost) -> None:
        await host.ask_tool(self.VIRSH, ["suspend test"], deadline_s=DEADLINE_S)
        assert await host.ask_tool(self.VIRSH, ["domstate test"], deadline_s=DEADLINE_S) == ["paused\n"]

    async def test_without_quiet_it_works_as_well(self, host: SshHost) -> None:
        answers = await host.ask_tool("virsh -c test:///default", ["domstate test"] * 2, deadline_s=DEADLINE_S)
        assert [answer.strip() for answer in answers] == ["running", "running"]


class TestAskTool:
    async def test_a_tool_that_is_missing_says_what_the_shell_said(self, host: SshHost) -> None:
        with pytest.raises(Transient, match=r"`no-such-tool -q` ended with status 127: .*not found") as caught:
            await host.ask_tool("no-such-tool -q", ["list"], deadline_s=DEADLINE_S)
        assert caught.value.kind == "tool-died"

    async def test_a_tool_that_ends_is_started_again(self, host: SshHost) -> None:
        with pytest.raises(Transient, match="status 3"):
            await host.ask_tool("sh", ["exit 3"], deadline_s=DEADLINE_S)
        assert await host.ask_tool("sh", ["echo again"], deadline_s=DEADLINE_S) == ["again\n"]

    async def test_a_line_that_is_two_lines_is_refused(self, host: SshHost) -> None:
        with pytest.raises(ValueError, match="printable"):
            await host.ask_tool("sh", ["echo a\necho b"], deadline_s=DEADLINE_S)

    async def test_after_a_deadline_the_next_answer_is_right(self, host: SshHost) -> None:
        with pytest.raises(Unreachable):
            await host.ask_tool("sh", ["sleep 30", "echo stale"], deadline_s=0.2)
        assert await host.ask_tool("sh", ["echo fresh"], deadline_s=DEADLINE_S) == ["fresh\n"]


class TestLines:
    async def test_lines_come_until_the_command_ends(self, host: SshHost) -> None:
        assert [line async for line in host.lines("seq 3; printf rest")] == ["1", "2", "3", "rest"]

    async def test_a_line_comes_while_the_command_still_runs(self, host: SshHost) -> None:
        lines = host.lines("echo first; sleep 60")
        assert await asyncio.wait_for(anext(lines), DEADLINE_S) == "first"
        await lines.aclose()  # type: ignore[attr-defined]

    async def test_a_reader_slower_than_the_command_loses_nothing(self, host: SshHost) -> None:
        count = 0
        last = ""
        async for line in host.lines("seq 300000"):
            count, last = count + 1, line
            if count % 50_000 == 0:
                await asyncio.sleep(0.01)
        assert (count, last) == (300_000, "300000")


class TestCopy:
    async def test_bytes_arrive_whole_and_are_counted(self, host: SshHost, server: sshd.Sshd) -> None:
        other, seen = make_host(server), []
        sent, received = await copy(
            host,
            "head -c 8000000 /dev/zero",
            other,
            "sha256sum",
            deadline_s=DEADLINE_S,
            progress=seen.append,
        )
        assert (sent.status, received.status, seen[-1]) == (0, 0, 8_000_000)
        assert received.stdout.split()[0].decode() == hashlib.sha256(bytes(8_000_000)).hexdigest()
        await other.close()

    async def test_a_failing_source_shows_in_its_status(self, host: SshHost) -> None:
        sent, _ = await copy(host, "echo part; exit 6", host, "cat", deadline_s=DEADLINE_S)
        assert sent.status == 6

    async def test_a_target_that_gives_up_stops_the_source(self, host: SshHost) -> None:
        sent, received = await copy(host, "cat /dev/zero", host, "echo full >&2; exit 5", deadline_s=DEADLINE_S)
        assert (sent.status, received.status, received.stderr) == (141, 5, b"full\n")

    async def test_a_target_that_gives_up_on_a_silent_source_is_noticed(self, host: SshHost) -> None:
        sent, received = await copy(host, "sleep 60", host, "exit 5", deadline_s=DEADLINE_S)
        assert (sent.status, received.status) == (141, 5)

    async def test_a_slow_target_holds_the_source_back(self, host: SshHost, tmp_path: Path) -> None:
        seen: list[int] = []
        with pytest.raises(Unreachable, match=r"copy from c01 to c01: not done within 0.5 s"):
            await copy(host, "cat /dev/zero", host, "sleep 60", deadline_s=0.5, progress=seen.append)
        assert seen[-1] < 16 * 1024 * 1024


class TestLostConnections:
    @pytest.fixture
    def own_server(self, tmp_path: Path) -> Iterator[sshd.Sshd]:
        running = sshd.start(tmp_path / "sshd")
        yield running
        running.stop()

    @pytest.mark.parametrize("how", ["run", "ask", "ask_tool", "lines", "copy"])
    async def test_a_server_killed_mid_command_is_unreachable(self, own_server: sshd.Sshd, how: str) -> None:
        host = make_host(own_server)
        script = "echo started; sleep 60"

        async def lines() -> None:
            async for _ in host.lines(script):
                pass

        calls = {
            "run": lambda: host.run(script, deadline_s=DEADLINE_S),
            "ask": lambda: host.ask(script, deadline_s=DEADLINE_S),
            "ask_tool": lambda: host.ask_tool("sh", [script], deadline_s=DEADLINE_S),
            "lines": lines,
            "copy": lambda: copy(host, script, host, "cat", deadline_s=DEADLINE_S),
        }
        call = asyncio.ensure_future(calls[how]())
        await until(lambda: sleeping(own_server))
        own_server.kill_sessions()
        with pytest.raises(Unreachable) as caught:
            await call
        assert caught.value.kind == "connection-lost"
        assert (await host.run("echo back", deadline_s=DEADLINE_S)).stdout == b"back\n"
        await host.close()

    async def test_a_connection_lost_while_idle_is_made_anew(self, own_server: sshd.Sshd) -> None:
        host = make_host(own_server)
        await host.ask(":", deadline_s=DEADLINE_S)
        own_server.kill_sessions()
        await until(lambda: not host.connected)
        assert (await host.ask("echo back", deadline_s=DEADLINE_S)).stdout == b"back\n"
        await host.close()

    async def test_fifty_first_callers_share_one_connection(self, own_server: sshd.Sshd) -> None:
        host = make_host(own_server)
        await asyncio.gather(*(host.run(":", deadline_s=DEADLINE_S) for _ in range(50)))
        accepted = (own_server.directory / "sshd.log").read_text().count("Accepted publickey")
        assert accepted == 1
        await host.close()

    @pytest.fixture
    def narrow(self, tmp_path: Path) -> Iterator[sshd.Sshd]:
        running = sshd.start(tmp_path / "narrow", max_sessions=8)
        yield running
        running.stop()

    async def test_commands_that_hang_and_not_the_server_are_blamed_for_the_sessions_they_hold(
        self, narrow: sshd.Sshd
    ) -> None:
        """OpenSSH ends no command of root's that neither reads nor writes."""
        host = make_host(narrow)
        for _ in range(8):
            with pytest.raises(Unreachable, match=r"no end of `sleep 61`"):
                await host.run("sleep 61", deadline_s=0.5)
        with pytest.raises(Transient, match=r"no more sessions: 8 commands .* may still hold them.*`dmesg`") as caught:
            await host.run("true", deadline_s=DEADLINE_S)
        assert caught.value.kind == "channel-refused"
        narrow.kill_sessions()
        await until(lambda: not host.connected)
        assert (await host.run("echo back", deadline_s=DEADLINE_S)).stdout == b"back\n"
        await host.close()

    async def test_cancelled_callers_leave_no_channel_behind(self, narrow: sshd.Sshd) -> None:
        host = make_host(narrow)
        await host.run(":", deadline_s=DEADLINE_S)
        chatty = "while sleep 0.02; do echo x; done"
        for _ in range(4):
            for turns in range(5):
                call = asyncio.create_task(host.run(chatty, deadline_s=DEADLINE_S))
                await asyncio.sleep(turns * 0.002)
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
            # The server frees a session when it has seen the process end; until then it refuses.
            assert await first_answer(host) == b"room\n"
        await host.close()


async def first_answer(host: SshHost) -> bytes:
    """Ask until the server has a session free; pytest's timeout is the limit."""
    while True:
        try:
            return (await host.run("echo room", deadline_s=DEADLINE_S)).stdout
        except Transient:
            await asyncio.sleep(0.02)


async def until(true: Callable[[], bool]) -> None:
    """Wait for what no event announces; pytest's timeout is the limit."""
    while not true():  # noqa: ASYNC110 - the state of other processes sets no event of ours
        await asyncio.sleep(0.005)


def sleeping(server: sshd.Sshd) -> bool:
    """Whether a `sleep` of a test runs under the server now."""
    for pid in server.sessions():
        try:
            if Path(f"/proc/{pid}/comm").read_text() == "sleep\n":
                return True
        except OSError:
            continue
    return False
