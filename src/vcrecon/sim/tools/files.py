"""File tools of a simulated host (coreutils 9.1): ls, mkdir, rm, mv, cp, ln, chmod, stat, df and so on."""

# ruff: noqa: RUF001 - the quotes are those of coreutils' messages

from __future__ import annotations

import errno
import os
import posixpath
import re
import stat as stat_module
from collections.abc import Sequence

from vcrecon.sim.files import Device, Directory, File, Link, Node, clone
from vcrecon.sim.process import Process, Tool
from vcrecon.sim.tools._common import Failure, full, given, last, need_operand, options, reason, tool

TOOLS: dict[str, Tool] = {}


def _size(node: Node) -> int:
    if isinstance(node, File):
        return len(node.content())
    return len(node.target) if isinstance(node, Link) else 4096 if isinstance(node, Directory) else 0


@tool(TOOLS, "ls", status=2)
async def ls(process: Process, args: Sequence[str]) -> int:
    found, rest = options("ls", args, "1aAdlLF", status=2)
    files = process.machine.files
    status = 0
    paths = rest or ["."]
    single: list[str] = []
    listed: list[str] = []
    for path in paths:
        place = full(process, path)
        try:
            node = files.node(place, follow=not given(found, "-d", "-l"))
        except OSError as error:
            await process.fail(f"ls: cannot access '{path}': {reason(error)}")
            status = 2
            continue
        (listed if isinstance(node, Directory) and not given(found, "-d") else single).append(path)
    for path in sorted(single):
        await process.say(_ls_line(process, full(process, path), path, long=given(found, "-l")))
    for index, path in enumerate(sorted(listed)):
        if len(paths) > 1:
            await process.say(("\n" if index or single else "") + f"{path}:\n")
        names = files.listdir(full(process, path))
        if not given(found, "-a", "-A"):
            names = [name for name in names if not name.startswith(".")]
        elif given(found, "-a"):
            names = [".", "..", *names]
        for name in names:
            place = posixpath.join(full(process, path), name)
            await process.say(_ls_line(process, place, name, long=given(found, "-l")))
    return status


def _ls_line(process: Process, path: str, shown: str, *, long: bool) -> str:
    if not long:
        return shown + "\n"
    files = process.machine.files
    node = files.node(path, follow=False)
    mode = stat_module.filemode(files.mode(path, follow=False))
    arrow = f" -> {node.target}" if isinstance(node, Link) else ""
    return f"{mode} 1 {_user(node.uid)} {_user(node.gid)} {_size(node)} Jan  1 00:00 {shown}{arrow}\n"


def _user(number: int) -> str:
    return "root" if number == 0 else str(number)


@tool(TOOLS, "mkdir")
async def mkdir(process: Process, args: Sequence[str]) -> int:
    found, rest = options("mkdir", args, "pm:v", ["parents", "mode="])
    need_operand("mkdir", rest)
    mode = int(last(found, "-m", "--mode") or "755", 8)
    parents = given(found, "-p", "--parents")
    status = 0
    for path in rest:
        try:
            existed = process.machine.files.exists(full(process, path))
            process.machine.files.mkdir(full(process, path), parents=parents, mode=mode)
            if given(found, "-m", "--mode") and not existed:
                process.machine.files.node(full(process, path)).mode = mode
        except OSError as error:
            status = await process.fail(f"mkdir: cannot create directory ‘{path}’: {reason(error)}")
    return status


@tool(TOOLS, "rmdir")
async def rmdir(process: Process, args: Sequence[str]) -> int:
    _, rest = options("rmdir", args, "p", ["ignore-fail-on-non-empty"])
    need_operand("rmdir", rest)
    status = 0
    for path in rest:
        try:
            if not isinstance(process.machine.files.node(full(process, path), follow=False), Directory):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            process.machine.files.remove(full(process, path))
        except OSError as error:
            status = await process.fail(f"rmdir: failed to remove '{path}': {reason(error)}")
    return status


@tool(TOOLS, "rm")
async def rm(process: Process, args: Sequence[str]) -> int:
    found, rest = options("rm", args, "frRvd", ["force", "recursive", "one-file-system", "dir"])
    force, recursive = given(found, "-f", "--force"), given(found, "-r", "-R", "--recursive")
    if not force:
        need_operand("rm", rest)
    status = 0
    for path in rest:
        place = full(process, path)
        try:
            node = process.machine.files.node(place, follow=False)
            if isinstance(node, Directory) and not recursive:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            process.machine.files.remove(place, recursive=recursive)
        except OSError as error:
            if not (force and isinstance(error, FileNotFoundError)):
                status = await process.fail(f"rm: cannot remove '{path}': {reason(error)}")
    return status


def _into(process: Process, source: str, target: str) -> str:
    """The path a file gets: inside `target` when that is a directory."""
    place = full(process, target)
    if process.machine.files.is_dir(place):
        return posixpath.join(place, posixpath.basename(source.rstrip("/")))
    return place


@tool(TOOLS, "mv")
async def mv(process: Process, args: Sequence[str]) -> int:
    found, rest = options("mv", args, "fnTv", ["force", "no-target-directory"])
    need_operand("mv", rest)
    if len(rest) < 2:
        raise Failure(f"mv: missing destination file operand after '{rest[0]}'\nTry 'mv --help' for more information.")
    files = process.machine.files
    status = 0
    for source in rest[:-1]:
        plain = given(found, "-T", "--no-target-directory")
        target = full(process, rest[-1]) if plain else _into(process, source, rest[-1])
        try:
            files.rename(full(process, source), target)
        except FileNotFoundError as error:
            if files.exists(full(process, source)):
                message = f"mv: cannot move '{source}' to '{rest[-1]}': {reason(error)}"
            else:
                message = f"mv: cannot stat '{source}': {reason(error)}"
            status = await process.fail(message)
        except OSError as error:
            if error.errno != errno.EXDEV:
                status = await process.fail(f"mv: cannot move '{source}' to '{rest[-1]}': {reason(error)}")
                continue
            if files.exists(target):
                files.remove(target, recursive=True)
            _copy(process, files.node(full(process, source), follow=False), target)
            files.remove(full(process, source), recursive=True)
    return status


def _copy(process: Process, node: Node, target: str) -> None:
    """Copy a tree to a free path, entry by entry, so that space is accounted for."""
    files = process.machine.files
    if isinstance(node, Directory):
        files.mkdir(target, mode=node.mode)
        for name, child in sorted(node.entries.items()):
            _copy(process, child, posixpath.join(target, name))
    else:
        files.add(target, clone(node))


@tool(TOOLS, "cp")
async def cp(process: Process, args: Sequence[str]) -> int:
    found, rest = options("cp", args, "arRpfTdv", ["archive", "recursive", "reflink=", "preserve=", "sparse="])
    need_operand("cp", rest)
    if len(rest) < 2:
        raise Failure(f"cp: missing destination file operand after '{rest[0]}'\nTry 'cp --help' for more information.")
    files = process.machine.files
    recursive = given(found, "-a", "-r", "-R", "--archive", "--recursive")
    status = 0
    for source in rest[:-1]:
        place = full(process, source)
        target = full(process, rest[-1]) if given(found, "-T") else _into(process, source, rest[-1])
        try:
            node = files.node(place, follow=not given(found, "-a", "-d"))
        except OSError as error:
            status = await process.fail(f"cp: cannot stat '{source}': {reason(error)}")
            continue
        if isinstance(node, Directory) and not recursive:
            status = await process.fail(f"cp: -r not specified; omitting directory '{source}'")
            continue
        if isinstance(node, File):
            files.write(target, node.content(), mode=node.mode)
        elif isinstance(node, Device):
            files.write(target, files.read(place))
        else:
            _copy(process, node, target)
    return status


@tool(TOOLS, "ln")
async def ln(process: Process, args: Sequence[str]) -> int:
    found, rest = options("ln", args, "sfnTr", ["symbolic", "force", "no-dereference"])
    need_operand("ln", rest)
    files = process.machine.files
    source, target = rest[0], rest[1] if len(rest) > 1 else posixpath.basename(rest[0])
    place = full(process, target)
    plain = given(found, "-T") or (given(found, "-n", "--no-dereference") and files.is_link(place))
    place = place if plain else _into(process, source, target)
    if given(found, "-f", "--force") and (files.exists(place) or files.is_link(place)):
        files.remove(place)
    try:
        if given(found, "-s", "--symbolic"):
            files.symlink(source, place)
        else:
            files.add(place, files.node(full(process, source)))
    except OSError as error:
        kind = "symbolic" if given(found, "-s", "--symbolic") else "hard"
        return await process.fail(f"ln: failed to create {kind} link '{target}': {reason(error)}")
    return 0


def _each(process: Process, paths: Sequence[str], *, recursive: bool) -> list[Node]:
    nodes: list[Node] = []

    def below(node: Node) -> None:
        nodes.append(node)
        if recursive and isinstance(node, Directory):
            for child in node.entries.values():
                below(child)

    for path in paths:
        below(process.machine.files.node(full(process, path)))
    return nodes


def _new_mode(text: str, node: Node) -> int:
    if re.fullmatch(r"[0-7]{1,4}", text):
        return int(text, 8)
    match = re.fullmatch(r"([ugoa]*)([-+=])([rwxXst]*)", text)
    if match is None:
        raise Failure(f"chmod: invalid mode: ‘{text}’\nTry 'chmod --help' for more information.")
    who = match[1].replace("a", "ugo") or "ugo"
    runs = isinstance(node, Directory) or node.mode & 0o111
    bits = sum({"r": 4, "w": 2, "x": 1, "X": 1 if runs else 0}.get(c, 0) for c in match[3])
    mask = sum(bits << {"u": 6, "g": 3, "o": 0}[c] for c in set(who))
    whole = sum(7 << {"u": 6, "g": 3, "o": 0}[c] for c in set(who))
    if match[2] == "+":
        return node.mode | mask
    return node.mode & ~mask if match[2] == "-" else (node.mode & ~whole) | mask


@tool(TOOLS, "chmod")
async def chmod(process: Process, args: Sequence[str]) -> int:
    found, rest = options("chmod", args, "Rf", gnu=False)
    need_operand("chmod", rest)
    for path in rest[1:]:
        try:
            for node in _each(process, [path], recursive=given(found, "-R")):
                node.mode = _new_mode(rest[0], node)
        except OSError as error:
            return await process.fail(f"chmod: cannot access '{path}': {reason(error)}")
    return 0


@tool(TOOLS, "chown")
async def chown(process: Process, args: Sequence[str]) -> int:
    found, rest = options("chown", args, "Rh", ["reference="])
    need_operand("chown", rest)
    owner, _, group = rest[0].partition(":")
    numbers = []
    for text in (owner, group):
        if text not in ("", "root") and not text.isdigit():
            raise Failure(f"chown: invalid {'user' if text == owner else 'group'}: ‘{rest[0]}’")
        numbers.append(None if text == "" else 0 if text == "root" else int(text))
    for path in rest[1:]:
        try:
            for node in _each(process, [path], recursive=given(found, "-R")):
                node.uid = numbers[0] if numbers[0] is not None else node.uid
                node.gid = numbers[1] if numbers[1] is not None else node.gid
        except OSError as error:
            return await process.fail(f"chown: cannot access '{path}': {reason(error)}")
    return 0


@tool(TOOLS, "touch")
async def touch(process: Process, args: Sequence[str]) -> int:
    found, rest = options("touch", args, "cd:t:", ["no-create", "date="])
    need_operand("touch", rest)
    files = process.machine.files
    when = last(found, "-d", "--date")
    stamp = int(when[1:]) if when and re.fullmatch(r"@\d+", when) else int(process.machine.timing.wall())
    for path in rest:
        place = full(process, path)
        try:
            if not files.exists(place):
                if given(found, "-c", "--no-create"):
                    continue
                files.write(place, b"")
            files.node(place).mtime = stamp
        except OSError as error:
            return await process.fail(f"touch: cannot touch '{path}': {reason(error)}")
    return 0


@tool(TOOLS, "stat")
async def stat(process: Process, args: Sequence[str]) -> int:
    found, rest = options("stat", args, "Lc:f", ["format=", "printf=", "dereference"])
    need_operand("stat", rest)
    form = last(found, "-c", "--format", "--printf") or "%n"
    files = process.machine.files
    status = 0
    for path in rest:
        place = full(process, path)
        follow = given(found, "-L", "--dereference")
        try:
            node = files.node(place, follow=follow)
        except OSError as error:
            status = await process.fail(f"stat: cannot statx '{path}': {reason(error)}")
            continue
        mode = files.mode(place, follow=follow)
        kinds = {Directory: "directory", Link: "symbolic link"}
        kind = kinds.get(type(node), "regular file" if _size(node) else "regular empty file")
        if isinstance(node, Device):
            kind = "block special file" if node.device is not None else "character special file"
        values = {
            "a": f"{stat_module.S_IMODE(mode):o}",
            "A": stat_module.filemode(mode),
            "n": path,
            "s": str(_size(node)),
            "u": str(node.uid),
            "g": str(node.gid),
            "U": _user(node.uid),
            "G": _user(node.gid),
            "Y": str(node.mtime),
            "F": kind,
            "f": f"{mode:x}",
            "h": "1",
            "%": "%",
        }
        text = re.sub(r"%(.)", lambda m, v=values: v.get(m[1], "?"), form)  # type: ignore[misc]
        if given(found, "--printf"):
            await process.say(text.replace("\\n", "\n").replace("\\t", "\t"))
        else:
            await process.say(text + "\n")
    return status


@tool(TOOLS, "readlink", "realpath")
async def readlink(process: Process, args: Sequence[str]) -> int:
    name = posixpath.basename(process.argv[0])
    found, rest = options(name, args, "fenmq")
    need_operand(name, rest)
    files = process.machine.files
    for path in rest:
        place = full(process, path)
        end = "" if given(found, "-n") else "\n"
        if given(found, "-f", "-e", "-m") or name == "realpath":
            try:
                if given(found, "-e"):
                    files.node(place)
                await process.say(files.realpath(place) + end)
            except OSError as error:
                if name == "readlink":
                    return 1
                raise Failure(f"realpath: {path}: {reason(error)}") from None
        elif files.is_link(place):
            node = files.node(place, follow=False)
            assert isinstance(node, Link)
            await process.say(node.target + end)
        else:
            return 1
    return 0


@tool(TOOLS, "mktemp")
async def mktemp(process: Process, args: Sequence[str]) -> int:
    found, rest = options("mktemp", args, "dp:tq", ["directory", "tmpdir="])
    files = process.machine.files
    template = rest[0] if rest else posixpath.join("/tmp", "tmp.XXXXXXXXXX")  # noqa: S108
    above = last(found, "-p", "--tmpdir")
    if above:
        template = posixpath.join(above, template.rsplit("/", 1)[-1])
    match = re.search(r"X{3,}$", template)
    if match is None:
        raise Failure(f"mktemp: too few X's in template ‘{template}’")
    number = 0
    while True:
        suffix = f"{number:0{len(match[0])}d}"
        place = full(process, template[: match.start()] + suffix)
        if not files.exists(place):
            break
        number += 1
    what = "directory" if given(found, "-d", "--directory") else "file"
    try:
        if what == "directory":
            files.mkdir(place, mode=0o700)
        else:
            files.write(place, b"", mode=0o600)
    except OSError as error:
        raise Failure(f"mktemp: failed to create {what} via template ‘{template}’: {reason(error)}") from None
    # As it was asked for: a relative template gives a relative name.
    await process.say(template[: match.start()] + suffix + "\n")
    return 0


@tool(TOOLS, "basename")
async def basename(process: Process, args: Sequence[str]) -> int:
    need_operand("basename", args)
    name = posixpath.basename(args[0].rstrip("/")) or "/"
    if len(args) > 1 and name != args[1]:
        name = name.removesuffix(args[1])
    await process.say(name + "\n")
    return 0


@tool(TOOLS, "dirname")
async def dirname(process: Process, args: Sequence[str]) -> int:
    need_operand("dirname", args)
    for path in args:
        await process.say((posixpath.dirname(path.rstrip("/")) or ("/" if path.startswith("/") else ".")) + "\n")
    return 0


@tool(TOOLS, "df")
async def df(process: Process, args: Sequence[str]) -> int:
    found, rest = options("df", args, "B:kTPh", ["output=", "block-size="])
    unit = {"1": 1, "1K": 1024, "M": 1 << 20, "1M": 1 << 20, "G": 1 << 30}.get(
        last(found, "-B", "--block-size") or "1K"
    )
    if unit is None:
        raise Failure(f"df: invalid -B argument '{last(found, '-B')}'")
    header = "1B-blocks" if unit == 1 else "1K-blocks" if unit == 1024 else f"{unit >> 20}M-blocks"
    titles = {
        "source": "Filesystem",
        "size": header,
        "used": "Used",
        "avail": "Avail",
        "pcent": "Use%",
        "target": "Mounted on",
        "fstype": "Type",
    }
    columns = (last(found, "--output") or "source,size,used,avail,pcent,target").split(",")
    if any(column not in titles for column in columns):
        bad = next(column for column in columns if column not in titles)
        raise Failure(f"df: option --output: field ‘{bad}’ unknown\nTry 'df --help' for more information.")
    files = process.machine.files
    mounts = [files.mount_of(full(process, path)) for path in rest] if rest else list(files.mounts)
    for path in rest:
        if not files.exists(full(process, path)):
            raise Failure(f"df: {path}: No such file or directory")
    if not given(found, "--output"):
        titles["avail"] = "Available"
    rows = [[titles[column] for column in columns]]
    for mount in mounts:
        fs = mount.filesystem
        avail = max(0, fs.capacity_bytes - fs.used_bytes)
        percent = f"{-(-100 * fs.used_bytes // max(1, fs.used_bytes + avail))}%"
        values = {
            "source": mount.source,
            "size": str(fs.capacity_bytes // unit),
            "used": str(fs.used_bytes // unit),
            "avail": str(avail // unit),
            "pcent": percent,
            "target": mount.target,
            "fstype": fs.kind,
        }
        rows.append([values[column] for column in columns])
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    for row in rows:
        cells = [
            cell.ljust(width) if column in ("source", "target", "fstype") else cell.rjust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        await process.say(" ".join(cells).rstrip() + "\n")
    return 0


@tool(TOOLS, "sync")
async def sync(process: Process, args: Sequence[str]) -> int:
    _, rest = options("sync", args, "df")
    for path in rest:
        if not process.machine.files.exists(full(process, path)):
            return await process.fail(f"sync: error opening '{path}': No such file or directory")
    return 0
