"""Finds what a command is about: the site's state directory, its running service, the object a person names.

Called by the commands. A service is found by --socket, --state or --specs; without them, when exactly one
runs below the default state root.
"""

from __future__ import annotations

import asyncio
import difflib
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vcrecon.errors import Refused
from vcrecon.paths import SOCKET_NAME, listener_pid, live_sockets, state_directory, state_root

if TYPE_CHECKING:
    from vcrecon.shell.control import ControlClient

Answer = TypeVar("Answer")
_SITE_FILE_BYTES_MAX = 4 << 20
_KINDS = ("container", "guest", "cluster")


@dataclass(frozen=True, slots=True)
class Target:
    """How a person said which service is meant."""

    socket: Path | None = None
    state: Path | None = None
    specs: Path | None = None
    root: Path = field(default_factory=state_root)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def find_socket(self) -> Path | None:
        """The socket of the service that is meant, or None when none runs.

        Raises Refused when several run and nothing says which, and SpecError for unreadable specs.
        """
        if self.socket is not None:
            return self.socket if listener_pid(self.socket) is not None else None
        directory = self.find_state()
        if directory is not None:
            path = directory / SOCKET_NAME
            return path if listener_pid(path) is not None else None
        running = live_sockets(self.root)
        if len(running) > 1:
            sites = ", ".join(path.parent.name for path in running)
            raise Refused(
                f"several services run ({sites}); say which with --specs DIR, "
                f"or --state DIR such as {running[0].parent}"
            )
        return running[0] if running else None

    def must_find_socket(self) -> Path:
        """As `find_socket`; raises Refused when no service runs."""
        path = self.find_socket()
        if path is not None:
            return path
        directory = self.find_state()
        where = self.socket or (directory / SOCKET_NAME if directory else f"{self.root}/*/{SOCKET_NAME}")
        named = "" if self.socket or directory else ", or say which one is meant with --specs DIR or --state DIR"
        raise Refused(f"no running service found ({where}); start one with `vcrecon run SPECS`{named}")

    def find_state(self) -> Path | None:
        """The state directory that was named, directly or through the specs; None when neither was."""
        if self.state is not None:
            return self.state
        specs = self.specs
        if specs is None and self.environ.get("VCRECON_SPECS") and not self.socket:
            specs = Path(self.environ["VCRECON_SPECS"])
        return state_directory(site_name(specs), self.root) if specs is not None else None

    def find_record(self) -> Path:
        """The state directory whose record to read when no service runs.

        Raises Refused when it cannot be told.
        """
        directory = self.find_state()
        if directory is not None:
            return directory
        records = sorted(self.root.glob("*/record.sqlite")) if self.root.is_dir() else []
        if len(records) == 1:
            return records[0].parent
        if not records:
            raise Refused(f"nothing was ever run here (no record below {self.root}); name one with --state DIR")
        sites = ", ".join(path.parent.name for path in records)
        raise Refused(f"there are records of several sites ({sites}); say which with --specs or --state")


def site_name(specs: Path) -> str:
    """The site's name, from site.yaml alone where that suffices: a spec that is being edited still tells it.

    Raises SpecError when it does not.
    """
    import yaml

    try:
        with open(specs / "site.yaml", "rb") as stream:
            text = stream.read(_SITE_FILE_BYTES_MAX)
        content = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        content = None
    name = content.get("site") if isinstance(content, dict) else None
    if isinstance(name, str) and name and "/" not in name and not name.startswith("."):
        return name
    from vcrecon.spec.load import load

    return load(specs, require_placement=False).spec.site.name


def default_state(specs: Path, state: Path | None) -> Path:
    """The state directory for a command that was given a spec directory."""
    return state if state is not None else state_directory(site_name(specs))


def talk(target: Target, work: Callable[[ControlClient], Awaitable[Answer]]) -> Answer:
    """Run `work` with a client of the service that is meant. Raises Refused when none runs."""
    from vcrecon.shell.control import ControlClient

    path = target.must_find_socket()

    async def conversation() -> Answer:
        async with ControlClient(path) as client:
            return await work(client)

    return asyncio.run(conversation())


def resolve(name: str, status: Mapping[str, Any]) -> str:
    """The subject (`guest/a-head`) that a person means by `a-head`, `guest/a-head`, `c01`, `cluster/a`.

    Raises Refused, with a suggestion, for a name that the site does not have or that means two things.
    """
    known = subjects(status)
    if name == "site" or name in known:
        return name
    kind, slash, _ = name.partition("/")
    if slash and kind not in _KINDS:
        raise Refused(f"{name!r}: objects are written container/NAME, guest/NAME or cluster/NAME")
    if not slash:
        found = [f"{kind}/{name}" for kind in _KINDS if f"{kind}/{name}" in known]
        if len(found) == 1:
            return found[0]
        if found:
            raise Refused(f"{name!r} means {' or '.join(found)}; write the one you mean")
    pool = sorted({subject if slash else subject.partition("/")[2] for subject in known})
    near = difflib.get_close_matches(name, pool, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]!r}?" if near else "; `vcrecon status --all` lists what there is"
    raise Refused(f"the site has no object {name!r}{hint}")


def subjects(status: Mapping[str, Any]) -> set[str]:
    """Every object of the site, orphans included."""
    guests = status["guests"]
    return (
        {f"container/{container['name']}" for container in status["containers"]}
        | {f"guest/{guest['name']}" for guest in guests}
        | {f"cluster/{guest['cluster']}" for guest in guests if guest["cluster"]}
        | {f"guest/{orphan['name']}" for orphan in status["orphans"]}
    )
