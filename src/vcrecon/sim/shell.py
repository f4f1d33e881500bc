"""A small POSIX shell for simulated hosts, faithful to Debian's dash. Called by `sim.server`.

`Shell` evaluates the trees of `shell_parse`; `Programs` is what one host's PATH holds. Streams are those of
`sim.streams`; every stage of a pipeline is an asyncio task, so that simulated hosts run like real ones.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import posixpath
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any

from vcrecon.sim import shell_tree as tree
from vcrecon.sim.process import Process, Reader, Tool, Writer
from vcrecon.sim.programs import Programs
from vcrecon.sim.shell_builtins import BUILTINS, SPECIAL
from vcrecon.sim.shell_errors import (
    BreakLoop,
    ContinueLoop,
    ExitShell,
    LoopJump,
    RedirectionError,
    ReturnFromFunction,
    ShellError,
)
from vcrecon.sim.shell_expand import ExpansionError, fields, pattern, text, whole
from vcrecon.sim.shell_parse import Incomplete, ShellSyntaxError, parse_next, steps_of
from vcrecon.sim.shell_redirect import held_files, redirected
from vcrecon.sim.streams import (
    BytesReader,
    BytesWriter,
    NullWriter,
    Pipe,
    release,
    retain,
)
from vcrecon.sim.terminal import terminal_of

if TYPE_CHECKING:
    from vcrecon.sim.machine import Machine

ENVIRONMENT = {
    "HOME": "/root",
    "LOGNAME": "root",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PWD": "/root",
    "SHELL": "/bin/sh",
    "USER": "root",
}
BROKEN_PIPE_STATUS = 141
_BLOCK_BYTES = 8192


async def run_script(
    machine: Machine,
    script: str,
    stdin: Reader,
    stdout: Writer,
    stderr: Writer,
    tools: Mapping[str, Tool] | Programs,
    env: Mapping[str, str] | None = None,
    args: tuple[str, ...] = (),
) -> int:
    """Run `script` on `machine` as `sh -c` does and return its exit status.

    `args` are `$1` and following. Background jobs that outlive the script are kept in `tools.tasks` when
    `tools` is a Programs, which is how they can be ended with their host.
    """
    programs = tools if isinstance(tools, Programs) else Programs(tools)
    shell = Shell(machine, programs, {0: stdin, 1: stdout, 2: stderr}, env=env, args=args)
    return await shell.main(script)


class Shell:
    """One shell process: variables, options, open files, jobs. A subshell is a copy."""

    def __init__(
        self,
        machine: Machine,
        programs: Programs,
        fds: dict[int, Any],
        *,
        name: str = "sh",
        env: Mapping[str, str] | None = None,
        args: tuple[str, ...] = (),
    ) -> None:
        self.machine = machine
        self.programs = programs
        self.fds = fds
        self.name = name
        self.args = list(args)
        self.variables: dict[str, str] = {**ENVIRONMENT, **(env or {})}
        self.exported = set(self.variables)
        self.variables.setdefault("IFS", " \t\n")
        self.readonly: set[str] = set()
        self.functions: dict[str, tree.Command] = {}
        self.locals: list[dict[str, str | None]] = []
        self.errexit = self.nounset = self.noglob = self.xtrace = False
        self.tested = False
        self.status = 0
        self.substitution_status = 0
        self.pid = programs.next_pid()
        self.is_process = False
        self.cwd = self.variables["PWD"]
        self.umask = 0o022
        self.background_pid = 0
        self.jobs: dict[int, asyncio.Task[int]] = {}
        self.exit_trap = ""
        self.pipe_trap = ""
        self.line = 1

    def subshell(self) -> Shell:
        """A copy that can change without the parent noticing; `$$` stays the parent's."""
        copy = Shell.__new__(Shell)
        copy.__dict__.update(self.__dict__)
        copy.fds = dict(self.fds)
        copy.args = list(self.args)
        copy.variables = dict(self.variables)
        copy.exported = set(self.exported)
        copy.functions = dict(self.functions)
        copy.readonly = set(self.readonly)
        copy.locals = [dict(frame) for frame in self.locals]
        copy.jobs = {}
        copy.exit_trap = copy.pipe_trap = ""
        copy.is_process = False
        return copy

    @property
    def cwd(self) -> str:
        """The working directory; a mount that holds that of a running process is busy."""
        return self._cwd

    @cwd.setter
    def cwd(self, path: str) -> None:
        self._cwd = path
        if self.is_process:
            self.machine.process_moved(self.pid, path)

    # -- entry points ---------------------------------------------------------------------------------

    async def main(self, script: str | None = None) -> int:
        """Run `script`, or standard input command by command, to its end, then the EXIT trap."""
        self.is_process = True
        self.machine.process_began(self.pid, posixpath.basename(self.name), self.cwd)
        try:
            status = await self._guarded(self._run_stdin() if script is None else self.run_text(script))
            trap, self.exit_trap = self.exit_trap, ""
            if trap and status != BROKEN_PIPE_STATUS:
                status = await self._guarded(self._run_trap(trap, status))
            return status
        finally:
            self.machine.process_ended(self.pid)

    async def _run_trap(self, trap: str, status: int) -> None:
        self.status = status
        await self.run_text(trap)
        self.status = status

    async def _guarded(self, work: Awaitable[object]) -> int:
        """Await `work` and turn every way a shell process can end into its exit status."""
        try:
            await work
        except ExitShell as leaving:
            return leaving.status
        except (LoopJump, ReturnFromFunction):
            return self.status
        except BrokenPipeError:
            return BROKEN_PIPE_STATUS
        except (ShellError, ExpansionError) as error:
            return await self._dies(f"{self.line}: {error}")
        except ShellSyntaxError as error:
            return await self._dies(f"{error.line}: {error}")
        return self.status

    async def _dies(self, message: str) -> int:
        try:
            await self.fds[2].write(f"{self.name}: {message}\n".encode())
        except OSError:
            return 2
        return 2

    async def run_text(self, script: str, *, tested: bool = False) -> int:
        """Evaluate `script` in this shell; each line is parsed only when those before it have run."""
        position, line = 0, 1
        steps = steps_of(script)
        if steps.is_empty:
            self.status = 0
        while True:
            command, position, line = steps.next(position, line)
            if command is None:
                return self.status
            await self.evaluate(command, tested)

    async def _run_stdin(self) -> int:
        reader: Reader = self.fds[0]
        interactive = terminal_of(reader) is not None
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        waiting, line, final = "", 1, False
        while True:
            try:
                command, position, line_after = parse_next(waiting, 0, line, final)
            except Incomplete:
                if final:
                    raise
                command, position = None, 0
            except ShellSyntaxError as error:
                if not interactive:
                    raise
                self.status = await self._dies(f"{error.line}: {error}")
                command, waiting, position = None, "", 0
            if command is not None:
                waiting, line = waiting[position:], line_after
                await (self._try(command) if interactive else self.evaluate(command))
            elif final:
                return self.status
            else:
                if interactive:
                    await self.fds[2].write(b"> " if waiting.strip() else b"# ")
                data = await reader.read(_BLOCK_BYTES)
                final = not data
                waiting += decoder.decode(data, final)

    async def _try(self, command: tree.Command) -> None:
        """One command of an interactive shell, which lives on after a mistake."""
        try:
            await self.evaluate(command)
        except (ShellError, ExpansionError) as error:
            self.status = await self._dies(f"{self.line}: {error}")

    async def child(self, command: tree.Command, *, tested: bool = False) -> int:
        """Evaluate `command` as the whole life of this (sub)shell."""
        status = await self._guarded(self.evaluate(command, tested))
        trap, self.exit_trap = self.exit_trap, ""
        ran_on = trap and status != BROKEN_PIPE_STATUS
        return await self._guarded(self._run_trap(trap, status)) if ran_on else status

    # -- variables and files --------------------------------------------------------------------------

    def parameter(self, name: str) -> str | None:
        """The value of `$name`, special parameters included; None when it is not set."""
        if (value := self.variables.get(name)) is not None:
            return value
        if name.isdigit():
            index = int(name)
            return self.name if index == 0 else self.args[index - 1] if index <= len(self.args) else None
        if name in "@*":
            separator = " " if name == "@" else self.variables.get("IFS", " ")[:1]
            return separator.join(self.args)
        match name:
            case "?":
                return str(self.status)
            case "#":
                return str(len(self.args))
            case "$":
                return str(self.pid)
            case "!":
                return str(self.background_pid) if self.background_pid else None
            case "-":
                flags = {"e": self.errexit, "f": self.noglob, "u": self.nounset, "x": self.xtrace}
                return "".join(flag for flag, on in flags.items() if on)
        return None

    def assign(self, name: str, value: str) -> None:
        """Set a variable. Raises ShellError when it is read-only."""
        if name in self.readonly:
            raise ShellError(f"{name}: is read only")
        self.variables[name] = value

    def environment(self) -> dict[str, str]:
        """What a started program gets."""
        return {name: self.variables[name] for name in self.exported if name in self.variables}

    def resolve(self, path: str) -> str:
        """`path` as an absolute one."""
        return posixpath.join(self.cwd, path)

    async def substitute(self, body: tree.Command) -> str:
        """The output of `$(body)` without its trailing newlines."""
        output = BytesWriter()
        shell = self.subshell()
        shell.fds[1] = output
        self.substitution_status = await shell.child(body)
        return output.data.replace(b"\0", b"").rstrip(b"\n").decode("utf-8", "surrogateescape")

    async def complain(self, message: str) -> None:
        """One line on standard error, with the shell's name and the line number, as dash prints it."""
        await self.fds[2].write(f"{self.name}: {self.line}: {message}\n".encode("utf-8", "surrogateescape"))

    # -- evaluation -----------------------------------------------------------------------------------

    async def evaluate(self, command: tree.Command, tested: bool = False) -> int:
        """Run one command; `tested` says that its failure does not end a `set -e` shell."""
        match command:
            case tree.Simple():
                self.status = await self._simple(command, tested)
            case tree.Pipeline():
                self.status = await self._pipeline(command, tested)
            case tree.Subshell():
                self.status = await self.subshell().child(command.body, tested=tested)
            case tree.AndOr():
                status = await self.evaluate(command.left, True)
                if (status == 0) == (command.operator == "&&"):
                    await self.evaluate(command.right, tested)
                return self.status
            case tree.Sequence():
                for part in command.commands:
                    await self.evaluate(part, tested)
                return self.status
            case tree.Not():
                self.status = int(await self.evaluate(command.command, True) == 0)
                return self.status
            case _:
                return await self._compound(command, tested)
        if self.status and self.errexit and not tested:
            raise ExitShell(self.status)
        return self.status

    async def _compound(self, command: tree.Command, tested: bool) -> int:
        match command:
            case tree.If():
                await self._if(command, tested)
            case tree.Loop():
                await self._loop(command, tested)
            case tree.For():
                await self._for(command, tested)
            case tree.Case():
                await self._case(command, tested)
            case tree.Background():
                self.status = self._background(command.command)
            case tree.Function():
                self.functions[command.name] = command.body
                self.status = 0
            case tree.Redirected():
                self.line = command.line
                await self._redirected(command, tested)
            case _:
                raise AssertionError(f"no such command: {command!r}")
        return self.status

    async def _redirected(self, command: tree.Redirected, tested: bool) -> None:
        before = self.fds
        try:
            self.fds = await redirected(self, command.redirects)
        except RedirectionError as error:
            await self.complain(str(error))
            self.status = 2
            return
        try:
            await self.evaluate(command.body, tested)
        finally:
            self.fds = before

    async def _if(self, command: tree.If, tested: bool) -> None:
        for condition, body in command.branches:
            if await self.evaluate(condition, True) == 0:
                await self.evaluate(body, tested)
                return
        self.status = 0
        if command.otherwise is not None:
            await self.evaluate(command.otherwise, tested)

    async def _loop_body(self, body: tree.Command, tested: bool) -> bool:
        """One turn of a loop; says whether the loop goes on."""
        # A loop of built-ins alone must not keep the other hosts of this process from running.
        await asyncio.sleep(0)
        try:
            await self.evaluate(body, tested)
        except LoopJump as jump:
            self.status = 0
            if jump.levels > 1:
                raise type(jump)(jump.levels - 1) from None
            return isinstance(jump, ContinueLoop)
        return True

    async def _loop(self, command: tree.Loop, tested: bool) -> None:
        status = 0
        while True:
            try:
                condition = await self.evaluate(command.condition, True)
            except BreakLoop as jump:
                self.status = 0
                if jump.levels > 1:
                    raise BreakLoop(jump.levels - 1) from None
                return
            if (condition == 0) == command.until:
                self.status = status
                return
            if not await self._loop_body(command.body, tested):
                return
            status = self.status

    async def _for(self, command: tree.For, tested: bool) -> None:
        if command.words is None:
            items = list(self.args)
        else:
            items = [item for word in command.words for item in await fields(self, word)]
        self.status = 0
        for item in items:
            self.assign(command.name, item)
            if not await self._loop_body(command.body, tested):
                return

    async def _case(self, command: tree.Case, tested: bool) -> None:
        subject = await text(self, command.word)
        self.status = 0
        for patterns, body in command.branches:
            for word in patterns:
                if (await pattern(self, word)).fullmatch(subject):
                    await self.evaluate(body, tested)
                    return

    def _background(self, command: tree.Command) -> int:
        shell = self.subshell()
        # A job of a shell without job control reads nothing (POSIX 2.9.3.1).
        shell.fds[0] = BytesReader()
        held = list(shell.fds.values())
        for stream in held:
            retain(stream)

        async def job() -> int:
            try:
                return await shell.child(command)
            finally:
                for stream in held:
                    release(stream)

        self.background_pid = self.programs.next_pid()
        self.jobs[self.background_pid] = self.programs.spawn(job())
        return 0

    async def _pipeline(self, command: tree.Pipeline, tested: bool) -> int:
        earlier: list[asyncio.Task[int]] = []
        source = self.fds.get(0)
        try:
            for stage in command.commands[:-1]:
                pipe = Pipe()
                work = self._stage(stage, source, pipe.writer, tested)
                earlier.append(asyncio.create_task(work))
                source = pipe.reader
            status = await self._stage(command.commands[-1], source, None, tested)
            await asyncio.gather(*earlier)
        except BaseException:
            for task in earlier:
                task.cancel()
            await asyncio.gather(*earlier, return_exceptions=True)
            raise
        return status

    async def _stage(self, command: tree.Command, source: Any, target: Any, tested: bool) -> int:
        shell = self.subshell()
        inherited = self.fds.get(0)
        shell.fds[0] = source
        if target is not None:
            shell.fds[1] = target
        try:
            return await shell.child(command, tested=tested)
        finally:
            if source is not inherited:
                release(source)
            release(target)

    # -- simple commands ------------------------------------------------------------------------------

    async def _simple(self, command: tree.Simple, tested: bool) -> int:
        self.line = command.line
        self.substitution_status = 0
        words: list[str] = []
        for word in command.words:
            if (one := whole(self, word)) is not None:
                words.append(one)
            else:
                words.extend(await fields(self, word))
        if self.xtrace and words:
            await self.fds[2].write(f"+ {' '.join(words)}\n".encode("utf-8", "surrogateescape"))
        special = not words or words[0] in SPECIAL
        try:
            fds = await redirected(self, command.redirects) if command.redirects else self.fds
        except RedirectionError as error:
            await self.complain(str(error))
            if special and words:
                raise ExitShell(2) from None
            return 2
        assigned = {}
        for name, value in command.assignments:
            one = whole(self, value)
            assigned[name] = await text(self, value) if one is None else one
            if special:
                self.assign(name, assigned[name])
        if not words:
            return self.substitution_status
        return await self._call(words, fds, {} if special else assigned, tested)

    async def _call(self, words: list[str], fds: dict[int, Any], assigned: dict[str, str], tested: bool) -> int:
        name = words[0]
        if name == "exec":
            return await self._exec(words[1:], fds)
        if (body := self.functions.get(name)) is not None and name not in SPECIAL:
            return await self._function(body, words, fds, assigned, tested)
        if name in BUILTINS:
            return await self._builtin(words, fds, assigned, tested)
        return await self.external(words, fds, assigned)

    async def _builtin(self, words: list[str], fds: dict[int, Any], assigned: dict[str, str], tested: bool) -> int:
        before, self.fds = self.fds, fds
        saved = {name: self.variables.get(name) for name in assigned} if assigned else assigned
        self.variables.update(assigned)
        self.tested = tested
        try:
            return await BUILTINS[words[0]](self, words)
        except BrokenPipeError:
            if not self.pipe_trap:
                raise
            with contextlib.suppress(BrokenPipeError):
                await self.complain(f"{words[0]}: {words[0]}: I/O error")
            await self.run_text(self.pipe_trap)
            return 1
        except OSError:
            await self.complain(f"{words[0]}: {words[0]}: I/O error")
            return 1
        finally:
            self.fds = before
            self._restore(saved)

    def _restore(self, saved: Mapping[str, str | None]) -> None:
        for name, value in saved.items():
            if value is None:
                self.variables.pop(name, None)
            else:
                self.variables[name] = value

    async def _function(
        self,
        body: tree.Command,
        words: list[str],
        fds: dict[int, Any],
        assigned: dict[str, str],
        tested: bool,
    ) -> int:
        before, self.fds = self.fds, fds
        args, self.args = self.args, words[1:]
        frame: dict[str, str | None] = {name: self.variables.get(name) for name in assigned}
        self.variables.update(assigned)
        self.locals.append(frame)
        try:
            return await self.evaluate(body, tested)
        except ReturnFromFunction as leaving:
            self.status = leaving.status
            return leaving.status
        finally:
            self.locals.pop()
            self._restore(frame)
            self.fds = before
            self.args = args

    async def external(
        self, words: list[str], fds: dict[int, Any], assigned: Mapping[str, str], prefix: str = ""
    ) -> int:
        """Start a program and wait for it; 127 with dash's message when there is none."""
        tool = self.programs.find(words[0])
        nothing = BytesReader()
        stderr = fds.get(2) or NullWriter()
        if tool is None:
            message = f"{self.name}: {self.line}: {prefix}{words[0]}: not found\n"
            await stderr.write(message.encode("utf-8", "surrogateescape"))
            return 127
        env = {**self.environment(), "PWD": self.cwd, **assigned}
        process = Process(self.machine, tuple(words), fds.get(0) or nothing, fds.get(1) or NullWriter(), stderr, env)
        return await self.programs.run(tool, process)

    async def _exec(self, words: list[str], fds: dict[int, Any]) -> int:
        if not words:
            self.fds = fds
            if self.is_process:
                self.machine.process_holds(self.pid, held_files(fds))
            return 0
        raise ExitShell(await self.external(words, fds, {}, "exec: "))
