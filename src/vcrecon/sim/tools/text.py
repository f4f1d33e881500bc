"""Text tools of a simulated host: cat, head, tail, cut, tr, sort, uniq, wc, grep, sed, seq."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vcrecon.sim.process import Process, Tool
from vcrecon.sim.tools._common import (
    Failure,
    chunks,
    full,
    given,
    last,
    lines_of,
    need_operand,
    options,
    read_input,
    reason,
    tool,
)

TOOLS: dict[str, Tool] = {}


async def inputs(process: Process, name: str, paths: Sequence[str]) -> tuple[list[tuple[str, bytes]], int]:
    """(path, content) of each readable input; complaints go to standard error and make the status 1."""
    found, status = [], 0
    for path in paths or ["-"]:
        if path != "-" and process.machine.files.is_dir(full(process, path)):
            await process.fail(f"{name}: {path}: Is a directory")
            status = 1
            continue
        try:
            found.append((path, await read_input(process, path)))
        except OSError as error:
            cannot = "cannot open " if name in ("head", "tail") else ""
            shown = f"cannot open '{path}' for reading" if cannot else path
            await process.fail(f"{name}: {shown}: {reason(error)}")
            status = 1
    return found, status


@tool(TOOLS, "cat")
async def cat(process: Process, args: Sequence[str]) -> int:
    _, rest = options("cat", args, "uAn")
    status = 0
    for path in rest or ["-"]:
        try:
            async for chunk in chunks(process, path):
                await process.stdout.write(chunk)
        except BrokenPipeError:
            raise
        except OSError as error:
            status = await process.fail(f"cat: {path}: {reason(error)}")
    return status


@tool(TOOLS, "head", "tail")
async def head(process: Process, args: Sequence[str]) -> int:
    name = process.argv[0].rsplit("/", 1)[-1]
    if args and re.fullmatch(r"-\d+", args[0]):
        args = ["-n", args[0][1:], *args[1:]]
    found, rest = options(name, args, "n:c:qv", ["lines=", "bytes=", "quiet"])
    by_bytes = given(found, "-c", "--bytes")
    text = last(found, "-c", "--bytes") if by_bytes else last(found, "-n", "--lines") or "10"
    assert text is not None
    if not re.fullmatch(r"[+-]?\d+", text):
        what = "bytes" if by_bytes else "lines"
        raise Failure(f"{name}: invalid number of {what}: '{text}'")
    if name == "head" and by_bytes and not text.startswith("-") and rest in ([], ["-"]):
        return await _head_of_input(process, int(text))
    contents, status = await inputs(process, name, rest)
    for _, data in contents:
        items = [data[i : i + 1] for i in range(len(data))] if by_bytes else lines_of(data)
        count = abs(int(text))
        if name == "head":
            kept = items[:-count] if text.startswith("-") and count else items[:count]
        else:
            kept = items[count - 1 :] if text.startswith("+") and count else items[len(items) - count :]
            if count >= len(items) and not text.startswith("+"):
                kept = items
        await process.stdout.write(b"".join(kept))
    return status


async def _head_of_input(process: Process, count: int) -> int:
    """`head -c N` of standard input takes N bytes and leaves the rest to the next program."""
    left = count
    while left and (data := await process.stdin.read(left)):
        left -= len(data)
        await process.stdout.write(data)
    return 0


def _ranges(text: str, name: str) -> list[tuple[int, int]]:
    ranges = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d*)(-?)(\d*)", part)
        if match is None or part in ("", "-"):
            raise Failure(f"{name}: invalid field value '{part}'\nTry '{name} --help' for more information.")
        first = int(match[1] or 1)
        final = int(match[3]) if match[3] else (1 << 30 if match[2] else first)
        ranges.append((first, final))
    return ranges


@tool(TOOLS, "cut")
async def cut(process: Process, args: Sequence[str]) -> int:
    found, rest = options("cut", args, "d:f:c:b:s", ["delimiter=", "fields=", "output-delimiter="])
    fields, characters = last(found, "-f", "--fields"), last(found, "-c", "-b")
    if fields is None and characters is None:
        raise Failure(
            "cut: you must specify a list of bytes, characters, or fields\nTry 'cut --help' for more information."
        )
    delimiter = (last(found, "-d", "--delimiter") or "\t").encode()
    glue = (last(found, "--output-delimiter") or delimiter.decode()).encode()
    ranges = _ranges(fields or characters or "", "cut")
    contents, status = await inputs(process, "cut", rest)
    for _, data in contents:
        for line in lines_of(data):
            bare = line.rstrip(b"\n")
            parts = bare.split(delimiter) if fields else [bare[i : i + 1] for i in range(len(bare))]
            if fields and len(parts) == 1:
                if not given(found, "-s"):
                    await process.stdout.write(bare + b"\n")
                continue
            kept = [p for i, p in enumerate(parts, 1) if any(a <= i <= b for a, b in ranges)]
            await process.stdout.write((glue if fields else b"").join(kept) + b"\n")
    return status


CLASSES = {
    "[:lower:]": "abcdefghijklmnopqrstuvwxyz",
    "[:upper:]": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "[:digit:]": "0123456789",
    "[:space:]": " \t\n\v\f\r",
}
CLASSES["[:alpha:]"] = CLASSES["[:upper:]"] + CLASSES["[:lower:]"]
CLASSES["[:alnum:]"] = CLASSES["[:digit:]"] + CLASSES["[:alpha:]"]


def _tr_set(text: str) -> str:
    for name, letters in CLASSES.items():
        text = text.replace(name, letters)
    text = text.replace("\\n", "\n").replace("\\t", "\t").replace("\\0", "\0").replace("\\\\", "\\")
    return re.sub(r"(.)-(.)", lambda m: "".join(map(chr, range(ord(m[1]), ord(m[2]) + 1))), text)


@tool(TOOLS, "tr")
async def tr(process: Process, args: Sequence[str]) -> int:
    found, rest = options("tr", args, "dsc")
    need_operand("tr", rest)
    first = _tr_set(rest[0])
    text = (await process.stdin.read()).decode("latin-1")
    complement = given(found, "-c")

    def inside(letter: str) -> bool:
        return (letter in first) != complement

    if given(found, "-d"):
        text = "".join(c for c in text if not inside(c))
    elif len(rest) > 1:
        second = _tr_set(rest[1])
        if given(found, "-c"):
            text = "".join(second[-1] if inside(c) else c for c in text)
        else:
            second = second.ljust(len(first), second[-1])
            text = text.translate(str.maketrans(first, second[: len(first)]))
    if given(found, "-s"):
        squeezed = _tr_set(rest[-1])
        text = re.sub(r"(.)\1+", lambda m: m[1] if m[1] in squeezed else m[0], text, flags=re.DOTALL)
    await process.stdout.write(text.encode("latin-1"))
    return 0


@tool(TOOLS, "sort", status=2)
async def sort(process: Process, args: Sequence[str]) -> int:
    found, rest = options("sort", args, "unrk:t:s", ["unique", "numeric-sort", "reverse"], status=2)
    contents, status = await inputs(process, "sort", rest)
    lines = [line.rstrip(b"\n") for _, data in contents for line in lines_of(data)]
    separator, key = last(found, "-t"), last(found, "-k")

    def sort_key(line: bytes) -> tuple[float, bytes]:
        part = line
        if key is not None:
            parts = line.split(separator.encode() if separator else None)
            index = int(re.match(r"\d+", key)[0]) - 1  # type: ignore[index]
            part = parts[index] if index < len(parts) else b""
        number = re.match(rb"\s*-?\d+(\.\d+)?", part)
        return (float(number[0]) if given(found, "-n") and number else 0.0, part)

    if given(found, "-u", "--unique"):
        lines = list({sort_key(line): line for line in reversed(lines)}.values())
    lines.sort(key=sort_key, reverse=given(found, "-r", "--reverse"))
    await process.stdout.write(b"".join(line + b"\n" for line in lines))
    return 2 if status else 0


@tool(TOOLS, "uniq")
async def uniq(process: Process, args: Sequence[str]) -> int:
    found, rest = options("uniq", args, "cdu")
    data = await read_input(process, rest[0] if rest else "-")
    runs: list[tuple[bytes, int]] = []
    for line in (line.rstrip(b"\n") for line in lines_of(data)):
        if runs and runs[-1][0] == line:
            runs[-1] = (line, runs[-1][1] + 1)
        else:
            runs.append((line, 1))
    for line, count in runs:
        if (given(found, "-d") and count == 1) or (given(found, "-u") and count > 1):
            continue
        await process.stdout.write((b"%7d " % count if given(found, "-c") else b"") + line + b"\n")
    return 0


@tool(TOOLS, "wc")
async def wc(process: Process, args: Sequence[str]) -> int:
    found, rest = options("wc", args, "lcwm", ["lines", "bytes", "words"])
    contents, status = await inputs(process, "wc", rest)
    wanted = [key for key in "lwc" if given(found, f"-{key}")] or list("lwc")
    for path, data in contents:
        counts = {"l": data.count(b"\n"), "w": len(data.split()), "c": len(data)}
        width = 1 if len(wanted) == 1 else 7
        text = " ".join(f"{counts[key]:>{width}}" for key in wanted)
        await process.say(text + (f" {path}" if path != "-" or rest else "") + "\n")
    return status


def _basic_to_python(pattern: str, *, extended: bool) -> str:
    """A POSIX regular expression as Python's: in a basic one, \\( \\{ \\| \\+ \\? are the special forms."""
    pattern = pattern.replace("[[:space:]]", r"\s").replace("[[:digit:]]", "[0-9]")
    pattern = pattern.replace("[:space:]", r"\s").replace("[:digit:]", "0-9").replace("[:alnum:]", "0-9A-Za-z")
    if extended:
        return pattern
    out = ""
    index = 0
    while index < len(pattern):
        two = pattern[index : index + 2]
        if two in (r"\(", r"\)", r"\{", r"\}", r"\|", r"\+", r"\?"):
            out += two[1]
            index += 2
        elif two.startswith("\\") and len(two) == 2:
            out += two
            index += 2
        else:
            out += f"\\{pattern[index]}" if pattern[index] in "(){}|+?" else pattern[index]
            index += 1
    return out


@tool(TOOLS, "grep", "egrep", "fgrep", status=2)
async def grep(process: Process, args: Sequence[str]) -> int:
    short = "qEFHhvcsixlLnoe:m:w"
    found, rest = options("grep", args, short, ["quiet", "count", "invert-match", "fixed-strings"], status=2)
    patterns = found.get("-e") or rest[:1]
    rest = rest if "-e" in found else rest[1:]
    if not patterns:
        raise Failure("Usage: grep [OPTION]... PATTERNS [FILE]...\nTry 'grep --help' for more information.", 2)
    fixed, extended = given(found, "-F", "--fixed-strings"), given(found, "-E")
    each = [p for pattern in patterns for p in pattern.split("\n")]
    joined = "|".join(f"(?:{re.escape(p) if fixed else _basic_to_python(p, extended=extended)})" for p in each)
    joined = rf"\b(?:{joined})\b" if given(found, "-w") else joined
    joined = rf"^(?:{joined})$" if given(found, "-x") else joined
    regex = re.compile(joined.encode(), re.IGNORECASE if given(found, "-i") else 0)
    quiet, count = given(found, "-q", "--quiet"), given(found, "-c", "--count")
    invert = given(found, "-v", "--invert-match")
    prefix = (len(rest) > 1 or given(found, "-H")) and not given(found, "-h")
    any_match, trouble = False, False
    for path in rest or ["-"]:
        try:
            data = await read_input(process, path)
        except OSError as error:
            trouble = True
            if not given(found, "-s"):
                await process.fail(f"grep: {path}: {reason(error)}")
            continue
        label = f"{'(standard input)' if path == '-' else path}:".encode() if prefix else b""
        hits = [
            (number, line)
            for number, line in enumerate((text.rstrip(b"\n") for text in lines_of(data)), 1)
            if (regex.search(line) is None) == invert
        ]
        any_match = any_match or bool(hits)
        if quiet:
            continue
        if count:
            await process.stdout.write(label + b"%d\n" % len(hits))
        elif given(found, "-l"):
            await process.stdout.write(path.encode() + b"\n" if hits else b"")
        else:
            for number, line in hits[: int(last(found, "-m") or len(hits))]:
                where = label + (b"%d:" % number if given(found, "-n") else b"")
                shown = [m[0] for m in regex.finditer(line) if m[0]] if given(found, "-o") else [line]
                await process.stdout.write(b"".join(where + text + b"\n" for text in shown))
    if trouble and not (quiet and any_match):
        return 2
    return 0 if any_match else 1


SED_COMMAND = re.compile(
    r"(?:(?P<first>\d+|\$|/(?:[^/\\]|\\.)*/)(?:,(?P<last>\d+|\$|/(?:[^/\\]|\\.)*/))?)?\s*(?P<not>!)?\s*"
    r"(?P<name>[pdq]|s(?P<mark>.)(?P<what>(?:\\.|(?!(?P=mark)).)*)(?P=mark)"
    r"(?P<new>(?:\\.|(?!(?P=mark)).)*)(?P=mark)(?P<flags>[gpI]*))\s*(?:;|\n|$)"
)


@tool(TOOLS, "sed")
async def sed(process: Process, args: Sequence[str]) -> int:
    found, rest = options("sed", args, "nEre:i", ["quiet", "silent", "regexp-extended"])
    scripts = found.get("-e") or rest[:1]
    rest = rest if "-e" in found else rest[1:]
    if not scripts:
        raise Failure("Usage: sed [OPTION]... {script-only-if-no-other-script} [input-file]...")
    extended = given(found, "-E", "-r", "--regexp-extended")
    text = "\n".join(scripts).strip()
    commands, position = [], 0
    while position < len(text):
        match = SED_COMMAND.match(text, position)
        if match is None or match.end() == position:
            raise Failure(f"sed: -e expression #1, char {position + 1}: unknown command: `{text[position]}'")
        commands.append(match)
        position = match.end()
    contents, status = await inputs(process, "sed", rest)
    quiet = given(found, "-n", "--quiet", "--silent")
    for path, data in contents:
        edited = _sed_run(commands, lines_of(data), quiet=quiet, extended=extended)
        if given(found, "-i"):
            process.machine.files.write(full(process, path), edited)
        else:
            await process.stdout.write(edited)
    return 2 if status else 0


def _sed_run(commands: list[re.Match[str]], lines: list[bytes], *, quiet: bool, extended: bool) -> bytes:
    out = b""
    inside: dict[int, bool] = {}

    def hits(address: str, number: int, line: str) -> bool:
        if address.isdigit():
            return number == int(address)
        if address == "$":
            return number == len(lines)
        return re.search(_basic_to_python(address[1:-1], extended=extended), line) is not None

    for number, raw in enumerate(lines, 1):
        line = raw.decode("utf-8", "surrogateescape").removesuffix("\n")
        deleted = stop = False
        for index, command in enumerate(commands):
            selected = command["first"] is None or hits(command["first"], number, line)
            if command["last"] is not None:
                selected = selected or inside.get(index, False)
                inside[index] = selected and not hits(command["last"], number, line)
            if selected == bool(command["not"]):
                continue
            if command["name"] == "d":
                deleted = True
                break
            if command["name"] == "q":
                stop = True
            elif command["name"] == "p":
                out += line.encode("utf-8", "surrogateescape") + b"\n"
            else:
                pattern = _basic_to_python(command["what"], extended=extended)
                new = re.sub(r"(?<!\\)&", r"\\g<0>", command["new"]).replace(r"\&", "&").replace(r"\/", "/")
                line, changes = re.subn(pattern, new, line, count=0 if "g" in command["flags"] else 1)
                if changes and "p" in command["flags"]:
                    out += line.encode("utf-8", "surrogateescape") + b"\n"
        if not quiet and not deleted:
            out += line.encode("utf-8", "surrogateescape") + (b"\n" if raw.endswith(b"\n") else b"")
        if stop:
            break
    return out


@tool(TOOLS, "seq")
async def seq(process: Process, args: Sequence[str]) -> int:
    found, rest = options("seq", args, "ws:", gnu=False)
    need_operand("seq", rest)
    try:
        numbers = [int(text) for text in rest]
    except ValueError:
        bad = next(text for text in rest if not re.fullmatch(r"-?\d+", text))
        raise Failure(
            f"seq: invalid floating point argument: '{bad}'\nTry 'seq --help' for more information."
        ) from None
    first, step, final = {1: (1, 1, numbers[0]), 2: (numbers[0], 1, numbers[-1])}.get(
        len(numbers), (numbers[0], numbers[1] if len(numbers) > 1 else 1, numbers[-1])
    )
    items = [str(n) for n in range(first, final + (1 if step > 0 else -1), step)]
    width = max(map(len, items), default=0) if given(found, "-w") else 0
    glue = last(found, "-s") or "\n"
    await process.say(glue.join(item.zfill(width) for item in items) + ("\n" if items else ""))
    return 0
