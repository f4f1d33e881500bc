"""Mutation of a spec as bytes, and as YAML that only a parser could love. Called by `inputs`."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import yaml
from tests.fuzz.bases import BASES, Base

from vcrecon.spec.text import FILES

TOKENS = (
    *(b"[", b"]", b"{", b"}", b",", b":", b": ", b"- ", b"? "),
    *(b"| ", b">", b"&a ", b"*a", b"!", b"!!set ", b"!!binary "),
    *(b"'", b'"', b"#", b" #", b"%", b"@", b"`", b"\\", b"---\n"),
    *(b"...\n", b"<<: *a", b"~", b"=", b"\t", b"\r", b"\r\n"),
    *(b"\n", b"\n\n", b"  ", b"\0", b"\xff", b"\xfe", b"\x80"),
    *(b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x1b"),
    *(b"\xef\xbb\xbf", b"\xc2\x85", b"\xe2\x80\xa8", b"\xe2\x80\xae"),
    *(b"\xef\xbf\xbe", b"\xf0\x9f\x98\x80", b"\x7f", b"\x08"),
    *(b"9" * 400, b"9" * 5000, b"a" * 70_000, b"[" * 30, b"{a: " * 30),
    *(b"- " * 30, b"[" * 3000, b"- " * 3000, b"? " * 300),
)  # fmt: skip

SNIPPETS = (
    *("&a x", "*a", "*nowhere", "&a *a", "&a [*a]", "&a {b: *a}"),
    *("&a", "!!str 5", "!!int x", "!!float 5", "!!bool maybe"),
    *("!!null ''", "!!binary aGk=", "!!set {a, b}", "!!omap [a: 1]", "!!timestamp 2001-12-14", "!!python/none", "! x"),
    *("!!python/object:os.system x", "!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!local x"),
    *("!<tag:yaml.org,2002:int> 5", "!<tag:yaml.org,2002:map> {}", "!e!x y", "!<> x", f"!{'t' * 900} x", "!%00 x"),
    *("0o17", "017", "0b1", "0x1f", "1:30", "190:20:30", "1_000"),
    *(".inf", "-.inf", ".nan", "1e400", "+1", "1.", ".5", "08"),
    *("2001-12-14t21:59:43.10-05:00", "2001-01-01", "yes", "no"),
    *("on", "off", "y", "n", "=", "<<", "{<<: *a}", "{<<: {a: b}}"),
    *('"\\0"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\U00110000"'),
    *('"\\U0001F600"', '"\\x1b[2J"', '"\\N\\_\\L\\P"', '"a\\nb"'),
    *('"unterminated', "'unterminated", '"\\q"', "|\n  text\n  more"),
    *("|+9\n  x", ">-\n  folded\n  text", "|2\n x", "? x", "? [a]"),
    *("[a, b", "{a: b", "{a, a}", "{a: 1, a: 2}", "{? a}", "{[a]: b}"),
    *("{{a: b}: c}", "{: b}", "{a: b, c}", "[a: b]", "[,]"),
    *("- a", "- - - -", "a: b: c", "a:\n\tb", "# nothing", "@x", "`x`"),
    *("%x", "-", "?", ":", "--- x", "...", "[]", "{}", "''", '""'),
    *("[" * 30, "[" * 30 + "]" * 30, "{a: " * 30 + "1" + "}" * 30),
    *("[" * 20 + "]" * 20, "x" * 70_000, "x " * 5000, "é" * 5000),
    *("[[0, 1]]", "[[[1-2]]]", "{a-head: }", "[a-head, a-head]"),
    *("{head: {template: head}}", "\u2028", "a\u0085b", "\ufeff"),
)  # fmt: skip

HEADS = (
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\0", b"%YAML 1.1\n---\n", b"%YAML 1.3\n---\n", b"%YAML 9.9\n---\n"),
    *(b"%YAML 1\n---\n", b"%YAML 99999999999999999999.1\n---\n"),
    *(b"%TAG ! tag:x,2000:\n---\n", b"%TAG\n---\n", b"%x\n---\n"),
    *(b"%YAML 1.1\n%YAML 1.1\n---\n", b"---\n", b"--- !!map\n"),
    *(b"--- &a\n", b"--- |\n", b"---\n---\n", b"...\n", b"\n" * 5000),
    *(b"#" * 70_000 + b"\n", b"\t", b" ", b"- ", b"? ", b"&a "),
    *(b"!!python/dict\n", b"!!set\n", b"x: *a\n", b"<<: {}\n"),
)  # fmt: skip


def mutate_bytes(rng: random.Random, base: Base, files: dict[str, bytes]) -> tuple[str, str]:
    """Change the bytes of one file; returns the file, and in words what was done."""
    file = rng.choice([*FILES, *FILES, *FILES, *FILES, rng.choice(base.others)])
    data, change = files[file], rng.choice(_BYTES)
    at = rng.randrange(len(data) + 1)
    files[file] = change(rng, data, at)
    return file, f"{change.__name__.strip('_')} at byte {at} of {file}"


def mutate_yaml(rng: random.Random, base: Base, files: dict[str, bytes]) -> tuple[str, str]:
    """Write something that is odd as YAML into one of the five files."""
    file = rng.choice(list(FILES))
    told, files[file] = rng.choice(_YAML)(rng, base, files[file])
    return file, f"{told} in {file}"


# --- bytes ---------------------------------------------------------------------------------------------------------


def _flip(rng: random.Random, data: bytes, at: int) -> bytes:
    if not data:
        return b"\0"
    at = min(at, len(data) - 1)
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _insert(rng: random.Random, data: bytes, at: int) -> bytes:
    return data[:at] + rng.choice([rng.choice(TOKENS), rng.randbytes(rng.randrange(1, 5))]) + data[at:]


def _overwrite(rng: random.Random, data: bytes, at: int) -> bytes:
    return data[:at] + rng.choice(TOKENS) + data[at + rng.randrange(1, 12) :]


def _cut_out(rng: random.Random, data: bytes, at: int) -> bytes:
    return data[:at] + data[at + rng.choice([1, 1, 2, 5, 20, 200]) :]


def _repeat(rng: random.Random, data: bytes, at: int) -> bytes:
    end = at + rng.choice([1, 5, 20, 80, 400])
    return data[:end] + data[at:end] * rng.choice([1, 1, 2, 50]) + data[end:]


def _splice(rng: random.Random, data: bytes, at: int) -> bytes:
    """Half of this file and half of another: a save that went to the wrong place."""
    other = BASES[rng.choice(list(BASES))].files[rng.choice(list(FILES))]
    return data[:at] + other[rng.randrange(len(other)) :]


def _swap_lines(rng: random.Random, data: bytes, at: int) -> bytes:
    lines = data.splitlines(keepends=True)
    if len(lines) > 1:
        i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
        lines[i], lines[j] = lines[j], lines[i]
    return b"".join(lines)


def _indent(rng: random.Random, data: bytes, at: int) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    i = rng.randrange(len(lines))
    lines[i] = rng.choice([b" ", b"  ", b"\t", b"        "]) + lines[i] if rng.random() < 0.6 else lines[i].lstrip()
    return b"".join(lines)


def _delete_line(rng: random.Random, data: bytes, at: int) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    del lines[rng.randrange(len(lines))]
    return b"".join(lines)


def _encode(rng: random.Random, data: bytes, at: int) -> bytes:
    text = data.decode("utf-8", "replace")
    forms: list[Callable[[], bytes]] = [
        lambda: text.encode(rng.choice(["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "utf-7"])),
        lambda: text.replace("e", "é").encode("latin-1", "replace"),
        lambda: text.replace("\n", "\r\n").encode(),
        lambda: text.replace("\n", "\r").encode(),
        lambda: text.replace("\n", "\u2028").encode(),
        lambda: text.replace("  ", "\t").encode(),
        lambda: text.replace(" ", "\u00a0").encode(),
        lambda: text.replace("\n", "\n\0").encode(),
        lambda: rng.randbytes(rng.randrange(300)),
        lambda: b"",
    ]
    return rng.choice(forms)()


_BYTES = (
    *(_flip, _flip, _insert, _insert, _insert, _overwrite, _cut_out, _cut_out, _repeat, _splice, _swap_lines, _indent),
    *(_delete_line, _encode),
)

# --- oddities of YAML ------------------------------------------------------------------------------------------------

Told = tuple[str, bytes]


def _spans(data: bytes, *, keys: bool) -> list[tuple[int, int]]:
    """Where the scalars of a document stand, in characters: keys or values. Of one that is broken, the sound part."""
    found: list[tuple[int, int]] = []
    stack: list[list[int]] = []
    try:
        for event in yaml.parse(data.decode("utf-8", "replace"), Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.CollectionEndEvent):
                stack.pop()
            is_key = bool(stack) and stack[-1][0] == 1 and stack[-1][1] % 2 == 0
            if stack and not isinstance(event, yaml.CollectionEndEvent):
                stack[-1][1] += 1
            if isinstance(event, yaml.CollectionStartEvent):
                stack.append([int(isinstance(event, yaml.MappingStartEvent)), 0])
            elif isinstance(event, yaml.ScalarEvent) and is_key == keys:
                found.append((event.start_mark.index, event.end_mark.index))
    except yaml.YAMLError:
        pass
    return found


def _put(rng: random.Random, data: bytes, piece: str, *, keys: bool) -> bytes:
    text = data.decode("utf-8", "replace")
    start, end = rng.choice(_spans(data, keys=keys) or [(0, 0)])
    return (text[:start] + piece + text[end:]).encode("utf-8", "surrogatepass")


def _odd_value(rng: random.Random, base: Base, data: bytes) -> Told:
    piece = rng.choice(SNIPPETS)
    return f"the value {piece[:40]!r}", _put(rng, data, piece, keys=False)


def _odd_key(rng: random.Random, base: Base, data: bytes) -> Told:
    piece = rng.choice(SNIPPETS)
    return f"the key {piece[:40]!r}", _put(rng, data, piece, keys=True)


def _control(rng: random.Random, base: Base, data: bytes) -> Told:
    """A quoted scalar with what print would choke on: YAML may say it by its number."""
    code = rng.choice(
        [0, 7, 8, 9, 10, 13, 27, 0x7F, 0x85, 0xA0, 0x200B, 0x202E, 0x2028, 0xD800, 0xDFFF, 0xFEFF, 0xFFFF]
    )
    word = rng.choice([*base.words, "x"])[:40].replace("\\", "").replace('"', "")
    at = rng.randrange(len(word) + 1)
    piece = f'"{word[:at]}\\u{code:04x}{word[at:]}"'
    keys = rng.random() < 0.4
    return f"{'the key' if keys else 'the value'} {piece}", _put(rng, data, piece, keys=keys)


def _anchors(rng: random.Random, base: Base, data: bytes) -> Told:
    """One value is an alias of another: what a person writes who knows YAML well."""
    text, spans = data.decode("utf-8", "replace"), _spans(data, keys=False)
    if len(spans) < 2:
        return "nothing", data
    (a, _), (b, end) = sorted(rng.sample(spans, 2))
    new = text[:a] + "&one " + text[a:b] + "*one" + text[end:]
    return "an alias of an earlier value", new.encode("utf-8", "surrogatepass")


def _twice(rng: random.Random, base: Base, data: bytes) -> Told:
    """A key of the top for the second time, with the same or with other content."""
    text = data.decode("utf-8", "replace")
    tops = [m.start() for m in re.finditer(r"(?m)^[a-z]", text)]
    if not tops:
        return "nothing", data
    start = rng.choice(tops)
    end = next((top for top in tops if top > start), len(text))
    return "a duplicate key", (text + "\n" + text[start:end]).encode("utf-8", "surrogatepass")


def _bomb(rng: random.Random, base: Base, data: bytes) -> Told:
    """Aliases of aliases, under a new key or in the place of a value."""
    levels, width = rng.choice([(2, 3), (4, 9), (9, 9), (30, 2), (12, 2)])
    lists = rng.random() < 0.5
    lines = ["&l0 x" if lists else "&l0 {k: x}"]
    for level in range(1, levels + 1):
        inner = [f"*l{level - 1}"] * width
        body = (
            "[" + ", ".join(inner) + "]" if lists else "{" + ", ".join(f"k{i}: {x}" for i, x in enumerate(inner)) + "}"
        )
        lines.append(f"&l{level} {body}")
    piece = "[" + ", ".join(lines) + "]"
    told = f"aliases {levels} levels deep, {width} wide"
    if rng.random() < 0.5:
        return told, data + b"\nbomb: " + piece.encode() + b"\n"
    return told, _put(rng, data, piece, keys=False)


def _merge(rng: random.Random, base: Base, data: bytes) -> Told:
    text = data.decode("utf-8", "replace")
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    pad = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    lines.insert(
        at, pad + rng.choice(["<<: *a", "<<: {site: x}", "<<: [*a, *b]", '"<<": {site: x}', "!!merge <<: {}", "? <<"])
    )
    return "a merge key", "\n".join(lines).encode("utf-8", "surrogatepass")


def _head(rng: random.Random, base: Base, data: bytes) -> Told:
    head = rng.choice(HEADS)
    return f"{head[:20]!r} in front", head + data


def _tail(rng: random.Random, base: Base, data: bytes) -> Told:
    tail = rng.choice(
        [b"---\n" + data, b"...\n", b"...\nx: y\n", b"\n...\n---\n", b"\0", b"\x1a", b"# end", b"%YAML 1.1\n", b"}"]
    )
    return f"{tail[:20]!r} behind", data + tail


def _whole(rng: random.Random, base: Base, data: bytes) -> Told:
    whole = rng.choice(
        ["", "\n", "#\n", "---\n", "---\n...\n", "null\n", "[]\n", "{}\n", "- x\n", "x\n", "0\n", *SNIPPETS]
    )
    return f"only {whole[:40]!r}", whole.encode("utf-8", "surrogatepass")


_YAML = (
    *(_odd_value, _odd_value, _odd_value, _odd_value, _odd_key, _odd_key, _control, _control, _anchors, _anchors),
    *(_twice, _bomb, _merge, _head, _tail, _whole),
)
