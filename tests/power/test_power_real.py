"""Power switches against programs that others wrote: OpenStack's Redfish emulator, and OpenIPMI's simulator."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import bcrypt
import pytest
from fake_redfish import PASSWORD, USER

from vcrecon.errors import HostError, Permanent
from vcrecon.power import Patience, PowerSwitch, power_switch
from vcrecon.power.ipmi import IpmiSwitch
from vcrecon.spec.model import Power

pytestmark = pytest.mark.root

START_S = 60.0
FAKE_SYSTEM = "/redfish/v1/Systems/27946b59-9e44-4fa7-8e91-f3527a1ef094"
# Its fake machines take 1 to 11 s at random to obey; here always the shortest.
EMULATOR = "import random; random.randint = lambda low, high: low; from sushy_tools.emulator.main import main; main()"


@contextlib.contextmanager
def running(command: list[str], log: Path, answers: Callable[[], bool], **environment: str) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **environment}
        )
        try:
            deadline = time.monotonic() + START_S
            while not answers():
                assert process.poll() is None, log.read_text(errors="replace")
                assert time.monotonic() < deadline, log.read_text(errors="replace")
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.fixture
def emulator(tmp_path: Path, certificate: tuple[Path, Path]) -> Iterator[str]:
    """The URL of an emulated Redfish service with TLS, a password, and a machine that is off."""
    passwords = tmp_path / "htpasswd"
    passwords.write_text(f"{USER}:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()}\n", encoding="utf-8")
    state = tmp_path / "state"
    state.mkdir()
    config = tmp_path / "emulator.conf"
    config.write_text(f"SUSHY_EMULATOR_AUTH_FILE = {str(passwords)!r}\nSUSHY_EMULATOR_STATE_DIR = {str(state)!r}\n")
    port = free_port(socket.SOCK_STREAM)
    command = [sys.executable, "-c", EMULATOR, "--fake", "--interface", "127.0.0.1", "--port", str(port)]
    command += ["--config", str(config), "--ssl-certificate", str(certificate[0]), "--ssl-key", str(certificate[1])]
    with running(command, tmp_path / "emulator.log", lambda: listens(port)):
        yield f"https://127.0.0.1:{port}"


async def test_the_redfish_emulator_is_switched_on_netbooted_and_switched_off(
    emulator: str, certificate: tuple[Path, Path], credentials: Path, patience: Patience
) -> None:
    power = Power("redfish", emulator, credentials, certificate[0])
    switch = power_switch(power, "c01", patience=replace(patience, effect_s=60.0, poll_s=0.1))
    assert switch is not None
    assert await switch.state() == "off"
    await switch.netboot_once()
    await switch.on()
    assert await switch.state() == "on"
    await switch.off()
    named = power_switch(replace(power, address=emulator + FAKE_SYSTEM), "c01", patience=patience)
    assert named is not None
    assert await named.state() == "off"
    _write(credentials, f"{USER}:wrong")
    with pytest.raises(Permanent) as caught:
        await switch.state()
    assert caught.value.kind == "power-credentials"


LAN_CONF = """\
name "bmc"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 {port}
    priv_limit admin
    allowed_auths_admin md5
    allowed_auths_operator md5
    allowed_auths_user md5
    allowed_auths_callback md5
    guid a123456789abcdefa123456789abcdef
  endlan
  chassis_control "{chassis}"
  user 1 false "" "" user 10 md5
  user 2 true "{user}" "{password}" admin 10 md5
"""
COMMANDS = """\
mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
mc_enable 0x20
"""
# `get WHAT…` prints `WHAT:VALUE`, `set WHAT VALUE…` notes it: a machine that is two files.
CHASSIS = """\
#!/bin/sh
cd {directory} || exit 1
verb=$1; shift
while [ $# -gt 0 ]; do
  case $verb in
    get) echo "$1:$(cat "chassis.$1" 2>/dev/null || echo 0)"; shift ;;
    set) echo "$2" >"chassis.$1"; shift 2 ;;
    *) shift ;;
  esac
done
"""


@pytest.fixture
def simulated(
    tmp_path: Path, credentials: Path, patience: Patience, program: Callable[[str], str]
) -> Iterator[PowerSwitch]:
    """A switch to an IPMI controller of OpenIPMI's, whose machine is on."""
    simulator = program("ipmi_sim")
    program("ipmitool")
    port = free_port(socket.SOCK_DGRAM)
    chassis = tmp_path / "chassis"
    chassis.write_text(CHASSIS.format(directory=tmp_path))
    chassis.chmod(0o755)
    _write(tmp_path / "chassis.power", "1\n")
    _write(tmp_path / "chassis.boot", "none\n")
    (tmp_path / "state").mkdir()
    (tmp_path / "lan.conf").write_text(LAN_CONF.format(port=port, chassis=chassis, user=USER, password=PASSWORD))
    (tmp_path / "commands").write_text(COMMANDS)
    command = [simulator, "-c", str(tmp_path / "lan.conf"), "-f", str(tmp_path / "commands"), "-s"]
    command += [str(tmp_path / "state"), "-n", "-d"]
    # It does not answer which ciphers it has, and each command would wait for that.
    power = Power("ipmi", f"127.0.0.1:{port}", credentials)
    switch = IpmiSwitch(power, "c01", uefi=False, patience=patience, options=("-C", "3"))
    with running(command, tmp_path / "ipmi_sim.log", lambda: True):
        yield switch


async def test_an_ipmi_controller_is_netbooted_and_switched_off(simulated: PowerSwitch, tmp_path: Path) -> None:
    await _answering(simulated)
    await simulated.netboot_once()
    assert _read(tmp_path / "chassis.boot") == "pxe"
    await simulated.off()
    assert _read(tmp_path / "chassis.power") == "0"


async def test_an_ipmi_controller_that_knows_another_password_says_so(
    simulated: PowerSwitch, credentials: Path
) -> None:
    _write(credentials, f"{USER}:wrong")
    with pytest.raises(Permanent) as caught:
        await _answering(simulated)
    assert caught.value.kind == "power-credentials"


async def _answering(switch: PowerSwitch) -> None:
    """Wait until it speaks at all: its port is UDP, so nothing shows that it listens."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            await switch.state()
            return
        except HostError as error:
            if error.kind != "power-unreachable" or time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.1)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip()


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
