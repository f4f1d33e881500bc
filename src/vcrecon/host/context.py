"""What makes a copied image a particular guest: the files that contextualization writes. Pure.

The archive travels on standard input; it holds private keys (S10). Used by `host.scripts`.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from vcrecon.spec.model import Guest, Service

DIRECTORIES = ("etc", "etc/ssh", "etc/systemd", "etc/systemd/network", "root", "root/.ssh")
"""Every directory that a file is written into, its parents included: checked for symbolic links first."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of the context. `path` is relative to the guest's root."""

    path: str
    content: bytes
    mode: int = 0o644


def host_key(site_secret: bytes, guest: str) -> tuple[bytes, bytes]:
    """The guest's SSH host key pair (private and public, OpenSSH format).

    Derived from the site's secret, so that a guest made anew is the same host to its users, and a new
    master needs only that secret.
    """
    seed = hmac.new(site_secret, f"guest-host-key/{guest}".encode(), hashlib.sha256).digest()
    key = Ed25519PrivateKey.from_private_bytes(seed)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private, public + f" root@{guest}\n".encode()


def files(
    guest: Guest, hosts: Iterable[tuple[str, str]], services: Iterable[Service], site_secret: bytes
) -> list[File]:
    """All files of one guest's context; the root password is not among them (see `password_line`)."""
    private, public = host_key(site_secret, guest.name)
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines += [f"{address} {name}" for address, name in hosts]
    lines += [f"{service.address} {service.name}" for service in services]
    found = [
        File("etc/hostname", f"{guest.name}\n".encode()),
        File("etc/hosts", ("\n".join(lines) + "\n").encode()),
        File("etc/ssh/ssh_host_ed25519_key", private, 0o600),
        File("etc/ssh/ssh_host_ed25519_key.pub", public),
        File("root/.ssh/authorized_keys", "".join(f"{k}\n" for k in guest.authorized_keys).encode(), 0o600),
    ]
    addresses = [service.address for service in services]
    for index, interface in enumerate(guest.interfaces):
        text = f"[Match]\nMACAddress={interface.mac}\n\n[Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
        if interface.address:
            text += f"Address={interface.address}\n"
        if interface.gateway:
            text += f"Gateway={interface.gateway}\n"
        if index == 0:
            # The masqueraded addresses are answered for by the guest's own container, on its first network.
            text += "".join(f"\n[Route]\nDestination={address}/32\nScope=link\n" for address in addresses)
        found.append(File(f"etc/systemd/network/10-vcrecon-{index}.network", text.encode()))
    return found


def archive(found: Iterable[File]) -> bytes:
    """The files as an uncompressed tar archive owned by root; the same files give the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for directory in DIRECTORIES[1:]:
            info = tarfile.TarInfo(directory)
            info.type, info.mode = tarfile.DIRTYPE, 0o700 if directory.startswith("root") else 0o755
            tar.addfile(info)
        for file in found:
            info = tarfile.TarInfo(file.path)
            info.size, info.mode = len(file.content), file.mode
            tar.addfile(info, io.BytesIO(file.content))
    return buffer.getvalue()


def password_line(password_hash: str) -> bytes:
    """The line for `chpasswd -e`."""
    return f"root:{password_hash}\n".encode()
