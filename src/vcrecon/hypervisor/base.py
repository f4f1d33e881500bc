"""What the rest of vcrecon asks of a hypervisor: commands as data, and parsers. No I/O here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from vcrecon.core.observation import Domain
from vcrecon.spec.model import Guest


@dataclass(frozen=True, slots=True)
class Port:
    """One interface of the virtual machine: its MAC address, the bridge, the name of the host side."""

    mac: str
    bridge: str
    tap: str


@dataclass(frozen=True, slots=True)
class Launch:
    """All that a definition is made of. `definition` is its digest, kept with the domain as a witness."""

    guest: Guest
    site: str
    uuid: str
    definition: str
    disk: str
    ports: tuple[Port, ...]
    cmdline: str
    kernel: str | None = None
    initrd: str | None = None


class Hypervisor(Protocol):
    """Implemented by `kvm` and `xen`. Domain names are the guests' names."""

    name: str
    resident: str | None
    """A tool to keep open for looks, or None when `look` is part of the look's script."""

    look: tuple[str, ...]
    """Lines for the resident tool, or script lines."""

    watch: str
    """A command that prints a line whenever a domain starts or ends; what the line says does not matter."""

    def parse(self, answers: Sequence[str], site: str, boot_id: str) -> tuple[Domain, ...]:
        """The domains that carry the site's mark. `answers` are one text for each line of `look`.

        Raises ValueError when an answer cannot be understood.
        """
        ...

    def strangers(self, answers: Sequence[str], site: str) -> frozenset[str]:
        """The names of domains that do not carry the site's mark (S5). `answers` are those that `parse` took."""
        ...

    def define(self, launch: Launch) -> tuple[list[str], bytes]:
        """Script lines that (re)define the domain from standard input, and that input."""
        ...

    def start(self, guest: str) -> list[str]: ...

    def stop(self, guest: str, *, force: bool) -> list[str]: ...

    def require_off(self, guest: str, status: int) -> list[str]:
        """Script lines that end the script with `status` while the guest uses its disk."""
        ...

    def console(self, guest: str) -> str:
        """A command that joins a terminal to the guest's serial console until the byte 0x1d (Ctrl-])."""
        ...

    def forget(self, guest: str) -> list[str]:
        """Remove what the hypervisor keeps of a stopped guest; nothing when there is nothing."""
        ...
