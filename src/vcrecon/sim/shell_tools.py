"""Programs that start other programs: sh, env, timeout, nohup, setsid, nice, flock, xargs.

`sim.programs` adds them to a host's tools; they are here because only the shell can start a program.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vcrecon.sim.process import Process, Tool
from vcrecon.sim.streams import BytesReader

if TYPE_CHECKING:
    from vcrecon.sim.programs import Programs

_DURATION = re.compile(r"([0-9]*\.?[0-9]+)([smhd]?)")
_UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BUILTIN_PROGRAMS = ("[", "echo", "false", "kill", "printf", "pwd", "test", "true")


def command_tools(programs: Programs) -> dict[str, Tool]:
    """The command-running tools of the host that `programs` belongs to."""
    bound: dict[str, Callable[[Programs, Process], Any]] = {
        "sh": _sh,
        "dash": _sh,
        "env": _env,
        "timeout": _timeout,
        "nohup": _prefix,
        "setsid": _prefix,
        "nice": _prefix,
        "ionice": _prefix,
        "stdbuf": _prefix,
        "flock": _flock,
        "xargs": _xargs,
        **dict.fromkeys(_BUILTIN_PROGRAMS, _builtin),
    }

    def bind(tool: Callable[[Programs, Process], Any]) -> Tool:
        return lambda process: tool(programs, process)

    return {name: bind(tool) for name, tool in bound.items()}


async def _start(programs: Programs, process: Process, argv: list[str], **changes: Any) -> int:
    """Run `argv` with `process`'s streams; 127 with coreutils' message when there is no such program."""
    tool = programs.find(argv[0])
    if tool is None:
        caller = process.argv[0]
        failed = "failed to run command" if caller != "env" else ""
        message = f"{caller}: {failed + ' ' if failed else ''}\u2018{argv[0]}\u2019: No such file or directory"
        return await process.fail(message, 127)
    return await programs.run(tool, replace(process, argv=tuple(argv), **changes))


def _shell(programs: Programs, process: Process, name: str = "sh") -> Any:
    from vcrecon.sim.shell import Shell

    fds = {0: process.stdin, 1: process.stdout, 2: process.stderr}
    return Shell(process.machine, programs, fds, name=name, env=process.env)


async def _builtin(programs: Programs, process: Process) -> int:
    """A program that the shell also has built in, started through env, xargs or flock."""
    from vcrecon.sim.shell_builtins import BUILTINS

    status: int = await BUILTINS[process.argv[0].rpartition("/")[2]](_shell(programs, process), list(process.argv))
    return status


async def _sh(programs: Programs, process: Process) -> int:
    arguments = list(process.argv[1:])
    shell = _shell(programs, process, process.argv[0])
    command = from_stdin = False
    while arguments and arguments[0][:1] in ("-", "+") and len(arguments[0]) > 1:
        flag = arguments.pop(0)
        if flag == "--":
            break
        for letter in flag[1:]:
            attribute = {"e": "errexit", "u": "nounset", "f": "noglob", "x": "xtrace"}.get(letter)
            if letter == "c":
                command = True
            elif letter == "s":
                from_stdin = True
            elif letter == "o" and arguments:
                setattr(shell, arguments.pop(0), flag[0] == "-")
            elif attribute:
                setattr(shell, attribute, flag[0] == "-")
            elif letter not in "ilmnv":
                return await process.fail(f"{process.argv[0]}: 0: Illegal option -{letter}", 2)
    script = None
    if command:
        if not arguments:
            return await process.fail(f"{process.argv[0]}: 0: -c requires an argument", 2)
        script = arguments.pop(0)
    elif arguments and not from_stdin:
        try:
            content = process.machine.files.read(shell.resolve(arguments[0]))
        except OSError:
            return await process.fail(f"{process.argv[0]}: 0: cannot open {arguments[0]}: No such file", 2)
        script = content.decode("utf-8", "surrogateescape")
    if arguments and not from_stdin:
        shell.name = arguments.pop(0)
    shell.args = arguments
    status: int = await shell.main(script)
    return status


async def _env(programs: Programs, process: Process) -> int:
    env = dict(process.env)
    arguments = list(process.argv[1:])
    while arguments and (arguments[0].startswith("-") or "=" in arguments[0]):
        argument = arguments.pop(0)
        if argument in ("-i", "-", "--ignore-environment"):
            # The working directory is the kernel's, not the environment's; here it travels as PWD.
            env = {"PWD": process.env["PWD"]} if "PWD" in process.env else {}
        elif argument == "-u" and arguments:
            env.pop(arguments.pop(0), None)
        elif "=" in argument and not argument.startswith("-"):
            name, _, value = argument.partition("=")
            env[name] = value
        elif argument != "--":
            return await process.fail(f"env: invalid option -- '{argument.lstrip('-')[:1]}'", 125)
    if not arguments:
        await process.say("".join(f"{name}={value}\n" for name, value in env.items()))
        return 0
    return await _start(programs, process, arguments, env=env)


async def _prefix(programs: Programs, process: Process) -> int:
    """nohup, setsid, nice, ionice, stdbuf: what they change is not simulated; options take no separate value
    but for `nice -n N` and ionice's `-c N -n N`."""
    arguments = list(process.argv[1:])
    while arguments and arguments[0].startswith("-"):
        flag = arguments.pop(0)
        if flag in ("-n", "-c", "-i", "-o", "-e") and process.argv[0] in ("nice", "ionice", "stdbuf") and arguments:
            arguments.pop(0)
    if not arguments:
        return await process.fail(f"{process.argv[0]}: missing operand", 125)
    return await _start(programs, process, arguments)


async def _timeout(programs: Programs, process: Process) -> int:
    arguments = list(process.argv[1:])
    preserve = False
    while arguments and arguments[0].startswith("-"):
        flag = arguments.pop(0)
        preserve = preserve or flag == "--preserve-status"
        if flag in ("-k", "-s") and arguments:
            arguments.pop(0)
    if len(arguments) < 2:
        return await process.fail("timeout: missing operand", 125)
    found = _DURATION.fullmatch(arguments[0])
    if found is None:
        return await process.fail(f"timeout: invalid time interval \u2018{arguments[0]}\u2019", 125)
    limit_s = float(found.group(1)) * _UNIT_S[found.group(2)]
    try:
        async with asyncio.timeout(limit_s or None):
            return await _start(programs, process, arguments[1:])
    except TimeoutError:
        return 143 if preserve else 124


async def _flock(programs: Programs, process: Process) -> int:
    arguments = list(process.argv[1:])
    shared = nonblocking = False
    conflict_status, wait_s = 1, None
    while arguments and arguments[0].startswith("-") and arguments[0] != "-c":
        flag = arguments.pop(0)
        if flag in ("-n", "--nonblock", "--nb"):
            nonblocking = True
        elif flag in ("-s", "--shared"):
            shared = True
        elif flag in ("-E", "--conflict-exit-code") and arguments:
            conflict_status = int(arguments.pop(0))
        elif flag in ("-w", "--timeout") and arguments:
            wait_s = float(arguments.pop(0))
        elif flag not in ("-x", "-e", "--exclusive", "-o", "--close", "-F", "--no-fork"):
            return await process.fail(f"flock: invalid option -- '{flag.lstrip('-')}'", 64)
    if len(arguments) < 2:
        return await process.fail("flock: requires file and command; the simulation has no descriptors to lock", 64)
    path, command = arguments[0], arguments[1:]
    if command[0] == "-c":
        command = ["sh", *command]
    if path.isdigit():
        return await process.fail(f"flock: {path}: Bad file descriptor", 65)
    absolute = path if path.startswith("/") else f"{process.env.get('PWD', '/')}/{path}"
    try:
        if not process.machine.files.exists(absolute):
            process.machine.files.write(absolute, b"")
    except OSError as error:
        return await process.fail(f"flock: cannot open lock file {path}: {error.strerror}", 66)
    try:
        async with asyncio.timeout(wait_s):
            if not await programs.lock(absolute, shared=shared, wait=not nonblocking):
                return conflict_status
    except TimeoutError:
        return conflict_status
    try:
        return await _start(programs, process, command)
    finally:
        programs.unlock(absolute, shared=shared)


async def _xargs(programs: Programs, process: Process) -> int:
    arguments = list(process.argv[1:])
    per_call, parallel, replacing, separator, run_empty = 0, 1, "", "", True
    while arguments and arguments[0].startswith("-") and len(arguments[0]) > 1:
        flag = arguments.pop(0)
        letter, value = flag[1], flag[2:]
        if letter in "nPIdL" and not value and arguments:
            value = arguments.pop(0)
        if letter in "nL":
            per_call = int(value)
        elif letter == "P":
            parallel = int(value)
        elif letter == "I":
            replacing, per_call = value, 1
        elif letter == "d":
            separator = {"\\n": "\n", "\\0": "\0"}.get(value, value)
        elif letter == "0":
            separator = "\0"
        elif letter == "r":
            run_empty = False
        else:
            return await process.fail(f"xargs: invalid option -- '{letter}'", 1)
    text = (await process.stdin.read()).decode("utf-8", "surrogateescape")
    if separator or replacing:
        items = [item for item in text.split(separator or "\n") if item]
    else:
        items = [first or second or bare for first, second, bare in _XARGS_ITEM.findall(text)]
    if not items and (not run_empty or replacing):
        return 0
    command = arguments or ["echo"]
    size = per_call or max(1, len(items))
    batches = [items[start : start + size] for start in range(0, len(items), size)] or [[]]
    turns = asyncio.Semaphore(parallel or len(batches))

    async def call(batch: list[str]) -> int:
        async with turns:
            argv = [word.replace(replacing, batch[0]) for word in command] if replacing else command + batch
            return await _start(programs, process, argv, stdin=BytesReader())

    statuses = await asyncio.gather(*(call(batch) for batch in batches))
    special = [status for status in statuses if status >= 126]
    return special[0] if special and special[0] in (126, 127) else 123 if any(statuses) else 0


_XARGS_ITEM = re.compile(r"\"([^\"]*)\"|'([^']*)'|([^\s\"']+)")
