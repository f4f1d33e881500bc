"""POSIX shell text to a tree, one complete command at a time. Called by `sim.shell` only.

`parse_next` is cached: sixty hosts that get the same script parse it once. The tree is immutable.
Grammar: IEEE Std 1003.1, Shell Command Language, as dash understands it; no aliases.
"""

from __future__ import annotations

import re
from functools import lru_cache

from vcrecon.sim.shell_tree import (
    AndOr,
    Arithmetic,
    Background,
    Case,
    Command,
    For,
    Function,
    HereDoc,
    If,
    Literal,
    Loop,
    Not,
    Parameter,
    Part,
    Pipeline,
    Redirect,
    Redirected,
    Sequence,
    Simple,
    Subshell,
    Substitution,
    Word,
)

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_FUNCTION = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)[ \t]*\([ \t]*\)")
_BLANKS = re.compile(r"(?:[ \t\r]|\\\n)+")
_PLAIN = re.compile(r"[^\\'\"$`\s;&|()<>]+")
_LITERALS = re.compile(r"(?:'[^']*'|\\[^\n]){2,}")
_LITERAL = re.compile(r"'([^']*)'|\\(.)")
_PLAIN_IN_QUOTES = re.compile(r"[^\\\"$`]+")
_PLAIN_IN_HERE = re.compile(r"[^\\$`]+")
_PLAIN_IN_BRACE = re.compile(r"[^\\'\"$`}]+")
_PLAIN_IN_ARITHMETIC = re.compile(r"[^\\$`()]+")
_REDIRECT = re.compile(r"([0-9]*)(<<-|<<|<&|<>|>>|>&|>\||<|>)")
_RESERVED = re.compile(r"(?:if|then|elif|else|fi|for|while|until|do|done|case|esac|in|\{|\}|!)(?=[\s;&|()<>]|$)")
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]|[@*#?$!-]")
_BRACED_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?$!-]")
_OPERATOR = re.compile(r":[-=?+]|%%|##|[-=?+%#]")
_ENDINGS = frozenset({"then", "elif", "else", "fi", "do", "done", "esac", "}"})


class ShellSyntaxError(Exception):
    """The text cannot become a command, whatever follows. `line` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class Incomplete(ShellSyntaxError):
    """The text ends inside a command; more lines may complete it."""


@lru_cache(maxsize=1024)
def _unquoted(run: str) -> str:
    """The text of a run of quoted strings and escaped characters: how a script travels inside a command."""
    return _LITERAL.sub(lambda found: found[1] if found[2] is None else found[2], run)


@lru_cache(maxsize=4096)
def parse_next(text: str, position: int, line: int, final: bool) -> tuple[Command | None, int, int]:
    """The next complete command of `text` from `position`: (command or None, new position, new line).

    Not `final` means that more text may come: raises Incomplete when the last line is not a whole
    command. Raises ShellSyntaxError when no further text can help.
    """
    parser = _Parser(text, position, line, final)
    command = parser.top_level()
    return command, parser.position, parser.line


class Steps:
    """The commands of a whole script, each parsed when it is first reached."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.is_empty = not text.strip()
        self._found: dict[tuple[int, int], tuple[Command | None, int, int]] = {}

    def next(self, position: int, line: int) -> tuple[Command | None, int, int]:
        """As `parse_next`, without looking at the whole text again to find what is known of it."""
        found = self._found.get((position, line))
        if found is None:
            found = self._found[position, line] = parse_next(self._text, position, line, True)
        return found


steps_of = lru_cache(maxsize=1024)(Steps)


class _Parser:
    """Recursive descent over characters: shell tokens mean different things in different places."""

    def __init__(self, text: str, position: int, line: int, final: bool) -> None:
        self.text = text
        self.position = position
        self.line = line
        self.final = final
        self._here: list[HereDoc] = []

    # -- characters ---------------------------------------------------------------------------------

    def peek(self, count: int = 1) -> str:
        return self.text[self.position : self.position + count]

    def at_end(self) -> bool:
        return self.position >= len(self.text)

    def advance(self, end: int) -> str:
        piece = self.text[self.position : end]
        self.line += piece.count("\n")
        self.position = end
        return piece

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.position)
        if found is not None:
            end = found.end()
            self.line += self.text.count("\n", self.position, end)
            self.position = end
        return found

    def blanks(self) -> None:
        """Skip blanks, continued lines and a comment, but not the newline."""
        following = self.peek()
        if following in " \t\r\\":
            self.match(_BLANKS)
            following = self.peek()
        if following == "#":
            end = self.text.find("\n", self.position)
            self.advance(len(self.text) if end < 0 else end)

    def newlines(self) -> None:
        """Skip blanks, comments and newlines, collecting the here-documents that each newline starts."""
        self.blanks()
        while self.peek() == "\n":
            self.newline()
            self.blanks()

    def newline(self) -> None:
        self.advance(self.position + 1)
        waiting, self._here = self._here, []
        for here in waiting:
            self.here_body(here)

    def unexpected(self, expecting: str = "") -> ShellSyntaxError:
        hint = f' (expecting "{expecting}")' if expecting else ""
        if self.at_end():
            return Incomplete(f"Syntax error: end of file unexpected{hint}", self.line)
        character = self.peek()
        if character == "\n":
            shown = "newline"
        elif character in ";&|()":
            shown = f'"{self.peek(2) if self.peek(2) in (";;", "&&", "||") else character}"'
        elif found := _RESERVED.match(self.text, self.position):
            shown = f'"{found.group()}"'
        else:
            shown = "word"
        return ShellSyntaxError(f"Syntax error: {shown} unexpected{hint}", self.line)

    def reserved(self) -> str:
        """The reserved word at a command position, or nothing; not consumed."""
        found = _RESERVED.match(self.text, self.position)
        return found.group() if found else ""

    def expect(self, word: str) -> None:
        self.newlines()
        if self.reserved() != word and not (word == ")" and self.peek() == ")"):
            raise self.unexpected(word)
        self.advance(self.position + len(word))

    # -- commands -----------------------------------------------------------------------------------

    def top_level(self) -> Command | None:
        """One line's worth of commands, through its newline."""
        self.newlines()
        if self.at_end():
            return None
        commands = []
        while not self.at_end() and self.peek() != "\n":
            commands.append(self.item())
            separated = self.text.startswith((";", "&"), self.position - 1)
            self.blanks()
            if self.peek() and self.peek() != "\n" and not separated:
                raise self.unexpected()
        if self.at_end() and (not self.final):
            raise Incomplete("Syntax error: end of file unexpected", self.line)
        if not self.at_end():
            self.newline()
        elif self._here:
            for here in self._here:
                here.body = ()
        return commands[0] if len(commands) == 1 else Sequence(tuple(commands))

    def item(self) -> Command:
        """One and-or list with the `;` or `&` after it."""
        command = self.and_or()
        self.blanks()
        if self.peek() == "&":
            self.advance(self.position + 1)
            return Background(command)
        if self.peek() == ";" and self.peek(2) != ";;":
            self.advance(self.position + 1)
        return command

    def block(self, opener_allows_empty: bool = False) -> Command:
        """Commands up to a closing reserved word, `)` or `;;`, which is left for the caller."""
        commands: list[Command] = []
        self.newlines()
        while not self.at_end() and self.peek() != ")" and self.peek(2) != ";;" and self.reserved() not in _ENDINGS:
            commands.append(self.item())
            separated = self.text.startswith((";", "&"), self.position - 1)
            self.blanks()
            if self.peek() == "\n":
                self.newlines()
            elif not separated:
                break
        if not commands and not opener_allows_empty:
            raise self.unexpected()
        return commands[0] if len(commands) == 1 else Sequence(tuple(commands))

    def and_or(self) -> Command:
        command = self.pipeline()
        while True:
            self.blanks()
            operator = self.peek(2)
            if operator not in ("&&", "||"):
                return command
            self.advance(self.position + 2)
            self.newlines()
            command = AndOr(command, operator, self.pipeline())

    def pipeline(self) -> Command:
        self.blanks()
        if self.reserved() == "!":
            self.advance(self.position + 1)
            return Not(self.pipeline())
        commands = [self.command()]
        self.blanks()
        while self.peek() == "|" and self.peek(2) != "||":
            self.advance(self.position + 1)
            self.newlines()
            commands.append(self.command())
            self.blanks()
        return commands[0] if len(commands) == 1 else Pipeline(tuple(commands))

    def command(self) -> Command:
        self.blanks()
        line = self.line
        compound = self.compound()
        if compound is None:
            return self.simple()
        redirects = []
        self.blanks()
        while found := self.match(_REDIRECT):
            redirects.append(self.redirect(found))
            self.blanks()
        return Redirected(compound, tuple(redirects), line) if redirects else compound

    def compound(self) -> Command | None:
        if self.peek() == "(":
            self.advance(self.position + 1)
            body = self.block()
            self.expect(")")
            return Subshell(body)
        word = self.reserved()
        if word in _ENDINGS:
            raise self.unexpected()
        if word in ("if", "while", "until", "for", "case", "{"):
            self.advance(self.position + len(word))
            return self.keyword(word)
        if found := self.match(_FUNCTION):
            self.newlines()
            return Function(found.group(1), self.command())
        return None

    def keyword(self, word: str) -> Command:
        if word == "{":
            body = self.block()
            self.expect("}")
            return body if isinstance(body, Sequence) else Sequence((body,))
        if word == "if":
            return self.if_command()
        if word == "for":
            return self.for_command()
        if word == "case":
            return self.case_command()
        condition = self.block()
        return Loop(condition, self.do_group(), word == "until")

    def do_group(self) -> Command:
        self.expect("do")
        body = self.block()
        self.expect("done")
        return body

    def if_command(self) -> Command:
        branches = []
        otherwise = None
        while True:
            condition = self.block()
            self.expect("then")
            branches.append((condition, self.block()))
            self.newlines()
            if self.reserved() != "elif":
                break
            self.advance(self.position + 4)
        if self.reserved() == "else":
            self.advance(self.position + 4)
            otherwise = self.block()
        self.expect("fi")
        return If(tuple(branches), otherwise)

    def for_command(self) -> Command:
        self.blanks()
        name = self.match(NAME)
        if name is None:
            raise ShellSyntaxError("Syntax error: Bad for loop variable", self.line)
        self.newlines()
        words: list[Word] | None = None
        if self.reserved() == "in":
            self.advance(self.position + 2)
            words = []
            self.blanks()
            while self.peek() and self.peek() not in ";\n&|()<>":
                words.append(self.word())
                self.blanks()
        if self.peek() == ";":
            self.advance(self.position + 1)
        return For(name.group(), None if words is None else tuple(words), self.do_group())

    def case_command(self) -> Command:
        self.blanks()
        word = self.word()
        self.expect("in")
        branches = []
        self.newlines()
        while self.reserved() != "esac":
            if self.peek() == "(":
                self.advance(self.position + 1)
                self.blanks()
            patterns = [self.word()]
            self.blanks()
            while self.peek() == "|":
                self.advance(self.position + 1)
                self.blanks()
                patterns.append(self.word())
                self.blanks()
            if self.peek() != ")":
                raise self.unexpected(")")
            self.advance(self.position + 1)
            branches.append((tuple(patterns), self.block(opener_allows_empty=True)))
            self.newlines()
            if self.peek(2) == ";;":
                self.advance(self.position + 2)
                self.newlines()
            elif self.reserved() != "esac":
                raise self.unexpected(";;")
        self.expect("esac")
        return Case(word, tuple(branches))

    def simple(self) -> Command:
        line = self.line
        assignments: list[tuple[str, Word]] = []
        words: list[Word] = []
        redirects: list[Redirect] = []
        while True:
            self.blanks()
            if found := self.match(_REDIRECT):
                redirects.append(self.redirect(found))
            elif not self.peek() or self.peek() in "\n;&|()":
                break
            elif not words and (found := self.match(_ASSIGNMENT)):
                value = self.word() if self.peek() and self.peek() not in " \t\n;&|()<>" else ()
                assignments.append((found.group()[:-1], value))
            else:
                words.append(self.word())
        if not (assignments or words or redirects):
            raise self.unexpected()
        return Simple(tuple(assignments), tuple(words), tuple(redirects), line)

    def redirect(self, found: re.Match[str]) -> Redirect:
        digits, operator = found.groups()
        fd = int(digits) if digits else (0 if operator.startswith("<") else 1)
        self.blanks()
        if not self.peek() or self.peek() in "\n;&|()<>":
            raise self.unexpected()
        if not operator.startswith("<<"):
            return Redirect(fd, operator, self.word())
        start = self.position
        word = self.word()
        raw = self.text[start : self.position]
        delimiter = "".join(part.text for part in word if isinstance(part, Literal))
        here = HereDoc(delimiter, raw != delimiter, operator == "<<-")
        self._here.append(here)
        return Redirect(fd, "<<", here)

    def here_body(self, here: HereDoc) -> None:
        lines = []
        while True:
            if self.at_end():
                if self.final:
                    break
                raise Incomplete("Syntax error: end of file unexpected", self.line)
            end = self.text.find("\n", self.position)
            if end < 0 and not self.final:
                raise Incomplete("Syntax error: end of file unexpected", self.line)
            text = self.advance(len(self.text) if end < 0 else end + 1)
            if here.strip_tabs:
                text = text.lstrip("\t")
            if text.removesuffix("\n") == here.delimiter:
                break
            lines.append(text)
        body = "".join(lines)
        if here.literal:
            here.body = (Literal(body, True),)
            return
        here.body = _Parser(body, 0, self.line, True).quoted_parts(_PLAIN_IN_HERE, "\\$`", "")

    # -- words --------------------------------------------------------------------------------------

    def word(self) -> Word:
        """One word up to an unquoted blank or operator; never empty."""
        parts: list[Part] = []
        while character := self.peek():
            if found := self.match(_PLAIN):
                parts.append(Literal(found.group(), False))
            elif character in "\\'" and (found := self.match(_LITERALS)):
                parts.append(Literal(_unquoted(found.group()), True))
            elif character in "\\'\"$`":
                self.special(parts)
            else:
                break
        if not parts:
            raise self.unexpected()
        return tuple(parts)

    def special(self, parts: list[Part]) -> None:
        """A backslash, quote or expansion outside double quotes."""
        character = self.peek()
        if character == "\\":
            following = self.text[self.position + 1 : self.position + 2]
            if not following and not self.final:
                raise Incomplete("Syntax error: end of file unexpected", self.line)
            self.advance(self.position + 1 + len(following))
            if following != "\n":
                parts.append(Literal(following or "\\", True))
        elif character == "'":
            end = self.text.find("'", self.position + 1)
            if end < 0:
                raise Incomplete("Syntax error: Unterminated quoted string", self.line)
            parts.append(Literal(self.advance(end + 1)[1:-1], True))
        elif character == '"':
            self.advance(self.position + 1)
            inner = self.quoted_parts(_PLAIN_IN_QUOTES, '\\$`"', '"')
            parts.extend(inner or (Literal("", True),))
        else:
            parts.append(self.expansion(quoted=False))

    def quoted_parts(self, plain: re.Pattern[str], escapable: str, closer: str) -> Word:
        """The inside of double quotes, a here-document or `$((`, through `closer` (none: the end)."""
        parts: list[Part] = []
        while not self.at_end():
            character = self.peek()
            if closer and self.text.startswith(closer, self.position):
                self.advance(self.position + len(closer))
                return tuple(parts)
            if found := self.match(plain):
                parts.append(Literal(found.group(), True))
            elif character == "\\":
                pair = self.advance(min(self.position + 2, len(self.text)))
                if pair != "\\\n":
                    parts.append(Literal(pair[1:] if pair[1:] and pair[1:] in escapable else pair, True))
            elif character in "$`":
                parts.append(self.expansion(quoted=True))
            else:
                parts.append(Literal(self.advance(self.position + 1), True))
        if closer:
            raise Incomplete("Syntax error: Unterminated quoted string", self.line)
        return tuple(parts)

    def expansion(self, *, quoted: bool) -> Part:
        """What starts with `$` or a backquote."""
        if self.peek() == "`":
            return self.backquotes(quoted)
        if self.peek(3) == "$((":
            self.advance(self.position + 3)
            return Arithmetic(self.arithmetic(), quoted)
        if self.peek(2) == "$(":
            self.advance(self.position + 2)
            body = self.block(opener_allows_empty=True)
            self.newlines()
            if self.peek() != ")":
                raise self.unexpected(")")
            self.advance(self.position + 1)
            return Substitution(body, quoted)
        if self.peek(2) == "${":
            self.advance(self.position + 2)
            return self.braced(quoted)
        self.advance(self.position + 1)
        name = self.match(_PARAMETER)
        if name is None:
            return Literal("$", quoted)
        return Parameter(name.group(), "", (), quoted)

    def backquotes(self, quoted: bool) -> Part:
        start_line = self.line
        self.advance(self.position + 1)
        text = []
        while self.peek() != "`":
            if self.at_end():
                raise Incomplete("Syntax error: EOF in backquote substitution", start_line)
            piece = self.advance(min(self.position + (2 if self.peek() == "\\" else 1), len(self.text)))
            escaped = piece[1:] if piece.startswith("\\") else ""
            text.append(escaped if escaped in ("$", "`", "\\") or (quoted and escaped == '"') else piece)
        self.advance(self.position + 1)
        inner = _Parser("".join(text), 0, start_line, True)
        body = inner.block(opener_allows_empty=True)
        return Substitution(body, quoted)

    def arithmetic(self) -> Word:
        parts: list[Part] = []
        depth = 0
        while not self.at_end():
            character = self.peek()
            if depth == 0 and self.peek(2) == "))":
                self.advance(self.position + 2)
                return tuple(parts)
            if found := self.match(_PLAIN_IN_ARITHMETIC):
                parts.append(Literal(found.group().replace('"', ""), True))
            elif character in "$`":
                parts.append(self.expansion(quoted=True))
            else:
                depth += {"(": 1, ")": -1}.get(character, 0)
                parts.append(Literal(self.advance(self.position + 1), True))
        raise Incomplete("Syntax error: Missing '))'", self.line)

    def braced(self, quoted: bool) -> Part:
        if self.peek() == "#" and self.peek(2) != "#}":
            self.advance(self.position + 1)
            name = self.match(_BRACED_PARAMETER)
            if name is None or self.peek() != "}":
                raise ShellSyntaxError("Bad substitution", self.line)
            self.advance(self.position + 1)
            return Parameter(name.group(), "length", (), quoted)
        name = self.match(_BRACED_PARAMETER)
        if name is None:
            raise ShellSyntaxError("Bad substitution", self.line)
        operator = self.match(_OPERATOR)
        if operator is None and self.peek() != "}":
            if self.at_end():
                raise Incomplete("Syntax error: Missing '}'", self.line)
            raise ShellSyntaxError("Bad substitution", self.line)
        word = self.brace_word(quoted and operator is not None and operator.group()[0] not in "%#")
        return Parameter(name.group(), operator.group() if operator else "", word, quoted)

    def brace_word(self, quoted: bool) -> Word:
        parts: list[Part] = []
        while not self.at_end():
            character = self.peek()
            if character == "}":
                self.advance(self.position + 1)
                return tuple(parts)
            if quoted and character == "'":
                parts.append(Literal(self.advance(self.position + 1), True))
            elif found := self.match(_PLAIN_IN_BRACE):
                parts.append(Literal(found.group(), quoted))
            elif character in "$`":
                parts.append(self.expansion(quoted=quoted))
            else:
                self.special(parts)
        raise Incomplete("Syntax error: Missing '}'", self.line)
