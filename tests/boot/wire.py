"""A provisioning network in namespaces of its own: a master with a bridge, machines on cables, boot services on it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
INTERFACE = "vcbs0"
_UDHCPC = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr flush dev "$interface"; ip addr add "$ip/$mask" dev "$interface"
echo "BOUND address=$ip mask=$mask router=$router dns=$dns file=$boot_file server=$siaddr"
"""


def run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0 or not check, f"{' '.join(command)}: {done.stderr or done.stdout}"
    return done.stdout


def until(true: Any, what: str, deadline_s: float = 180.0) -> Any:
    """Wait until `true()` is, and return what it gave."""
    ends_s = time.monotonic() + deadline_s
    while not (found := true()):
        assert time.monotonic() < ends_s, f"in vain: {what}"
        time.sleep(0.05)
    return found


class Wire:
    """Made by `a_wire`. Names are unique, so that tests may run beside each other."""

    def __init__(self) -> None:
        self.id = uuid.uuid4().hex[:6]
        self.master = f"vcbs-{self.id}"
        self.machines: list[str] = []
        # Not pytest's own directory: dnsmasq serves files as a user without rights.
        self.home = Path(tempfile.mkdtemp(prefix="vcbs-", dir="/run"))
        self.home.chmod(0o755)
        (self.home / "images").mkdir()
        self.script = self.home / "udhcpc.sh"
        self.script.write_text(_UDHCPC)
        self.script.chmod(0o755)

    def lay(self) -> None:
        run("ip", "netns", "add", self.master)
        self.ip("link", "set", "lo", "up")
        self.ip("link", "add", INTERFACE, "type", "bridge", "stp_state", "0", "mcast_snooping", "0")
        self.ip("addr", "add", "10.9.0.1/24", "dev", INTERFACE)
        self.ip("link", "set", INTERFACE, "up")
        for family in ("ip", "ip6", "arp"):
            switch = f"/proc/sys/net/bridge/bridge-nf-call-{family}tables"
            run(*self.inside(self.master, ["sh", "-c", f"[ ! -e {switch} ] || echo 0 > {switch}"]))

    def ip(self, *arguments: str) -> None:
        run("ip", "-n", self.master, *arguments)

    def inside(self, namespace: str, command: Sequence[str]) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{namespace}", *command]

    def machine(self, mac: str) -> str:
        """A new machine on the wire: the name of its namespace; its interface is eth0."""
        name = f"{self.master}-{len(self.machines)}"
        self.machines.append(name)
        run("ip", "netns", "add", name)
        port = f"port{len(self.machines)}"
        self.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
        self.ip("link", "set", port, "master", INTERFACE, "up")
        run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", name, "link", "set", "eth0", "address", mac)
        run("ip", "-n", name, "link", "set", "eth0", "up")
        return name

    def tap(self) -> str:
        """A port for a virtual machine."""
        self.ip("tuntap", "add", "vcbst0", "mode", "tap")
        self.ip("link", "set", "vcbst0", "master", INTERFACE, "up")
        return "vcbst0"

    def lease(self, machine: str, *options: str, tries: int = 20) -> dict[str, str] | None:
        """What DHCP gives a machine, by udhcpc; None when nobody answers."""
        client = [
            "busybox",
            "udhcpc",
            "-i",
            "eth0",
            "-n",
            "-q",
            "-f",
            "-t",
            str(tries),
            "-T",
            "1",
            "-s",
            str(self.script),
        ]
        said = run(*self.inside(machine, [*client, *options]), check=False)
        bound = [line for line in said.splitlines() if line.startswith("BOUND ")]
        return dict(word.split("=", 1) for word in bound[0].split()[1:]) if bound else None

    def get(self, machine: str, url: str) -> str:
        return run(*self.inside(machine, ["curl", "-sS", "--max-time", "60", url]))

    @contextlib.contextmanager
    def services(self, *, under: Sequence[str] = (), **provisioning: Any) -> Iterator[Services]:
        """Boot services, with what is different in the provisioning; run `under` another command."""
        process = Services(self, provisioning, under)
        try:
            yield process
        finally:
            process.end()

    def remove(self) -> None:
        for name in (self.master, *self.machines):
            if Path(f"/run/netns/{name}").exists():
                for pid in run("ip", "netns", "pids", name, check=False).split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), 9)
                run("ip", "netns", "del", name, check=False)
        shutil.rmtree(self.home, ignore_errors=True)


class Services:
    """Boot services that run in the master's namespace."""

    def __init__(self, wire: Wire, provisioning: dict[str, Any], under: Sequence[str]) -> None:
        command = [*under, sys.executable, str(HERE / "boot_process.py"), str(wire.home), json.dumps(provisioning)]
        path = os.pathsep.join([str(HERE), *sys.path])
        self._log = (wire.home / "services.log").open("ab")
        self.process = subprocess.Popen(
            wire.inside(wire.master, command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._left = b""

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command; the answer is the state of the services."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command or {"status": 1}).encode() + b"\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        """The next line that is JSON: the log goes to the same place."""
        assert self.process.stdout is not None
        ends_s = time.monotonic() + 180
        while True:
            while b"\n" in self._left:
                line, self._left = self._left.split(b"\n", 1)
                if line.startswith(b"{"):
                    answer: dict[str, Any] = json.loads(line)
                    return answer
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, ends_s - time.monotonic()))
            assert ready, "the boot services do not answer"
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, "the boot services ended"
            self._left += data

    def stop(self) -> None:
        """End them in order."""
        assert self.ask(stop=1) == {"stopped": True}
        self.process.wait(120)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(120)
        for stream in (self.process.stdin, self.process.stdout, self._log):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


@contextlib.contextmanager
def a_wire() -> Iterator[Wire]:
    wire = Wire()
    try:
        wire.lay()
        yield wire
    finally:
        wire.remove()
