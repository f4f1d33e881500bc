"""The lab's network: namespaces, bridges, taps, and the small servers in them. Called by `lab`.

This kernel knows no VLANs; its bridges pass tagged frames on as they are, which is all a switch must do.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from vcrecon.errors import Refused
from vcrecon.lab import layout
from vcrecon.lab.layout import Cabled

_PLAIN = "/proc/sys/net/bridge/bridge-nf-call-{}tables"


def run(*command: str, check: bool = True) -> str:
    """The output of a command. Raises Refused with its own words when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Refused(f"{command[0]} is not installed on this machine") from None
    if check and done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Refused(f"lab: '{' '.join(command)}' failed: {said[-1] if said else f'status {done.returncode}'}")
    return done.stdout


def inside(namespace: str, command: Sequence[str]) -> list[str]:
    """The command as run inside a namespace. Not `ip netns exec`, which hides /sys behind a new mount."""
    return ["nsenter", f"--net=/run/netns/{namespace}", *command]


def exists() -> bool:
    return Path(f"/run/netns/{layout.NAMESPACE}").exists()


def lay(machines: Iterable[Cabled]) -> None:
    """Make namespaces, bridges and cables. Raises Refused."""
    for namespace in layout.NAMESPACES:
        run("ip", "netns", "add", namespace)
        _ip(namespace, "link", "set", "lo", "up")
    for bridge in (layout.PROVISIONING_BRIDGE, layout.TRUNK_BRIDGE):
        _ip(layout.NAMESPACE, "link", "add", bridge, "type", "bridge", "stp_state", "0", "mcast_snooping", "0")
        _ip(layout.NAMESPACE, "link", "set", bridge, "up")
    # A frame that passes a bridge here must not meet this machine's own firewall.
    for family in ("ip", "ip6", "arp"):
        run(*inside(layout.NAMESPACE, ["sh", "-c", f"echo 0 > {_PLAIN.format(family)}"]), check=False)
    _ip(layout.NAMESPACE, "addr", "add", f"{layout.IMAGES}/24", "dev", layout.PROVISIONING_BRIDGE)
    _cable(layout.MIRROR_NAMESPACE, "mirror", "eth0", f"{layout.MIRROR}/24")
    for machine in machines:
        plug_in(machine)
    _ip(layout.NAMESPACE, "link", "add", "vlan-port", "type", "veth", "peer", "name", "vlan-inner")
    _ip(layout.NAMESPACE, "link", "set", "vlan-port", "master", layout.TRUNK_BRIDGE, "up")
    _ip(layout.NAMESPACE, "link", "set", "vlan-inner", "up")
    run("ip", "link", "add", layout.VETH, "type", "veth", "peer", "name", "host", "netns", layout.NAMESPACE)
    run("ip", "addr", "add", f"{layout.THIS_MACHINE}/24", "dev", layout.VETH)
    run("ip", "link", "set", layout.VETH, "up")
    _ip(layout.NAMESPACE, "link", "set", "host", "master", layout.PROVISIONING_BRIDGE, "up")


def plug_in(machine: Cabled) -> None:
    """Lay a machine's two cables, unless they are there."""
    for tap, bridge in (
        (machine.provisioning_tap, layout.PROVISIONING_BRIDGE),
        (machine.trunk_tap, layout.TRUNK_BRIDGE),
    ):
        if not run("ip", "-n", layout.NAMESPACE, "link", "show", tap, check=False):
            add_tap(tap, bridge)


def add_tap(name: str, bridge: str) -> None:
    _ip(layout.NAMESPACE, "tuntap", "add", name, "mode", "tap")
    _ip(layout.NAMESPACE, "link", "set", name, "master", bridge, "up")


def _ip(namespace: str, *arguments: str) -> None:
    run("ip", "-n", namespace, *arguments)


def _cable(namespace: str, near: str, far: str, address: str) -> None:
    """A veth pair from the provisioning network into a namespace."""
    _ip(layout.NAMESPACE, "link", "add", near, "type", "veth", "peer", "name", far, "netns", namespace)
    _ip(layout.NAMESPACE, "link", "set", near, "master", layout.PROVISIONING_BRIDGE, "up")
    _ip(namespace, "addr", "add", address, "dev", far)
    _ip(namespace, "link", "set", far, "up")


def serve(logs: Path, www: Path) -> None:
    """Start the image server, the package mirror with a second service, and the outside world."""
    handout = www / "handout"
    _web(layout.NAMESPACE, layout.IMAGES, layout.IMAGES_PORT, www / "images", logs)
    _web(layout.MIRROR_NAMESPACE, layout.MIRROR, layout.MIRROR_PORT, www / "mirror", logs)
    _web(layout.MIRROR_NAMESPACE, layout.MIRROR, layout.HANDOUT_PORT, handout, logs)
    port = [sys.executable, "-m", "vcrecon.lab.vlan_port", "vlan-inner", str(layout.OUTSIDE_VLAN), layout.OUTSIDE_LINK]
    start(layout.NAMESPACE, port, logs / "vlan-port.log")
    _until_there(layout.NAMESPACE, layout.OUTSIDE_LINK)
    _ip(layout.NAMESPACE, "link", "set", layout.OUTSIDE_LINK, "netns", layout.OUTSIDE_NAMESPACE)
    _ip(layout.OUTSIDE_NAMESPACE, "addr", "add", layout.OUTSIDE_GATEWAY, "dev", layout.OUTSIDE_LINK)
    _ip(layout.OUTSIDE_NAMESPACE, "addr", "add", f"{layout.OUTSIDE_HOST}/32", "dev", "lo")
    _ip(layout.OUTSIDE_NAMESPACE, "link", "set", layout.OUTSIDE_LINK, "up")
    for number in layout.OUTSIDE_PORTS:
        _web(layout.OUTSIDE_NAMESPACE, layout.OUTSIDE_HOST, number, handout, logs)


def _web(namespace: str, address: str, port: int, directory: Path, logs: Path) -> None:
    command = [sys.executable, "-m", "http.server", "--bind", address, "--directory", str(directory), str(port)]
    start(namespace, command, logs / f"web-{address}-{port}.log")


def start(namespace: str, command: Sequence[str], log: Path) -> int:
    """Start a process that outlives this one, and return its id. `down` finds it by its namespace."""
    with log.open("ab") as stream:
        process = subprocess.Popen(
            inside(namespace, command),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    return process.pid


def _until_there(namespace: str, link: str, deadline_s: float = 20.0) -> None:
    ends_s = time.monotonic() + deadline_s
    while subprocess.run(["ip", "-n", namespace, "link", "show", link], capture_output=True, check=False).returncode:
        if time.monotonic() > ends_s:
            raise Refused(f"lab: {link} did not appear in {namespace}; see logs/vlan-port.log")
        time.sleep(0.1)


def processes(key: Path) -> list[int]:
    """The ids of all processes in the lab's namespaces, and of every ssh into it: those log in with the lab's key."""
    found = _logins(key)
    for namespace in layout.NAMESPACES:
        if Path(f"/run/netns/{namespace}").exists():
            found += [int(word) for word in run("ip", "netns", "pids", namespace, check=False).split()]
    return found


def _logins(key: Path) -> list[int]:
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        # It may end while we look.
        with contextlib.suppress(OSError):
            words = command.read_bytes().split(b"\0")
            if words[0] == b"ssh" and os.fsencode(key) in words:
                found.append(int(command.parent.name))
    return found


def remove(key: Path, deadline_s: float = 20.0) -> int:
    """End every process of the lab, then remove its namespaces; returns how many processes there were.

    Works from whatever a crash left behind. Raises Refused when a process does not end.
    """
    found = processes(key)
    for number, wait_s in ((signal.SIGTERM, 3.0), (signal.SIGKILL, deadline_s)):
        for process in processes(key):
            # Gone by itself meanwhile: all the better.
            try:
                os.kill(process, number)
            except ProcessLookupError:
                continue
        ends_s = time.monotonic() + wait_s
        while processes(key) and time.monotonic() < ends_s:
            time.sleep(0.1)
    if left := processes(key):
        raise Refused(f"lab: processes {', '.join(map(str, left))} do not end; look at them with ps, then try again")
    if Path(f"/sys/class/net/{layout.VETH}").exists():
        run("ip", "link", "del", layout.VETH)
    for namespace in layout.NAMESPACES:
        if Path(f"/run/netns/{namespace}").exists():
            run("ip", "netns", "del", namespace)
    return len(found)
