"""Benchmark (d): 64 machines boot from the network and are installed, beside the same bytes by TFTP alone.

    python -m benchmarks boot [--json FILE] [--quick]

In namespaces of its own (`boot_net`): a master with controller, dnsmasq and boot server as the product has them
(`boot_master`), 64 machines that speak DHCP, TFTP and HTTP (`boot_clients`), and between them a cable that delays each
frame by a millisecond (`boot_wire`). All machines are switched on at once; the queue lets 16 install at a time. Then
dnsmasq alone serves the image by TFTP to 16 machines at a time over the same cable for some seconds, and that rate is
scaled to the same bytes. What a disk takes is not in it: machines have none.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import os
import shutil
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.boot_net import INTERFACE, MASTER, NETWORK, Net, Process, a_net, machine_busy_s, used
from benchmarks.pxe_client import BLOCK_BYTES
from benchmarks.report import Report, Series

DELAY_MS = 1.0
PORT = 8067
MIB = 1 << 20
DEADLINE_S = 140.0
SAMPLE_S = 0.5
NEEDED = ("dnsmasq", "ip", "ssh-keygen", "sysctl")
LOADER = Path("/usr/lib/ipxe/undionly.kpxe")
PAPER_S = 40 * 60.0
SITE_NODES, SITE_IMAGE_BYTES, SITE_INSTALLER_BYTES = 64, 500e6, 45e6
WIRE_BYTES_S = 125e6
TCP_SHARE = 1448 / 1538
"""Of what passes on Ethernet with an MTU of 1500, this much is TCP's payload (timestamps on)."""
OWN_WORK_S = 75.0
"""From power-on to installed, for one emulated machine alone: firmware, disks, unpacking, and its download as well."""


@dataclass(frozen=True)
class Size:
    """How much of it."""

    machines: int
    at_once: int
    vmlinuz_bytes: int
    initrd_bytes: int
    image_bytes: int
    tftp_s: float


FULL = Size(64, 16, 8 * MIB, 37 * MIB, 60 * MIB, 12.0)
QUICK = Size(16, 4, 2 * MIB, 4 * MIB, 10 * MIB, 3.0)


@dataclass(frozen=True)
class Sample:
    """The master at one moment (`time.monotonic`): CPU so far and memory now, and dnsmasq's CPU."""

    at_s: float
    cpu_s: float
    resident_mib: float


# --- the site --------------------------------------------------------------------------------------------------


def write_site(net: Net, size: Size) -> Path:
    """Spec files, keys and images; returns the spec directory."""
    specs, images = net.home / "specs", net.home / "images"
    (images / "installer").mkdir(parents=True)
    specs.mkdir()
    (images / "installer" / "vmlinuz").write_bytes(os.urandom(size.vmlinuz_bytes))
    (images / "installer" / "initrd").write_bytes(os.urandom(size.initrd_bytes))
    image = os.urandom(size.image_bytes)
    (images / "system.tar.zst").write_bytes(image)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(specs / "key")], check=True, stdin=subprocess.DEVNULL
    )
    (specs / "known_hosts").write_text("")
    (specs / "root.hash").write_text(f"$6$nobodysalt${'.' * 86}\n")
    (specs / "root.hash").chmod(0o600)
    url = f"http://{MASTER}:{PORT}/images/system.tar.zst"
    system = {"root": {"url": url, "sha256": hashlib.sha256(image).hexdigest()}, "hypervisor": "kvm"}
    entries = [
        {"name": f"c{n:03d}", "address": f"10.9.0.{10 + n}", "mac": mac, "hypervisor": "kvm", "system": "base"}
        for n, (_, mac) in enumerate(net.machines, 1)
    ]
    common = {"memory": "8GiB", "disk": "100GiB", "cores": 4, "trunk": "eth1", "volume_group": "vg0", "pool": "guests"}
    provisioning = {"network": NETWORK, "mode": "managed", "interface": INTERFACE, "address": MASTER, "port": PORT}
    # A spec has at least one guest. It is never started: no machine gets a system here.
    head = {"memory": "1GiB", "disk": "8GiB", "image": "guest", "root_password": "root.hash"}
    cluster = {"name": "a", "vlan": 101, "subnet": "10.1.1.0/24", "head": head}
    files: dict[str, object] = {
        "site": {
            "site": "bench",
            "session": "preparing",
            "provisioning": {**provisioning, "images": str(images)},
            "ssh": {"user": "root", "key": "key", "known_hosts": "known_hosts"},
            "limits": {"installs": size.at_once},
        },
        "images": {"images": {"guest": _guest_image()}, "systems": {"base": system}},
        "containers": {"defaults": common, "containers": entries},
        "clusters": {"clusters": [cluster]},
        "deployment": {"deployment": {"c001": ["a-head"]}},
    }
    for name, content in files.items():
        (specs / f"{name}.yaml").write_text(json.dumps(content, indent=1) + "\n")  # JSON is YAML
    return specs


def _guest_image() -> dict[str, object]:
    nothing = {"url": f"http://{MASTER}:{PORT}/images/none", "sha256": "0" * 64}
    return {"root": nothing, "kernel": nothing, "initrd": nothing, "disk": "2GiB"}


# --- the two ways ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Installs:
    """What was seen while all machines were installed."""

    told: dict[str, Any]
    samples: list[Sample]
    master: dict[str, Any]
    cpu_s: dict[str, float]
    others_busy: float


def install_all(net: Net, size: Size, specs: Path, cable: Process) -> Installs:
    """Start the master, switch all machines on, and watch until the last is installed. Raises RuntimeError."""
    public = net.home / "public"
    words = ["benchmarks.boot_master", str(specs), str(net.home / "state"), str(public)]
    master = net.start("master", net.master, words)
    ready = json.loads(master.line())
    if ready["problem"]:
        raise RuntimeError(f"the master is not ready: {ready['problem']}")
    dnsmasq = _number_in(net.home / "state" / "dnsmasq" / "pid")
    machines = net.start("machines", net.far, ["benchmarks.boot_clients", "install"])
    watched = {"master": master.popen.pid, "dnsmasq": dnsmasq, "cable": cable.popen.pid, "machines": machines.popen.pid}
    before = {name: used(pid)[0] for name, pid in watched.items()}
    busy_s, began_s = machine_busy_s(), time.monotonic()
    machines.give({"machines": net.machines, "deadline_s": DEADLINE_S})
    samples: list[Sample] = []
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(master.popen.pid, samples, ended))
    watcher.start()
    try:
        told = json.loads(machines.line(DEADLINE_S + 30))
    finally:
        ended.set()
        watcher.join()
    wall_s, all_s = time.monotonic() - began_s, machine_busy_s() - busy_s
    spent = {name: used(pid)[0] - before[name] for name, pid in watched.items() if name != "machines"}
    machines.end()
    spent["machines"] = machines.cpu_s
    said = master.ask()
    master.end()
    capacity_s = wall_s * (os.cpu_count() or 1)
    return Installs(told, samples, said, spent, max(0.0, all_s - sum(spent.values())) / capacity_s)


def _number_in(path: Path) -> int:
    """A process id that is written about now. Raises RuntimeError when it does not come."""
    ends_s = time.monotonic() + 30
    while time.monotonic() < ends_s:
        if path.is_file() and (text := path.read_text()).endswith("\n"):
            return int(text)
        time.sleep(0.05)
    raise RuntimeError("dnsmasq did not start")


def _watch(pid: int, samples: list[Sample], ended: threading.Event) -> None:
    while not ended.wait(SAMPLE_S):
        try:
            samples.append(Sample(time.monotonic(), *used(pid)))
        except OSError:
            return


def tftp_alone(net: Net, size: Size) -> dict[str, Any]:
    """dnsmasq and nothing else: what it brings to as many machines as may install at once."""
    lines = ["port=0", f"interface={INTERFACE}", "except-interface=lo", "bind-interfaces", "enable-tftp"]
    lines += [f"tftp-root={net.home / 'images'}", "tftp-max=200", "no-resolv", "no-hosts"]
    (net.home / "tftp.conf").write_text("\n".join(lines) + "\n")
    words = ["--keep-in-foreground", f"--conf-file={net.home / 'tftp.conf'}", "--log-facility=-", "--pid-file="]
    server = net.start("dnsmasq", net.master, words, program=_program("dnsmasq"))
    links = [link for link, _ in net.machines[: size.at_once]]
    machines = net.start("tftp", net.far, ["benchmarks.boot_clients", "tftp"])
    machines.give({"links": links, "server": MASTER, "name": "system.tar.zst", "seconds": size.tftp_s})
    told: dict[str, Any] = json.loads(machines.line())
    machines.end()
    server.popen.terminate()
    server.end()
    return {**told, "cpu_s": {"dnsmasq": server.cpu_s, "machines": machines.cpu_s}}


def _program(name: str) -> str:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin") or ""


# --- what it means ---------------------------------------------------------------------------------------------


def figures(size: Size, found: Installs, alone: dict[str, Any]) -> dict[str, object]:
    """All that the report says below its table."""
    told = found.told
    took_s = max(told["ends_s"]) - told["on_s"]
    total = told["tftp_bytes"] + told["http_bytes"]
    tftp_s = total / (alone["bytes"] / alone["seconds"])
    ideal_s = total / ideal_tftp_bytes_s(size.at_once)
    result: dict[str, object] = {
        "bytes by HTTP, MB": told["http_bytes"] / 1e6,
        "bytes by TFTP, MB": told["tftp_bytes"] / 1e6,
        "TFTP's share of all bytes, % (at most 1.5)": 100 * told["tftp_bytes"] / total,
        "HTTP, MB/s": total / took_s / 1e6,
        f"TFTP alone, {size.at_once} at a time, MB/s": alone["bytes"] / alone["seconds"] / 1e6,
        "TFTP packets of the loaders sent again": told["retries"],
        "TFTP alone, packets sent again": alone["retries"],
        "the same bytes by TFTP alone, s (scaled)": tftp_s,
        "times faster than TFTP alone (goal 10)": tftp_s / took_s,
        "… than TFTP with servers and machines that take no time": ideal_s / took_s,
        "round trip over the idle cable, ms": alone["round_trip_s"] * 1000,
        "until the first and the last machine had asked the master, s": _span(told["asked_s"], told["on_s"]),
        "until the first and the last install began, s": _span(told["began_s"], told["on_s"]),
        f"installs at once at most (limit {size.at_once}), by the master's tickets": found.master["most"],
        "… by the machines": told["busy_most"],
        "times that a machine was told to wait": told["waits"],
    }
    result |= flatness(found)
    gigabytes = total / 1e9
    result |= {f"CPU, {name}, s": seconds for name, seconds in found.cpu_s.items()}
    result["all else on this machine, % of its CPU"] = 100 * found.others_busy
    result["master's CPU, s per GB"] = found.cpu_s["master"] / gigabytes
    return result | extrapolation(alone["bytes"] / alone["seconds"] / size.at_once, found.cpu_s["master"] / gigabytes)


def ideal_tftp_bytes_s(at_once: int) -> float:
    """One block for each round trip of the cable, and nothing else takes time."""
    return at_once * BLOCK_BYTES / (2 * DELAY_MS / 1000)


def flatness(found: Installs) -> dict[str, object]:
    """The master in each quarter of the bytes: the first has all the booting in it as well."""
    moved = found.told["samples"]
    edges = [_reached(moved, share * moved[-1][1] / 4) for share in range(5)]
    cpu, share, resident = [], [], []
    for from_s, to_s in itertools.pairwise(edges):
        within = [s for s in found.samples if from_s - SAMPLE_S <= s.at_s <= to_s + SAMPLE_S]
        if len(within) < 2:
            return {}
        spent_s, bytes_moved = within[-1].cpu_s - within[0].cpu_s, _bytes_at(moved, within[-1].at_s)
        bytes_moved -= _bytes_at(moved, within[0].at_s)
        cpu.append(f"{spent_s / (bytes_moved / 1e9):.2f}" if bytes_moved else "-")
        share.append(f"{100 * spent_s / (within[-1].at_s - within[0].at_s):.0f}")
        resident.append(f"{statistics.mean(s.resident_mib for s in within):.1f}")
    return {
        "master in each quarter of the bytes: CPU, s per GB": ", ".join(cpu),
        "… CPU, % of one core": ", ".join(share),
        "… resident, MiB": ", ".join(resident),
    }


def _span(times_s: Sequence[float], since_s: float) -> str:
    return f"{min(times_s) - since_s:.1f}, {max(times_s) - since_s:.1f}"


def _reached(samples: Sequence[Sequence[float]], total: float) -> float:
    """When so many bytes had been moved."""
    return next((at_s for at_s, size in samples if size >= total), samples[-1][0])


def _bytes_at(samples: Sequence[Sequence[float]], at_s: float) -> float:
    index = bisect.bisect_right([when for when, _ in samples], at_s) - 1
    return samples[max(0, index)][1]


def extrapolation(tftp_bytes_s: float, master_s_per_gb: float) -> dict[str, object]:
    """64 nodes on 1 Gb/s with an image of 500 MB, with the arithmetic in words."""
    node = SITE_IMAGE_BYTES + SITE_INSTALLER_BYTES + LOADER.stat().st_size
    total = SITE_NODES * node
    rate = WIRE_BYTES_S * TCP_SHARE
    wire_s, waves = total / rate, SITE_NODES // FULL.at_once
    ours_s = wire_s + OWN_WORK_S
    tftp_s = total / (FULL.at_once * tftp_bytes_s)
    nodes = f"{SITE_NODES} nodes"
    return {
        f"{nodes} on 1 Gb/s, bytes": f"{SITE_NODES} x (500 + 45 + 0.07 MB) = {total / 1e9:.1f} GB",
        f"{nodes}, the wire alone": f"{total / 1e9:.1f} GB / (125 MB/s x {TCP_SHARE:.3f}) = {wire_s:.0f} s",
        f"{nodes}, through our path": f"{wire_s:.0f} s + {OWN_WORK_S:.0f} s of a machine's own work while the wire is "
        f"idle = {ours_s / 60:.1f} min; the paper: 40 min, {PAPER_S / ours_s:.1f} times as long",
        f"{nodes}, each of {waves} waves": f"{FULL.at_once} x {node / 1e6:.0f} MB / {rate / 1e6:.0f} MB/s = "
        f"{FULL.at_once * node / rate:.0f} s",
        f"{nodes}, master's CPU": f"{master_s_per_gb:.2f} s/GB x {rate / 1e9:.3f} GB/s = "
        f"{100 * master_s_per_gb * rate / 1e9:.0f} % of a core like this one",
        f"{nodes}, what one core of the master could fill": f"1 / {master_s_per_gb:.2f} GB/s = "
        f"{8 / master_s_per_gb:.1f} Gb/s",
        f"{nodes}, by TFTP as measured here": f"{total / 1e9:.1f} GB / (16 x {tftp_bytes_s / 1e6:.2f} MB/s) = "
        f"{tftp_s / 60:.0f} min",
    }


# --- running it ------------------------------------------------------------------------------------------------


def benchmark(size: Size) -> Report:
    """Both ways, over one cable. A failure is shown in place of the figures."""
    parameters = {
        "machines": size.machines,
        "at once": size.at_once,
        "MiB each": round((size.vmlinuz_bytes + size.initrd_bytes + size.image_bytes) / MIB),
        "delay ms": DELAY_MS,
    }
    all_of_them = Series(f"vcrecon: {size.machines} machines from power-on to installed")
    each = Series("vcrecon: each machine, with its time in the queue")
    tftp = Series("dnsmasq's TFTP alone, the same bytes (scaled)")
    derived: dict[str, object] = {}
    try:
        with a_net(size.machines) as net:
            specs = write_site(net, size)
            cable = net.lay(DELAY_MS)
            found = install_all(net, size, specs, cable)
            failures = found.told["failures"]
            if not found.told["ends_s"]:
                raise RuntimeError(f"no machine was installed: {failures[:2]}")
            all_of_them.wall_s.append(max(found.told["ends_s"]) - found.told["on_s"])
            all_of_them.cpu_s.append(found.cpu_s["master"])
            each.wall_s += found.told["took_s"]
            all_of_them.failed = f"{len(failures)} machines: {failures[:2]}" if failures else ""
            alone = tftp_alone(net, size)
            if alone["failures"]:
                raise RuntimeError(f"TFTP alone: {alone['failures'][:2]}")
            derived = figures(size, found, alone)
            tftp.wall_s.append(float(str(derived["the same bytes by TFTP alone, s (scaled)"])))
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        (tftp if all_of_them.wall_s else all_of_them).failed = str(error)
    return Report("boot", parameters, [all_of_them, each, tftp], derived)


def run(*, quick: bool) -> Report:
    """Called by `python -m benchmarks`. `quick` is 16 machines, 4 at a time, with small files: does it run at all."""
    missing = [name for name in NEEDED if not _program(name)]
    if os.geteuid() or missing or not LOADER.is_file() or not hasattr(socket, "AF_PACKET"):
        why = f"not installed: {', '.join(missing)}" if missing else "needs root, and Debian's package ipxe"
        return Report("boot", {}, [Series("all of it", skipped=why)])
    return benchmark(QUICK if quick else FULL)
