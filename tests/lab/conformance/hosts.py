"""The two ways to reach a host: over SSH, real or simulated alike, and this machine's kernel in namespaces."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncssh

DEADLINE_S = 120.0
LOCAL_GROUP, LOCAL_TRUNK = "cfvg", "cftrunk"
LOCAL_LINK, LOCAL_SERVER, _LOCAL_ADDRESS = "cfout", "169.254.77.1", "169.254.77.2"
LOCAL_LACKS = frozenset({"device-mapper", "vlan", "bridge-conntrack", "terminal"})


class SshHost:
    """A host behind an SSH server; `async with` connects. Host keys are pinned, as the product does (S9)."""

    def __init__(self, address: str, port: int, user: str, key: Path, known_hosts: Path) -> None:
        self._options = {"host": address, "port": port, "username": user, "client_keys": [str(key)]}
        self._known_hosts = str(known_hosts)

    async def __aenter__(self) -> Self:
        self._connection = await asyncssh.connect(
            **self._options, known_hosts=self._known_hosts, config=[], agent_path=None
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        await self._connection.wait_closed()

    async def run(self, script: str, stdin: bytes, terminal: bool = False) -> tuple[int, bytes, bytes]:
        async with asyncio.timeout(DEADLINE_S):
            if terminal:
                return await self._typed(script, stdin)
            process = await self._connection.create_process(script, encoding=None)
            with contextlib.suppress(BrokenPipeError):  # it ended without reading
                process.stdin.write(stdin)
                process.stdin.write_eof()
            done = await process.wait()
        status = done.returncode if done.returncode is not None else 255
        return status, bytes(done.stdout or b""), bytes(done.stderr or b"")

    async def _typed(self, script: str, keys: bytes) -> tuple[int, bytes, bytes]:
        """What is typed before a program has made the terminal its own is lost: so it is typed again."""
        process = await self._connection.create_process(script, encoding=None, request_pty="force", term_type="dumb")
        ended = asyncio.ensure_future(process.wait())
        while not (await asyncio.wait({ended}, timeout=1.0))[0]:
            process.stdin.write(keys)
        done = ended.result()
        return done.returncode if done.returncode is not None else 255, bytes(done.stdout or b""), b""


_SET_UP = """
set -eu
exec 2>&1
export LVM_SUPPRESS_FD_WARNINGS=1
mount --make-rprivate /
for place in /run /etc/lvm /var/lib/vcrecon /etc/vcrecon; do mkdir -p $place; mount -t tmpfs tmpfs $place; done
mkdir -p /run/lock /run/lvm
cat > /etc/lvm/lvm.conf <<'END'
global { activation = 0 use_lvmpolld = 0 }
devices { use_devicesfile = 0 filter = ["a|/dev/loop|","r|.*|"] obtain_device_list_from_udev = 0
 external_device_info_source = "none" scan_lvs = 0 }
activation { udev_sync = 0 udev_rules = 0 monitoring = 0 }
backup { backup = 0 archive = 0 }
END
disks=$(mktemp -d) && mount -t tmpfs -o size=6g tmpfs $disks
attach() {
  truncate -s $2 $disks/$1
  loop=$(losetup -f --show $disks/$1)
  # Held open here and given up at once: the kernel frees it when this process ends, however it ends.
  exec {fd}<$loop
  losetup -d $loop
}
attach pv 4G
vgcreate -q GROUP $loop >/dev/null
mkdir -p /dev/GROUP && mount -t tmpfs tmpfs /dev/GROUP
for volume in VOLUMES; do attach $volume 768M; ln -s $loop /dev/GROUP/$volume; done
ip link set lo up
LIBVIRT
ip link add TRUNK type veth peer name cfpeer
echo ready
# Stays bash, which takes in the orphans: libvirt waits for the emulators that it sent away.
sleep infinity & wait
"""


def _first_child(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()[0]


_LIBVIRT = r"""
for place in /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
  mkdir -p $place; mount -t tmpfs tmpfs $place
done
for file in passwd group; do
  cp /etc/$file /run/$file; echo 'libvirt-qemu:x:64055:64055::/:/bin/false' >> /run/$file
  mount --bind /run/$file /etc/$file
done
cat > /etc/libvirt/qemu.conf <<'END'
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
END
# Emulation stands in for KVM where a guest is started: libvirt is real, and so are its words.
cat > /run/emulated <<'END'
#!/bin/bash
case " $* " in *" host,"*)
  args=()
  for a in "$@"; do case "$a" in host,*) a=max;; kvm) a=tcg;; esac; args+=("$a"); done
  set -- -L /usr/share/qemu -L /usr/share/seabios "${args[@]}";; esac
exec -a "$0" /run/qemu "$@"
END
chmod +x /run/emulated; touch /run/qemu
mount --bind /usr/bin/qemu-system-x86_64 /run/qemu
mount --bind /run/emulated /usr/bin/qemu-system-x86_64
libvirtd >/run/libvirtd.log 2>&1 &
for round in $(seq 100); do virsh -q list >/dev/null 2>&1 && break; sleep 0.1; done
"""


class LocalHost:
    """This machine as a host: its kernel and its tools, in namespaces of their own that end with this object.

    There is no device mapper: LVM keeps its metadata on a loop device with activation off, and the device node
    of each volume in `volumes` leads to a loop device of its own.
    """

    def __init__(self, volumes: tuple[str, ...], group: str = LOCAL_GROUP, trunk: str = LOCAL_TRUNK) -> None:
        self.group = group
        script = _SET_UP.replace("GROUP", group).replace("TRUNK", trunk).replace("VOLUMES", " ".join(volumes))
        self._script = script.replace("LIBVIRT\n", _LIBVIRT)

    async def __aenter__(self) -> Self:
        self._forget_nodes()
        self._init = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL"),  # dies with this process, and all of it dies with its first
            *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("bash", "-c", self._script),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._init.stdout is not None
        said = b""
        while line := await self._init.stdout.readline():
            if line == b"ready\n":
                break
            said += line
        else:
            raise RuntimeError(f"the namespaces could not be made: {said.decode().strip()}")
        self._pid = _first_child(self._init.pid)
        await self._link()
        return self

    async def _link(self) -> None:
        """A link to the image server on this side; it goes with the namespace."""
        for command in (
            f"ip link add {LOCAL_LINK} type veth peer name cfin netns {self._pid}",
            f"ip addr add {LOCAL_SERVER}/30 dev {LOCAL_LINK}",
            f"ip link set {LOCAL_LINK} up",
        ):
            process = await asyncio.create_subprocess_exec(*command.split())
            if await process.wait():
                raise RuntimeError(f"failed: {command}")
        status, _, err = await self.run(f"ip addr add {_LOCAL_ADDRESS}/30 dev cfin && ip link set cfin up", b"")
        if status:
            raise RuntimeError(f"the link to the namespace: {err.decode().strip()}")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._init.kill()
        await self._init.wait()
        self._forget_nodes()

    def _forget_nodes(self) -> None:
        """The directory of the volumes' nodes is made in the devtmpfs that all of this machine shares."""
        with contextlib.suppress(FileNotFoundError):
            Path(f"/dev/{self.group}").rmdir()

    async def run(self, script: str, stdin: bytes, terminal: bool = False) -> tuple[int, bytes, bytes]:
        assert not terminal, "cases at a terminal say that they need one"
        process = await asyncio.create_subprocess_exec(
            *("nsenter", "-t", self._pid, "-m", "-n", "-p", "sh", "-c", script),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"},
        )
        try:
            async with asyncio.timeout(DEADLINE_S):
                out, err = await process.communicate(stdin)
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        # A kernel that was built without device mapper makes every lvm command say so.
        err = re.sub(rb" *WARNING: (Activation disabled|This metadata update is NOT|Skipping zero).*\n", b"", err)
        return process.returncode or 0, out, err
