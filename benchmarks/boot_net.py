"""The network of the boot benchmark: a namespace for the master, one for all machines, and a slow cable between them.

Used by `boot`. Names begin with `vcbb` and are unique, so that runs do not meet; everything is gone at the end, also
when a run fails, and processes are ended by their ids. Nothing but what is made here is touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

INTERFACE, _FAR = "vcbb0", "vcbbfar"
NETWORK, MASTER, MASK = "10.9.0.0/24", "10.9.0.1", 24
_END_S = 25.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_QUIET = {"arp_ignore": 1, "arp_announce": 2, "rp_filter": 0, "accept_local": 0}
"""Many interfaces on one network in one namespace: each answers for its own address only."""


class Process:
    """A process in a namespace: it gets `said` on standard input, or lines by `ask`, and answers JSON lines."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name, self._log, self._has_all = name, log, False
        with log.open("wb") as stream:
            self.popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream)
        self.cpu_s = 0.0

    def line(self, deadline_s: float = 60.0) -> str:
        """The next line. Raises RuntimeError when there is none."""
        assert self.popen.stdout is not None
        ready, _, _ = select.select([self.popen.stdout], [], [], deadline_s)
        found = self.popen.stdout.readline().decode() if ready else ""
        if not found:
            what = "ended" if ready else f"said nothing for {deadline_s:.0f} s"
            raise RuntimeError(f"{self.name} {what}: {self._log.read_text(errors='replace').strip()[-600:]}")
        return found

    def ask(self) -> dict[str, Any]:
        """One line for one line."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(b"\n")
        self.popen.stdin.flush()
        found: dict[str, Any] = json.loads(self.line())
        return found

    def give(self, settings: object) -> None:
        """All of its input."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps(settings).encode())
        self.popen.stdin.close()
        self._has_all = True

    def end(self) -> None:
        """Ends with its input, or else by its id."""
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        if self.popen.returncode is not None:
            return
        with contextlib.suppress(OSError):
            self.popen.stdin.close()
        # One that had all of its input long ago ends when its work is done: at once, or it is stuck.
        if not self._waited(1.0 if self._has_all else _END_S):
            self.popen.terminate()
            if not self._waited(5.0):
                self.popen.kill()
                self._waited(5.0)
        self.popen.stdout.close()

    def _waited(self, seconds: float) -> bool:
        """Reaps it, and keeps what it used."""
        ends_s = time.monotonic() + seconds
        while time.monotonic() < ends_s:
            pid, status, usage = os.wait4(self.popen.pid, os.WNOHANG)
            if pid:
                self.popen.returncode = os.waitstatus_to_exitcode(status)
                self.cpu_s = usage.ru_utime + usage.ru_stime
                return True
            time.sleep(0.02)
        return False


class Net:
    """Made by `a_net`."""

    def __init__(self, home: Path, machines: int) -> None:
        self.home, self._count = home, machines
        unique = uuid.uuid4().hex[:6]
        self.master, self.far = f"vcbb-{unique}-master", f"vcbb-{unique}-machines"
        self._processes: list[Process] = []

    def lay(self, delay_ms: float) -> Process:
        """Namespaces, cable, and an interface for each machine; returns the cable."""
        for name in (self.master, self.far):
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        cable = self.start("cable", self.master, ["benchmarks.boot_wire", INTERFACE, _FAR, str(delay_ms)])
        cable.line()
        # Two interfaces of 64 KiB frames: room for a window of each connection.
        for link in (INTERFACE, _FAR):
            _run("ip", "-n", self.master, "link", "set", link, "txqueuelen", "4000")
        _run("ip", "-n", self.master, "link", "set", _FAR, "netns", self.far)
        _run("ip", "-n", self.master, "address", "add", f"{MASTER}/{MASK}", "dev", INTERFACE)
        _run("ip", "-n", self.master, "link", "set", INTERFACE, "up")
        switches = " ".join(f"net.ipv4.conf.all.{key}={value}" for key, value in _QUIET.items())
        switches += " net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1"
        switches += " net.ipv4.conf.default.rp_filter=0"
        _run(*inside(self.far, ["sysctl", "-qw", *switches.split()]))
        batch = [f"link set {_FAR} up"]
        for link, mac in self.machines:
            batch.append(f"link add {link} link {_FAR} address {mac} type macvlan mode bridge")
            batch.append(f"link set {link} up")
        _run("ip", "-n", self.far, "-batch", "-", said="\n".join(batch))
        return cable

    @property
    def machines(self) -> list[tuple[str, str]]:
        """(interface, MAC) of each."""
        return [(f"m{n}", f"52:54:00:bb:00:{n:02x}") for n in range(1, self._count + 1)]

    def start(self, name: str, namespace: str, words: Sequence[str], *, program: str = "") -> Process:
        """Start a module of ours, or a program."""
        command = [program, *words] if program else [sys.executable, "-m", *words]
        started = Process(name, inside(namespace, command), self.home / f"{name}.log")
        self._processes.append(started)
        return started

    def remove(self) -> None:
        for process in reversed(self._processes):
            process.end()
        for name in (self.master, self.far):
            if Path(f"/run/netns/{name}").exists():
                for pid in _run("ip", "netns", "pids", name).split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                _run("ip", "netns", "del", name)


@contextlib.contextmanager
def a_net(machines: int) -> Iterator[Net]:
    """The network's home is not in /tmp: dnsmasq serves files as a user without rights."""
    home = Path(tempfile.mkdtemp(prefix="vcbb-", dir="/var/tmp"))
    home.chmod(0o755)
    net = Net(home, machines)
    try:
        yield net
    finally:
        net.remove()
        shutil.rmtree(home, ignore_errors=True)


def inside(namespace: str, command: Sequence[str]) -> list[str]:
    # Not nsenter: /sys must be that of the namespace too.
    return ["ip", "netns", "exec", namespace, *command]


def _run(*command: str, said: str = "") -> str:
    done = subprocess.run(command, input=said, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def used(pid: int) -> tuple[float, float]:
    """What a process has used so far: CPU seconds, and its resident MiB now."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return cpu_s, int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def machine_busy_s() -> float:
    """CPU seconds that everything on this machine has used so far."""
    fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / _TICKS_PER_S
