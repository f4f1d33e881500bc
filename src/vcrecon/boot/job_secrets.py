"""Reads what a job needs from files of the site: the controller's public key, root's password hash.

Called by `boot.services` for each job, so that a file that was changed is used at once.
"""

from __future__ import annotations

import re
from pathlib import Path

import asyncssh

from vcrecon.boot.job import JobSecrets
from vcrecon.errors import Refused
from vcrecon.spec.model import Spec

_HASH = re.compile(r"[!-9;-~]{3,500}")
"""Printable, without spaces and colons: those end the field in /etc/shadow."""


def job_secrets(spec: Spec, site_secret: bytes) -> JobSecrets:
    """The secrets of a job. Raises Refused, naming the file, when one cannot be read."""
    path = spec.site.provisioning.root_password
    return JobSecrets(site_secret, (public_key(spec.site.ssh.key),), None if path is None else _password_hash(path))


def public_key(private: Path) -> str:
    """The line for authorized_keys. It is made from the private key; with a passphrase on it, `KEY.pub` is read."""
    try:
        return asyncssh.read_private_key(private).export_public_key().decode().strip()
    except OSError as error:
        raise Refused(
            f"cannot read the controller's SSH key {private}: {error.strerror}; see 'ssh' in site.yaml"
        ) from None
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError):
        beside = private.with_name(f"{private.name}.pub")
        try:
            return asyncssh.read_public_key(beside).export_public_key().decode().strip()
        except (OSError, asyncssh.KeyImportError):
            raise Refused(
                f"{private} is no SSH key without a passphrase, and {beside} no public key: "
                f"`ssh-keygen -y -f {private} > {beside}`"
            ) from None


def _password_hash(path: Path) -> str:
    try:
        found = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not plain text"
        raise Refused(f"cannot read the containers' root password hash in {path.name}: {why}") from None
    if not _HASH.fullmatch(found):
        raise Refused(f"{path.name} holds no crypt(3) hash; make one with `mkpasswd` or `openssl passwd -6`")
    return found
