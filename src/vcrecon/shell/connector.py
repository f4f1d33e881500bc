"""How the containers of a spec are reached: connections made as the spec says. Used by `service` and `preview`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from vcrecon.errors import Permanent
from vcrecon.settings import Settings
from vcrecon.shell.pins import Pins
from vcrecon.shell.transport import Endpoint, SshHost
from vcrecon.spec.model import Container, Guest, Spec


class Connector:
    """Makes connections; reads the pinned host keys anew for each, and shares one limit of logins in progress.

    `pins` are the keys of the containers that vcrecon installed itself; `timed` is told how long each call took.
    """

    def __init__(
        self,
        settings: Settings,
        pins: Pins | None = None,
        timed: Callable[[str, float], None] = lambda call, seconds: None,
    ) -> None:
        self._settings = settings
        self._pins = pins
        self._timed = timed
        self._limiter = asyncio.Semaphore(settings.connects_at_once)

    def __call__(self, container: Container, spec: Spec) -> SshHost:
        keys = pinned_keys(spec.site.ssh.known_hosts)
        return SshHost(
            Endpoint(container.name, container.address, container.port, spec.site.ssh.user),
            client_key=spec.site.ssh.key,
            pinned_keys=self._pins.over(container, keys) if self._pins else keys,
            limiter=self._limiter,
            connect_deadline_s=self._settings.connect_deadline_s,
            keepalive_interval_s=self._settings.keepalive_s,
            keepalive_count=self._settings.keepalive_count,
            timed=self._timed,
        )


def pinned_keys(path: Path) -> str:
    """The known_hosts file; empty when it cannot be read, so that each host says that its key is not pinned."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def password_hash(guest: Guest) -> str:
    """The crypt(3) hash of the guest's root password. Raises Permanent when the file cannot be read (S10)."""
    try:
        return guest.root_password.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not plain text"
        raise Permanent(
            f"{guest.name}: cannot read its root password hash in {guest.root_password.name}: {why}",
            kind="password-file",
        ) from None
