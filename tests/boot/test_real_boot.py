"""A real machine's firmware, in QEMU, against the real boot services: what a person sees on its serial console."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from boot_site import MAC
from wire import Wire, a_wire, until

from vcrecon.boot.dnsmasq import BOOTSTRAP

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]
SEEN_S_MAX = 400.0
"""Firmware in an emulator on a busy machine."""


@pytest.fixture
def wire(program: Callable[[str], str]) -> Iterator[Wire]:
    for name in ("dnsmasq", "qemu-system-x86_64", "nsenter", "ip"):
        program(name)
    if not Path("/usr/lib/ipxe/undionly.kpxe").exists():
        program("ipxe's files in /usr/lib/ipxe (package ipxe)")
    with a_wire() as found:
        yield found


class Machine:
    """A machine without a disk that boots from the network. Its console is a file."""

    def __init__(self, wire: Wire) -> None:
        self.serial = wire.home / "serial"
        command = [
            "qemu-system-x86_64",
            *("-machine", "pc,graphics=off", "-accel", "tcg", "-cpu", "Nehalem", "-m", "256"),
            *("-nodefaults", "-display", "none", "-vga", "none", "-serial", f"file:{self.serial}"),
            *("-netdev", f"tap,id=n,ifname={wire.tap()},script=no,downscript=no"),
            *("-device", f"virtio-net-pci,netdev=n,mac={MAC},bootindex=1"),
            *("-uuid", "5e1f0000-0000-4000-8000-000000000001"),
        ]
        self.began_s = time.monotonic()
        self.process = subprocess.Popen(wire.inside(wire.master, command), stdin=subprocess.DEVNULL)

    def console(self) -> str:
        return self.serial.read_text(errors="replace") if self.serial.exists() else ""

    def shows(self, text: str) -> float:
        """Wait until the console shows the text; the seconds since the power came on."""
        until(lambda: text in self.console(), f"{text!r} on the console", SEEN_S_MAX)
        return time.monotonic() - self.began_s


@contextmanager
def powered_on(wire: Wire) -> Iterator[Machine]:
    machine = Machine(wire)
    try:
        yield machine
    finally:
        machine.process.kill()
        machine.process.wait(60)


def test_a_machine_in_the_queue_shows_its_place_and_then_boots_its_disk(wire: Wire) -> None:
    with wire.services() as services:
        services.ask(hold={"c1": "waiting for an install: 3 before you (about 12 min) ${uuid} || boot"})
        with powered_on(wire) as machine:
            waited_s = machine.shows("vcrecon: waiting for an install: 3 before you (about 12 min) ??uuid? ?? boot")
            print(f"power-on to the queue's message: {waited_s:.1f} s")
            services.ask(hold={})
            machine.shows("vcrecon: c1: no install is asked for: booting the local disk")
            # What SeaBIOS says of a machine without a disk: iPXE has let go of it.
            machine.shows("No bootable device")
        assert services.ask()["netboots"] == {MAC: "10.9.0.11"}


def test_a_bios_machine_reaches_its_script_by_undionly_too(wire: Wire) -> None:
    """QEMU's own ROM is an iPXE: it plays the BIOS here, and loads what a machine without iPXE is given."""
    with wire.services() as services:
        services.ask()
        script = wire.home / "public" / "tftp" / BOOTSTRAP
        usual = script.read_text()
        detour = "iseq ${net0/chip} undionly || chain tftp://10.9.0.1/undionly.kpxe\necho chip is ${net0/chip}\n"
        script.write_text(usual.replace("#!ipxe\n", f"#!ipxe\n{detour}"))
        with powered_on(wire) as machine:
            machine.shows("chip is undionly")
            machine.shows("vcrecon: c1: no install is asked for: booting the local disk")
