"""dnsmasq as a child of ours: prepared, checked, kept alive, stopped. Owned by `boot.services`.

A configuration is tried with `dnsmasq --test` before it replaces the one in force (S4), and dnsmasq is only started
anew when the text changed. When it dies it comes back, after a pause that grows.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from vcrecon.boot.dnsmasq import BIOS_LOADER, BOOTSTRAP, EFI_LOADER
from vcrecon.errors import Refused

_log = structlog.get_logger("vcrecon.dnsmasq")

INSTALL = "apt-get install dnsmasq-base ipxe"
IPXE = Path("/usr/lib/ipxe")
PAUSE_S_FIRST, PAUSE_S_MAX = 1.0, 60.0
PROVED_S = 60.0
"""After so long alive a death is a new trouble, not the old one again."""
START_S = 30.0
"""How long `use` waits for it to serve; it goes on starting after that."""
STOP_S = 5.0
_LINE_BYTES_MAX = 64 << 10


def tftp_directory(directory: Path, bootstrap: str, *, loaders: Path = IPXE) -> None:
    """Make the directory that TFTP serves: both loaders from Debian's package, and the first script.

    dnsmasq reads it as a user without rights, so it must be reachable by everybody; nothing in it is secret. Raises
    Refused when the package is missing.
    """
    missing = [name for name in (BIOS_LOADER, EFI_LOADER) if not (loaders / name).is_file()]
    if missing:
        raise Refused(f"no {' and no '.join(missing)} in {loaders}: {INSTALL}")
    try:
        for path in reversed((directory, *directory.parents)):
            if not path.exists():
                path.mkdir()
                path.chmod(0o755)  # whatever the umask says
        for name in (BIOS_LOADER, EFI_LOADER):
            _replace(directory / name, (loaders / name).read_bytes())
        _replace(directory / BOOTSTRAP, bootstrap.encode())
    except OSError as error:
        raise Refused(f"cannot make the TFTP directory {directory}: {error.strerror}") from None


def _replace(path: Path, content: bytes) -> None:
    """Never half a file for a machine that asks just now."""
    if path.is_file() and path.read_bytes() == content:
        return
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(content)
    fresh.chmod(0o644)
    fresh.replace(path)


class Dnsmasq:
    """One dnsmasq, by the last configuration that `use` took. `trouble` says why it does not run, or None."""

    def __init__(
        self,
        directory: Path,
        *,
        program: str = "dnsmasq",
        clock: Callable[[], float] = time.monotonic,
        pause_s_first: float = PAUSE_S_FIRST,
    ) -> None:
        """`directory` holds its configuration, its leases and its process id."""
        self._directory, self._program, self._clock = directory, program, clock
        self._pause_s_first = pause_s_first
        self._text: str | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._spoke = asyncio.Event()
        self.trouble: str | None = None
        self.starts = 0

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def use(self, text: str) -> None:
        """Run by this configuration; returns when it serves, or died. Raises Refused when dnsmasq does not accept it.

        Then nothing changes.
        """
        if text == self._text and self._keeper is not None and not self._keeper.done():
            return
        program = shutil.which(self._program) or shutil.which(self._program, path="/usr/sbin:/sbin")
        if program is None:
            raise Refused(f"{self._program} is not installed: {INSTALL}")
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh, path = self._directory / "dnsmasq.conf.new", self._directory / "dnsmasq.conf"
            fresh.write_text(text, encoding="utf-8")
            await _check(program, fresh)
            await self.stop()
            fresh.replace(path)
            await asyncio.to_thread(self._end_orphan, path)
        except OSError as error:
            raise Refused(f"cannot set dnsmasq up in {self._directory}: {error.strerror or error}") from None
        self._text, self.trouble = text, None
        self._spoke.clear()
        self._keeper = asyncio.create_task(self._keep(program, path), name="dnsmasq")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                await self._spoke.wait()

    async def stop(self) -> None:
        """End it and wait until it is gone."""
        keeper, self._keeper, self._text = self._keeper, None, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        self.trouble = None

    async def _keep(self, program: str, path: Path) -> None:
        pause_s = self._pause_s_first
        while True:
            began_s = self._clock()
            last = await self._run([program, "--keep-in-foreground", "--log-facility=-", f"--conf-file={path}"])
            if self._clock() - began_s > PROVED_S:
                pause_s = self._pause_s_first
            self.trouble = f"dnsmasq died ({last}); tried again every {pause_s:.0f} s"
            self._spoke.set()
            _log.error("dnsmasq died", last_words=last, next_try_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)

    async def _run(self, command: Sequence[str]) -> str:
        """Run it until it ends, and return its last words. Takes it along when cancelled."""
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                limit=_LINE_BYTES_MAX,
            )
        except OSError as error:
            return error.strerror or str(error)
        self._process, last = process, ""
        self.starts += 1
        try:
            (self._directory / "pid").write_text(f"{process.pid}\n", encoding="ascii")
            assert process.stderr is not None
            while line := await _line(process.stderr):
                last = self._heard(line) or last
            return last or f"status {await process.wait()}"
        finally:
            await _end(process)
            (self._directory / "pid").unlink(missing_ok=True)

    def _heard(self, line: str) -> str:
        """Pass a line of its log on; what it dies of, when it says so."""
        who, _, what = line.partition(": ")
        if what.startswith("started, version"):
            self.trouble = None
            self._spoke.set()
        _log.info(what or line, source=who.partition("[")[0])
        # Its log names the process as `dnsmasq[PID]`; only what it dies of comes without.
        return what if who == "dnsmasq" else ""

    def _end_orphan(self, configuration: Path) -> None:
        """End a dnsmasq that a killed controller left behind: it is still ours, by its configuration file."""
        try:
            pid = int((self._directory / "pid").read_text(encoding="ascii"))
            handle = os.pidfd_open(pid)
        except (OSError, ValueError):
            return
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if f"--conf-file={configuration}".encode() in words:
                _log.warning("a dnsmasq of an earlier run is ended", pid=pid)
                _end_process(handle)
        except OSError:
            return
        finally:
            os.close(handle)


def _end_process(handle: int) -> None:
    signal.pidfd_send_signal(handle, signal.SIGTERM)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    if not poll.poll(STOP_S * 1000):
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        poll.poll(STOP_S * 1000)


async def _check(program: str, path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(program, "--test", f"--conf-file={path}"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await process.communicate()
    finally:
        await _end(process)
    if process.returncode:
        words = said.decode("utf-8", "replace").strip() or f"status {process.returncode}"
        raise Refused(f"dnsmasq does not accept the configuration {path}: {words}; what ran before goes on")


async def _line(stream: asyncio.StreamReader) -> str:
    """The next line that is not empty; "" at the end."""
    while True:
        try:
            data = await stream.readline()
        except ValueError:  # longer than any line of dnsmasq's
            continue
        if not data:
            return ""
        if text := data.decode("utf-8", "replace").strip():
            return text


async def _end(process: asyncio.subprocess.Process) -> None:
    """SIGTERM, then SIGKILL after five seconds, or at once when cancelled meanwhile; returns when it is gone."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    ended = asyncio.ensure_future(process.wait())
    try:
        # Not `asyncio.timeout`: in a task that is being cancelled, Python 3.11.2 takes its end for the cancel.
        await asyncio.wait({ended}, timeout=STOP_S)
    finally:
        if not ended.done():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    await ended
