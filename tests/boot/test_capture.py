"""`vcrecon image capture` of a host with a real OpenSSH server: what survives, what is left out, what goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import json
import os
import socket
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest
import zstandard
from capture_host import command, connections, lay, lives, plant, replace, serving, unpack
from typer.testing import CliRunner

from support import sshd
from vcrecon.boot.images.capture import capture
from vcrecon.boot.images.store import verify
from vcrecon.cli.app import app
from vcrecon.errors import Unreachable

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(sshd.SSHD is None, reason=sshd.SKIP_REASON),
]

CANARY = "canary-0c1f3a5e"
KEY = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{CANARY}\n-----END OPENSSH PRIVATE KEY-----\n"
ODD_KEY = "opt/k*y [1]\n\\of it.pem"
"""Every character in it means something to tar, or separates names."""

SECRETS = {
    **dict.fromkeys(
        (
            *(
                "etc/ssh/ssh_host_rsa_key",
                "root/.ssh/id_ed25519",
                "home/student/.ssh/id_rsa",
                "srv/deep/er/.ssh/config",
            ),
            *("etc/ssl/private/snakeoil.key", "srv/app/server.key", "usr/local/etc/tls.pem", ODD_KEY),
        ),
        KEY,
    ),
    **dict.fromkeys(
        (
            *("etc/machine-id", "var/lib/dbus/machine-id", "etc/hostname", "etc/hosts", "etc/fstab", "etc/shadow-"),
            *("etc/systemd/network/10-a.network", "etc/network/interfaces", "etc/mdadm/mdadm.conf"),
            *(
                "etc/lvm/devices/system.devices",
                "etc/lvm/backup/vg0",
                "etc/vcrecon/release",
                "var/lib/vcrecon/site.key",
            ),
            *("etc/libvirt/qemu/a-head.xml", "var/lib/libvirt/images/a-head.raw", "var/spool/cron/crontabs/root"),
            *("root/.bash_history", "home/student/.python_history", "root/.netrc", "etc/apt/auth.conf.d/mirror.conf"),
            *("tmp/left", "var/tmp/left", "var/log/syslog", "var/log/apt/history.log", "var/log/odd\nname", "swapfile"),
        ),
        f"{CANARY}\n",
    ),
    "etc/shadow": f"root:$6${CANARY}:19000:0:99999:7:::\nbin:*:1::::::\n",
    "etc/gshadow": f"root:{CANARY}::\n",
}
EMPTIED = {"etc/shadow", "etc/gshadow", "etc/machine-id"}
EXAMPLE = "usr/lib/python3/dist-packages/tests/key.pem"
KEPT = {
    "etc/ssh/sshd_config.d/site.conf": "UseDNS no\n",
    "etc/ssh/moduli": "20230319 -----BEGIN is no key\n",
    "srv/data": "kept\n",
    "usr/local/share/tool": "kept\n",
    EXAMPLE: KEY.replace(CANARY, "an example that a package brings"),
    "opt/.hidden": "kept\n",
    "var/log.d/kept": "kept\n",
}
ODD = (b"new\nline", b"a  b ", b"-dash", b"st*r", b"[x]", b"back\\slash", b"quo'te\"", b"\xff\xfe", b"x" * 255)


@pytest.fixture
def root(tmp_path: Path, program: Callable[[str], str]) -> Path:
    path = tmp_path / "host"
    lay(path, program)
    plant(path, {**SECRETS, **KEPT})
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    path = tmp_path / "images"
    path.mkdir()
    return path


def captured(server: sshd.Sshd, images: Path, name: str = "live") -> Any:
    result = CliRunner().invoke(app, [*command(server, name, images), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def entries(archive: Path) -> dict[str, bytes]:
    """The name of everything in it, with the first bytes of what is a file."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(content(archive))) as tar:
        for member in tar:
            stream = tar.extractfile(member) if member.isreg() else None
            found[member.name.removeprefix("./").rstrip("/")] = b"" if stream is None else stream.read(80)
    return found


def content(archive: Path) -> bytes:
    with archive.open("rb") as stream:
        return zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True).read()


def test_what_is_the_host_s_own_and_every_secret_is_left_out(root: Path, images: Path, tmp_path: Path) -> None:
    with serving(root, tmp_path / "keys") as server:
        host_key = server.host_key.read_text().splitlines()[1].encode()
        described = captured(server, images)
    archive = images / "live.tar.zst"
    found, plain = entries(archive), content(archive)
    assert [line for line in plain.splitlines() if CANARY.encode() in line] == []
    assert host_key not in plain
    assert [name for name, head in found.items() if b"PRIVATE KEY-----" in head] == [EXAMPLE]
    assert found.keys() & SECRETS.keys() == EMPTIED
    assert KEPT.keys() <= found.keys()
    assert {"var/log/apt", "usr/bin/tar", "home/student", "proc", "dev", "run"} <= found.keys()
    assert described["source"] == "captured from 127.0.0.1"
    assert (described["suite"], described["packages"]) == ("bookworm", {"tar": "1.34"})
    assert [finding.trouble for finding in verify(images)] == [""]


def test_nobody_has_a_password_in_the_image_and_the_host_keeps_its_own(
    root: Path, images: Path, tmp_path: Path
) -> None:
    with serving(root, tmp_path / "keys") as server:
        captured(server, images)
    unpack(images / "live.tar.zst", tmp_path / "out")
    shadow = tmp_path / "out/etc/shadow"
    assert shadow.read_text() == "root:*:19000:0:99999:7:::\nbin:*:1::::::\n"
    assert (shadow.stat().st_mode & 0o777, shadow.stat().st_gid) == (0o640, 42)
    assert (tmp_path / "out/etc/machine-id").read_text() == ""
    assert {name: (root / name).read_text() for name in SECRETS} == SECRETS


def test_what_lies_on_other_file_systems_is_not_read_but_for_those_of_the_system(
    root: Path, images: Path, tmp_path: Path
) -> None:
    """/boot and /opt are apart here and belong to it; /srv/guests is no business of an image. What is mounted over a
    directory hides what the system itself has there."""
    plant(root, {"srv/guests/under": "of the system\n", "boot/under": "hidden by /boot, and not of it\n"})
    mounts = (
        "; ".join(
            f"mount -t tmpfs tmpfs {place} && echo {CANARY} >{place}/{name}"
            for place, name in (("srv/guests", "disk.raw"), ("boot", "vmlinuz-6.1"), ("opt", "tool"))
        )
        .replace(f"echo {CANARY} >boot", "echo kernel >boot")
        .replace(f"echo {CANARY} >opt", "echo tool >opt")
    )
    with serving(root, tmp_path / "keys", mounts=mounts) as server:
        captured(server, images)
    names = entries(images / "live.tar.zst").keys()
    assert {"srv/guests/under", "boot/vmlinuz-6.1", "opt/tool"} <= names
    assert not names & {"srv/guests/disk.raw", "boot/under", "opt/.hidden", "dev/null", "run/sshd"}
    assert CANARY.encode() not in content(images / "live.tar.zst")


def test_links_holes_capabilities_and_odd_names_survive(root: Path, images: Path, tmp_path: Path) -> None:
    place = root / "srv/odd"
    place.mkdir()
    for name in ODD:
        (place / os.fsdecode(name)).write_text("odd\n")
    os.link(root / "srv/data", place / "linked")
    (place / "dangling").symlink_to("/nowhere/at all")
    with (place / "holes").open("wb") as stream:
        stream.truncate(64 << 20)
        stream.seek(32 << 20)
        stream.write(b"island")
    (place / "able").write_text("program\n")
    # cap_net_raw, permitted and effective: the second version of the form (linux/capability.h).
    capability = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
    os.setxattr(place / "able", "security.capability", capability)
    (place / "able").chmod(0o4751)
    os.mkfifo(place / "pipe")
    os.mknod(place / "null", 0o20666, os.makedev(1, 3))
    os.chown(place / "pipe", 4242, 4343)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "socket"))
    with serving(root, tmp_path / "keys") as server:
        captured(server, images)
    out = tmp_path / "out"
    unpack(images / "live.tar.zst", out)
    found = out / "srv/odd"
    assert {os.fsencode(path.name) for path in found.iterdir()} >= {*ODD, b"linked", b"dangling", b"pipe", b"null"}
    assert (found / "linked").samefile(out / "srv/data")
    assert os.readlink(found / "dangling") == "/nowhere/at all"
    holes = found / "holes"
    assert holes.stat().st_size == 64 << 20
    assert holes.stat().st_blocks * 512 < 1 << 20
    assert holes.read_bytes()[32 << 20 :][:6] == b"island"
    assert os.getxattr(found / "able", "security.capability") == capability
    assert (found / "able").stat().st_mode & 0o7777 == 0o4751
    assert ((found / "pipe").stat().st_uid, (found / "pipe").stat().st_gid) == (4242, 4343)
    assert (found / "null").stat().st_rdev == os.makedev(1, 3)


def test_complaints_do_not_hold_up_the_image(root: Path, images: Path, tmp_path: Path) -> None:
    """More of them than the connection takes while nobody reads them."""
    flood = "i=0; while [ $i -lt 40000 ]; do echo 'tar: a file changed, and this line is as long as its path' >&2"
    replace(root, "tar", f'{flood}; i=$((i+1)); done; exec /usr/bin/tar "$@"')
    with serving(root, tmp_path / "keys") as server:
        captured(server, images)
    assert "srv/data" in entries(images / "live.tar.zst")


def refused(server: sshd.Sshd, images: Path) -> str:
    """What the command says as it fails; it left nothing."""
    before = sorted(os.listdir(images))
    result = CliRunner().invoke(app, command(server, "live", images))
    assert result.exit_code == 1, result.output
    assert sorted(os.listdir(images)) == before
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def test_a_tar_that_fails_is_named_with_its_last_words(root: Path, images: Path, tmp_path: Path) -> None:
    replace(root, "tar", "echo half; echo 'tar: ./srv/data: Read error at byte 0: Input/output error' >&2; exit 2")
    with serving(root, tmp_path / "keys") as server:
        said = refused(server, images)
    assert "127.0.0.1: tar could not pack all of its system" in said
    assert "Read error at byte 0" in said
    assert "nothing was kept" in said


def test_a_compressor_that_fails_fails_the_capture(root: Path, images: Path, tmp_path: Path) -> None:
    replace(root, "zstd", "cat >/dev/null; echo 'zstd: out of memory' >&2; exit 1")
    with serving(root, tmp_path / "keys") as server:
        assert "zstd could not compress its system: zstd: out of memory" in refused(server, images)


def test_a_host_without_zstd_is_told_so(root: Path, images: Path, tmp_path: Path) -> None:
    (root / "usr/bin/zstd").unlink()
    with serving(root, tmp_path / "keys") as server:
        assert "zstd is not installed on the host" in refused(server, images)


def test_a_name_that_is_taken_is_refused_and_the_image_kept(root: Path, images: Path, tmp_path: Path) -> None:
    (images / "live.tar.zst").write_text("an image")
    with serving(root, tmp_path / "keys") as server:
        assert "live.tar.zst is there already" in refused(server, images)
    assert (images / "live.tar.zst").read_text() == "an image"


def test_a_host_whose_key_is_not_pinned_is_refused(root: Path, images: Path, tmp_path: Path) -> None:
    with serving(root, tmp_path / "keys") as server:
        (tmp_path / "keys/known_hosts").write_text("")
        assert "host key" in refused(server, images)


def test_a_full_disk_here_is_named_and_nothing_is_left(root: Path, images: Path, tmp_path: Path) -> None:
    """A disk of 1 MiB, mounted for the command alone."""
    replace(root, "tar", "exec head -c 20000000 /dev/urandom")
    plain = ("nice", "-n", "5", sys.executable, "-m", "vcrecon")
    script = 'mount -t tmpfs -o size=1m small "$1" && shift && { "$@"; echo "status $?"; ls -A "$DISK"; }'
    with serving(root, tmp_path / "keys") as server:
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", str(images), *plain, *command(server, "live", images)],
            capture_output=True,
            text=True,
            env={**os.environ, "DISK": str(images)},
            check=False,
        )
    assert done.stdout.splitlines()[-1] == "status 1", done.stdout + done.stderr
    assert "No space left on device" in done.stderr
    assert "nothing was kept" in " ".join(done.stderr.split())


@contextlib.contextmanager
def capturing(server: sshd.Sshd, images: Path) -> Iterator[subprocess.Popen[str]]:
    """The command at work, once some of the image has arrived."""
    words = [sys.executable, "-m", "vcrecon", *command(server, "live", images)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            until(lambda: any(path.stat().st_size for path in images.glob(".live.*")), "the first bytes")
            yield process
        finally:
            process.kill()


def until(true: Callable[[], object], what: str, deadline_s: float = 120.0) -> None:
    ends_s = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < ends_s, f"in vain: {what}"
        time.sleep(0.05)


def test_a_connection_that_is_lost_half_way_leaves_nothing_here_or_there(
    root: Path, images: Path, tmp_path: Path
) -> None:
    replace(root, "tar", "exec cat /dev/urandom")
    with serving(root, tmp_path / "keys") as server, capturing(server, images) as process:
        at_work = server.sessions()
        for pid in connections(server):
            os.kill(pid, 9)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "127.0.0.1: " in said
        assert "nothing was kept: capture it again" in " ".join(said.split())
        assert "Traceback" not in said
        until(lambda: not [pid for pid in at_work if lives(pid)], "the host's own processes end")
    assert os.listdir(images) == []


async def test_a_connection_that_is_lost_as_we_write_is_not_taken_for_a_disk_of_ours(
    root: Path, images: Path, tmp_path: Path
) -> None:
    """Then the socket fails first, and asyncssh raises what it said: an error as a full disk raises it."""
    replace(root, "tar", "exec cat /dev/urandom")
    said: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    with serving(root, tmp_path / "keys") as server:
        async with asyncssh.connect(
            "127.0.0.1",
            server.port,
            username="root",
            client_keys=[str(server.client_key)],
            known_hosts=str(tmp_path / "keys/known_hosts"),
        ) as connection:

            def lose(_: str) -> None:
                connection.get_extra_info("socket").shutdown(socket.SHUT_WR)
                connection.send_debug("in vain")

            with pytest.raises(Unreachable, match=r"127\.0\.0\.1: .*; nothing was kept: capture it again"):
                await capture(connection, "127.0.0.1", "live", "kvm", images, lose)
    assert os.listdir(images) == []
    gc.collect()
    assert said == []


def test_a_capture_that_is_interrupted_leaves_nothing_here_or_there(root: Path, images: Path, tmp_path: Path) -> None:
    replace(root, "tar", "exec cat /dev/urandom")
    with serving(root, tmp_path / "keys") as server, capturing(server, images) as process:
        at_work = server.sessions()
        process.send_signal(2)
        process.communicate(timeout=120)
        assert process.returncode != 0
        until(lambda: not [pid for pid in at_work if lives(pid)], "the host's own processes end")
    assert os.listdir(images) == []
