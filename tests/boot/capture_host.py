"""A host to capture: a small system of its own in a directory, with OpenSSH's server in it.

The programs are this machine's, copied with their libraries. Its mounts are in a namespace of the server's: they go
with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from support import sshd

PROGRAMS = (
    *("sh", "sshd", "unshare", "mount", "mountpoint", "stat", "mkdir", "sed", "chmod", "chgrp", "find", "grep", "tr"),
    *("nice", "tar", "zstd", "cat", "head", "id", "sort"),
)
FILES = {
    "etc/passwd": "root:x:0:0::/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nshadow:x:42:\n",
    "etc/os-release": "VERSION_CODENAME=bookworm\n",
    "usr/bin/dpkg-query": "#!/bin/sh\necho 'tar 1.34'\n",
}


def plant(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def lay(root: Path, program: Callable[[str], str]) -> None:
    """The system: directories as Debian has them, programs with the libraries that they need."""
    for name in ("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "usr/local/bin", "proc", "dev", "run", "mnt", "tmp"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    plant(root, FILES)
    (root / "usr/bin/dpkg-query").chmod(0o755)
    libraries: set[str] = set()
    for name in PROGRAMS:
        path = sshd.SSHD if name == "sshd" else program(name)
        assert path is not None, sshd.SKIP_REASON
        put(root, name, Path(path), directory="usr/sbin" if name == "sshd" else "usr/bin")
        said = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
        libraries.update(re.findall(r"(?:=> |^\s)(/\S+)", said, re.MULTILINE))
    for library in libraries:
        target = root / ("usr" + library.removeprefix("/usr"))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(library, target)
        target.chmod(0o755)


def put(root: Path, name: str, source: Path, *, directory: str = "usr/local/bin") -> None:
    """Give the host a program; what is in usr/local goes before its own."""
    target = root / directory / name
    shutil.copyfile(source, target)
    target.chmod(0o755)


def replace(root: Path, name: str, script: str) -> None:
    """Another program under the name of one of the host's."""
    path = root / "usr/local/bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@contextlib.contextmanager
def serving(root: Path, keys: Path, *, mounts: str = "true") -> Iterator[sshd.Sshd]:
    """Its SSH server on loopback. `mounts`: shell commands that mount more, in the host's directory."""
    keys.mkdir()
    host_key, client_key = sshd.make_key(keys / "host_key"), sshd.make_key(keys / "client_key")
    port = sshd.free_port()
    key = root / "etc/ssh/ssh_host_ed25519_key"
    plant(root, {"root/.ssh/authorized_keys": client_key.with_suffix(".pub").read_text()})
    key.parent.mkdir(exist_ok=True)
    shutil.copyfile(host_key, key)
    key.chmod(0o600)
    # Where the image is not made from: what belongs to this test is none of the host's configuration.
    (keys / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey /etc/ssh/ssh_host_ed25519_key\nStrictModes no\n"
        "UsePAM no\nPidFile none\nPermitRootLogin prohibit-password\n"
    )
    enter = f"mount --bind {root} {root} && cd {root} && mount -t proc proc proc && mount --bind /dev dev"
    enter += f" && mount -t tmpfs tmpfs run && mkdir run/sshd && cp {keys}/sshd_config run && {{ {mounts}; }}"
    enter += " && exec chroot . /usr/sbin/sshd -D -e -f /run/sshd_config"
    with (keys / "sshd.log").open("ab") as log:
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", enter], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    server = sshd.Sshd(keys, "127.0.0.1", port, "root", host_key, client_key, process)
    try:
        sshd.wait_until_it_accepts(process, port, keys / "sshd.log")
        (keys / "known_hosts").write_text(server.known_hosts())
        yield server
    finally:
        server.stop()


def command(server: sshd.Sshd, name: str, images: Path) -> list[str]:
    """`vcrecon image capture` of this host, as a person types it."""
    where = ("--key", str(server.client_key), "--known-hosts", str(server.directory / "known_hosts"))
    return ["image", "capture", f"root@127.0.0.1:{server.port}", name, *where, "--images", str(images)]


def connections(server: sshd.Sshd) -> list[int]:
    """Process ids of the servers of single connections, and not of what they run."""
    found = []
    for pid in server.sessions():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "sshd":
                found.append(pid)
    return found


def lives(pid: int) -> bool:
    """Whether a process still runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def unpack(archive: Path, target: Path) -> None:
    """As the installer does it."""
    target.mkdir()
    plain = subprocess.Popen(["zstd", "-dcq", str(archive)], stdout=subprocess.PIPE)
    tar = ["tar", "-x", "-p", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", os.fspath(target), "-f", "-"]
    subprocess.run(tar, stdin=plain.stdout, check=True)
    assert plain.wait() == 0
