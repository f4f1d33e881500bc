"""Small but real guest images and the HTTP server that offers them. Made and started by `sim.site`.

An image is a root file system of a few dozen files as a tar archive, with a stand-in kernel and initrd; the
same name gives the same bytes. The server speaks real HTTP with ranges, and can be slow or lie on purpose.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import lzma
import tarfile
from dataclasses import dataclass
from typing import Literal

import zstandard
from aiohttp import web

Part = Literal["root", "kernel", "initrd"]
_EPOCH_S = 1_700_000_000
_CHUNK_BYTES = 64 * 1024
_DIRECTORIES = [
    "bin",
    "boot",
    "dev",
    "etc",
    "etc/network",
    "etc/ssh",
    "etc/systemd",
    "etc/systemd/network",
    "etc/systemd/system",
    "home",
    "lib",
    "lib/modules",
    "media",
    "mnt",
    "opt",
    "proc",
    "root",
    "root/.ssh",
    "run",
    "sbin",
    "srv",
    "sys",
    "tmp",
    "usr",
    "usr/bin",
    "usr/lib",
    "usr/lib/systemd",
    "usr/sbin",
    "usr/share",
    "usr/share/doc",
    "var",
    "var/cache",
    "var/lib",
    "var/lib/dbus",
    "var/log",
    "var/tmp",
]
_ACCOUNTS = """root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
sshd:x:101:65534::/run/sshd:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
_SHADOW = """root:!:19600:0:99999:7:::
daemon:*:19600:0:99999:7:::
sshd:!:19600::::::
nobody:*:19600:0:99999:7:::
"""


def _files(name: str) -> dict[str, tuple[int, bytes]]:
    """Path to (mode, content) of every regular file of the image `name`."""
    texts = {
        "etc/debian_version": "12.7\n",
        "etc/fstab": "/dev/vda / xfs defaults 0 1\n",
        "etc/group": "root:x:0:\ndaemon:x:1:\nshadow:x:42:\nnogroup:x:65534:\n",
        "etc/hostname": "localhost\n",
        "etc/hosts": "127.0.0.1\tlocalhost\n",
        "etc/machine-id": "",
        "etc/nsswitch.conf": "hosts: files dns\n",
        "etc/os-release": f'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVARIANT_ID={name}\n',
        "etc/passwd": _ACCOUNTS,
        "etc/resolv.conf": "",
        "etc/ssh/sshd_config": "PermitRootLogin yes\nSubsystem sftp /usr/lib/openssh/sftp-server\n",
        "etc/systemd/network/99-default.link": "[Link]\nNamePolicy=keep kernel\n",
        "root/.profile": "mesg n 2>/dev/null || true\n",
        "usr/share/doc/README": f"The simulated guest image {name}.\n",
        "var/log/lastlog": "",
    }
    result = {path: (0o644, text.encode()) for path, text in texts.items()}
    result["etc/shadow"] = (0o640, _SHADOW.encode())
    result["usr/lib/systemd/systemd"] = (0o755, b"\x7fELF" + hashlib.shake_128(b"systemd").digest(4096))
    for program in ("bash", "ls", "mount", "systemctl", "ssh-keygen", "hostname", "ip"):
        # Incompressible, so that an archive has a size and a broken one is noticed.
        noise = hashlib.shake_128(f"{name}/{program}".encode()).digest(4096)
        result[f"usr/bin/{program}"] = (0o755, b"\x7fELF" + noise)
    return result


def root_archive(name: str, suffix: str) -> bytes:
    """The root file system as `suffix` says: tar, tar.gz, tar.xz or tar.zst. The same bytes every time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in _DIRECTORIES:
            entry = tarfile.TarInfo(f"./{path}")
            entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, _EPOCH_S
            if path == "root/.ssh":
                entry.mode = 0o700
            archive.addfile(entry)
        link = tarfile.TarInfo("./usr/bin/sh")
        link.type, link.linkname, link.mode, link.mtime = tarfile.SYMTYPE, "bash", 0o777, _EPOCH_S
        archive.addfile(link)
        for path, (mode, content) in sorted(_files(name).items()):
            entry = tarfile.TarInfo(f"./{path}")
            entry.mode, entry.mtime, entry.size = mode, _EPOCH_S, len(content)
            if path == "etc/shadow":
                entry.gid = 42
            archive.addfile(entry, io.BytesIO(content))
    plain = buffer.getvalue()
    if suffix == "tar.gz":
        return gzip.compress(plain, compresslevel=1, mtime=0)
    if suffix == "tar.xz":
        return lzma.compress(plain, preset=0)
    return plain if suffix == "tar" else zstandard.ZstdCompressor(level=1).compress(plain)


def boot_file(name: str, part: Part) -> bytes:
    """A stand-in for the kernel or initrd of the image `name`: recognisable, small, deterministic."""
    return f"simulated {part} of {name}\n".encode() + hashlib.shake_128(f"{name}/{part}".encode()).digest(8192)


@dataclass(slots=True)
class Offered:
    """One file of the server. `truncated` cuts the body while the header promises all."""

    data: bytes
    corrupt: bool = False
    truncated: bool = False
    requests: int = 0

    @property
    def sha256(self) -> str:
        """What the file should have, whatever is served at the moment."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def body(self) -> bytes:
        if self.corrupt:
            middle = len(self.data) // 2
            return self.data[:middle] + bytes([self.data[middle] ^ 0xFF]) + self.data[middle + 1 :]
        return self.data


class ImageServer:
    """HTTP on loopback. `delay_s` is waited before every answer; `files` maps paths to content."""

    def __init__(self) -> None:
        self.files: dict[str, Offered] = {}
        self.delay_s = 0.0
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        application = web.Application()
        application.router.add_get("/{path:.*}", self._answer)
        # Truncated answers end with a lost connection on purpose: nothing to log.
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def offer(self, path: str, data: bytes) -> Offered:
        """Serve `data` at `path`."""
        return self.files.setdefault(path, Offered(data))

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        offered = self.files.get(request.path)
        if offered is None:
            raise web.HTTPNotFound(text=f"no such file: {request.path}\n")
        offered.requests += 1
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        body = offered.body
        start = request.http_range.start or 0
        if start >= len(body) > 0:
            raise web.HTTPRequestRangeNotSatisfiable()
        response = web.StreamResponse(status=206 if "Range" in request.headers else 200)
        response.headers["Accept-Ranges"] = "bytes"
        if response.status == 206:
            response.headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        response.content_length = len(body) - start
        await response.prepare(request)
        end = len(body) // 2 if offered.truncated else len(body)
        for position in range(start, end, _CHUNK_BYTES):
            await response.write(body[position : min(position + _CHUNK_BYTES, end)])
        if offered.truncated and request.transport is not None:
            request.transport.close()
        else:
            await response.write_eof()
        return response
