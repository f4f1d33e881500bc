"""A bench for the installer: a namespace with a switch, a DHCP server, a stand-in for the boot server, and a machine.

The machine is QEMU with emulation (docs/lab.md). All that is made bears the bench's prefix and goes with it; processes
are ended by their ids.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PREFIX = "vcin"
MASTER, MACHINE, MAC, PORT = "10.77.0.1", "10.77.0.10", "52:54:00:77:00:10", 8067
TOKEN = "test-token-that-is-in-no-argument"
MIB = 1 << 20
DISK_BYTES = 6 << 30
CUTS = "50000000 90000000"
"""Where downloads are cut: about a third and two thirds of the small system."""
CHASSIS = ("-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-smp", "2", "-m", "1024")
XEN_CHASSIS = ("-accel", "tcg,thread=multi", "-cpu", "Nehalem,-monitor", "-smp", "1,maxcpus=2", "-m", "3072")
"""On which Xen starts where it is emulated."""
# Installs take 75 s and boots 30 s on a quiet machine; this one is shared.
INSTALL_S = float(os.environ.get("VCRECON_TEST_INSTALL_S", "900"))
BOOT_S = float(os.environ.get("VCRECON_TEST_BOOT_S", "600"))


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@dataclass
class Bench:
    """A place for one machine after the other. `program` finds a program or skips the test."""

    directory: Path
    vmlinuz: Path
    initrd: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    machine: Machine | None = None
    chassis: tuple[str, ...] = CHASSIS

    @property
    def www(self) -> Path:
        return self.directory / "www"

    def enter(self, *command: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{PREFIX}", *command]

    def lay(self) -> None:
        """The network. A namespace that a run left behind is removed first."""
        with contextlib.suppress(subprocess.CalledProcessError):
            run("ip", "netns", "del", PREFIX)
        run("ip", "netns", "add", PREFIX)
        for words in (
            "link set lo up",
            "link add br0 type bridge stp_state 0 mcast_snooping 0",
            f"addr add {MASTER}/24 dev br0",
            f"tuntap add {PREFIX}0 mode tap",
            f"link set {PREFIX}0 master br0 up",
            "link set br0 up",
        ):
            run("ip", "-n", PREFIX, *words.split())
        (self.www / "images").mkdir(parents=True, exist_ok=True)
        (self.www / "token").write_text(TOKEN)
        make_key(self.directory / "client")
        make_key(self.directory / "host")
        self.start(
            *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=br0"),
            *("--bind-interfaces", "--no-ping", "--dhcp-authoritative", f"--dhcp-range={MASTER},static,255.255.255.0"),
            *(f"--dhcp-host={MAC},{MACHINE}", f"--dhcp-leasefile={self.directory}/leases", "--user=root"),
            log="dnsmasq.log",
        )

    def start(self, *command: str, log: str) -> subprocess.Popen[bytes]:
        with (self.directory / log).open("ab") as stream:
            process = subprocess.Popen(self.enter(*command), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
        self.processes.append(process)
        return process

    def remove(self) -> None:
        if self.machine is not None:
            self.machine.pull_the_plug()
        for process in self.processes:
            process.terminate()
            process.wait()
        subprocess.run(["ip", "netns", "del", PREFIX], check=False)

    @contextlib.contextmanager
    def master(self, job: bytes, *, cut: str = "") -> Iterator[None]:
        """The stand-in for the boot server, with one job to give."""
        for name in ("events.jsonl", "install.log", "closed"):
            (self.www / name).unlink(missing_ok=True)
        (self.www / "job.tar").write_bytes(job)
        (self.www / "cut").write_text(cut)
        stub = Path(__file__).with_name("install_stub.py")
        process = self.start(sys.executable, str(stub), str(self.www), MASTER, str(PORT), log="stub.log")
        try:
            yield
        finally:
            process.terminate()
            process.wait()
            self.processes.remove(process)

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        path = self.www / "events.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [json.loads(line) for line in lines]
        return [event for event in found if event["kind"] == kind] if kind else found

    def ended(self) -> dict[str, Any] | None:
        found = self.events("ended")
        return found[-1] if found else None

    def disk(self, name: str, size_bytes: int) -> Path:
        path = self.directory / f"{name}.raw"
        path.unlink(missing_ok=True)
        with path.open("wb") as stream:
            stream.truncate(size_bytes)
        return path

    def install(self, job: bytes, disks: Sequence[Path], *, cut: str = "", firmware: str = "bios") -> dict[str, Any]:
        """Boot the installer and wait for its last word. On success the machine then ends by itself."""
        with self.master(job, cut=cut):
            machine = self.power_on(disks, installer=True, firmware=firmware)
            try:
                self.wait_for(self.ended, machine, INSTALL_S, "the installer's last word")
                ended = self.ended()
                assert ended is not None
                if not ended["error"]:
                    machine.process.wait(60)
                return ended
            finally:
                machine.pull_the_plug()

    def power_on(
        self, disks: Sequence[Path], *, installer: bool, firmware: str = "bios", reboots: bool = False
    ) -> Machine:
        serial = self.directory / "serial.log"
        serial.unlink(missing_ok=True)
        command = [
            *("nice", "-n", "15", "qemu-system-x86_64", "-name", PREFIX),
            *("-machine", "pc,graphics=off" if firmware == "bios" else "q35,graphics=off"),
            *(*self.chassis, "-nodefaults"),
            *("-display", "none", "-vga", "none", "-serial", f"file:{serial}"),
            *("-netdev", f"tap,id=n0,ifname={PREFIX}0,script=no,downscript=no"),
            *("-device", f"virtio-net-pci,netdev=n0,mac={MAC},romfile=", "-device", "virtio-rng-pci"),
        ]
        if not reboots:
            command.append("-no-reboot")
        if firmware == "uefi":
            variables = self.directory / "vars.fd"
            if installer:
                shutil.copyfile("/usr/share/OVMF/OVMF_VARS_4M.fd", variables)
            command += ["-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"]
            command += ["-drive", f"if=pflash,format=raw,file={variables}"]
        for number, disk in enumerate(disks):
            # With UEFI what the installer told the firmware is what counts, as on a real machine.
            order = f",bootindex={number + 1}" if firmware == "bios" else ""
            command += ["-drive", f"file={disk},format=raw,if=none,id=d{number},cache=unsafe,discard=unmap"]
            command += ["-device", f"virtio-blk-pci,drive=d{number},serial={disk.stem}{order}"]
        if installer:
            words = f"vcrecon.master=http://{MASTER}:{PORT} vcrecon.token={TOKEN} vcrecon.mac={MAC}"
            command += ["-kernel", str(self.vmlinuz), "-initrd", str(self.initrd)]
            command += ["-append", f"console=ttyS0 quiet mitigations=off no_timer_check panic=-1 {words}"]
        self.machine = Machine(self.start(*command, log="qemu.log"), serial)
        return self.machine

    def boot(self, disks: Sequence[Path], *, firmware: str = "bios", reboots: bool = False) -> Machine:
        """Boot from the disks and wait until its sshd lets us in, with the pinned key."""
        machine = self.power_on(disks, installer=False, firmware=firmware, reboots=reboots)
        self.wait_for(lambda: self.ssh("true").returncode == 0, machine, BOOT_S, "sshd")
        return machine

    def ssh(self, script: str) -> subprocess.CompletedProcess[str]:
        known = self.directory / "known_hosts"
        known.write_text(f"{MACHINE} {(self.directory / 'host.pub').read_text()}")
        options = ("BatchMode=yes", "StrictHostKeyChecking=yes", f"UserKnownHostsFile={known}", "ConnectTimeout=10")
        return subprocess.run(
            [
                *self.enter("ssh", "-i", str(self.directory / "client")),
                *(word for option in options for word in ("-o", option)),
                *(f"root@{MACHINE}", script),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def wait_for(self, reached: Callable[[], object], machine: Machine, deadline_s: float, what: str) -> None:
        ends_s = time.monotonic() + deadline_s
        while not reached():
            tail = machine.said()[-3000:]
            assert machine.process.poll() is None or reached(), f"the machine went off before {what}:\n{tail}"
            assert time.monotonic() < ends_s, f"{what} did not come within {deadline_s:.0f} s:\n{tail}"
            time.sleep(0.5)


@dataclass
class Machine:
    process: subprocess.Popen[bytes]
    serial: Path

    def said(self) -> str:
        return self.serial.read_text(errors="replace") if self.serial.exists() else ""

    def pull_the_plug(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


@dataclass
class Installed:
    """A pair of disks after an install that was cut twice, and what the master heard of it."""

    disks: tuple[Path, Path]
    ended: dict[str, Any]
    events: list[dict[str, Any]]
    log: str


def copied(disk: Path) -> Path:
    """A copy of a disk, so that no test sees what another wrote."""
    copy = disk.with_name(f"copy-{disk.name}")
    run("cp", "--sparse=always", str(disk), str(copy))
    return copy


def make_key(path: Path) -> None:
    if not path.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path))


def job(bench: Bench, image: Path, *, sha256: str = "", complete: bool = True, **changed: str) -> bytes:
    """The job archive, as the contract of the boot server has it."""
    values = {
        "NAME": "c01", "ADDRESS": f"{MACHINE}/24", "GATEWAY": "", "DNS": "", "MAC": MAC, "SYSTEM": "small",
        "HYPERVISOR": "kvm", "GENERATION": "1", "ROOT_URL": f"http://{MASTER}:{PORT}/images/{image.name}",
        "ROOT_SHA256": sha256 or sha256_of(image), "WIPE": "0", "RAID": "auto", "ROOT_BYTES": str(2048 * MIB),
        "SWAP_BYTES": str(128 * MIB), "VOLUME_GROUP": "vg-c01", "POOL": "guests",
        "CMDLINE": "console=ttyS0 quiet mitigations=off no_timer_check net.ifnames=0", "TRUNK": "eth1",
        "NONCE": "n1", "MATCH": "",
        **changed,
    }  # fmt: skip
    quoted = "".join(f"{key}='{value}'\n" for key, value in values.items())
    client, host = ((bench.directory / f"{name}.pub").read_text() for name in ("client", "host"))
    network = f"[Match]\nMACAddress={MAC}\n\n[Network]\nAddress={MACHINE}/24\nIPv6AcceptRA=no\n"
    files = {
        "job.env": (quoted, 0o600),
        "root/etc/hostname": ("c01\n", 0o644),
        "root/etc/hosts": ("127.0.0.1 localhost\n127.0.1.1 c01\n", 0o644),
        "root/etc/ssh/ssh_host_ed25519_key": ((bench.directory / "host").read_text(), 0o600),
        "root/etc/ssh/ssh_host_ed25519_key.pub": (host, 0o644),
        "root/root/.ssh/authorized_keys": (client, 0o600),
        "root/etc/systemd/network/10-provisioning.network": (network, 0o644),
        "root/etc/vcrecon/release": ("hypervisor=kvm\ngeneration=1\ninstall=n1\n", 0o644),
        "shadow": (f"root:{PASSWORD_HASH}\n", 0o600),
        **({".complete": ("", 0o600)} if complete else {}),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, (text, mode) in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text.encode()), mode
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


PASSWORD_HASH = "$6$rounds=5000$saltsalt$" + "x" * 86
"""Of the form of a hash, and of no password."""


def sha256_of(path: Path, size_bytes: int | None = None) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        if size_bytes is not None:
            return hashlib.sha256(stream.read(size_bytes)).hexdigest()
        while chunk := stream.read(MIB):
            digest.update(chunk)
    return digest.hexdigest()
