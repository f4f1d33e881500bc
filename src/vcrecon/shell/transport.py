"""Talk to one host: run a command, ask a program that stays, follow a stream, copy between two hosts.

Called by `shell.observe`, `shell.act` and `controller`. `Host` is all they know of a host; `SshHost` is the
real one, tests and the simulation bring their own. One connection a host, made on first use and again after
it was lost; a deadline on everything; nothing is retried here but the connect.

Kinds of `Unreachable`: dns, refused, no-route, timeout (no answer at all), silent (TCP answers, SSH does
not), protocol (not SSH), connection-lost, deadline (a command ran too long), closed (by us). Kinds of
`Permanent`: no-host-key, host-key-changed, permission-denied, client-key, key-exchange, output-too-large.
Kinds of `Transient`: channel-refused, tool-died.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

import asyncssh

from vcrecon.errors import Permanent, Transient, Unreachable
from vcrecon.shell.channel import Channel, Gone, Reply, open_channel
from vcrecon.shell.connect import Endpoint, Patience, connect
from vcrecon.shell.resident import Died, ResidentShell, ResidentTool

__all__ = ["Endpoint", "Host", "Pipe", "Reply", "SshHost", "Streams", "copy"]

_OUTPUT_BYTES_MAX = 64 * 1024 * 1024
_LINE_BYTES_MAX = 1024 * 1024
# A screen wide enough that virsh's line editor never scrolls the line it repeats.
_TOOL_ENVIRONMENT = "COLUMNS=9999 TERM=dumb"
_BROKEN_PIPE_STATUS = 141


class Host(Protocol):
    """One container as the rest of vcrecon sees it. All deadlines are seconds and include the connect.

    Every method raises Unreachable, Transient or Permanent and nothing else on purpose. A deadline that
    passes is Unreachable(kind="deadline"): what the command did is unknown.
    """

    name: str

    async def run(self, script: str, *, stdin: bytes | None = None, deadline_s: float) -> Reply:
        """Run `script` by the login shell, in a process of its own. A non-zero status is a Reply."""
        ...

    async def ask(self, script: str, *, deadline_s: float) -> Reply:
        """Run `script` in a resident `sh`, in one round trip. It may run twice, so it must only look."""
        ...

    async def ask_tool(self, command: str, lines: Sequence[str], *, deadline_s: float) -> list[str]:
        """Give `lines` to a resident interactive tool such as `virsh -q`; its answer to each.

        An answer keeps its line ends and holds the tool's errors (`error: ...`). Raises
        Transient(kind="tool-died") when the tool does not start or ends; the next call starts it again.
        """
        ...

    def lines(self, command: str) -> AsyncIterator[str]:
        """The output of a long-running command, line by line without line ends, until the command ends."""
        ...

    def pin(self, pinned_keys: str) -> None:
        """Take new known_hosts content into use, from the next connect on."""
        ...

    async def close(self) -> None:
        """Give the connection up. Calls in progress raise Unreachable."""
        ...


class Pipe(Protocol):
    """A running command whose input and output the caller moves; made by `Streams.open`."""

    async def read(self) -> bytes: ...

    async def write(self, data: bytes) -> None: ...

    def write_eof(self) -> None: ...

    async def finish(self) -> Reply: ...

    def abort(self) -> None: ...


@runtime_checkable
class Streams(Protocol):
    """A host that can hand out a command as a Pipe. `copy` streams between two of them."""

    async def open(self, script: str) -> Pipe: ...


class SshHost:
    """A Host over SSH (asyncssh). Cheap to construct; connects when first used.

    `pinned_keys` is the content of a known_hosts file and may hold other hosts' lines; this host's are found
    under its address or its name. `limiter` bounds the logins in progress on the whole site. `timed` is told how many
    seconds each call took: connect, look (`ask`), hypervisor (`ask_tool`) or step (`run`).
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        client_key: Path,
        pinned_keys: str,
        limiter: asyncio.Semaphore,
        connect_deadline_s: float = 10.0,
        keepalive_interval_s: float = 10.0,
        keepalive_count: int = 3,
        output_bytes_max: int = _OUTPUT_BYTES_MAX,
        timed: Callable[[str, float], None] = lambda call, seconds: None,
    ) -> None:
        self.name = endpoint.name
        self.endpoint = endpoint
        self._client_key = client_key
        self._pinned_keys = pinned_keys
        self._limiter = limiter
        self._patience = Patience(connect_deadline_s, keepalive_interval_s, keepalive_count)
        self._output_bytes_max = output_bytes_max
        self._timed = timed
        self._closed = False
        self._unended = 0
        """Commands over this connection that did not end in time; the host may run them still."""
        self._connection: asyncssh.SSHClientConnection | None = None
        self._connecting: asyncio.Task[asyncssh.SSHClientConnection] | None = None
        self._shell: ResidentShell | None = None
        self._shell_turn = asyncio.Lock()
        self._tools: dict[str, ResidentTool] = {}
        self._tool_turns: dict[str, asyncio.Lock] = {}

    @property
    def connected(self) -> bool:
        """Whether a connection is open, as far as is known."""
        return self._connection is not None and not self._connection.is_closed()

    def pin(self, pinned_keys: str) -> None:
        """Take new known_hosts content into use, from the next connect on."""
        self._pinned_keys = pinned_keys

    async def run(self, script: str, *, stdin: bytes | None = None, deadline_s: float) -> Reply:
        async with self._deadline(deadline_s, script, "step"):
            return await self._run(script, stdin)

    async def ask(self, script: str, *, deadline_s: float) -> Reply:
        async with self._deadline(deadline_s, script, "look"):
            try:
                async with self._shell_turn:
                    shell = self._shell
                    if shell is None or not shell.alive:
                        shell = self._shell = ResidentShell(await self._open("exec sh", self._output_bytes_max))
                        await shell.start()
                    return await shell.ask(script)
            except Died as death:
                if not self.connected:
                    raise self._lost(death) from death
                return await self._run(script, None)

    async def ask_tool(self, command: str, lines: Sequence[str], *, deadline_s: float) -> list[str]:
        async with self._deadline(deadline_s, command, "hypervisor"):
            try:
                async with self._tool_turns.setdefault(command, asyncio.Lock()):
                    tool = self._tools.get(command)
                    if tool is None or not tool.alive:
                        channel = await self._open(f"{_TOOL_ENVIRONMENT} {command} 2>&1", self._output_bytes_max)
                        tool = self._tools[command] = ResidentTool(channel)
                        await tool.start()
                    return await tool.ask(lines)
            except Died as death:
                if not self.connected:
                    raise self._lost(death) from death
                said = death.tail or "it said nothing"
                raise Transient(
                    f"{self.endpoint}: `{command}` ended with status {death.status}: {said}", kind="tool-died"
                ) from death

    async def lines(self, command: str) -> AsyncIterator[str]:
        channel = await self._open(command, None)
        try:
            channel.write_eof()
            rest = b""
            while data := await channel.read():
                *whole, rest = (rest + data).split(b"\n")
                for line in whole:
                    yield line.decode("utf-8", "replace")
                if len(rest) > _LINE_BYTES_MAX:
                    raise Permanent(
                        f"{self.endpoint}: `{_brief(command)}` wrote an endless line",
                        kind="output-too-large",
                    )
            if rest:
                yield rest.decode("utf-8", "replace")
        finally:
            channel.abort()

    async def open(self, script: str) -> Channel:
        """Start `script` and hand it out as a Pipe, with back-pressure both ways. The caller keeps time."""
        return await self._open(script, None)

    async def close(self) -> None:
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._connection is not None:
            self._connection.abort()
            await self._connection.wait_closed()

    # Below: one connection, shared.

    async def _run(self, script: str, stdin: bytes | None) -> Reply:
        channel = await self._open(script, self._output_bytes_max)
        try:
            try:
                if stdin is not None:
                    await channel.write(stdin)
                channel.write_eof()
            except OSError:
                pass  # it ended without reading all of its input; its status tells whether that was right
            return await channel.finish()
        except BaseException:
            channel.abort()
            raise

    async def _open(self, script: str, stdout_bytes_max: int | None) -> Channel:
        where = str(self.endpoint)
        try:
            return await open_channel(await self._connected(), script, where, stdout_bytes_max)
        except Gone:
            # The connection died while nobody looked (a reboot, an idle firewall); nothing was started.
            self._connection = None
        except Transient as refusal:
            if not self._unended:
                raise
            raise Transient(
                f"{where}: the host opens no more sessions: {self._unended} commands that did not end in time may "
                "still hold them; something hangs there, such as a disk: look with `ps` and `dmesg`, or reset the host",
                kind=refusal.kind,
            ) from refusal
        try:
            return await open_channel(await self._connected(), script, where, stdout_bytes_max)
        except Gone as gone:
            raise self._lost(gone) from gone

    async def _connected(self) -> asyncssh.SSHClientConnection:
        if self._closed:
            raise Unreachable(f"{self.endpoint}: vcrecon has closed this connection", kind="closed")
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect(), name=f"connect {self.name}")
            self._connecting.add_done_callback(_retrieve)
        task = self._connecting
        try:
            # Shielded: a caller that gives up does not take the connect away from the others.
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and self._closed:
                raise Unreachable(f"{self.endpoint}: vcrecon has closed this connection", kind="closed") from None
            raise

    async def _connect(self) -> asyncssh.SSHClientConnection:
        began_s = time.monotonic()
        try:
            self._connection = await connect(
                self.endpoint, self._client_key, self._pinned_keys, self._limiter, self._patience
            )
            self._unended = 0
            return self._connection
        finally:
            self._connecting = None
            self._timed("connect", time.monotonic() - began_s)

    @asynccontextmanager
    async def _deadline(self, deadline_s: float, what: str, call: str) -> AsyncIterator[None]:
        timer, began_s = asyncio.timeout(deadline_s), time.monotonic()
        try:
            async with timer:
                yield
        except TimeoutError:
            self._unended += 1
            raise Unreachable(
                f"{self.endpoint}: no end of `{_brief(what)}` within {deadline_s:g} s; whether it still runs "
                "there is unknown",
                kind="deadline",
            ) from None
        finally:
            self._timed(call, time.monotonic() - began_s)

    def _lost(self, cause: Exception) -> Unreachable:
        return Unreachable(
            f"{self.endpoint}: the connection was lost while a command ran; its outcome is unknown until the "
            "host is seen again",
            kind="connection-lost",
        )


async def copy(
    source: Host,
    source_script: str,
    target: Host,
    target_script: str,
    *,
    deadline_s: float,
    progress: Callable[[int], None] | None = None,
) -> tuple[Reply, Reply]:
    """Stream the output of `source_script` into the input of `target_script`, and return both Replies.

    The data pass through this process at the slower side's pace, with less than a few MiB in memory.
    `progress` is called with the bytes moved so far. Both statuses must be zero before the copy may be
    believed, and its digest compared (S11): a target cannot tell a source that failed from one that ended.
    When the target ends early the source is cut off, and its status is 141 as after SIGPIPE. Hosts that are
    not `Streams` (tests, simulation) are run one after the other. Raises Unreachable, naming the side.
    """
    if not (isinstance(source, Streams) and isinstance(target, Streams)):
        sent = await source.run(source_script, deadline_s=deadline_s)
        received = await target.run(target_script, stdin=sent.stdout, deadline_s=deadline_s)
        if progress is not None:
            progress(len(sent.stdout))
        return Reply(b"", sent.stderr, sent.status), received
    try:
        async with asyncio.timeout(deadline_s), AsyncExitStack() as stack:
            receiver = await target.open(target_script)
            stack.callback(receiver.abort)
            sender = await source.open(source_script)
            stack.callback(sender.abort)
            sender.write_eof()
            return await _pump(sender, receiver, progress)
    except TimeoutError:
        raise Unreachable(
            f"copy from {source.name} to {target.name}: not done within {deadline_s:g} s", kind="deadline"
        ) from None


async def _pump(sender: Pipe, receiver: Pipe, progress: Callable[[int], None] | None) -> tuple[Reply, Reply]:
    sent_bytes = 0
    output = asyncio.create_task(_collect(receiver))
    try:
        while data := await _either(sender.read(), output):
            try:
                await receiver.write(data)
            except OSError:
                break
            sent_bytes += len(data)
            if progress is not None:
                progress(sent_bytes)
        cut_off = output.done() or bool(data)
        receiver.write_eof()
        if cut_off:
            sender.abort()
            sent = Reply(b"", b"cut off: the receiving side ended first\n", _BROKEN_PIPE_STATUS)
        else:
            sent = await sender.finish()
        return sent, await output
    finally:
        output.cancel()


async def _either(reading: Awaitable[bytes], ended: asyncio.Task[Reply]) -> bytes:
    """The next piece of the source, or nothing as soon as the target has ended."""
    piece = asyncio.ensure_future(reading)
    try:
        await asyncio.wait({piece, ended}, return_when=asyncio.FIRST_COMPLETED)
        return b"" if ended.done() else piece.result()
    finally:
        piece.cancel()


async def _collect(receiver: Pipe) -> Reply:
    """Drain what the target prints, so that it cannot block on it; keep the last part."""
    stdout = b""
    while data := await receiver.read():
        stdout = (stdout + data)[-_LINE_BYTES_MAX:]
    reply = await receiver.finish()
    return Reply(stdout, reply.stderr, reply.status)


def _retrieve(task: asyncio.Task[asyncssh.SSHClientConnection]) -> None:
    """Mark a failed connect as seen: its callers may all have given up."""
    if not task.cancelled():
        task.exception()


def _brief(script: str) -> str:
    """The first line of a script, short enough for a message. Scripts hold no secrets (S10)."""
    first = script.strip().splitlines()[0] if script.strip() else ""
    return first if len(first) <= 60 else first[:57] + "..."
