"""What makes a copied image a particular guest: the files that contextualization writes. Pure.

The archive travels on standard input; it holds private keys (S10). Used by `host.scripts`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import tarfile
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from vcrecon.spec.model import Guest, Service

DIRECTORIES = ("etc", "etc/ssh", "etc/systemd", "etc/systemd/network", "root", "root/.ssh")
"""Every directory that a file is written into, its parents included: checked for symbolic links first."""


END = "etc/.vcrecon-complete"
"""Written last and removed at once; without it the archive was cut off on its way (S7)."""


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
    point = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    public = _string(b"ssh-ed25519") + _string(point)
    # PROTOCOL.key of OpenSSH, written out here since libraries put random bytes where `check` is.
    check = hashlib.sha256(public).digest()[:4]
    secret = check + check + public + _string(seed + point) + _string(b"")
    secret += bytes(range(1, 1 + -len(secret) % 8))
    none = _string(b"none") + _string(b"none") + _string(b"")
    blob = b"openssh-key-v1\0" + none + (1).to_bytes(4, "big") + _string(public) + _string(secret)
    lines = textwrap.wrap(base64.b64encode(blob).decode(), 70)
    private = "\n".join(["-----BEGIN OPENSSH PRIVATE KEY-----", *lines, "-----END OPENSSH PRIVATE KEY-----", ""])
    return private.encode(), b"ssh-ed25519 " + base64.b64encode(public) + f" root@{guest}\n".encode()


def _string(data: bytes) -> bytes:
    """A string as SSH writes it: its length in four bytes, then itself (RFC 4251, section 5)."""
    return len(data).to_bytes(4, "big") + data


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
        # The last entry: tar takes an input that ends between two files for a whole one.
        tar.addfile(tarfile.TarInfo(END))
    return buffer.getvalue()


def password_line(password_hash: str) -> bytes:
    """The line for `chpasswd -e`."""
    return f"root:{password_hash}\n".encode()
