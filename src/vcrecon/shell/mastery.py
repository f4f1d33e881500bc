"""Who this controller is among masters: a name from this machine and its state directory, and its generation.

Called by `service` for the leases on containers (`core.mastery`), by `controller` to give them up when it stops, and by
`vcrecon master`. The name is derived, so
that a master whose state was lost is known again at once; the generation is a file, and goes up with each promotion.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path

from vcrecon.core.mastery import Master
from vcrecon.errors import Refused
from vcrecon.host import lease
from vcrecon.shell.transport import Host

GENERATION_FILE = "generation"
FIRST_GENERATION = 1
RELEASE_S = 5.0
"""How long a controller that stops takes for its leases, at most."""
_MACHINE_ID = Path("/etc/machine-id")
_DIGITS_MAX = 15


def this_master(state: Path, *, lease_s: int) -> Master:
    """The master that keeps its state in `state`. Raises Refused when its generation cannot be read."""
    host = socket.gethostname()
    home = os.path.realpath(state)
    try:
        machine = _MACHINE_ID.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        machine = ""
    name = hashlib.sha256(f"{machine}\0{host}\0{home}".encode(errors="surrogateescape")).hexdigest()[:16]
    return Master(name, read_generation(state), f"{host}:{home}", lease_s)


def read_generation(state: Path) -> int:
    """The generation of the master whose state directory this is; 1 when it was never promoted."""
    path = state / GENERATION_FILE
    try:
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return FIRST_GENERATION
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{path}: cannot be read: {error}; run as its owner, or delete it") from None
    if not text.isdigit() or len(text) > _DIGITS_MAX:
        raise Refused(f"{path}: this is no number; delete the file and type `vcrecon master promote SPECS`")
    return int(text)


def write_generation(state: Path, generation: int) -> None:
    """At once or not at all, and on disk. Raises Refused."""
    path = state / GENERATION_FILE
    try:
        handle, temporary = tempfile.mkstemp(dir=state, prefix=f".{GENERATION_FILE}.")
        with os.fdopen(handle, "w") as file:
            file.write(f"{generation}\n")
            file.flush()
            os.fsync(handle)
        Path(temporary).replace(path)
    except OSError as error:
        raise Refused(f"{path}: cannot be written: {error.strerror}; make room, or run as its owner") from None


async def give_up(master: Master, hosts: Mapping[str, Host]) -> list[str]:
    """Give up the leases on these containers (host by name), within `RELEASE_S`; returns where that failed."""
    script = lease.release(master)
    asked = [asyncio.create_task(host.ask(script, deadline_s=RELEASE_S)) for host in hosts.values()]
    if asked:
        _, late = await asyncio.wait(asked, timeout=RELEASE_S)
        for task in late:
            task.cancel()
    ended = await asyncio.gather(*asked, return_exceptions=True)
    return [name for name, reply in zip(hosts, ended, strict=True) if isinstance(reply, BaseException) or reply.status]
