"""`echo` and `printf` of the simulated shell: text in, text out. Called by `sim.shell_builtins`."""

from __future__ import annotations

import re
from functools import lru_cache

_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}
_DIRECTIVE = re.compile(r"%([-+ 0#]*)(\*|[0-9]*)(?:\.(\*|[0-9]*))?([a-zA-Z%])")


def _byte(code: int) -> str:
    """One byte as the shell's strings hold it."""
    return bytes([code & 255]).decode("utf-8", "surrogateescape")


@lru_cache(maxsize=1024)
def unescape(text: str, *, zero_octal: bool) -> tuple[str, bool]:
    r"""Backslash escapes as echo and `%b` (octal as `\0NNN`) or a format (`\NNN`) know them.

    Also says whether `\c` was met, which ends all output.
    """
    if "\\" not in text:
        return text, False
    result = []
    octal = re.compile(r"0[0-7]{0,3}" if zero_octal else r"[0-7]{1,3}")
    position = 0
    while position < len(text):
        character = text[position]
        position += 1
        if character != "\\" or position == len(text):
            result.append(character)
        elif text[position] == "c":
            return "".join(result), True
        elif text[position] in _ESCAPES:
            result.append(_ESCAPES[text[position]])
            position += 1
        elif found := octal.match(text, position):
            result.append(_byte(int(found.group(), 8)))
            position = found.end()
        else:
            result.append("\\" + text[position])
            position += 1
    return "".join(result), False


def echo_text(arguments: list[str]) -> str:
    """What dash's echo prints: only `-n` is an option, and escapes are always interpreted."""
    newline = "\n"
    if arguments[:1] == ["-n"]:
        arguments, newline = arguments[1:], ""
    text, stopped = unescape(" ".join(arguments), zero_octal=True)
    return text if stopped else text + newline


def format_text(template: str, arguments: list[str]) -> tuple[str, list[str]]:
    """What `printf template arguments...` prints, and its complaints. The template repeats as needed."""
    formatter = _Formatter(arguments)
    while True:
        before = len(formatter.arguments)
        if formatter.once(template) or not formatter.arguments or len(formatter.arguments) == before:
            return "".join(formatter.output), formatter.complaints


class _Formatter:
    def __init__(self, arguments: list[str]) -> None:
        self.arguments = list(arguments)
        self.output: list[str] = []
        self.complaints: list[str] = []

    def next_argument(self) -> str:
        return self.arguments.pop(0) if self.arguments else ""

    def once(self, template: str) -> bool:
        r"""One pass over the template; True when `\c` ended the output."""
        position = 0
        while position < len(template):
            found = _DIRECTIVE.search(template, position)
            text, stopped = unescape(template[position : found.start() if found else None], zero_octal=False)
            self.output.append(text)
            if stopped:
                return True
            if found is None:
                return False
            position = found.end()
            if self.directive(*found.groups()):
                return True
        return False

    def directive(self, flags: str, width: str, precision: str | None, kind: str) -> bool:
        if kind == "%":
            self.output.append("%")
            return False
        if width == "*":
            width = str(self.number(self.next_argument()))
            if width.startswith("-"):
                flags, width = flags + "-", width[1:]
        if precision == "*":
            precision = str(self.number(self.next_argument()))
        argument = self.next_argument()
        stopped = False
        specification = f"%{flags}{width}" + (f".{precision}" if precision is not None else "")
        if kind == "b":
            argument, stopped = unescape(argument, zero_octal=True)
            self.output.append(f"{specification}s" % argument)
        elif kind == "s":
            self.output.append(f"{specification}s" % argument)
        elif kind == "c":
            self.output.append(f"%{flags}{width}s" % argument[:1])
        elif kind in "diouxX":
            value = self.number(argument)
            if kind in "ouxX" and value < 0:
                value += 2**64
            self.output.append(f"{specification}{'d' if kind in 'iu' else kind}" % value)
        elif kind in "eEfgG":
            self.output.append(f"{specification}{kind}" % float(argument or "0"))
        else:
            self.complaints.append(f"%{kind}: invalid directive")
            stopped = True
        return stopped

    def number(self, argument: str) -> int:
        if argument[:1] in ("'", '"'):
            return ord(argument[1:2] or "\0")
        found = re.match(r"\s*([-+]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)", argument)
        if found is None:
            if argument:
                self.complaints.append(f"{argument}: expected numeric value")
            return 0
        sign, digits = found.groups()
        if found.end() != len(argument):
            self.complaints.append(f"{argument}: not completely converted")
        base = 16 if digits[:2] in ("0x", "0X") else 8 if digits.startswith("0") else 10
        return int(digits, base) * (-1 if sign == "-" else 1)
