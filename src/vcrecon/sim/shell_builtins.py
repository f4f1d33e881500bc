"""The built-in commands of the simulated shell, with dash's messages. Called by `sim.shell` only."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from vcrecon.sim.shell_errors import BreakLoop, ContinueLoop, ExitShell, ReturnFromFunction, ShellError
from vcrecon.sim.shell_parse import NAME
from vcrecon.sim.shell_printf import echo_text, format_text
from vcrecon.sim.shell_test import Malformed, holds

if TYPE_CHECKING:
    from vcrecon.sim.shell import Shell

Builtin = Callable[["Shell", list[str]], Awaitable[int]]

SPECIAL = frozenset(
    {
        ":",
        ".",
        "break",
        "continue",
        "eval",
        "exec",
        "exit",
        "export",
        "readonly",
        "return",
        "set",
        "shift",
        "trap",
    }
    | {"unset", "times"}
)
_BLANKS = re.compile(r"[ \t\n]+")
_SIGNALS = {"0": "EXIT", "1": "HUP", "2": "INT", "3": "QUIT", "13": "PIPE", "15": "TERM"}


def _encode(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def _number(words: list[str], default: int) -> int:
    if len(words) < 2:
        return default
    if not words[1].isdigit():
        raise ShellError(f"{words[0]}: Illegal number: {words[1]}")
    return int(words[1])


async def _true(shell: Shell, words: list[str]) -> int:
    return 0


async def _false(shell: Shell, words: list[str]) -> int:
    return 1


async def _echo(shell: Shell, words: list[str]) -> int:
    await shell.fds[1].write(_encode(echo_text(words[1:])))
    return 0


async def _printf(shell: Shell, words: list[str]) -> int:
    arguments = words[2:] if words[1:2] == ["--"] else words[1:]
    if not arguments:
        await shell.complain("printf: usage: printf format [arg ...]")
        return 2
    output, complaints = format_text(arguments[0], arguments[1:])
    for complaint in complaints:
        await shell.complain(f"printf: {complaint}")
    await shell.fds[1].write(_encode(output))
    return 1 if complaints else 0


async def _test(shell: Shell, words: list[str]) -> int:
    arguments = words[1:]
    if words[0] == "[":
        if arguments[-1:] != ["]"]:
            await shell.complain("[: missing ]")
            return 2
        arguments = arguments[:-1]
    try:
        return 0 if holds(shell, arguments) else 1
    except Malformed as error:
        await shell.complain(f"{words[0]}: {error}")
        return 2


async def _cd(shell: Shell, words: list[str]) -> int:
    target = words[1] if len(words) > 1 else shell.variables.get("HOME", "/")
    before = shell.cwd
    if target == "-":
        target = shell.variables.get("OLDPWD", before)
        await shell.fds[1].write(_encode(f"{target}\n"))
    files: Any = shell.machine.files
    path = _normal(shell.resolve(target))
    if not files.is_dir(path):
        await shell.complain(f"cd: can't cd to {target}")
        return 2
    shell.cwd = path
    shell.variables.update(PWD=path, OLDPWD=before)
    return 0


def _normal(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


async def _pwd(shell: Shell, words: list[str]) -> int:
    await shell.fds[1].write(_encode(f"{shell.cwd}\n"))
    return 0


async def _exit(shell: Shell, words: list[str]) -> int:
    raise ExitShell(_number(words, shell.status) & 255)


async def _return(shell: Shell, words: list[str]) -> int:
    raise ReturnFromFunction(_number(words, shell.status))


async def _break(shell: Shell, words: list[str]) -> int:
    raise BreakLoop(max(1, _number(words, 1)))


async def _continue(shell: Shell, words: list[str]) -> int:
    raise ContinueLoop(max(1, _number(words, 1)))


_OPTIONS = {"e": "errexit", "u": "nounset", "f": "noglob", "x": "xtrace"}
_IGNORED_OPTIONS = "abhmnvCIVE"


async def _set(shell: Shell, words: list[str]) -> int:
    arguments = words[1:]
    if not arguments:
        listing = "".join(f"{name}={_quote(value)}\n" for name, value in sorted(shell.variables.items()))
        await shell.fds[1].write(_encode(listing))
        return 0
    while arguments and arguments[0][:1] in "-+" and len(arguments[0]) > 1:
        flag = arguments.pop(0)
        if flag == "--":
            shell.args = arguments
            return 0
        for letter in flag[1:]:
            if letter == "o":
                _set_named(shell, arguments.pop(0) if arguments else "", flag[0] == "-")
            elif letter in _OPTIONS:
                setattr(shell, _OPTIONS[letter], flag[0] == "-")
            elif letter not in _IGNORED_OPTIONS:
                raise ShellError(f"set: Illegal option -{letter}")
    if arguments:
        shell.args = arguments
    return 0


def _set_named(shell: Shell, name: str, on: bool) -> None:
    if name in _OPTIONS.values():
        setattr(shell, name, on)
    elif name not in ("", "monitor", "noclobber", "verbose", "vi", "emacs", "notify", "ignoreeof", "nolog"):
        raise ShellError(f"set: Illegal option -o {name}")


def _quote(value: str) -> str:
    escaped = value.replace("'", "'\"'\"'")
    return f"'{escaped}'"


async def _export(shell: Shell, words: list[str]) -> int:
    marked = shell.readonly if words[0] == "readonly" else shell.exported
    arguments = [word for word in words[1:] if word != "-p"]
    if not arguments:
        lines = [
            f"{words[0]} {name}" + (f"={_quote(shell.variables[name])}" if name in shell.variables else "") + "\n"
            for name in sorted(marked)
        ]
        await shell.fds[1].write(_encode("".join(lines)))
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not NAME.fullmatch(name):
            raise ShellError(f"{words[0]}: {name}: bad variable name")
        if equals:
            shell.assign(name, value)
        marked.add(name)
    return 0


async def _local(shell: Shell, words: list[str]) -> int:
    if not shell.locals:
        raise ShellError("local: not in a function")
    for argument in words[1:]:
        name, equals, value = argument.partition("=")
        shell.locals[-1].setdefault(name, shell.variables.get(name))
        if equals:
            shell.assign(name, value)
    return 0


async def _unset(shell: Shell, words: list[str]) -> int:
    functions = words[1:2] == ["-f"]
    for name in words[2:] if words[1:2] in (["-f"], ["-v"]) else words[1:]:
        if functions:
            shell.functions.pop(name, None)
        elif name in shell.readonly:
            raise ShellError(f"unset: {name}: is read only")
        else:
            shell.variables.pop(name, None)
            shell.exported.discard(name)
    return 0


async def _shift(shell: Shell, words: list[str]) -> int:
    count = _number(words, 1)
    if count > len(shell.args):
        raise ShellError("shift: can't shift that many")
    del shell.args[:count]
    return 0


async def _read(shell: Shell, words: list[str]) -> int:
    names = words[1:]
    raw = False
    while names and names[0].startswith("-") and len(names[0]) > 1:
        flag = names.pop(0)
        raw = raw or "r" in flag
        if flag == "-p" and names:
            await shell.fds[2].write(_encode(names.pop(0)))
    if not names:
        raise ShellError("read: arg count")
    text, ended = "", False
    protected: set[int] = set()
    while not ended:
        line = (await shell.fds[0].readline()).decode("utf-8", "surrogateescape")
        ended = not line.endswith("\n")
        again = False
        line = line.removesuffix("\n")
        if raw or "\\" not in line:
            text += line
            break
        position = 0
        while position < len(line):
            if line[position] == "\\":
                position += 1
                if position == len(line):
                    again = not ended
                    break
                protected.add(len(text))
            text += line[position]
            position += 1
        if not again:
            break
    separators = shell.variables.get("IFS", " \t\n")
    for name, value in zip(names, _read_fields(text, protected, separators, len(names)), strict=True):
        shell.assign(name, value)
    return int(ended)


def _read_fields(text: str, protected: set[int], separators: str, count: int) -> list[str]:
    """The values `read` gives to `count` names; the last takes the rest of the line."""
    if not protected and separators == " \t\n":
        found = _BLANKS.split(text.strip(separators), maxsplit=count - 1) if count > 1 else [text.strip(separators)]
        return found + [""] * (count - len(found))
    white = [character for character in separators if character in " \t\n"]

    def is_in(position: int, characters: str | list[str]) -> bool:
        return position not in protected and text[position] in characters

    end = len(text)
    while end and is_in(end - 1, white):
        end -= 1
    position = 0
    while position < end and is_in(position, white):
        position += 1
    values: list[str] = []
    while len(values) < count - 1 and position < end:
        start = position
        while position < end and not is_in(position, separators):
            position += 1
        values.append(text[start:position])
        hard = False
        while position < end and (is_in(position, white) or (is_in(position, separators) and not hard)):
            hard = hard or not is_in(position, white)
            position += 1
    last = text[position:end]
    # One trailing separator that ends the only remaining field is not part of it.
    if last and is_in(end - 1, separators) and not any(is_in(at, separators) for at in range(position, end - 1)):
        last = last[:-1]
    values.append(last)
    return values + [""] * (count - len(values))


async def _wait(shell: Shell, words: list[str]) -> int:
    if len(words) < 2:
        await asyncio.gather(*shell.jobs.values(), return_exceptions=True)
        shell.jobs.clear()
        return 0
    status = 0
    for word in words[1:]:
        task = shell.jobs.pop(int(word), None) if word.isdigit() else None
        if task is None:
            status = 127
            continue
        await asyncio.wait([task])
        status = 143 if task.cancelled() else task.result()
    return status


def _signal(word: str) -> int:
    """The number of `-9`, `-KILL` or, by default, TERM."""
    name = word.removeprefix("-").removeprefix("SIG")
    numbers = {"HUP": 1, "INT": 2, "QUIT": 3, "KILL": 9, "PIPE": 13, "TERM": 15}
    return int(name) if word.startswith("-") and name.isdigit() else numbers.get(name, 15)


async def _kill(shell: Shell, words: list[str]) -> int:
    status = 0
    probe = words[1:2] == ["-0"]
    for word in words[1:]:
        if word.startswith("-"):
            continue
        if word == str(shell.pid):
            if not probe:
                shell.exit_trap = ""  # a shell that a signal ends does not run it
                raise ExitShell(128 + _signal(words[1]))
            continue
        task = shell.jobs.get(int(word)) if word.isdigit() else None
        if task is None or task.done():
            await shell.complain("kill: No such process")
            status = 1
        elif not probe:
            task.cancel()
    return status


async def _trap(shell: Shell, words: list[str]) -> int:
    arguments = words[2:] if words[1:2] == ["--"] else words[1:]
    if not arguments:
        if shell.exit_trap:
            await shell.fds[1].write(_encode(f"trap -- {_quote(shell.exit_trap)} EXIT\n"))
        return 0
    action, signals = arguments[0], arguments[1:]
    if not signals:
        action, signals = "-", arguments
    for signal in signals:
        name = _SIGNALS.get(signal, signal)
        if name not in _SIGNALS.values() and name not in ("USR1", "USR2", "CHLD", "ALRM"):
            await shell.complain(f"trap: {signal}: bad trap")
            return 1
        if name == "EXIT":
            shell.exit_trap = "" if action == "-" else action
        if name == "PIPE":
            shell.pipe_trap = "" if action == "-" else action
    return 0


async def _umask(shell: Shell, words: list[str]) -> int:
    if len(words) > 1:
        try:
            shell.umask = int(words[1], 8)
        except ValueError:
            raise ShellError(f"umask: Illegal number: {words[1]}") from None
    else:
        await shell.fds[1].write(f"{shell.umask:04o}\n".encode())
    return 0


async def _eval(shell: Shell, words: list[str]) -> int:
    script = " ".join(words[1:])
    return await shell.run_text(script, tested=shell.tested) if script.strip() else 0


async def _dot(shell: Shell, words: list[str]) -> int:
    files: Any = shell.machine.files
    try:
        script = files.read(shell.resolve(words[1])).decode("utf-8", "surrogateescape")
    except OSError:
        raise ShellError(f".: cannot open {words[1]}: No such file") from None
    return await shell.run_text(script, tested=shell.tested)


async def _command(shell: Shell, words: list[str]) -> int:
    arguments = words[1:]
    if arguments[:1] == ["-p"]:
        arguments.pop(0)
    if arguments[:1] in (["-v"], ["-V"]):
        return await _command_lookup(shell, arguments[1:])
    if not arguments:
        return 0
    if arguments[0] in BUILTINS:
        return await BUILTINS[arguments[0]](shell, arguments)
    return await shell.external(arguments, shell.fds, {})


async def _command_lookup(shell: Shell, names: list[str]) -> int:
    # Like dash, which looks at the first name only.
    for name in names[:1]:
        if name in BUILTINS or name in shell.functions:
            await shell.fds[1].write(_encode(f"{name}\n"))
        elif shell.programs.find(name) is not None:
            path = name if "/" in name else f"/usr/bin/{name}"
            await shell.fds[1].write(_encode(f"{path}\n"))
        else:
            return 127
    return 0


async def _never(shell: Shell, words: list[str]) -> int:
    raise AssertionError("exec is handled by the shell itself")


BUILTINS: dict[str, Builtin] = {
    ":": _true,
    ".": _dot,
    "[": _test,
    "break": _break,
    "cd": _cd,
    "command": _command,
    "continue": _continue,
    "echo": _echo,
    "eval": _eval,
    "exec": _never,
    "exit": _exit,
    "export": _export,
    "false": _false,
    "hash": _true,
    "kill": _kill,
    "local": _local,
    "printf": _printf,
    "pwd": _pwd,
    "read": _read,
    "readonly": _export,
    "return": _return,
    "set": _set,
    "shift": _shift,
    "test": _test,
    "times": _true,
    "trap": _trap,
    "true": _true,
    "ulimit": _true,
    "umask": _umask,
    "unset": _unset,
    "wait": _wait,
}
