"""The files that the cases download, and an HTTP server that also fails in the ways real ones do."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import struct
import tarfile
from dataclasses import dataclass
from types import TracebackType

import zstandard
from aiohttp import web

TREE = {
    "etc/passwd": b"root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n",
    "etc/shadow": b"root:*:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n",
    "etc/group": b"root:x:0:\n",
    "etc/hostname": b"image\n",
    "sbin/init": b"#!/bin/sh\n",
    "usr/share/ballast": bytes(range(256)) * 4096,
}
DIRECTORIES = ("etc", "etc/ssh", "root", "sbin", "usr", "usr/share", "var", "run", "tmp", "proc", "dev")


def root_archive(top: str = "", without: str = "") -> bytes:
    """A tree small enough to unpack in no time, with all that `chpasswd -R` needs; below `top`, `without` one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in DIRECTORIES:
            info = tarfile.TarInfo(top + name)
            info.type, info.mode = tarfile.DIRTYPE, 0o700 if name == "root" else 0o755
            tar.addfile(info)
        for name, content in TREE.items():
            if name == without:
                continue
            info = tarfile.TarInfo(top + name)
            info.size, info.mode = len(content), 0o640 if name == "etc/shadow" else 0o644
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo(f"{top}etc/mtab")
        link.type, link.linkname = tarfile.SYMTYPE, "/proc/self/mounts"
        tar.addfile(link)
    return buffer.getvalue()


def halting_bzimage() -> bytes:
    """A Linux/x86 boot image whose real-mode code halts: a guest that runs and needs nothing."""
    setup = bytearray(1024)
    setup[0x1F1] = 1  # setup sectors after the first
    struct.pack_into("<I", setup, 0x1F4, 32)  # size of the protected-mode part, in paragraphs
    struct.pack_into("<H", setup, 0x1FE, 0xAA55)
    setup[0x200:0x202] = b"\xeb\x66"  # entry: jump over the header, to 0x268
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, 0x020C)
    setup[0x211] = 1  # LOADED_HIGH
    struct.pack_into("<I", setup, 0x214, 0x100000)
    struct.pack_into("<I", setup, 0x22C, 0x7FFFFFFF)  # initrd_addr_max
    setup[0x268:0x26C] = b"\xfa\xf4\xeb\xfd"  # cli; hlt; jmp back
    return bytes(setup) + b"\xf4" * 512


def halting_elf() -> bytes:
    """A Xen PVH kernel (an ELF file with the PHYS32_ENTRY note) that halts.

    It waits for interrupts that never come (sti; hlt; jmp back): Xen takes `cli; hlt` for a power-off.
    """
    base, code = 0x100000, b"\xfb\xf4\xeb\xfd"
    note = struct.pack("<III4sI", 4, 4, 18, b"Xen\0", base + 0x1000)
    header = struct.pack(
        "<16sHHIIIIIHHHHHH",
        b"\x7fELF\x01\x01\x01" + bytes(9),
        *(2, 3, 1, base + 0x1000, 52, 0, 0, 52, 32, 2, 0, 0, 0),
    )
    load = struct.pack("<8I", 1, 0, base, base, 0x1000 + len(code), 0x1000 + len(code), 7, 0x1000)
    notes = struct.pack("<8I", 4, 116, base + 116, base + 116, len(note), len(note), 4, 4)
    return (header + load + notes + note).ljust(0x1000, b"\0") + code


def the_files() -> dict[str, bytes]:
    """Name to content of everything on offer; the same in every run."""
    tar = root_archive()
    return {
        "root.tar": tar,
        "root.tar.gz": gzip.compress(tar, mtime=0),
        "root.tar.xz": lzma.compress(tar),
        "root.tar.zst": zstandard.ZstdCompressor(level=3).compress(tar),
        "no-init.tar": root_archive(without="sbin/init"),
        "nested.tar": root_archive(top="image/"),
        "no-archive": b"this is not an archive\n" * 100,
        "kernel-kvm": halting_bzimage(),
        "kernel-xen": halting_elf(),
    }


@dataclass(frozen=True)
class Offer:
    """What is served, and the address under which the host under test finds it."""

    base: str
    contents: dict[str, bytes]

    def url(self, name: str) -> str:
        return f"{self.base}/{name}"

    def sha256(self, name: str) -> str:
        return hashlib.sha256(self.contents[name]).hexdigest()


class Server:
    """Serves the files on `address`; `async with Server(address) as offer`.

    Besides each file NAME: `missing/NAME` is 404, `broken/NAME` 500, `cut/NAME` ends half way,
    `whole/NAME` knows no ranges, `other/NAME` has as many bytes but other ones.
    """

    def __init__(self, address: str = "127.0.0.1", seen_as: str | None = None) -> None:
        self._address, self._seen_as = address, seen_as or address
        self._contents = the_files()

    async def __aenter__(self) -> Offer:
        app = web.Application()
        app.router.add_get("/{how:missing|broken|cut|whole|other}/{name}", self._wrong)
        app.router.add_get("/{name}", self._file)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._address, 0)
        await site.start()
        port = self._runner.addresses[0][1]
        return Offer(f"http://{self._seen_as}:{port}", self._contents)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _file(self, request: web.Request) -> web.StreamResponse:
        content = self._contents.get(request.match_info["name"])
        if content is None:
            raise web.HTTPNotFound
        start = request.http_range.start or 0
        if not start:
            return web.Response(body=content)
        if start >= len(content):
            raise web.HTTPRequestRangeNotSatisfiable(headers={"Content-Range": f"bytes */{len(content)}"})
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        return web.Response(status=206, body=content[start:], headers=headers)

    async def _wrong(self, request: web.Request) -> web.StreamResponse:
        how, content = request.match_info["how"], self._contents[request.match_info["name"]]
        if how == "missing":
            raise web.HTTPNotFound
        if how == "broken":
            raise web.HTTPInternalServerError
        if how == "whole":
            return web.Response(body=content)
        if how == "other":
            return web.Response(body=bytes(b ^ 1 for b in content))
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        await response.prepare(request)
        await response.write(content[: len(content) // 2])
        assert request.transport is not None
        request.transport.close()
        return response
