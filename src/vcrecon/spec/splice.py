"""Changes lists inside YAML text and leaves every other character alone. Called by `spec.edit`.

Lists in the shapes that people write are changed in place. For the rest (aliases, a flow list over several
lines) ruamel.yaml writes the file anew: comments stay, though line breaks may not.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from vcrecon.spec.nodes import Node, Source, parse

Lists = Mapping[tuple[str, ...], tuple[str, ...]]
"""The lists to change, by path: ("deployment", "c01") or ("cordoned",)."""


class _Unusual(Exception):
    """The text is not in a shape that can be changed in place."""


def change_lists(source: Source, lists: Lists) -> str:
    """The text of `source` with `lists` in it. `source` must be free of errors."""
    if source.root is None or not isinstance(source.root.value, dict):
        return _with_newline(source.text) + _fresh(lists)
    try:
        if source.has_aliases or source.root.flow:
            raise _Unusual
        text = _spliced(source, source.root, lists)
        if _plain(source.file, text) == _expected(source.root, lists):
            return text
    except _Unusual:
        pass
    return _rewritten(source, lists)


def _plain(file: str, text: str) -> object:
    again = parse(file, text.encode())
    return None if again.root is None or again.problems else _normal(again.root.plain())


def _expected(root: Node, lists: Lists) -> object:
    plain = root.plain()
    for path, names in lists.items():
        here = plain
        for step in path[:-1]:
            if isinstance(here, dict):
                here[step] = here.get(step) or {}
                here = here[step]
        if isinstance(here, dict):
            here[path[-1]] = list(names)
    return _normal(plain)


def _normal(plain: object) -> object:
    """With `null` as the empty list that it means here."""
    if isinstance(plain, dict):
        return {key: _normal(value) for key, value in plain.items()}
    return [] if plain is None else plain


def _with_newline(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


def _fresh(lists: Lists) -> str:
    """Lists as a new file, or as the end of one, would have them."""
    lines = []
    deployment = [(path[1], names) for path, names in lists.items() if len(path) == 2]
    if deployment:
        lines.append("deployment:")
        lines.extend(f"  {container}: {_flow(names)}" for container, names in deployment)
    lines.extend(f"{path[0]}: {_flow(names)}" for path, names in lists.items() if len(path) == 1)
    return "".join(line + "\n" for line in lines)


def _flow(names: tuple[str, ...]) -> str:
    return f"[{', '.join(_scalar(name) for name in names)}]"


def _scalar(name: str) -> str:
    """Guest names are host labels; quote those that another YAML reader would not take for text."""
    looks_odd = not name[:1].isalpha() or name in {
        "null",
        "true",
        "false",
        "yes",
        "no",
        "on",
        "off",
        "y",
        "n",
    }
    return f'"{name}"' if looks_odd else name


def _spliced(source: Source, root: Node, lists: Lists) -> str:
    text = source.text
    cuts: list[tuple[int, int, str]] = []
    absent: dict[tuple[str, ...], tuple[str, ...]] = {}
    for path, names in lists.items():
        parent = root.find(path[:-1])
        reached = len(path) == 1 or (isinstance(root.value, dict) and path[0] in root.value)
        if not reached:
            absent[path] = names
        elif parent.value is None:
            raise _Unusual
        elif isinstance(parent.value, dict) and path[-1] in parent.value:
            cuts.extend(_changed(text, parent, path[-1], names))
        elif len(path) == 1:
            absent[path] = names
        elif isinstance(parent.value, dict) and parent.value and not parent.flow:
            indent = " " * (next(iter(parent.keys.values())).column - 1)
            end = _line_end(text, _last(parent))
            before = "" if text[:end].endswith("\n") else "\n"
            cuts.append((end, end, f"{before}{indent}{path[-1]}: {_flow(names)}\n"))
        else:
            raise _Unusual
    for start, end, replacement in sorted(cuts, key=lambda cut: cut[0], reverse=True):
        text = text[:start] + replacement + text[end:]
    return _with_newline(text) + _fresh(absent) if absent else text


def _changed(text: str, parent: Node, key: str, names: tuple[str, ...]) -> list[tuple[int, int, str]]:
    """The cuts that turn the list under `key` into `names`."""
    assert isinstance(parent.value, dict)
    node, key_node = parent.value[key], parent.keys[key]
    colon = text.find(":", key_node.end) + 1
    if node.value is None:
        if text[key_node.end : colon].strip() != ":" or node.end > node.start:
            raise _Unusual
        return [(colon, colon, f" {_flow(names)}")]
    if not isinstance(node.value, list):
        raise _Unusual
    if node.flow:
        if "#" in text[node.start : node.end] or "\n" in text[node.start : node.end]:
            raise _Unusual
        return [(node.start, node.end, _flow(names))]
    kept = [item for item in node.value if item.value in names]
    added = [name for name in names if name not in {item.value for item in node.value}]
    if [str(item.value) for item in kept] + added != list(names):
        raise _Unusual
    cuts = []
    for item in node.value:
        start, end = text.rfind("\n", 0, item.start) + 1, _line_end(text, item.end)
        if text[start : item.start].strip() != "-":
            raise _Unusual
        if item not in kept:
            cuts.append((start, end, ""))
    if not names:
        cuts.append((colon, colon, " []"))
    if added:
        last = kept[-1] if kept else node.value[-1]
        start, end = text.rfind("\n", 0, last.start) + 1, _line_end(text, last.end)
        lead = text[start : last.start]
        lines = "".join(f"{lead}{_scalar(name)}\n" for name in added)
        before = "" if text[:end].endswith("\n") else "\n"
        cuts.append((end, end, before + lines))
    return cuts


def _line_end(text: str, index: int) -> int:
    """The offset just after the line that holds `index`."""
    newline = text.find("\n", index)
    return len(text) if newline < 0 else newline + 1


def _last(node: Node) -> int:
    """The offset of the last thing that a node holds; a block's own end mark lies beyond comments."""
    if isinstance(node.value, dict) and node.value and not node.flow:
        key = next(reversed(node.value))
        return max(node.keys[key].end, _last(node.value[key]) if node.value[key].value is not None else 0)
    if isinstance(node.value, list) and node.value and not node.flow:
        return _last(node.value[-1])
    return max(node.start, node.end - 1)


def _rewritten(source: Source, lists: Lists) -> str:
    """The text written anew by ruamel.yaml, which keeps comments."""
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 1 << 16
    yaml.indent(mapping=2, sequence=4, offset=2)
    data = yaml.load(source.text)
    for path, names in lists.items():
        here = data
        for step in path[:-1]:
            if here.get(step) is None:
                here[step] = CommentedMap()
            here = here[step]
        old = here.get(path[-1])
        if isinstance(old, CommentedSeq):
            for index in range(len(old) - 1, -1, -1):
                if str(old[index]) not in names:
                    del old[index]
            present = {str(item) for item in old}
            old.extend(name for name in names if name not in present)
        else:
            fresh = CommentedSeq(names)
            fresh.fa.set_flow_style()
            here[path[-1]] = fresh
    stream = io.StringIO()
    yaml.dump(data, stream)
    return stream.getvalue()
