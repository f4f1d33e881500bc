"""Makes an image of a running host, over one SSH connection. Called by `cli.image`.

The way of the paper's live imaging: in a mount namespace of its own the host binds its own file systems (/, and /boot,
/usr, /var and /opt where these are apart) to a second place, where nothing is mounted over them, and packs what it
reads there. So what lies on other file systems (guests, /proc, /run, a network share) is never read, and nothing on the
host changes. Files that change meanwhile are taken as they are met: consistent enough to boot, since all that a host
writes while it runs (logs, caches, states) is left out or harmless; installing from it proves the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shlex
import tempfile
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import asyncssh

from vcrecon.boot.images.build import LEFT_OUT, LOGS
from vcrecon.boot.images.description import SUFFIX, Description, FileDigest
from vcrecon.debian import Say
from vcrecon.errors import HostError, Refused, Unreachable

_CHUNK_BYTES = 1 << 20
_SAY_EVERY_BYTES = 64 << 20
_WORDS_BYTES = 2000

HOST_SPECIFIC = (
    "boot/extlinux",
    "boot/grub/grub.cfg",
    "boot/ldlinux.*",
    "boot/lost+found",
    "etc/apt/auth.conf",
    "etc/apt/auth.conf.d/*",
    "etc/credstore/*",
    "etc/credstore.encrypted/*",
    "etc/fstab",
    "etc/hosts",
    "etc/initramfs-tools/conf.d/resume",
    "etc/iscsi/initiatorname.iscsi",
    "etc/krb5.keytab",
    "etc/libvirt/qemu/*.xml",
    "etc/libvirt/secrets/*",
    "etc/lvm/devices/*",
    "etc/machine-id",
    "etc/mdadm/mdadm.conf",
    "etc/mtab",
    "etc/multipath/*",
    "etc/munge/munge.key",
    "etc/netplan/*",
    "etc/network/interfaces",
    "etc/network/interfaces.d/*",
    "etc/NetworkManager/system-connections/*",
    "etc/nvme/host*",
    "etc/ssl/private/*",
    "etc/systemd/network/*",
    "etc/udev/rules.d/70-persistent-net.rules",
    "etc/vcrecon",
    "etc/wireguard/*",
    *(f"{home}/{name}" for home in ("root", "home/*") for name in (".*_history", ".cache", ".gnupg", ".netrc")),
    "lost+found",
    "swapfile",
    "var/crash/*",
    "var/lib/cloud",
    "var/lib/dhcp/*",
    "var/lib/libvirt/images/*",
    "var/lib/libvirt/qemu/*",
    "var/lib/systemd/coredump/*",
    "var/lib/systemd/credential.secret",
    "var/lib/systemd/timers/*",
    "var/spool/cron/crontabs/*",
)
"""What belongs to one host, beside what no image holds (`build.LEFT_OUT`); below the root, as shell patterns.

Every directory `.ssh` goes too, wherever it is, and every private key outside of what packages bring. So do password
hashes: /etc/shadow and /etc/gshadow are replaced by ones in which nobody has a password.
"""


def capture_script(left_out: Sequence[str] = (*LEFT_OUT, *HOST_SPECIFIC)) -> str:
    """The script that a host runs as root: the image on standard output, complaints on standard error."""
    excluded = " ".join(shlex.quote(f"--exclude=./{pattern}") for pattern in sorted(set(left_out)))
    inner = rf"""set -u
# Bind mounts that are not recursive show each file system alone.
mount --make-rprivate / && mount -t tmpfs -o mode=0700 capture /mnt && mkdir /mnt/system /mnt/own || exit 91
mount --bind / /mnt/system || exit 91
apart=
for place in boot usr var opt; do
  # On the same device it is no file system of its own, but something else that lies over the directory.
  if mountpoint -q /$place && {{ [ $place = boot ] || [ "$(stat -c %d /$place)" != "$(stat -c %d /)" ]; }}; then
    mount --bind /$place /mnt/system/$place || exit 91
    apart="$apart ./$place"
  fi
done
for file in shadow gshadow; do
  [ -e /etc/$file ] || continue
  sed 's/^\([^:]*\):[^:]*:/\1:*:/' /etc/$file >/mnt/own/vcrecon.$file || exit 91
  chmod 0640 /mnt/own/vcrecon.$file && chgrp shadow /mnt/own/vcrecon.$file
done
: >/mnt/own/vcrecon.machine-id; chmod 0444 /mnt/own/vcrecon.machine-id
cd /mnt/system || exit 91
{{
  find ./{LOGS} -xdev ! -type d -print0
  find . $apart -xdev -name .ssh -prune -print0
  find . $apart -xdev -path './usr/*' ! -path './usr/local*' -prune -o -path ./var/lib/dpkg -prune \
    -o -type f -size -128 -exec grep -lZs -e '^-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----' -e '^PuTTY-User-Key-File' {{}} +
}} | sed -z 's/[][*?\]/\\&/g; s/\n/?/g' | tr '\0' '\n' >/mnt/own/names
nice -n 10 tar --create --sort=name --format=pax --pax-option=delete=atime,delete=ctime --numeric-owner --sparse \
  --xattrs --xattrs-include='*' --one-file-system --anchored --wildcards --no-wildcards-match-slash \
  --warning=no-file-changed --warning=no-file-removed --warning=no-file-ignored \
  {excluded} --exclude=./etc/shadow --exclude=./etc/gshadow --exclude-from=/mnt/own/names \
  --transform='s,^vcrecon\.,./etc/,S' -f - . $apart -C /mnt/own $(cd /mnt/own && echo vcrecon.*)
# 1: a file changed while it was read, which a running host's may.
status=$?; [ "$status" -le 1 ] || exit 92
"""
    return rf"""set -eu
[ "$(id -u)" = 0 ] || {{ echo "capturing needs root on the host" >&2; exit 90; }}
for tool in unshare find grep tar zstd; do
  command -v $tool >/dev/null || {{ echo "$tool is not installed on the host" >&2; exit 90; }}
done
set +e
exec 4>&1
ended=$({{ {{ unshare --mount sh -c {shlex.quote(inner)} </dev/null; echo $? >&3; }} | nice -n 10 zstd -q -c -T0 -6 >&4
echo $? >&3; }} 3>&1)
set -- $ended
[ "$2" = 0 ] || exit 93
exit "$1"
"""


_FAILED = {
    91: "its file systems cannot be bound to a second place",
    92: "tar could not pack all of its system",
    93: "zstd could not compress its system",
}
"""What the script's exit status says; 90 is said by the script itself."""

FACTS = "dpkg-query -W -f '${Package} ${Version}\\n' | sort; echo; . /etc/os-release; echo \"$VERSION_CODENAME\""
"""A host's packages, then its suite."""


async def capture(
    connection: asyncssh.SSHClientConnection, host: str, name: str, hypervisor: str, images: Path, say: Say
) -> Description:
    """Write `NAME.tar.zst` and `NAME.json` in `images` from a running host; whole, or nothing.

    Raises Refused (the name is taken, no room here, no root there), Unreachable when the connection is lost, and
    HostError when the host cannot pack its system.
    """
    refuse_taken(images, name)
    try:
        packages, suite = await _facts(connection, host)
        with _draft(images, name) as (draft, stream):
            root = await _stream(connection, host, stream, say)
            description = Description(
                name=name,
                kind="container",
                root=FileDigest(f"{name}{SUFFIX}", root.sha256, root.size_bytes),
                tree_sha256=_tree_digest(draft, host),
                source=f"captured from {host}",
                hypervisor=hypervisor,
                suite=suite,
                packages=packages,
            )
            _publish(draft, description, images)
    except OSError as error:
        raise Refused(
            f"{images} cannot take the image: {error.strerror}; nothing was kept: make room there, or name another "
            "directory with --images"
        ) from None
    return description


def refuse_taken(images: Path, name: str) -> None:
    """Raises Refused when there is such an image: a spec may name it, and machines may be fetching it."""
    for taken in (images / f"{name}{SUFFIX}", images / f"{name}.json"):
        if taken.exists():
            raise Refused(f"{taken} is there already: give the image another name, or remove that one first")


@contextlib.contextmanager
def _draft(images: Path, name: str) -> Iterator[tuple[Path, BinaryIO]]:
    """A file that nobody takes for an image; it goes, however this ends."""
    images.mkdir(parents=True, exist_ok=True)
    handle, path = tempfile.mkstemp(prefix=f".{name}.", suffix=".capturing", dir=images)
    draft = Path(path)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield draft, stream
    finally:
        draft.unlink(missing_ok=True)


def _publish(draft: Path, description: Description, images: Path) -> None:
    """Under its own name, which another capture may have taken meanwhile; without its description it goes again."""
    draft.chmod(0o644)
    target = images / description.root.name
    try:
        os.link(draft, target)
    except FileExistsError:
        refuse_taken(images, description.name)
        raise
    try:
        description.write(images)
    except OSError:
        target.unlink()
        raise


@contextlib.contextmanager
def _connected(host: str) -> Iterator[None]:
    """Every error of a connection is Unreachable: when one is lost, asyncssh also raises what its socket met."""
    try:
        yield
    except (asyncssh.Error, OSError) as error:
        why = error.reason if isinstance(error, asyncssh.Error) else error.strerror or error
        raise Unreachable(f"{host}: {why}; nothing was kept: capture it again when it answers") from None


async def _facts(connection: asyncssh.SSHClientConnection, host: str) -> tuple[dict[str, str], str]:
    with _connected(host):
        said = await connection.run(FACTS, check=False)
    packages, _, suite = str(said.stdout or "").partition("\n\n")
    pairs = [line.split() for line in packages.splitlines()]
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}, suite.strip()


async def _stream(connection: asyncssh.SSHClientConnection, host: str, stream: BinaryIO, say: Say) -> FileDigest:
    digest, size_bytes, told_bytes = hashlib.sha256(), 0, 0
    async with contextlib.aclosing(_packed(connection, host)) as packed:
        async for chunk in packed:
            stream.write(chunk)
            digest.update(chunk)
            size_bytes += len(chunk)
            if size_bytes - told_bytes >= _SAY_EVERY_BYTES:
                told_bytes = size_bytes
                say(f"capture {host}: {size_bytes >> 20} MiB")
    stream.flush()
    return FileDigest("", digest.hexdigest(), size_bytes)


async def _packed(connection: asyncssh.SSHClientConnection, host: str) -> AsyncGenerator[bytes, None]:
    """The image as the host packs it; ends well only when that did."""
    with _connected(host):
        # On standard input, as everything that a host runs for us.
        process = await connection.create_process("sh -s", encoding=None)
        # Both at once: one that is not read would hold up the other.
        complaints = asyncio.create_task(_last_words(process.stderr))
        try:
            process.stdin.write(capture_script().encode())
            process.stdin.write_eof()
            while chunk := await process.stdout.read(_CHUNK_BYTES):
                yield chunk
            words = await complaints
            await process.wait_closed()
        finally:
            complaints.cancel()
            # Without a reader its zstd ends, and then its tar: nobody waits for that here.
            process.close()
    _judge(host, process.exit_status, words)


def _judge(host: str, status: int | None, words: str) -> None:
    """Raises what an exit status of the script means."""
    if status == 90:
        raise Refused(f"{host}: {words}")
    if status != 0:
        why = _FAILED.get(status or 0, "the script that packs it was ended")
        raise HostError(f"{host}: {why}: {words or 'no words'}; nothing was kept, and the host is as it was")


async def _last_words(stream: asyncssh.SSHReader[bytes]) -> str:
    words = b""
    while chunk := await stream.read(_CHUNK_BYTES):
        words = (words + chunk)[-_WORDS_BYTES:]
    return words.decode(errors="replace").strip()


def _tree_digest(path: Path, host: str) -> str:
    """The digest of the archive inside, which also proves that the stream is whole. Raises HostError."""
    import zstandard

    digest = hashlib.sha256()
    try:
        with (
            path.open("rb") as stream,
            zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True) as tar,
        ):
            while chunk := tar.read(_CHUNK_BYTES):
                digest.update(chunk)
    except zstandard.ZstdError as error:
        raise HostError(f"{host}: what it sent is no whole zstd stream ({error}); nothing was kept") from None
    return digest.hexdigest()
