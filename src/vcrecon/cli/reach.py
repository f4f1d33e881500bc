"""Work on one guest by hand: ask the service where it is, then connect to that container as the service does.

Called by `cli.rescue` and `cli.console`. The connection is the command's own, so that it lives as long as the
person needs it, through restarts of the service too; its host key is pinned like the service's (S9).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcrecon.cli.output import say
from vcrecon.cli.target import resolve
from vcrecon.errors import Refused, VcreconError

if TYPE_CHECKING:
    import asyncssh

    from vcrecon.shell.control import ControlClient

POLL_S = 0.3
ANSWER_S = 60.0
"""How long a command waits for a service that is being restarted."""

Facts = dict[str, Any]


async def find_guest(client: ControlClient, name: str) -> Facts:
    """What the service knows of the guest that a person means. Raises Refused, with a suggestion."""
    subject = resolve(name, await client.status())
    kind, _, guest = subject.partition("/")
    if kind != "guest":
        raise Refused(f"{name!r} is {'the whole site' if subject == 'site' else f'a {kind}'}; this needs a guest")
    return await client.guest(guest)


async def wait_for(
    client: ControlClient, before: Facts, reached: Callable[[Facts], bool], hurry: str, *, failure: str
) -> Facts:
    """Look at the guest until `reached`; tells on standard error what it waits for, as far as it is news.

    `before` is how the guest was found before anything was asked for.

    Raises Refused when the step failed on the host (then `failure` says what the guest is left as), and
    VcreconError when the service stays away. `hurry` is what to type instead of waiting.
    """
    loop = asyncio.get_running_loop()
    guest, told, answered_s = before["name"], {_gist(before)}, loop.time()
    while True:
        try:
            found = await client.guest(guest)
        except VcreconError:
            # A restart of the service changes nothing: the wish is in its record.
            if loop.time() - answered_s > ANSWER_S:
                raise
            await asyncio.sleep(POLL_S)
            continue
        answered_s = loop.time()
        if reached(found):
            return found
        if found["trouble"]:
            raise Refused(f"{found['trouble']}. {failure}")
        if found["pending"] is None and not found["busy"]:
            raise Refused(f"somebody else asked for something else meanwhile: {guest} is {found['state']}")
        message = _gist(found)
        if message not in told:
            say(f"{guest}: {message}{f' ({hurry})' if len(told) == 1 else ''}", to_stderr=True)
            told.add(message)
        await asyncio.sleep(POLL_S)


def _gist(found: Mapping[str, Any]) -> str:
    if not found["reachable"]:
        return f"{found['container']} does not answer now"
    # Without the seconds that tick away in it.
    words = str(found["message"]).partition(" under way for ")
    if words[1]:
        return f"{words[0]} is under way"
    text = str(found["message"])
    return "asked to power off" if text.startswith("asked to power off") else text


@contextlib.asynccontextmanager
async def connected(found: Facts) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """A connection to the guest's container. Raises HostError as `shell.connect` does, Refused without a way."""
    from vcrecon.settings import Settings
    from vcrecon.shell.connect import Endpoint, Patience, connect
    from vcrecon.shell.connector import pinned_keys

    ssh = found["ssh"]
    if ssh is None:
        raise Refused(f"{found['container'] or 'its container'} is not in the spec, so nobody knows how to reach it")
    settings = Settings.from_environment()
    connection = await connect(
        Endpoint(ssh["name"], ssh["address"], ssh["port"], ssh["user"]),
        Path(ssh["key"]),
        ssh.get("pinned_keys") or pinned_keys(Path(ssh["known_hosts"])),
        asyncio.Semaphore(1),
        Patience(settings.connect_deadline_s, settings.keepalive_s, settings.keepalive_count),
    )
    try:
        yield connection
    finally:
        connection.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await connection.wait_closed()


async def run_there(found: Facts, work: Callable[[asyncssh.SSHClientConnection], Awaitable[int]]) -> int:
    """`work` on a connection to the guest's container; its exit status."""
    async with connected(found) as connection:
        return await work(connection)


def who() -> str:
    """Who gives the word, for the history."""
    import getpass

    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
