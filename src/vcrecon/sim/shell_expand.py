"""Word expansion of the simulated shell: parameters, substitution, arithmetic, splitting, globbing.

Called by `sim.shell` and its built-ins. Works on chunks of text that remember whether they were quoted and
whether they came out of an expansion, since only the latter are split and only unquoted ones are globbed.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from vcrecon.sim.shell_arithmetic import evaluate
from vcrecon.sim.shell_tree import Arithmetic, Literal, Parameter, Substitution, Word

if TYPE_CHECKING:
    from vcrecon.sim.shell import Shell


class ExpansionError(Exception):
    """An expansion that ends the shell: an unset parameter under `set -u`, `${x:?}`, bad arithmetic."""


class Chunk(NamedTuple):
    """A run of expanded text. `breaks` is the boundary between two fields of `"$@"`."""

    text: str
    quoted: bool
    splits: bool = False
    breaks: bool = False


async def fields(shell: Shell, word: Word) -> list[str]:
    """All expansions of one word, as arguments of a command: none, one or several fields."""
    if (one := whole(shell, word)) is not None:
        return [one]
    chunks = await _chunks(shell, word, word_start=True)
    result = []
    for field in _split(chunks, shell.variables.get("IFS", " \t\n")):
        result.extend(_glob(shell, field))
    return result


async def text(shell: Shell, word: Word) -> str:
    """One word without splitting and globbing: an assignment, a redirection, a here-document, a case."""
    if (one := whole(shell, word)) is not None:
        return one
    chunks = await _chunks(shell, word, word_start=True)
    return "".join(" " if chunk.breaks else chunk.text for chunk in chunks)


def whole(shell: Shell, word: Word) -> str | None:
    """What most words are: one text that nothing happens to, or the plain value of one quoted parameter."""
    if len(word) == 1:
        part = word[0]
        if isinstance(part, Literal):
            if part.quoted or not _MAGIC.search(part.text):
                return part.text
        elif isinstance(part, Parameter) and part.quoted and not part.operator and part.name != "@":
            return _need(shell, part, shell.parameter(part.name))
    return None


async def pattern(shell: Shell, word: Word) -> re.Pattern[str]:
    """A word as the pattern it is in `case` and `${x%word}`."""
    if len(word) == 1 and isinstance(word[0], Literal):
        return _constant(word[0])
    return _compile("".join(_as_regex(chunk) for chunk in _join_brackets(await _chunks(shell, word))))


_MAGIC = re.compile(r"[*?~]|\[.*\]")
_GLOB = re.compile(r"[*?]|\[.+\]")


async def _chunks(shell: Shell, word: Word, *, word_start: bool = False, splits: bool = False) -> list[Chunk]:
    chunks: list[Chunk] = []
    for index, part in enumerate(word):
        if isinstance(part, Literal):
            piece = part.text
            if word_start and index == 0 and not part.quoted and piece.startswith("~") and piece[:2] in ("~", "~/"):
                chunks.append(Chunk(shell.variables.get("HOME", "~"), True))
                piece = piece[1:]
            chunks.append(Chunk(piece, part.quoted, splits and not part.quoted))
        else:
            chunks.extend(await _expansion(shell, part))
    return chunks


async def _expansion(shell: Shell, part: Parameter | Substitution | Arithmetic) -> list[Chunk]:
    if isinstance(part, Parameter):
        return await _parameter(shell, part)
    if isinstance(part, Arithmetic):
        expression = await text(shell, part.parts)
        try:
            value = str(evaluate(expression, shell.variables))
        except ArithmeticError as error:
            raise ExpansionError(f"arithmetic expression: {error}: {expression!r}".replace("'", '"')) from None
    else:
        value = await shell.substitute(part.body)
    return [Chunk(value, part.quoted, not part.quoted)]


async def _parameter(shell: Shell, part: Parameter) -> list[Chunk]:
    value = shell.parameter(part.name)
    operator = part.operator
    if operator == "length":
        return [Chunk(str(len(_need(shell, part, value))), part.quoted, not part.quoted)]
    kind = operator[-1:]
    if kind and kind in "-=?+":
        missing = value is None or (operator.startswith(":") and value == "")
        return await _conditional(shell, part, kind, None if missing else value)
    present = _need(shell, part, value)
    if operator:
        present = _trim(present, operator, await pattern(shell, part.word))
        return [Chunk(present, part.quoted, not part.quoted)]
    return await _value(shell, part, present)


async def _conditional(shell: Shell, part: Parameter, kind: str, value: str | None) -> list[Chunk]:
    """`${x-word}` and its kin; `value` is None when the parameter counts as missing."""
    if kind == "+":
        empty = [Chunk("", part.quoted, not part.quoted)]
        return empty if value is None else await _alternative(shell, part)
    if value is not None:
        return await _value(shell, part, value)
    if kind == "-":
        return await _alternative(shell, part)
    word = await text(shell, part.word)
    if kind == "?":
        default = "parameter not set or null" if part.operator == ":?" else "parameter not set"
        raise ExpansionError(f"{part.name}: {word or default}")
    shell.assign(part.name, word)
    return [Chunk(word, part.quoted, not part.quoted)]


async def _alternative(shell: Shell, part: Parameter) -> list[Chunk]:
    chunks = await _chunks(shell, part.word, splits=not part.quoted)
    return chunks or [Chunk("", part.quoted, not part.quoted)]


def _need(shell: Shell, part: Parameter, value: str | None) -> str:
    if value is None and shell.nounset and part.name not in "@*":
        raise ExpansionError(f"{part.name}: parameter not set")
    return value or ""


async def _value(shell: Shell, part: Parameter, value: str) -> list[Chunk]:
    if part.name not in "@*" or (part.name == "*" and part.quoted):
        return [Chunk(value, part.quoted, not part.quoted)]
    chunks: list[Chunk] = []
    for index, argument in enumerate(shell.args):
        if index:
            chunks.append(Chunk("", False, breaks=True))
        chunks.append(Chunk(argument, part.quoted, not part.quoted))
    return chunks


def _trim(value: str, operator: str, compiled: re.Pattern[str]) -> str:
    ends = range(len(value) + 1)
    if operator[0] == "#":
        for end in ends if operator == "#" else reversed(ends):
            if compiled.fullmatch(value, 0, end):
                return value[end:]
        return value
    for start in reversed(ends) if operator == "%" else ends:
        if compiled.fullmatch(value, start):
            return value[:start]
    return value


def _split(chunks: list[Chunk], separators: str) -> list[list[Chunk]]:
    """Fields of a word (POSIX 2.6.5): only text out of unquoted expansions is split at IFS."""
    if not any(chunk.breaks or (chunk.splits and not chunk.quoted) for chunk in chunks):
        return [chunks] if chunks else []
    white = "".join(character for character in separators if character in " \t\n")
    result: list[list[Chunk]] = []
    current: list[Chunk] = []
    for chunk in chunks:
        if chunk.breaks:
            if current:
                result.append(current)
            current = []
        elif not chunk.splits or not separators:
            if chunk.text or chunk.quoted:
                current.append(chunk)
        else:
            current = _split_chunk(chunk.text, white, separators, result, current)
    if current:
        result.append(current)
    return result


def _split_chunk(
    value: str, white: str, separators: str, result: list[list[Chunk]], current: list[Chunk]
) -> list[Chunk]:
    """Split one expanded text; finished fields go to `result`, the unfinished one is returned."""
    position = 0
    while position < len(value):
        end = position
        while end < len(value) and value[end] not in separators:
            end += 1
        if end > position:
            current.append(Chunk(value[position:end], False))
        if end == len(value):
            return current
        hard = False
        while end < len(value) and (value[end] in white or (value[end] in separators and not hard)):
            hard = hard or value[end] not in white
            end += 1
        if current:
            result.append(current)
        elif hard:
            result.append([Chunk("", True)])
        current = []
        position = end
    return current


# -- patterns ---------------------------------------------------------------------------------------------


def _join_brackets(chunks: list[Chunk]) -> list[Chunk]:
    """Neighbouring unquoted chunks as one, so that a bracket expression may span them."""
    joined: list[Chunk] = []
    for chunk in chunks:
        if joined and joined[-1].quoted == chunk.quoted:
            joined[-1] = Chunk(joined[-1].text + chunk.text, chunk.quoted)
        else:
            joined.append(chunk)
    return joined


def _as_regex(chunk: Chunk, *, path: bool = False) -> str:
    if chunk.quoted:
        return re.escape(chunk.text)
    result = []
    position = 0
    anything = "[^/]" if path else "."
    while position < len(chunk.text):
        character = chunk.text[position]
        position += 1
        if character == "*":
            result.append(f"{anything}*")
        elif character == "?":
            result.append(anything)
        elif character == "[" and (found := _BRACKET.match(chunk.text, position - 1)):
            negated, inside = found.groups()
            result.append(f"[{'^' if negated else ''}{_bracket_inside(inside)}]")
            position = found.end()
        else:
            result.append(re.escape(character))
    return "".join(result)


@lru_cache(maxsize=1024)
def _constant(part: Literal) -> re.Pattern[str]:
    return _compile(_as_regex(Chunk(part.text, part.quoted)))


_BRACKET = re.compile(r"\[([!^]?)(\]?(?:\[:[a-z]+:\]|[^\]])*)\]")
_CLASSES = {
    "alpha": "A-Za-z",
    "digit": "0-9",
    "alnum": "A-Za-z0-9",
    "space": r"\s",
    "upper": "A-Z",
    "lower": "a-z",
}


def _bracket_inside(inside: str) -> str:
    escaped = inside.replace("\\", r"\\").replace("[", r"\[").replace("]", r"\]")
    return re.sub(r"\\\[:([a-z]+):\\\]", lambda found: _CLASSES.get(found.group(1), ""), escaped).replace("^", r"\^")


@lru_cache(maxsize=1024)
def _compile(regex: str) -> re.Pattern[str]:
    return re.compile(regex, re.DOTALL)


def _glob(shell: Shell, field: list[Chunk]) -> list[str]:
    plain = "".join(chunk.text for chunk in field)
    magic = any(not chunk.quoted and _GLOB.search(chunk.text) for chunk in field)
    if not magic or shell.noglob:
        return [plain]
    segments: list[list[Chunk]] = [[]]
    for chunk in field:
        for index, piece in enumerate(chunk.text.split("/")):
            if index:
                segments.append([])
            if piece:
                segments[-1].append(Chunk(piece, chunk.quoted))
    found = [""]
    for index, segment in enumerate(segments):
        found = [path for base in found for path in _glob_segment(shell, base, segment, index)]
    return sorted(found) or [plain]


def _glob_segment(shell: Shell, base: str, segment: list[Chunk], index: int) -> list[str]:
    prefix = f"{base}/" if index else base
    literal = "".join(chunk.text for chunk in segment)
    files: Any = shell.machine.files
    if not any(not chunk.quoted and _GLOB.search(chunk.text) for chunk in segment):
        path = prefix + literal
        return [path] if not literal or files.exists(shell.resolve(path)) else []
    compiled = _compile("".join(_as_regex(chunk, path=True) for chunk in _join_brackets(segment)))
    try:
        names = files.listdir(shell.resolve(prefix or "."))
    except OSError:
        return []
    return [
        prefix + name
        for name in names
        if compiled.fullmatch(name) and (literal.startswith(".") or not name.startswith("."))
    ]
