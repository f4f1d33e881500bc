"""What the simulated shell does with its host: files, globs, pipes, programs that start programs."""

from __future__ import annotations

import asyncio

import pytest

from vcrecon.sim.machine import Machine
from vcrecon.sim.process import Process
from vcrecon.sim.programs import Programs
from vcrecon.sim.shell import run_script
from vcrecon.sim.streams import BytesReader, BytesWriter, Pipe


async def cat(process: Process) -> int:
    while data := await process.stdin.read(4096):
        await process.stdout.write(data)
    return 0


async def args(process: Process) -> int:
    await process.say("".join(f"<{argument}>" for argument in process.argv[1:]) + "\n")
    return 0


async def yes(process: Process) -> int:
    while True:
        await process.say("y\n" * 1000)


async def fail(process: Process) -> int:
    return await process.fail("failed", int(process.argv[1]))


async def forever(process: Process) -> int:
    await asyncio.Event().wait()
    return 0


async def crash(process: Process) -> int:
    raise KeyError("a bug of the simulation")


async def show(process: Process) -> int:
    await process.say(process.env.get(process.argv[1], "unset") + "\n")
    return 0


TOOLS = {"cat": cat, "args": args, "yes": yes, "fail": fail, "forever": forever, "crash": crash, "show": show}


class Box:
    """A host with a few programs of its own, and what its last script printed."""

    def __init__(self) -> None:
        self.machine = Machine("h", hypervisor="kvm", memory_bytes=1 << 30, cores=1, disk_bytes=1 << 30)
        self.programs = Programs(TOOLS)
        self.errors = ""

    async def run(self, script: str, stdin: str = "", *, status: int = 0) -> str:
        out, err = BytesWriter(), BytesWriter()
        ended = await run_script(self.machine, script, BytesReader(stdin.encode()), out, err, self.programs)
        self.errors = err.data.decode()
        assert ended == status, self.errors
        return out.data.decode()


@pytest.fixture
def box() -> Box:
    return Box()


async def test_redirections_write_and_append_files_of_the_host(box: Box) -> None:
    assert await box.run("echo a >/tmp/f; echo b >>/tmp/f; fail 3 2>>/tmp/f; cat </tmp/f") == "a\nb\nfailed\n"


async def test_a_private_umask_makes_private_files(box: Box) -> None:
    await box.run("umask 077; echo secret >/tmp/f; umask 022; : >/tmp/g")
    assert [box.machine.files.mode(path) & 0o777 for path in ("/tmp/f", "/tmp/g")] == [0o600, 0o644]


async def test_globs_match_files_of_the_host_and_stay_as_they_are_without_a_match(box: Box) -> None:
    await box.run(": >/tmp/b.x; : >/tmp/a.x; : >/tmp/.h.x; : >'/tmp/c d.x'")
    assert await box.run("cd /tmp; args *.x '*.x' /tmp/[ab].* /none*") == (
        "<a.x><b.x><c d.x><*.x></tmp/a.x></tmp/b.x></none*>\n"
    )


async def test_a_pipeline_ends_when_its_reader_has_enough(box: Box) -> None:
    assert await box.run("yes | { read a; echo $a; }") == "y\n"


async def test_prefix_assignments_reach_the_program_only(box: Box) -> None:
    assert await box.run("X=1 show X; show X; export X=2; show X; unset X; show X") == "1\nunset\n2\nunset\n"


async def test_an_unknown_program_is_127_with_dashs_message(box: Box) -> None:
    await box.run("true\nnosuch", status=127)
    assert box.errors == "sh: 2: nosuch: not found\n"


async def test_sh_runs_scripts_from_its_argument_its_input_and_a_file(box: Box) -> None:
    assert await box.run("sh -c 'echo $0 $1' name arg") == "name arg\n"
    assert await box.run("sh -euc 'false; echo never' || echo $?") == "1\n"
    assert await box.run("sh -s x y", "echo $2 $1\nexit 4\necho never\n", status=4) == "y x\n"
    assert await box.run("echo 'echo in file $1' >/tmp/s; sh /tmp/s z") == "in file z\n"


async def test_a_resident_sh_runs_each_block_as_it_arrives_whatever_its_pieces(box: Box) -> None:
    pipe, out = Pipe(), Pipe()
    running = asyncio.ensure_future(run_script(box.machine, "sh", pipe.reader, out.writer, BytesWriter(), box.programs))
    for piece in ("for i in 1 2; do ec", "ho $i\ndone; cat <<E", "\nbody é"):
        pipe.feed(piece.encode())
        await asyncio.sleep(0)
    pipe.feed(b"\nE\n")
    assert [await out.reader.readline() for _ in range(3)] == [b"1\n", b"2\n", "body é\n".encode()]
    pipe.writer.release()
    assert await asyncio.wait_for(running, 5) == 0


async def test_flock_refuses_a_held_lock_with_the_chosen_status_and_frees_it(box: Box) -> None:
    inner = "flock -n -E 75 /run/l sh -c 'echo never'"
    assert await box.run(f'flock -n -E 75 /run/l sh -c "{inner}; echo \\$?"; flock -n /run/l echo free') == (
        "75\nfree\n"
    )
    await box.run("flock -n /no/such/l true", status=66)


async def test_a_waiting_flock_gets_its_turn(box: Box) -> None:
    script = (
        "flock /run/l sh -c ': >/run/held; until [ -e /run/go ]; do :; done; echo 1' &\n"
        "until [ -e /run/held ]; do :; done; : >/run/go; flock /run/l echo 2; wait"
    )
    assert await box.run(script) == "1\n2\n"


async def test_timeout_ends_a_command_with_124_and_passes_other_statuses(box: Box) -> None:
    await box.run("timeout 0.05 forever", status=124)
    await box.run("timeout -k 1 5 fail 3", status=3)
    await box.run("timeout 5 nosuch", status=127)
    await box.run("timeout soon true", status=125)


async def test_env_and_nohup_start_programs(box: Box) -> None:
    assert await box.run("env X=1 show X; env -i show HOME; nohup args a; nice -n 19 args b") == (
        "1\nunset\n<a>\n<b>\n"
    )


async def test_xargs_hands_out_its_input(box: Box) -> None:
    assert await box.run("xargs -n 2 args", "a 'b c'\nd") == "<a><b c>\n<d>\n"
    assert await box.run("xargs -r args", "") == ""
    assert await box.run("xargs -I @ -P 4 args x@", "1\n2 3\n") == "<x1>\n<x2 3>\n"
    await box.run("xargs -n 1 fail", "1 0", status=123)


async def test_a_bug_in_a_tool_is_not_mistaken_for_an_answer_of_the_host(box: Box) -> None:
    await box.run("crash", status=70)
    assert "crashed in the simulation" in box.errors
    assert len(box.programs.crashes) == 1


async def test_a_hook_sees_every_program_and_can_take_its_place(box: Box) -> None:
    async def before(process: Process) -> int | None:
        return 9 if process.argv[0] == "cat" else None

    box.programs.before = before
    assert await box.run("args a; cat; echo $?", "in") == "<a>\n9\n"
    assert list(box.programs.log) == ["args a", "cat"]


async def test_losing_power_ends_every_process(box: Box) -> None:
    out = BytesWriter()
    script = "forever & forever"
    task = box.programs.spawn(run_script(box.machine, script, BytesReader(), out, out, box.programs))
    while box.programs.counts["forever"] < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    box.programs.kill_all()
    await asyncio.wait([task], timeout=5)
    await asyncio.sleep(0)
    assert not box.programs.tasks
