"""A pretended container: an OpenSSH server in network and mount namespaces of its own. Made by `one`.

What vcrecon's scripts write on a container is private to each: /run and /etc (its own layer), /var/lib with a small
disk at /var/lib/vcrecon. The disk is a tmpfs, or ext4 on a loop device that writes through, which a cgroup can slow
down. The kernel has no VLANs, so a bridge step ends with `no-vlan` here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support import sshd

PREFIX = "vcf-"
PORT = 22
TRUNK = "trunk"
DISK_BYTES = 24 << 20
RUN_BYTES = 1 << 20
QUICK_KEEPALIVE = "ClientAliveInterval 1\nClientAliveCountMax 3\nLoginGraceTime 20\n"
"""As docs/containers.md wants it, but quicker: a server that never asks keeps the commands of a master that is gone.

One that has something to say does not ask: there TCP gives up, by its own settings after a quarter of an hour, and
here after some seconds (`tcp_retries2`). A login that was cut off is kept for two minutes by default.
"""
BLKIO = Path("/sys/fs/cgroup/blkio")
"""Only the first version of cgroups is used: its limits work on a loop device whose file system writes through."""

_MOUNTS = r"""
set -eu
echo 5 >/proc/sys/net/ipv4/tcp_retries2
mount -t tmpfs -o size={run_bytes} run /run
mkdir -p /run/lock /run/sshd {layer}
mount -t tmpfs -o size=4m layer {layer}
mkdir {layer}/upper {layer}/work
mount -t overlay -o lowerdir=/etc,upperdir={layer}/upper,workdir={layer}/work etc /etc
mount -t tmpfs -o size=1m state /var/lib
mkdir -p /var/lib/vcrecon /etc/vcrecon /etc/lvm /etc/libvirt
printf 'hypervisor=kvm\ngeneration=1\n' >/etc/vcrecon/release
printf 'devices {{ global_filter=["r|.*|"] }}\n' >/etc/lvm/lvm.conf
echo 'uri_default = "test:///default"' >/etc/libvirt/libvirt.conf
{disk}
mkdir /var/lib/vcrecon/images /var/lib/vcrecon/vg
rm -rf /var/lib/vcrecon/lost+found
echo ready
exec cat
"""


def run(*command: str) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def load(rules: str, inside: Sequence[str] = ()) -> None:
    """Load nftables rules, here or inside a namespace."""
    subprocess.run([*inside, "nft", "-f", "-"], input=rules, text=True, check=True)


def can_slow_a_disk() -> bool:
    return (BLKIO / "cgroup.procs").exists() and shutil.which("mkfs.ext4") is not None


class Box:
    """Container `c<number>`, reached at `address`. `link` is this side's end of its cable."""

    def __init__(self, number: int, scratch: Path, client_key: Path, *, block_device: bool) -> None:
        self.name = f"c{number}"
        self.namespace = f"{PREFIX}{self.name}"
        self.link = f"{PREFIX}m{number}"
        self.address, self.near = f"10.213.{number}.2", f"10.213.{number}.1"
        self.directory = scratch / self.name
        self.directory.mkdir()
        self.client_key = client_key
        self.key = sshd.make_key(self.directory / "key")
        self.other_key = sshd.make_key(self.directory / "other-key")
        self.impostor_ran = self.directory / "impostor-ran"
        self.disk_id = ""
        """The loop device's `major:minor`, empty for a tmpfs."""
        self._cgroup = BLKIO / f"{PREFIX}{os.getpid()}-{scratch.name}-{self.name}"
        self._lay_cable()
        self._hold(block_device)
        self.server = self.listen()

    def _lay_cable(self) -> None:
        run("ip", "netns", "add", self.namespace)
        run("ip", "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        run("ip", "addr", "add", f"{self.near}/30", "dev", self.link)
        run("ip", "link", "set", self.link, "up")
        inside = ("ip", "-n", self.namespace)
        run(*inside, "addr", "add", f"{self.address}/30", "dev", "eth0")
        run(*inside, "link", "add", TRUNK, "type", "veth", "peer", "name", "switch")
        for link in ("lo", "eth0"):
            run(*inside, "link", "set", link, "up")

    def _hold(self, block_device: bool) -> None:
        """Start the process that keeps the mounts: it lives as long as its input is open."""
        file = self.directory / "disk"
        if block_device:
            file.touch()
            os.truncate(file, DISK_BYTES)
            run("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", str(file))
            disk = f"mount -o loop,sync {file} /var/lib/vcrecon"
        else:
            disk = f"mount -t tmpfs -o size={DISK_BYTES} disk /var/lib/vcrecon"
        script = _MOUNTS.format(run_bytes=RUN_BYTES, layer=self.directory / "layer", disk=disk)
        with (self.directory / "mounts.log").open("wb") as log:
            self._holder = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.namespace}", "unshare", "--mount", "sh", "-c", script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{self.name}: {(self.directory / 'mounts.log').read_text()}")
        if block_device:
            device = (self.root / "var/lib/vcrecon").stat().st_dev
            self.disk_id = f"{os.major(device)}:{os.minor(device)}"
            self._cgroup.mkdir()

    @property
    def root(self) -> Path:
        """Its file system as it sees it."""
        return Path(f"/proc/{self._holder.pid}/root")

    @property
    def disk(self) -> Path:
        return self.root / "var/lib/vcrecon"

    def listen(
        self,
        *,
        impostor: bool = False,
        max_sessions: int = 20,
        max_startups: str = "10:30:100",
        more: str = QUICK_KEEPALIVE,
    ) -> sshd.Sshd:
        """Start its SSH server, with room for commands that were given up and go on, which is usual here.

        An impostor has another key, and tells of every command that it is given.
        """
        if impostor:
            more += f'ForceCommand echo "$SSH_ORIGINAL_COMMAND" >>{self.impostor_ran}\n'
        into = ["nsenter", "--net", "--mount", "--target", str(self._holder.pid)]
        if self.disk_id:
            into = ["sh", "-c", f'echo $$ >{self._cgroup}/cgroup.procs; exec "$@"', "sh", *into]
        self.server = sshd.start(
            self.directory / "home",
            port=PORT,
            listen=self.address,
            host_key=self.other_key if impostor else self.key,
            client_key=self.client_key,
            max_sessions=max_sessions,
            max_startups=max_startups,
            inside=into,
            listens=self._listens,
            more=more,
        )
        return self.server

    def _peers(self, state: str) -> list[int]:
        """The other sides' ports of what its SSH port has in a state, by the kernel's code for that."""
        table = Path(f"/proc/{self._holder.pid}/net/tcp").read_text().splitlines()
        rows = [words for words in map(str.split, table[1:]) if words[1].endswith(f":{PORT:04X}") and words[3] == state]
        return [int(words[2].rpartition(":")[2], 16) for words in rows]

    def _listens(self) -> bool:
        """Whether its port is open: a fault may keep every connect from it."""
        return bool(self._peers("0A"))

    def forget(self, name: str) -> None:
        """Lose all packets of the connections that there are now, for ever, as when the other side lost its power."""
        ports = ", ".join(map(str, self._peers("01")))
        if ports:
            rules = "".join(
                f"chain {hook} {{\n type filter hook {hook} priority -10;\n"
                f' {way} "{self.link}" tcp {end} {{ {ports} }} drop\n }}\n'
                for hook, way, end in (("input", "iifname", "dport"), ("output", "oifname", "sport"))
            )
            load(f"table inet {name} {{\n{rules}}}\n")

    def known_hosts(self) -> str:
        return f"{self.name} {self.key.with_suffix('.pub').read_text()}"

    def processes(self) -> list[int]:
        """Everything that runs there but the holder."""
        words = run("ip", "netns", "pids", self.namespace).split()
        return [int(word) for word in words if int(word) != self._holder.pid]

    def sessions(self) -> list[int]:
        """Servers of connections, and commands: also those of an earlier listener."""
        return [pid for pid in self.processes() if pid != self.server.process.pid]

    def servers(self) -> list[int]:
        """Those of its processes that are sshd, without the listener."""
        return [pid for pid in self.sessions() if _name(pid) == "sshd"]

    def commands(self) -> list[str]:
        """What its sessions are, in words."""
        found = []
        for pid in self.sessions():
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        return found

    def kill(self, pids: list[int], number: signal.Signals = signal.SIGKILL) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop_listening(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the listener alone: sessions go on without it."""
        self.server.process.send_signal(number)
        self.server.process.send_signal(signal.SIGCONT)
        self.server.process.wait(timeout=20)

    def slow_disk(self, bytes_per_s: int) -> None:
        """Bound writing and reading, 0 for no bound. Only for a box on a block device."""
        for way in ("write", "read"):
            (self._cgroup / f"blkio.throttle.{way}_bps_device").write_text(f"{self.disk_id} {bytes_per_s}")

    def remove(self) -> None:
        """End all its processes, and take away its namespace and cable."""
        if self.server.process.poll() is None:
            self.stop_listening()
        self.kill(self.sessions())
        self._holder.communicate(timeout=20)
        run("ip", "netns", "del", self.namespace)
        if self.disk_id:
            self._cgroup.rmdir()


@contextlib.contextmanager
def many(count: int, scratch: Path, *, block_devices: set[int]) -> Iterator[list[Box]]:
    """`count` boxes that one client key opens."""
    client_key = sshd.make_key(scratch / "client")
    made: list[Box] = []
    try:
        for number in range(1, count + 1):
            made.append(Box(number, scratch, client_key, block_device=number in block_devices))
        yield made
    finally:
        for box in made:
            box.remove()


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def commands_with(word: bytes) -> list[bytes]:
    """The command lines of all processes of this namespace that hold the word."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(entry.read_bytes())
    return [words for words in found if word in words]
