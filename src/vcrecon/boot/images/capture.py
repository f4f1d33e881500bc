"""Makes an image of a running host, over one SSH connection. Called by `cli.image`.

The way of the paper's live imaging: in a mount namespace of its own the host binds the file systems of / and /boot to
a second place, where nothing is mounted over them, and packs what it reads there. So what lies on other file systems
(guests, /proc, /run, a network share) is never read, and nothing on the host changes. Files that change meanwhile are
taken as they are met: consistent enough to boot, since all that a host writes while it runs (logs, caches, states) is
left out or harmless; installing from it proves the rest.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vcrecon.boot.bootstrap import Say
from vcrecon.boot.images.build import LEFT_OUT, LOGS
from vcrecon.boot.images.description import SUFFIX, Description, FileDigest
from vcrecon.errors import HostError, Refused

if TYPE_CHECKING:
    import asyncssh

_CHUNK_BYTES = 1 << 20
_SAY_EVERY_BYTES = 64 << 20

HOST_SPECIFIC = (
    "boot/extlinux",
    "boot/grub/grub.cfg",
    "boot/ldlinux.*",
    "boot/lost+found",
    "etc/.pwd.lock",
    "etc/fstab",
    "etc/hostname",
    "etc/hosts",
    "etc/initramfs-tools/conf.d/resume",
    "etc/iscsi/initiatorname.iscsi",
    "etc/libvirt/qemu/*.xml",
    "etc/machine-id",
    "etc/mdadm/mdadm.conf",
    "etc/mtab",
    "etc/network/interfaces",
    "etc/network/interfaces.d/*",
    "etc/shadow-",
    "etc/ssl/private/*",
    "etc/systemd/network/*",
    "etc/udev/rules.d/70-persistent-net.rules",
    "etc/vcrecon",
    "home/*/.ssh",
    "lost+found",
    "root/.bash_history",
    "root/.cache",
    "root/.ssh",
    "swapfile",
    "var/crash/*",
    "var/lib/dhcp/*",
    "var/lib/libvirt/images/*",
    "var/lib/libvirt/qemu/*",
    "var/lib/systemd/coredump/*",
    "var/lib/systemd/timers/*",
    "var/spool/cron/crontabs/*",
)
"""What belongs to one host, beside what no image holds (`build.LEFT_OUT`); below the root, as shell patterns.

Password hashes go too: /etc/shadow is replaced by one in which nobody has a password.
"""


def capture_script(left_out: Sequence[str] = (*LEFT_OUT, *HOST_SPECIFIC)) -> str:
    """The script that a host runs as root: the image on standard output, complaints on standard error."""
    excluded = " ".join(shlex.quote(f"--exclude=./{pattern}") for pattern in sorted(set(left_out)))
    inner = f"""\
set -u
# Bind mounts that are not recursive show each file system alone.
mount --make-rprivate / && mount -t tmpfs -o mode=0700 capture /mnt && mkdir /mnt/system /mnt/own || exit 91
mount --bind / /mnt/system || exit 91
boot=
if mountpoint -q /boot; then mount --bind /boot /mnt/system/boot || exit 91; boot=./boot; fi
sed 's/^\\([^:]*\\):[^:]*:/\\1:*:/' /etc/shadow >/mnt/own/vcrecon.shadow || exit 91
chmod 0640 /mnt/own/vcrecon.shadow && chgrp shadow /mnt/own/vcrecon.shadow
: >/mnt/own/vcrecon.machine-id; chmod 0444 /mnt/own/vcrecon.machine-id
cd /mnt/system || exit 91
find ./{LOGS} -xdev ! -type d >/mnt/own/logs
nice -n 10 tar --create --sort=name --format=pax --pax-option=delete=atime,delete=ctime --numeric-owner --sparse \\
  --xattrs --xattrs-include='*' --one-file-system --anchored --wildcards --no-wildcards-match-slash \\
  --warning=no-file-changed --warning=no-file-removed --warning=no-file-ignored \\
  {excluded} --exclude=./etc/shadow --no-wildcards --exclude-from=/mnt/own/logs \
  --transform='s,^vcrecon\\.,./etc/,S' -f - . $boot -C /mnt/own vcrecon.shadow vcrecon.machine-id
# 1: a file changed while it was read, which a running host's may.
status=$?; [ "$status" -le 1 ] || exit 92
"""
    return f"""\
set -eu
[ "$(id -u)" = 0 ] || {{ echo "capturing needs root on the host" >&2; exit 90; }}
for tool in unshare tar zstd; do
  command -v $tool >/dev/null || {{ echo "$tool is not installed on the host" >&2; exit 90; }}
done
set +e
{{ unshare --mount sh -c {shlex.quote(inner)}; echo $? >&3; }} 3>/run/vcrecon-capture.$$ | nice -n 10 zstd -q -c -T0 -6
packed=$?; read -r read_status </run/vcrecon-capture.$$; rm -f /run/vcrecon-capture.$$
[ "$packed" = 0 ] || exit 93
exit "$read_status"
"""


FACTS = "dpkg-query -W -f '${Package} ${Version}\\n' | sort; echo; . /etc/os-release; echo \"$VERSION_CODENAME\""
"""A host's packages, then its suite."""


async def capture(
    connection: asyncssh.SSHClientConnection, host: str, name: str, hypervisor: str, images: Path, say: Say
) -> Description:
    """Write `NAME.tar.zst` and `NAME.json` in `images` from a running host. Raises Refused and HostError."""
    facts = await connection.run(FACTS, check=False)
    packages, suite = _facts(str(facts.stdout or ""))
    draft = images / f".{name}.capturing"
    try:
        root = await _stream(connection, host, draft, say)
        tree_sha256 = _tree_digest(draft)
        target = images / f"{name}{SUFFIX}"
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    description = Description(
        name=name,
        kind="container",
        root=FileDigest(target.name, root.sha256, root.size_bytes),
        tree_sha256=tree_sha256,
        source=f"captured from {host}",
        hypervisor=hypervisor,
        suite=suite,
        packages=packages,
    )
    description.write(images)
    return description


def _facts(said: str) -> tuple[dict[str, str], str]:
    packages, _, suite = said.partition("\n\n")
    pairs = [line.split() for line in packages.splitlines()]
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}, suite.strip()


async def _stream(connection: asyncssh.SSHClientConnection, host: str, draft: Path, say: Say) -> FileDigest:
    digest, size_bytes, told_bytes = hashlib.sha256(), 0, 0
    # On standard input, as everything that a host runs for us.
    process = await connection.create_process("sh -s", encoding=None)
    process.stdin.write(capture_script().encode())
    process.stdin.write_eof()
    with draft.open("wb") as stream:
        while chunk := await process.stdout.read(_CHUNK_BYTES):
            stream.write(chunk)
            digest.update(chunk)
            size_bytes += len(chunk)
            if size_bytes - told_bytes >= _SAY_EVERY_BYTES:
                told_bytes = size_bytes
                say(f"capture {host}: {size_bytes >> 20} MiB")
    words = (await process.stderr.read()).decode(errors="replace").strip()
    await process.wait_closed()
    status = process.exit_status
    if status == 90:
        raise Refused(f"{host}: {words}")
    if status != 0:
        raise HostError(f"{host}: capturing failed with status {status}: {words[-500:] or 'the connection was lost'}")
    return FileDigest(draft.name, digest.hexdigest(), size_bytes)


def _tree_digest(path: Path) -> str:
    """The digest of the archive inside, which also proves that the stream is whole. Raises Refused."""
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
        raise Refused(f"what the host sent is no whole zstd stream: {error}") from None
    return digest.hexdigest()
