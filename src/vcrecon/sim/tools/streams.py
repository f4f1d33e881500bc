"""Bytes in motion on a simulated host: dd, zstd, gzip and tar, working on real frames and archives."""

# ruff: noqa: RUF001 - the quotes are those of coreutils' messages
from __future__ import annotations

import asyncio
import bz2
import gzip as gzip_module
import io
import lzma
import posixpath
import re
import tarfile
import zlib
from collections.abc import AsyncIterator, Sequence
from fnmatch import fnmatchcase

import zstandard

from vcrecon.sim.files import Directory, File, Link, Node
from vcrecon.sim.lvm import Volume
from vcrecon.sim.process import Process, Tool
from vcrecon.sim.tools._common import CHUNK_BYTES, Failure, chunks, full, given, last, options, reason, tool

TOOLS: dict[str, Tool] = {}
SUFFIXES = {
    "c": 1,
    "w": 2,
    "b": 512,
    "K": 1 << 10,
    "k": 1 << 10,
    "M": 1 << 20,
    "G": 1 << 30,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "kB": 1000,
    "MB": 10**6,
    "GB": 10**9,
    "": 1,
}


def _number(text: str) -> int:
    match = re.fullmatch(r"(\d+)(\w*)", text)
    if match is None or match[2] not in SUFFIXES:
        raise Failure(f"dd: invalid number: ‘{text}’")
    return int(match[1]) * SUFFIXES[match[2]]


@tool(TOOLS, "dd")
async def dd(process: Process, args: Sequence[str]) -> int:
    settings = {}
    for word in args:
        key, equals, value = word.partition("=")
        if not equals or key not in (
            "if",
            "of",
            "bs",
            "count",
            "conv",
            "iflag",
            "oflag",
            "status",
            "skip",
            "seek",
            "ibs",
            "obs",
        ):
            raise Failure(f"dd: unrecognized operand ‘{word}’\nTry 'dd --help' for more information.")
        settings[key] = value
    block = _number(settings.get("bs", "512"))
    limit = _number(settings["count"]) * block if "count" in settings else None
    skip = _number(settings.get("skip", "0")) * block
    if block == 0:
        raise Failure("dd: invalid number: ‘0’")
    files = process.machine.files
    source, target = settings.get("if", "-"), settings.get("of")
    if source == "/dev/zero" and limit is None:
        if target is None or process.machine.volume_at(full(process, target)) is None:
            # Not written for real: the simulation holds every byte of a file in memory.
            raise Failure(f"dd: error writing '{target or 'standard output'}': No space left on device")
        limit = process.machine.volume_at(full(process, target)).size_bytes  # type: ignore[union-attr]
    try:
        if source != "-" and source != "/dev/zero":
            files.node(full(process, source))
    except OSError as error:
        raise Failure(f"dd: failed to open '{source}': {reason(error)}") from None
    place = full(process, target) if target is not None else None
    if place is not None:
        await _open_target(process, place, target or "", settings.get("conv", ""))
    total = 0

    async def feed() -> AsyncIterator[bytes]:
        if source == "/dev/zero":
            yield b"\0" * (limit or 0)
            return
        async for chunk in chunks(process, source):
            yield chunk

    skipped = 0
    try:
        async for piece in feed():
            drop = min(skip - skipped, len(piece))
            skipped += drop
            data = piece[drop:] if limit is None else piece[drop : drop + limit - total]
            if place is None:
                await process.stdout.write(data)
            elif data:
                files.write(place, data, append=True)
            total += len(data)
            if limit is not None and total >= limit:
                break
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Failure(f"dd: error writing '{target or 'standard output'}': {reason(error)}") from None
    await process.machine.work("copy")
    if settings.get("status") != "none":
        records = f"{total // block}+{1 if total % block else 0} records"
        await process.fail(f"{records} in\n{records} out\n{total} bytes copied", 0)
    return 0


async def _open_target(process: Process, place: str, shown: str, conversions: str) -> None:
    files = process.machine.files
    volume = process.machine.volume_at(place)
    if volume is not None and volume.mounted_at:
        raise Failure(f"dd: failed to open '{shown}': Device or resource busy")
    try:
        if volume is not None:
            files.write(place, b"")  # the device is overwritten from its start
        elif "notrunc" not in conversions or not files.exists(place):
            # Also in /dev: a device that is not there becomes a plain file in memory.
            if "nocreat" in conversions and not files.exists(place):
                raise Failure(f"dd: failed to open '{shown}': No such file or directory")
            files.write(place, b"")
    except OSError as error:
        raise Failure(f"dd: failed to open '{shown}': {reason(error)}") from None


# -- compression --------------------------------------------------------------------------------------


@tool(TOOLS, "zstd", "unzstd", "zstdcat")
async def zstd(process: Process, args: Sequence[str]) -> int:
    name = posixpath.basename(process.argv[0])
    args = [word for word in args if not re.fullmatch(r"-(\d+|T\d+)|--fast(=\d+)?|--rm|--no-progress", word)]
    found, rest = options("zstd", args, "cdqvfko:tT:", ["stdout", "decompress", "quiet", "force", "threads=", "long="])
    decode = given(found, "-d", "--decompress", "-t") or name != "zstd"
    source = rest[0] if rest else "-"
    try:
        feed = chunks(process, source)
        out = last(found, "-o")
        if out is None and source != "-" and not given(found, "-c", "--stdout") and name != "zstdcat":
            out = source.removesuffix(".zst") if decode else source + ".zst"
        if out is not None:
            process.machine.files.write(full(process, out), b"")
        worker = zstandard.ZstdDecompressor().decompressobj() if decode else zstandard.ZstdCompressor(1).compressobj()
        seen = b""
        async for chunk in feed:
            seen = seen or chunk[:4]
            data = worker.decompress(chunk) if decode else worker.compress(chunk)  # type: ignore[union-attr]
            await _emit(process, out, data)
        if decode:
            if not worker.eof:  # type: ignore[union-attr]
                what = "unexpected end of file" if not seen else "premature frame end"
                raise Failure(
                    f"zstd: {_shown(source)}: {what}" if not seen else f"{_shown(source)} : Read error (39) : {what} "
                )
        else:
            await _emit(process, out, worker.flush())
    except zstandard.ZstdError:
        what = (
            "unsupported format"
            if seen != b"\x28\xb5\x2f\xfd"
            else "Decoding error (36) : Restored data doesn't match checksum"
        )
        raise Failure(f"zstd: {_shown(source)}: {what} ") from None
    except FileNotFoundError:
        raise Failure(f"zstd: can't stat {source} : No such file or directory -- ignored ") from None
    return 0


def _shown(source: str) -> str:
    return "/*stdin*\\" if source == "-" else source


async def _emit(process: Process, out: str | None, data: bytes) -> None:
    if data and out is not None:
        process.machine.files.write(full(process, out), data, append=True)
    elif data:
        await process.stdout.write(data)


@tool(TOOLS, "gzip", "gunzip", "zcat")
async def gzip(process: Process, args: Sequence[str]) -> int:
    name = posixpath.basename(process.argv[0])
    args = [word for word in args if not re.fullmatch(r"-\d", word)]
    found, rest = options("gzip", args, "cdfknqt")
    decode = given(found, "-d", "-t") or name != "gzip"
    source = rest[0] if rest else "-"
    out = None
    if source != "-" and not given(found, "-c") and name != "zcat":
        out = source.removesuffix(".gz") if decode else source + ".gz"
        process.machine.files.write(full(process, out), b"")
    worker = zlib.decompressobj(31) if decode else zlib.compressobj(1, zlib.DEFLATED, 31)
    try:
        async for chunk in chunks(process, source):
            data = worker.decompress(chunk) if decode else worker.compress(chunk)  # type: ignore[union-attr]
            await _emit(process, out, data)
    except zlib.error:
        raise Failure(f"\ngzip: {'stdin' if source == '-' else source}: not in gzip format") from None
    await _emit(process, out, worker.flush())
    if decode and not worker.eof:  # type: ignore[union-attr]
        raise Failure(f"\ngzip: {'stdin' if source == '-' else source}: unexpected end of file")
    if out is not None and not given(found, "-k"):
        process.machine.files.remove(full(process, source))
    return 0


# -- tar ----------------------------------------------------------------------------------------------

TAR_LONG = [
    "extract",
    "create",
    "list",
    "file=",
    "directory=",
    "zstd",
    "gzip",
    "xz",
    "bzip2",
    "numeric-owner",
    "xattrs",
    "xattrs-include=",
    "acls",
    "selinux",
    "same-owner",
    "no-same-owner",
    "preserve-permissions",
    "same-permissions",
    "exclude=",
    "sparse",
    "one-file-system",
    "warning=",
    "strip-components=",
    "sort=",
    "mtime=",
    "owner=",
    "group=",
    "totals",
    "overwrite",
    "keep-directory-symlink",
    "use-compress-program=",
    "verbose",
]
TAR_HINT = "\nTry 'tar --help' or 'tar --usage' for more information."
TAR_FAILED = "tar: Exiting with failure status due to previous errors"
TAR_EXIT = "tar: Error is not recoverable: exiting now"


@tool(TOOLS, "tar", status=2)
async def tar(process: Process, args: Sequence[str]) -> int:
    if args and not args[0].startswith("-"):
        args = [f"-{args[0]}", *args[1:]]  # the old bundled form: tar xf FILE
    try:
        found, rest = options("tar", args, "xctf:C:zJjpvSaI:kUO", TAR_LONG, status=64)
    except Failure as failure:
        raise Failure(failure.message.split("\n")[0] + TAR_HINT, failure.status) from None
    archive = last(found, "-f", "--file") or "-"
    folder = full(process, last(found, "-C", "--directory") or process.env.get("PWD", "/"))
    if not process.machine.files.is_dir(folder):
        raise Failure(f"tar: {folder}: Cannot open: No such file or directory\n{TAR_EXIT}", 2)
    if given(found, "-c", "--create"):
        return await _tar_create(process, found, rest, archive, folder)
    if not given(found, "-x", "--extract", "-t", "--list"):
        raise Failure("tar: You must specify one of the '-Acdtrux', '--delete' or '--test-label' options" + TAR_HINT, 2)
    try:
        data = b"".join([chunk async for chunk in chunks(process, archive)])
    except OSError as error:
        raise Failure(f"tar: {archive}: Cannot open: {reason(error)}\n{TAR_EXIT}", 2) from None
    plain = _plain(data, found)
    try:
        members = tarfile.open(fileobj=io.BytesIO(plain), mode="r:")  # noqa: SIM115 - closed below
    except tarfile.TarError:
        more = "tar: Skipping to next header\n" if len(plain) > tarfile.BLOCKSIZE else ""
        message = f"tar: This does not look like a tar archive\n{more}{TAR_FAILED}"
        raise Failure(message, 2) from None
    with members:
        if given(found, "-t", "--list"):
            for member in members:
                await process.say(member.name + ("/" if member.isdir() else "") + "\n")
            return 0
        await process.machine.work("extract")
        return await _tar_extract(process, found, members, folder, rest)


def _plain(data: bytes, found: dict[str, list[str]]) -> bytes:
    """The archive without its compression, which is recognised by its first bytes."""
    broken = "\ntar: Child returned status 1\n" + TAR_EXIT
    try:
        if data.startswith(b"\x28\xb5\x2f\xfd"):
            worker = zstandard.ZstdDecompressor().decompressobj()
            plain = worker.decompress(data)
            if not worker.eof:
                raise Failure("/*stdin*\\ : Read error (39) : premature frame end " + broken, 2)
            return plain
        if data.startswith(b"\x1f\x8b"):
            return gzip_module.decompress(data)
        if data.startswith(b"\xfd7zXZ\0"):
            return lzma.decompress(data)
        if data.startswith(b"BZh"):
            return bz2.decompress(data)
    except (zstandard.ZstdError, OSError, EOFError, zlib.error, lzma.LZMAError):
        raise Failure("zstd: /*stdin*\\: Decoding error (36) : Data corruption detected " + broken, 2) from None
    if given(found, "--zstd", "-z", "--gzip", "-J", "--xz"):
        raise Failure("\nzstd: /*stdin*\\: unsupported format " + broken, 2)
    return data


async def _tar_extract(
    process: Process,
    found: dict[str, list[str]],
    members: tarfile.TarFile,
    folder: str,
    wanted: Sequence[str],
) -> int:
    machine, files = process.machine, process.machine.files
    device = files.mount_of(folder).device
    if isinstance(device, Volume) and device.ever_booted:
        machine.audit("tar", device, folder)
    excluded = found.get("--exclude", [])
    strip = int(last(found, "--strip-components") or 0)
    own = not given(found, "--no-same-owner")
    status = 0
    try:
        for count, member in enumerate(members):
            name = "/".join([p for p in member.name.split("/") if p not in ("", ".", "..")][strip:])
            if any(fnmatchcase(name, pattern.removeprefix("./")) for pattern in excluded):
                continue
            if wanted and not any(name == w.strip("./") or name.startswith(w.strip("./") + "/") for w in wanted):
                continue
            try:
                _place_member(process, members, member, posixpath.join(folder, name), own=own)
            except OSError as error:
                status = await process.fail(f"tar: {member.name}: Cannot write: {reason(error)}", 2)
                if error.errno == 28:
                    break
            if count % 64 == 63:
                await asyncio.sleep(0)  # let others run
    except tarfile.TarError:
        raise Failure(f"tar: Unexpected EOF in archive\n{TAR_EXIT}", 2) from None
    if status:
        await process.fail(TAR_FAILED)
    return status


def _place_member(process: Process, members: tarfile.TarFile, member: tarfile.TarInfo, path: str, *, own: bool) -> None:
    files = process.machine.files
    above = posixpath.dirname(path)
    if not files.is_dir(above):
        files.mkdir(above, parents=True)
    if member.isdir():
        if files.exists(path) and not files.is_dir(path):
            files.remove(path)  # as GNU tar does: what the archive says is right
        files.mkdir(path, parents=True)
    elif member.issym():
        if files.exists(path) or files.is_link(path):
            files.remove(path, recursive=True)
        files.symlink(member.linkname, path)
    elif member.islnk():
        linked = posixpath.join(above, posixpath.relpath(member.linkname, posixpath.dirname(member.name) or "."))
        files.write(path, files.read(linked))
    elif member.isfile():
        body = members.extractfile(member)
        data = body.read() if body is not None else b""
        if len(data) < member.size:
            raise tarfile.ReadError("unexpected end of data")
        if files.is_link(path):
            files.remove(path)
        files.write(path, data)
    else:
        return  # device nodes and sockets: a guest's /dev is made by its kernel
    node = files.node(path, follow=False)
    node.mode = member.mode & 0o7777
    node.uid, node.gid = (member.uid, member.gid) if own else (0, 0)
    node.mtime = int(member.mtime)


async def _tar_create(
    process: Process, found: dict[str, list[str]], names: Sequence[str], archive: str, folder: str
) -> int:
    if not names:
        raise Failure("tar: Cowardly refusing to create an empty archive" + TAR_HINT, 2)
    files = process.machine.files
    buffer = io.BytesIO()
    status = 0
    excluded = found.get("--exclude", [])
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as out:

        def add(node: Node, name: str) -> None:
            if any(
                fnmatchcase(name, pattern) or fnmatchcase(posixpath.basename(name), pattern) for pattern in excluded
            ):
                return
            info = tarfile.TarInfo(name)
            info.mode, info.uid, info.gid, info.mtime = node.mode, node.uid, node.gid, node.mtime
            if isinstance(node, File):
                info.size = len(node.content())
                out.addfile(info, io.BytesIO(node.content()))
            elif isinstance(node, Link):
                info.type, info.linkname = tarfile.SYMTYPE, node.target
                out.addfile(info)
            elif isinstance(node, Directory):
                info.type = tarfile.DIRTYPE
                out.addfile(info)
                for child in sorted(node.entries):
                    add(node.entries[child], f"{name}/{child}")

        for name in names:
            try:
                add(files.node(posixpath.join(folder, name), follow=False), name)
            except OSError as error:
                status = await process.fail(f"tar: {name}: Cannot stat: {reason(error)}", 2)
    data = buffer.getvalue()
    if given(found, "--zstd") or (archive.endswith(".zst") and given(found, "-a")):
        data = zstandard.ZstdCompressor(3).compress(data)
    elif given(found, "-z", "--gzip"):
        data = gzip_module.compress(data, mtime=0)
    elif given(found, "-J", "--xz"):
        data = lzma.compress(data)
    if archive == "-":
        for start in range(0, len(data), CHUNK_BYTES):
            await process.stdout.write(data[start : start + CHUNK_BYTES])
    else:
        files.write(full(process, archive), data)
    if status:
        await process.fail(TAR_FAILED)
    return status
