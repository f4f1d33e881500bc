"""`$((...))` of the simulated shell: integer expressions. Called by `sim.shell_expand`."""

from __future__ import annotations

import re
from collections.abc import Callable, MutableMapping

_TOKEN = re.compile(
    r"\s*(0[xX][0-9a-fA-F]+|[0-9]+|[A-Za-z_][A-Za-z0-9_]*|<<=|>>=|&&|\|\||<<|>>|[-+*/%&|^<>=!]=|[-+*/%<>=!~&|^?:()])"
)
_PRECEDENCE = {
    "||": 1, "&&": 2, "|": 3, "^": 4, "&": 5, "==": 6, "!=": 6, "<": 7, "<=": 7, ">": 7, ">=": 7,
    "<<": 8, ">>": 8, "+": 9, "-": 9, "*": 10, "/": 10, "%": 10,
}  # fmt: skip
_BINARY: dict[str, Callable[[int, int], int]] = {
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "&": lambda a, b: a & b,
    "==": lambda a, b: int(a == b),
    "!=": lambda a, b: int(a != b),
    "<": lambda a, b: int(a < b),
    "<=": lambda a, b: int(a <= b),
    ">": lambda a, b: int(a > b),
    ">=": lambda a, b: int(a >= b),
    "<<": lambda a, b: a << b,
    ">>": lambda a, b: a >> b,
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "||": lambda a, b: int(bool(a) or bool(b)),
    "&&": lambda a, b: int(bool(a) and bool(b)),
}


def evaluate(expression: str, variables: MutableMapping[str, str]) -> int:
    """The value of `expression` in 64 bits. Raises ArithmeticError with dash's words for it."""
    tokens: list[str] = []
    position = 0
    text = expression.rstrip()
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise ArithmeticError("expecting EOF")
        tokens.append(found.group(1))
        position = found.end()
    if not tokens:
        return 0
    parser = _Evaluator(tokens, variables)
    value = parser.assignment()
    if parser.tokens:
        raise ArithmeticError("expecting EOF")
    return value


def _wrap(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63


class _Evaluator:
    def __init__(self, tokens: list[str], variables: MutableMapping[str, str]) -> None:
        self.tokens = tokens[::-1]
        self.variables = variables

    def take(self) -> str:
        if not self.tokens:
            raise ArithmeticError("expecting primary")
        return self.tokens.pop()

    def next_is(self, token: str) -> bool:
        if self.tokens and self.tokens[-1] == token:
            self.tokens.pop()
            return True
        return False

    def assignment(self) -> int:
        if len(self.tokens) >= 2 and re.match(r"[A-Za-z_]", self.tokens[-1]):
            operator = self.tokens[-2]
            if operator.endswith("=") and operator not in ("==", "!=", "<=", ">="):
                name = self.take()
                self.take()
                value = self.assignment()
                if operator != "=":
                    value = self.apply(operator[:-1], self.variable(name), value)
                self.variables[name] = str(value)
                return value
        return self.ternary()

    def ternary(self) -> int:
        condition = self.binary(1)
        if not self.next_is("?"):
            return condition
        yes = self.assignment()
        if not self.next_is(":"):
            raise ArithmeticError("expecting ':'")
        no = self.assignment()
        return yes if condition else no

    def binary(self, lowest: int) -> int:
        left = self.unary()
        while self.tokens and _PRECEDENCE.get(self.tokens[-1], 0) >= lowest:
            operator = self.take()
            left = self.apply(operator, left, self.binary(_PRECEDENCE[operator] + 1))
        return left

    def apply(self, operator: str, left: int, right: int) -> int:
        if operator in "/%":
            if right == 0:
                raise ArithmeticError("division by zero")
            quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
            return _wrap(quotient if operator == "/" else left - quotient * right)
        return _wrap(_BINARY[operator](left, right))

    def unary(self) -> int:
        token = self.take()
        if token.startswith("("):
            value = self.assignment()
            if not self.next_is(")"):
                raise ArithmeticError("expecting ')'")
            return value
        if token in ("-", "+", "!", "~"):
            value = self.unary()
            return {"-": -value, "+": value, "!": int(not value), "~": ~value}[token]
        if token[0].isdigit():
            return self.number(token)
        if token[0].isalpha() or token[0] == "_":
            return self.variable(token)
        raise ArithmeticError("expecting primary")

    def variable(self, name: str) -> int:
        value = self.variables.get(name, "").strip()
        return self.number(value) if value else 0

    def number(self, text: str) -> int:
        sign = -1 if text.startswith("-") else 1
        digits = text.lstrip("+-")
        try:
            if digits[:2] in ("0x", "0X"):
                return sign * int(digits, 16)
            return sign * int(digits, 8 if len(digits) > 1 and digits[0] == "0" else 10)
        except ValueError:
            raise ArithmeticError(f"Illegal number: {text}") from None
