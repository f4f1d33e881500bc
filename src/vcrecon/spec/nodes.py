"""YAML text into a tree that knows where everything stands. Used by `spec.load` and `spec.edit`.

Built from PyYAML's events with an explicit stack, so that nesting, alias bombs and odd tags are bounded
here, and no input can exhaust the interpreter. Scalars stay text (null is None): the models of `spec.text`
say what a number is, so `on`, `010` and `52:54:00:12:34:56` mean what they look like.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

import yaml

from vcrecon.errors import Problem

FILE_BYTES_MAX = 4 << 20
DEPTH_MAX = 24
NODES_MAX = 400_000
PROBLEMS_MAX = 200
"""Bounds on one file: its size, its nesting, its nodes once every alias is written out, and how many of the mistakes
that leave it readable are told."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""What ends a line in YAML 1.1, by which the parser counts them."""
_STANDARD = "tag:yaml.org,2002:"
_SCALAR_TAGS = frozenset(_STANDARD + name for name in ("str", "int", "float", "bool", "null"))

Path = tuple[str | int, ...]
"""The way to a value from the top of a file: keys and list indexes."""


@dataclass(slots=True)
class Node:
    """One YAML value. `line` and `column` count from 1; `start` and `end` are offsets in characters.

    `keys` has the position of each key of a mapping; `size` counts the nodes below with aliases written out.
    """

    value: str | list[Node] | dict[str, Node] | None
    line: int
    column: int
    start: int
    end: int
    size: int = 1
    flow: bool = False
    keys: dict[str, Node] = field(default_factory=dict)

    def plain(self) -> object:
        """The value without positions. The tree's depth is bounded, and so is this recursion."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def find(self, path: Path, *, key: bool = False) -> Node:
        """The node at `path`, or the deepest one on the way that exists; with `key`, the last key itself.

        An index into something that is no list is skipped: a single entry may stand for a list of one.
        """
        node = self
        for depth, step in enumerate(path):
            if isinstance(node.value, dict) and isinstance(step, str) and step in node.value:
                if key and depth == len(path) - 1:
                    return node.keys[step]
                node = node.value[step]
            elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
            elif isinstance(node.value, list) or not isinstance(step, int):
                break
        return node


@dataclass(frozen=True, slots=True)
class Source:
    """One file read: its text, its tree (None when unusable), what is wrong, and whether it uses aliases."""

    file: str
    text: str
    root: Node | None
    problems: tuple[Problem, ...]
    has_aliases: bool = False


@lru_cache(maxsize=10)
def parse(file: str, data: bytes) -> Source:
    """Read `data`, the content of `file`, as one YAML document. Never raises, whatever the bytes.

    What was read last is kept, two generations of five files: of a spec that is read again little has changed.
    Nobody may change the tree.
    """
    if len(data) > FILE_BYTES_MAX:
        return _refused(file, 0, 0, f"the file is larger than {FILE_BYTES_MAX >> 20} MiB; split or shorten it")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = _position(data[: error.start])
        byte = data[error.start]
        return _refused(file, line, column, f"byte 0x{byte:02x} is not UTF-8; save the file as UTF-8")
    if "\0" in text:
        line, column = _position(data[: data.index(b"\0")])
        return _refused(file, line, column, "the file holds a NUL byte; it is damaged, or not text")
    composer = _Composer(file)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            composer.take(event)
    except _Stop:
        composer.root = None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        context = f" ({error.context})" if error.context else ""
        if mark is not None and _begins_with_tab(text, mark.line):
            context += "; indent with blanks, not with a tab"
        where = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
        composer.problems.append(Problem(file, *where, f"not YAML: {error.problem}{context}"))
        composer.root = None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        composer.problems.append(Problem(file, 0, 0, f"not YAML: {reason[:120]}"))
        composer.root = None
    if composer.root is None and not composer.problems:
        composer.problems.append(Problem(file, 0, 0, "the file is empty"))
    return Source(file, text, composer.root, tuple(composer.problems), bool(composer.anchors))


def _refused(file: str, line: int, column: int, message: str) -> Source:
    return Source(file, "", None, (Problem(file, line, column, message),))


def _position(before: bytes) -> tuple[int, int]:
    lines = _BREAK.split(before.decode("utf-8", "replace"))
    return len(lines), len(lines[-1]) + 1


def _begins_with_tab(text: str, line: int) -> bool:
    """Whether the indentation of a line, counted from 0, holds a tab."""
    found = "".join(_BREAK.split(text)[line : line + 1])
    return "\t" in found[: len(found) - len(found.lstrip())]


class _Stop(Exception):
    """The rest of the file makes no sense; the problem is already noted."""


@dataclass(slots=True)
class _Frame:
    node: Node
    key: Node | None = None


class _Composer:
    """Puts events together into a tree."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.root: Node | None = None
        self.problems: list[Problem] = []
        self.anchors: dict[str, Node] = {}
        self._stack: list[_Frame] = []
        self._documents = 0
        self._nodes = 0

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self._open(event)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            frame = self._stack.pop()
            frame.node.end = _at(event).end
            self._attach(frame.node)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                message = "a second document begins here; keep one document a file and remove the '---'"
                self._stop(_at(event), message)

    def _stop(self, node: Node, message: str) -> None:
        self._note(node, message)
        raise _Stop

    def _note(self, node: Node, message: str) -> None:
        self.problems.append(Problem(self.file, node.line, node.column, message))
        if len(self.problems) >= PROBLEMS_MAX:
            self.problems.append(Problem(self.file, node.line, node.column, "too much is wrong to read on"))
            raise _Stop

    def _count(self, node: Node) -> None:
        """An alias counts for all that it stands for; what is inside of a list or mapping has counted already."""
        self._nodes += node.size
        if self._nodes > NODES_MAX:
            self._stop(node, f"more than {NODES_MAX:,} values, what aliases stand for included; split or shorten it")

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        node = _at(event)
        self._count(node)
        plain = event.style is None or event.style == ""
        if event.tag is not None and event.tag not in _SCALAR_TAGS and event.tag != "!":
            self._note(node, f"the tag {event.tag[:60]!r} is not allowed here; remove it")
        is_null = plain and event.tag is None and event.value in _PLAIN_NULLS
        node.value = None if is_null else event.value
        if event.anchor:
            self.anchors[event.anchor] = node
        self._attach(node, merge=plain and event.value == "<<")

    def _open(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        node = _at(event)
        self._count(node)
        is_map = isinstance(event, yaml.MappingStartEvent)
        if event.tag is not None and event.tag != _STANDARD + ("map" if is_map else "seq"):
            self._note(node, f"the tag {event.tag[:60]!r} is not allowed here; remove it")
        node.value = {} if is_map else []
        node.flow = bool(event.flow_style)
        node.end = -1
        if event.anchor:
            self.anchors[event.anchor] = node
        self._stack.append(_Frame(node))
        if len(self._stack) > DEPTH_MAX:
            self._stop(node, f"nested deeper than {DEPTH_MAX} levels")

    def _alias(self, event: yaml.AliasEvent) -> None:
        name = event.anchor or ""
        target = self.anchors.get(name)
        if target is None:
            self._stop(_at(event), f"the alias *{name[:60]} has no anchor &{name[:60]} before it")
        elif target.end < 0:
            self._stop(_at(event), f"the alias *{name[:60]} stands inside its own anchor")
        else:
            self._count(target)
            self._attach(target)

    def _attach(self, node: Node, *, merge: bool = False) -> None:
        if not self._stack:
            self.root = node
            return
        frame = self._stack[-1]
        parent = frame.node.value
        if isinstance(parent, list):
            parent.append(node)
        elif isinstance(parent, dict) and frame.key is None:
            self._key(frame, node, merge)
            return
        elif isinstance(parent, dict) and frame.key is not None:
            name = str(frame.key.value)
            if name in frame.node.keys:
                first = frame.node.keys[name]
                also = f"{self.file}:{first.line}:{first.column}"
                self._note(frame.key, f"duplicate key {name[:60]!r}; also at {also}; keep one of them")
            else:
                parent[name] = node
                frame.node.keys[name] = frame.key
            frame.key = None
        frame.node.size += node.size

    def _key(self, frame: _Frame, node: Node, merge: bool) -> None:
        if not isinstance(node.value, str):
            self._stop(node, "a key must be a word, not a list, a mapping or nothing")
        if merge:
            self._stop(node, "merge keys ('<<') are not supported; use a template instead")
        frame.key = node


def _at(event: yaml.Event) -> Node:
    start, end = event.start_mark, event.end_mark
    assert start is not None
    assert end is not None
    return Node(None, start.line + 1, start.column + 1, start.index, end.index)
