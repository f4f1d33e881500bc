"""`test` and `[` of the simulated shell (POSIX's grammar, with -a, -o and parentheses).

Called by `sim.shell_builtins`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vcrecon.sim.terminal import terminal_of

if TYPE_CHECKING:
    from vcrecon.sim.shell import Shell


class Malformed(Exception):
    """The arguments are no expression; the message is dash's."""


_NUMERIC: dict[str, Callable[[int, int], bool]] = {
    "-eq": lambda a, b: a == b,
    "-ne": lambda a, b: a != b,
    "-lt": lambda a, b: a < b,
    "-le": lambda a, b: a <= b,
    "-gt": lambda a, b: a > b,
    "-ge": lambda a, b: a >= b,
}
_STRING: dict[str, Callable[[str, str], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
}
_BINARY = {*_NUMERIC, *_STRING, "-nt", "-ot", "-ef"}
_UNARY = frozenset(
    [
        "-b",
        "-c",
        "-d",
        "-e",
        "-f",
        "-g",
        "-h",
        "-k",
        "-L",
        "-n",
        "-p",
        "-r",
        "-s",
        "-S",
        "-t",
        "-u",
        "-w",
        "-x",
        "-z",
    ]
)


def holds(shell: Shell, arguments: list[str]) -> bool:
    """Whether the expression is true. Raises Malformed for what is none (status 2)."""
    if not arguments:
        return False
    if len(arguments) == 3 and arguments[1] in _BINARY:
        return _binary(shell, *arguments)
    if len(arguments) == 4 and arguments[0] == "!" and arguments[2] in _BINARY:
        return not _binary(shell, *arguments[1:])
    expression = _Expression(shell, arguments)
    value = expression.any()
    if expression.rest:
        raise Malformed(f"{expression.rest[0]}: unexpected operator")
    return value


class _Expression:
    def __init__(self, shell: Shell, arguments: list[str]) -> None:
        self.shell = shell
        self.rest = list(arguments)

    def any(self) -> bool:
        value = self.all()
        while self.rest[:1] == ["-o"]:
            self.rest.pop(0)
            value = self.all() or value
        return value

    def all(self) -> bool:
        value = self.negation()
        while self.rest[:1] == ["-a"]:
            self.rest.pop(0)
            value = self.negation() and value
        return value

    def negation(self) -> bool:
        if self.rest[:1] == ["!"] and len(self.rest) > 1:
            self.rest.pop(0)
            return not self.negation()
        return self.primary()

    def primary(self) -> bool:
        if not self.rest:
            raise Malformed("argument expected")
        if len(self.rest) >= 3 and self.rest[1] in _BINARY:
            left, operator, right = (self.rest.pop(0) for _ in range(3))
            return _binary(self.shell, left, operator, right)
        first = self.rest.pop(0)
        if first == "(" and self.rest:
            value = self.any()
            if self.rest[:1] != [")"]:
                raise Malformed("closing paren expected")
            self.rest.pop(0)
            return value
        if first in _UNARY and self.rest:
            return _unary(self.shell, first, self.rest.pop(0))
        return first != ""


def _integer(text: str) -> int:
    try:
        return int(text.strip(), 10)
    except ValueError:
        raise Malformed(f"Illegal number: {text}") from None


def _binary(shell: Shell, left: str, operator: str, right: str) -> bool:
    if operator in _STRING:
        return _STRING[operator](left, right)
    if operator in _NUMERIC:
        return _NUMERIC[operator](_integer(left), _integer(right))
    files: Any = shell.machine.files
    paths = [shell.resolve(left), shell.resolve(right)]
    if operator == "-ef":
        return all(files.exists(path) for path in paths) and files.realpath(paths[0]) == files.realpath(paths[1])
    raise Malformed(f"{operator}: not supported by the simulation")


def _unary(shell: Shell, operator: str, operand: str) -> bool:
    if operator in ("-n", "-z"):
        return (operand == "") == (operator == "-z")
    if operator == "-t":
        return operand.isdigit() and terminal_of(shell.fds.get(int(operand))) is not None
    files: Any = shell.machine.files
    path = shell.resolve(operand)
    if operand == "":
        return False
    if operator in ("-h", "-L"):
        return bool(files.is_link(path))
    if not files.exists(path):
        return False
    if operator == "-d":
        return bool(files.is_dir(path))
    if operator == "-f":
        return bool(files.is_file(path)) and not files.is_block_device(path)
    if operator == "-b":
        return bool(files.is_block_device(path))
    if operator == "-s":
        return bool(files.is_dir(path)) or bool(files.read(path))
    if operator == "-x":
        return bool(files.is_dir(path)) or bool(files.mode(path) & 0o111)
    # root may read and write everything; there are no sockets, pipes or set-id files on these hosts.
    return operator in ("-e", "-r", "-w")
