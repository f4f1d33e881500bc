"""What an installer is told to do: the archive that its claim is answered with, and the token it claims with. Pure.

Called by `boot.server`. The archive holds the host's private key and root's password hash (S10): it is made for one
answer, and never stored or logged.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import re
import tarfile
from dataclasses import dataclass, field
from ipaddress import ip_network

from vcrecon.core.installs import Ticket
from vcrecon.errors import Permanent
from vcrecon.host.context import File, host_key, password_line
from vcrecon.spec.model import Container, DiskMatch, Provisioning, Spec, System

COMPLETE = ".complete"
"""The last entry: an archive without it was cut off on its way."""
_PRIVATE = frozenset({"root", "root/.ssh"})
_CONSOLE = re.compile(r"console=[A-Za-z0-9,]+")


@dataclass(frozen=True, slots=True)
class JobSecrets:
    """What only the machine that is installed may know. `password_hash` is root's, in the form of crypt(3)."""

    site_secret: bytes = field(repr=False)
    authorized_keys: tuple[str, ...]
    password_hash: str | None = field(default=None, repr=False)


def install_token(site_secret: bytes, ticket: Ticket) -> str:
    """The token of a ticket, in hex. Derived, so that a controller that restarts knows it without having kept it."""
    return hmac.new(
        site_secret, f"install-token/{ticket.container}/{ticket.nonce}".encode(), hashlib.sha256
    ).hexdigest()


def install_host_key(site_secret: bytes, ticket: Ticket) -> tuple[bytes, bytes]:
    """The SSH host key pair (private, public) of the system that this ticket installs."""
    return host_key(site_secret, f"container/{ticket.container}/{ticket.nonce}")


def consoles(system: System) -> str:
    """The `console=…` words for the installer: where the system will talk, the installer talks too."""
    return " ".join(word for word in system.cmdline.split() if _CONSOLE.fullmatch(word))


def job(spec: Spec, ticket: Ticket, secrets: JobSecrets) -> bytes:
    """The whole job as an uncompressed tar archive owned by root.

    Raises Permanent when the spec does not know the ticket's container or system (any more).
    """
    container, system = spec.containers.get(ticket.container), spec.systems.get(ticket.system)
    if container is None or system is None:
        raise Permanent(f"{ticket.container}: the spec has no such container, or no system {ticket.system}, any more")
    provisioning = spec.site.provisioning
    found = [File("job.env", _environment(ticket, container, system, provisioning))]
    for file in _root_files(ticket, container, system, provisioning, secrets):
        found.append(File(f"root/{file.path}", file.content, file.mode))
    if secrets.password_hash:
        found.append(File("shadow", password_line(secrets.password_hash), 0o600))
    return _archive([*found, File(COMPLETE, b"")])


def _environment(ticket: Ticket, container: Container, system: System, provisioning: Provisioning) -> bytes:
    layout = container.layout
    values = {
        "NAME": container.name,
        "ADDRESS": _address(container, provisioning),
        "GATEWAY": provisioning.gateway or "",
        "DNS": " ".join(provisioning.dns),
        "MAC": ticket.mac,
        "SYSTEM": system.name,
        "HYPERVISOR": system.hypervisor,
        "GENERATION": container.generation,
        "ROOT_URL": system.root.url,
        "ROOT_SHA256": system.root.sha256,
        "WIPE": "1" if ticket.wipe else "0",
        "RAID": layout.raid,
        "ROOT_BYTES": str(layout.root_bytes),
        "SWAP_BYTES": str(layout.swap_bytes),
        "VOLUME_GROUP": container.volume_group,
        "POOL": container.pool,
        "CMDLINE": system.cmdline,
        "TRUNK": container.trunk,
        "NONCE": ticket.nonce,
        "MATCH": "\n".join(_match(match) for match in layout.match),
    }
    return "".join(f"{name}={_quote(value)}\n" for name, value in values.items()).encode()


def _quote(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"


def _match(match: DiskMatch) -> str:
    most = "" if match.max_bytes is None else str(match.max_bytes)
    return f"{_pattern(match.model)}|{_pattern(match.serial)}|{match.min_bytes}|{most}"


def _pattern(text: str) -> str:
    """A pattern that matches at least the same, without what separates the fields."""
    return re.sub(r"[|\n]", "?", text)


def _address(container: Container, provisioning: Provisioning) -> str:
    return f"{container.address}/{ip_network(provisioning.network).prefixlen}"


def _root_files(
    ticket: Ticket, container: Container, system: System, provisioning: Provisioning, secrets: JobSecrets
) -> list[File]:
    private, public = install_host_key(secrets.site_secret, ticket)
    name = container.name
    hosts = f"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{container.address} {name}\n"
    # A VLAN or a bridge over the interface has its MAC too: only the interface itself is of no kind.
    link = f"[Match]\nMACAddress={ticket.mac}\nType=ether\nKind=!*\n\n[Network]\n"
    link += f"LinkLocalAddressing=no\nIPv6AcceptRA=no\nAddress={_address(container, provisioning)}\n"
    if provisioning.gateway:
        link += f"Gateway={provisioning.gateway}\n"
    link += "".join(f"DNS={address}\n" for address in provisioning.dns)
    release = (
        f"hypervisor={system.hypervisor}\ngeneration={container.generation}\n"
        f"system={system.root.sha256}\ninstall={ticket.nonce}\n"
    )
    found = [
        File("etc/hostname", f"{name}\n".encode()),
        File("etc/hosts", hosts.encode()),
        File("etc/ssh/ssh_host_ed25519_key", private, 0o600),
        File("etc/ssh/ssh_host_ed25519_key.pub", public),
        File("etc/systemd/network/10-provisioning.network", link.encode()),
        File("etc/vcrecon/release", release.encode()),
        File("root/.ssh/authorized_keys", "".join(f"{key}\n" for key in secrets.authorized_keys).encode(), 0o600),
    ]
    if provisioning.dns:
        found.append(
            File("etc/resolv.conf", "".join(f"nameserver {address}\n" for address in provisioning.dns).encode())
        )
    return found


def _archive(files: list[File]) -> bytes:
    """Directories first, each with the mode it shall have in the system; the same files give the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        made: set[str] = set()
        for file in files:
            parts = file.path.split("/")[:-1]
            for depth in range(1, len(parts) + 1):
                directory = "/".join(parts[:depth])
                if directory not in made:
                    made.add(directory)
                    info = tarfile.TarInfo(directory)
                    info.type = tarfile.DIRTYPE
                    info.mode = 0o700 if directory.removeprefix("root/") in _PRIVATE and depth > 1 else 0o755
                    tar.addfile(info)
            info = tarfile.TarInfo(file.path)
            info.size, info.mode = len(file.content), file.mode
            tar.addfile(info, io.BytesIO(file.content))
    return buffer.getvalue()
