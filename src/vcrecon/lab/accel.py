"""Whether this machine's /dev/kvm runs the lab's containers, tried rather than guessed. Called by `lab.up`."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from vcrecon.errors import Refused
from vcrecon.lab.images import ContainerImage
from vcrecon.lab.layout import Accel

_DEVICE = Path("/dev/kvm")
_TRIAL_S = 15.0
# What the kernel says once it runs user programs: it then also ran memory set-up, timers and a context switch.
_ALIVE = "Run /init as init process"


def kvm_works(image: ContainerImage, accel: Accel, say: Callable[[str], None]) -> bool:
    """Boot the containers' own kernel under KVM for a few seconds. Raises Refused when KVM was demanded in vain."""
    if accel == "tcg":
        return False
    why = _trouble(image)
    if why is None:
        say("acceleration: /dev/kvm runs a stock kernel, and nested guests")
        return True
    if accel == "kvm":
        raise Refused(f"lab: --accel kvm: {why}; leave it to auto or say tcg (emulated, five to ten times slower)")
    say(f"acceleration: none ({why}); machines are emulated")
    return False


def _trouble(image: ContainerImage) -> str | None:
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return "no /dev/kvm"
    if not _nested():
        return "/dev/kvm offers no nested virtualization, which guests inside a container need"
    with TemporaryDirectory() as scratch:
        serial = Path(scratch) / "serial"
        command = ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-m", "512", "-nodefaults", "-no-reboot"]
        command += ["-display", "none", "-serial", f"file:{serial}", "-kernel", str(image.kernel)]
        command += ["-initrd", str(image.initrd), "-append", "console=ttyS0 panic=-1 root=/dev/none"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as qemu:
            ends_s = time.monotonic() + _TRIAL_S
            try:
                while time.monotonic() < ends_s and qemu.poll() is None:
                    if serial.exists() and _ALIVE in serial.read_text(errors="replace"):
                        return None
                    time.sleep(0.2)
            finally:
                qemu.kill()
    return "/dev/kvm is there but does not run a stock kernel"


def _nested() -> bool:
    for module in ("kvm_amd", "kvm_intel"):
        flag = Path(f"/sys/module/{module}/parameters/nested")
        if flag.exists():
            return flag.read_text().strip() in {"1", "Y"}
    return False
