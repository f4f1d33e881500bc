"""Mutation of a spec as a tree of keys and values, written as YAML again. Called by `inputs`."""

from __future__ import annotations

import copy
import datetime
import random
import re
from collections.abc import Callable
from typing import Any

import yaml
from tests.fuzz.bases import BASES, Base

from vcrecon.spec.text import FILES

Tree = Any
Path = tuple[Any, ...]

NUMBERS = (0, -1, 1, 2, 3, 7, 255, 4094, 4095, 4096, 65535, 65536, 2**31, 2**63, 2**64, 10**30, -(10**30), 10**4299)
FLOATS = (0.0, 0.5, -0.0, 1.5, 1e308, 1e-320, float("nan"), float("inf"), float("-inf"))
PLAIN = (None, True, False, [], {}, [[]], [None], [{}], {"": ""}, {"a": None}, b"\x00\xff", datetime.date(2001, 1, 1))
WORDS = (
    *("", " ", "~", "null", "yes", "no", "on", "off", "true", "NaN", ".inf", "-.inf", "1e3", "1_000", "0x10", "0o17"),
    *("010", "1:30", "12:30:45", "٣", "½", "²", "1.", ".5", "+1", "00000000000000000000001", "-0", "infinity"),
    *("é", "ß", "İ", "K", "名", "😀", "\u202eabc", "\u200b", "\ufeff", "\u2028", "\x85", "\x7f", "\x1b[31mred\x1b[0m"),
    *("a\nb", "a\rb", "a\tb", "\x00", "\x00.hash", "a" * 10_000, "a-" * 2000, "\n" * 50, "'", '"', "\\", "%", "{", "}"),
    *("[", "]", "[]", "[1-", "[a-z]", "[01-03]", "[0-9999]", "[0-99999]", "[5-1]", "[1-2][3-4]", "x[1-2]y[1-3]"),
    *("[\u0660-\u0669]", "[a-b][1-2]", "[1-999999999]", "[[1-2]]"),
    *("{cluster}", "{cluster}{cluster}", "{0}", "%s", "$(id)"),
    *("`id`", "; reboot", "../../etc/passwd", "/", ".", "..", "/dev/zero", "/proc/self/mem", "~nobody/x", "~/", "-rf"),
    *("secrets", "hooks", "secrets/bmc", "site.yaml", "x/" * 3000, "known_hosts/x", "10.0.0.0/8", "0.0.0.0/0", "::1/0"),
    *("10.1.1.1", "255.255.255.255", "0.0.0.0", "::1", "10.200.0.1/33"),
    *("10.1.1.0/-1", "10.1.1.0/00245", "\uff11\uff10.1.1.1"),
    *("10.1.1.0/31", "10.1.1.0/32", "10.64.0.0/24", "10.1", "10.1.1.1.1", "52:54:00:00:00:01", "ff:ff:ff:ff:ff:ff"),
    *("00:00:00:00:00:00", "52-54-00-00-00-01", "K:54:00:00:00:01", "1GiB", "99999TiB", "0.001KiB", "1.5GiB", "1GB"),
    *("0", "0s", "1h", "86401s", "1.5.5s", "999999999h", "http://"),
    *("http://[", "http://a:99999/", "http://é/", "ftp://x"),
    *("http://u:p@h/", "https://h/\u2028", "a:1", ":1", "a:", "a:٣", "ssh-ed25519 AAAA", "ssh-\x00 x", "root", "Root"),
    *("a.b", "a_b", "-a", "a-", "A", "c01", "a-head", "outside", "debian-12", "kvm", "xen", "head", "node", "running"),
)  # fmt: skip
_DIGITS = re.compile(r"\d+")
_PLACES: dict[str, list[tuple[str, Tree]]] = {}


def mutate(rng: random.Random, base: Base, trees: dict[str, Tree]) -> tuple[str, str]:
    """Change one thing in `trees`, in place. Returns the file, and in words what was done."""
    file = rng.choice(list(FILES))
    paths = list(_walk(trees[file]))
    path = rng.choice(paths)
    for _ in range(2):  # rather deep down than at the top: there is more to it
        path = max(path, rng.choice(paths), key=len)
    change = rng.choice(_CHANGES)
    told = change(rng, base, trees, file, path)
    return file, f"{change.__name__.strip('_')} {file}:{'.'.join(map(str, path))[:80]} {told}".strip()


def dump(rng: random.Random, tree: Tree) -> bytes:
    """`tree` as YAML, in one of the styles that people and programs write."""
    style = rng.choice([None, None, True, False])
    text: bytes = yaml.dump(
        tree, Dumper=yaml.CSafeDumper, default_flow_style=style, sort_keys=False, encoding="utf-8",
        allow_unicode=rng.random() < 0.8, width=rng.choice([80, 10_000]),
    )  # fmt: skip
    return text


def odd_value(rng: random.Random, base: Base) -> Tree:
    """A value that has a meaning somewhere, or none anywhere."""
    pool: list[Callable[[], Tree]] = [
        lambda: rng.choice(NUMBERS),
        lambda: rng.choice(FLOATS),
        lambda: copy.deepcopy(rng.choice(PLAIN)),
        lambda: rng.choice(WORDS),
        lambda: rng.choice(WORDS),
        lambda: rng.choice(base.words),
        lambda: rng.choice(base.words),
        lambda: rng.choice(base.words) + rng.choice(WORDS),
        lambda: "".join(chr(rng.choice([rng.randrange(128), rng.randrange(0xD800)])) for _ in range(rng.randrange(9))),
        lambda: [odd_value(rng, base) for _ in range(rng.randrange(4))],
        lambda: {rng.choice(base.words): odd_value(rng, base)},
    ]
    return rng.choice(pool)()


def _walk(tree: Tree, path: Path = ()) -> list[Path]:
    found = [path]
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        found += _walk(value, (*path, key))
    return found


def _get(tree: Tree, path: Path) -> Tree:
    for step in path:
        tree = tree[step]
    return tree


def _set(trees: dict[str, Tree], file: str, path: Path, value: Tree) -> None:
    if path:
        _get(trees[file], path[:-1])[path[-1]] = value
    else:
        trees[file] = value


def _replace_keys(mapping: dict[Any, Tree], old: Any, new: Any) -> None:
    items = [(new if key == old else key, value) for key, value in mapping.items()]
    mapping.clear()
    mapping.update(items)


def _short(value: Tree) -> str:
    told = repr(value)
    return told if len(told) <= 60 else told[:60] + "…"


# --- the changes: (rng, base, trees, file, path) to words --------------------------------------------------------


def _drop(rng: random.Random, base: Base, trees: dict[str, Tree], file: str, path: Path) -> str:
    if not path:
        trees[file] = None
    else:
        del _get(trees[file], path[:-1])[path[-1]]
    return ""


def _set_odd(rng: random.Random, base: Base, trees: dict[str, Tree], file: str, path: Path) -> str:
    value = odd_value(rng, base)
    _set(trees, file, path, value)
    return _short(value)


def _nudge(rng: random.Random, base: Base, trees: dict[str, Tree], file: str, path: Path) -> str:
    """Another number in a text that holds one, as by a slip of the finger."""
    value = _get(trees[file], path)
    if isinstance(value, bool) or not isinstance(value, int | str) or not (found := list(_DIGITS.finditer(str(value)))):
        return _set_odd(rng, base, trees, file, path)
    text, where = str(value), rng.choice(found)
    number = int(where[0])
    other = rng.choice([number + 1, number - 1, number * 10, 0, rng.randrange(300), 10**12, -number])
    new: Tree = text[: where.start()] + str(other) + text[where.end() :]
    _set(trees, file, path, other if isinstance(value, int) else new)
    return _short(new)


def _edit_text(rng: random.Random, base: Base, trees: dict[str, Tree], file: str, path: Path) -> str:
    value = _get(trees[file], path)
    if not isinstance(value, str):
        return _set_odd(rng, base, trees, file, path)
    at = rng.randrange(len(value) + 1)
    piece = rng.choice([rng.choice(WORDS), rng.choice(base.words), chr(rng.randrange(0xD800))])[:200]
    new = rng.choice(
        [value[:at] + piece + value[at:], value[:at], value[at:], value.upper(), value + value, value[::-1]]
    )
    _set(trees, file, path, new)
    return _short(new)


def _retype(rng: random.Random, base: Base, trees: dict[str, Tree], file: str, path: Path) -> str:
    value = _get(trees[file], path)
    forms: list[Callable[[], Tree]] = [
        lambda: str(value),
        lambda: [value],
        lambda: {"value": value},
        lambda: list(value) if isinstance(value, dict | str) else value,
        lambda: dict.fromkeys(map(str, value)) if isinstance(value, list) else value,
        lambda: dict(enumerate(value)) if isinstance(value, list) else value,
        lambda: value[0] if isinstance(value, list) and value else None,
        lambda: bool(value),
    ]
    _set(trees, file, path, rng.choice(forms)())
    return ""


def _nest(rng: random.Random, base: Base, trees: dict[str, Tree], file: str, path: Path) -> str:
    value, depth = _get(trees[file], path), rng.choice([1, 2, 20, 25, 60])
    for _ in range(depth):
        value = [value] if rng.random() < 0.5 else {str(path[-1]) if path else "site": value}
    _set(trees, file, path, value)
    return str(depth)


def _duplicate(rng: random.Random, base: Base, trees: dict[str, Tree], file: str, path: Path) -> str:
    """An entry of a list once more, or a key's value under another key's name."""
    if not path:
        return _set_odd(rng, base, trees, file, path)
    parent, value = _get(trees[file], path[:-1]), copy.deepcopy(_get(trees[file], path))
    if isinstance(parent, list):
        parent.insert(rng.randrange(len(parent) + 1), value)
        return ""
    key = rng.choice([*parent, rng.choice(base.words), f"{path[-1]}x"])
    parent[key] = value
    return f"as {_short(key)}"


def _rename(rng: random.Random, base: Base, trees: dict[str, Tree], file: str, path: Path) -> str:
    if not path or not isinstance(parent := _get(trees[file], path[:-1]), dict):
        return _set_odd(rng, base, trees, file, path)
    key = str(path[-1])
    odd = rng.choice([rng.choice(WORDS), rng.choice(base.words), rng.choice([*NUMBERS, *FLOATS, None, True])])
    new = rng.choice([odd, odd, key[:-1], key + "s", key.upper(), key[::-1], f" {key}", rng.choice(list(parent))])
    _replace_keys(parent, path[-1], new)
    return f"to {_short(new)}"


def _swap(rng: random.Random, base: Base, trees: dict[str, Tree], file: str, path: Path) -> str:
    """The value of another place of this or another file, and perhaps the other way round."""
    other = rng.choice([file, rng.choice(list(FILES))])
    place = rng.choice(_walk(trees[other]))
    mine, theirs = copy.deepcopy(_get(trees[file], path)), copy.deepcopy(_get(trees[other], place))
    _set(trees, file, path, theirs)
    if rng.random() < 0.5 and not (other == file and (path[: len(place)] == place or place[: len(path)] == path)):
        _set(trees, other, place, mine)
    return f"with {other}:{'.'.join(map(str, place))[:60]}"


def _shuffle(rng: random.Random, base: Base, trees: dict[str, Tree], file: str, path: Path) -> str:
    value = _get(trees[file], path)
    if isinstance(value, list):
        rng.shuffle(value)
    elif isinstance(value, dict):
        items = list(value.items())
        rng.shuffle(items)
        value.clear()
        value.update(items)
    else:
        return _set_odd(rng, base, trees, file, path)
    return ""


def _graft(rng: random.Random, base: Base, trees: dict[str, Tree], file: str, path: Path) -> str:
    """A key that another spec has in such a place, with its value there or an odd one."""
    mapping = _get(trees[file], path)
    keys = [step for step in path if isinstance(step, str)]
    place = keys[-1] if keys else file
    known = _places().get(place, [])
    if not isinstance(mapping, dict) or not known:
        return _set_odd(rng, base, trees, file, path)
    key, value = rng.choice(known)
    mapping[key] = copy.deepcopy(value) if rng.random() < 0.7 else odd_value(rng, base)
    return f"{key}={_short(mapping[key])}"


def _places() -> dict[str, list[tuple[str, Tree]]]:
    """By the last key on the way to a mapping: the keys and values that the bases have in such mappings."""
    if not _PLACES:
        for base in BASES.values():
            for file, tree in base.trees.items():
                for path in _walk(tree):
                    value = _get(tree, path)
                    if isinstance(value, dict):
                        keys = [step for step in path if isinstance(step, str)]
                        _PLACES.setdefault(keys[-1] if keys else file, []).extend(value.items())
    return _PLACES


def _move_guest(rng: random.Random, base: Base, trees: dict[str, Tree], file: str, path: Path) -> str:
    """What people do most: one guest, or all of a container, to another line of deployment.yaml."""
    placed = trees["deployment.yaml"]
    lines = placed.get("deployment") if isinstance(placed, dict) else None
    if not isinstance(lines, dict) or not all(isinstance(names, list) for names in lines.values()):
        return _set_odd(rng, base, trees, file, path)
    source, target = rng.choice(list(lines)), rng.choice(list(lines))
    moved = list(lines[source]) if rng.random() < 0.3 else lines[source][-1:]
    lines[source] = lines[source][: len(lines[source]) - len(moved)]
    lines[target] = [*lines[target], *moved]
    return f"{source} to {target}"


_CHANGES = (
    *(_drop, _set_odd, _set_odd, _nudge, _nudge, _nudge, _edit_text, _retype, _nest, _duplicate, _rename),
    *(_swap, _shuffle, _graft, _graft, _move_guest),
)
