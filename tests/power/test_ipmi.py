"""Power by IPMI: what `ipmitool` prints, read; and how it is run. The texts are real, of ipmitool 1.8.19."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_redfish import PASSWORD, USER

from vcrecon.errors import HostError, Permanent, Transient, Unreachable
from vcrecon.power import Patience
from vcrecon.power.ipmi import IpmiSwitch, Said, address_parts, meaning, netboots, power_state
from vcrecon.spec.model import Power

VERBOSE = """\
Loading IANA PEN Registry...
Unable to Get Channel Cipher Suites
Running Get VSO Capabilities my_addr 0x20, transit 0, target 0x20
Invalid completion code received: Invalid command
Discovered IPMB address 0x0
"""
BOOT_FLAGS = """\
Boot parameter version: 1
Boot parameter 5 is valid/unlocked
Boot parameter data: 8004000000
 Boot Flags :
   - Boot Flag Valid
   - Options apply to only next boot
   - BIOS PC Compatible (legacy) boot
   - Boot Device Selector : Force PXE
   - BIOS verbosity : System Default
"""


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (VERBOSE + "Chassis Power is on\n", "on"),
        (VERBOSE + "Chassis Power is off\n", "off"),
        (VERBOSE, "unknown"),
        ("", "unknown"),
        ("note: Chassis Power is off\n", "unknown"),
        ("Chassis Power is offline\n", "unknown"),
    ],
)
def test_only_a_clear_word_counts_as_on_or_off(text: str, state: str) -> None:
    assert power_state(text) == state


def test_a_netboot_shows_in_the_boot_flags() -> None:
    assert netboots(VERBOSE + BOOT_FLAGS)
    assert not netboots(VERBOSE + BOOT_FLAGS.replace("Force PXE", "No override"))
    assert not netboots(VERBOSE)


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (0, VERBOSE + "Chassis Power Control: Down/Off\n", None),
        (0, VERBOSE + "Set Boot Device to pxe\n", None),
        (0, "Set Chassis Boot Parameter 4 failed: Invalid data field in request\nSet Boot Device to pxe\n", None),
        (0, "Set Chassis Boot Parameter 5 failed: Invalid data field in request\n", "power-refused"),
        (1, "Set Chassis Power Control to Down/Off failed: Invalid data field in request\n", "power-refused"),
        (1, "", "power-refused"),
        (
            1,
            "Loading IANA PEN Registry...\n> RAKP 2 HMAC is invalid\n"
            "Error: Unable to establish IPMI v2 / RMCP+ session\n",
            "power-credentials",
        ),
        (
            1,
            "RAKP 2 message indicates an error : unauthorized name\n"
            "Error: Unable to establish IPMI v2 / RMCP+ session\n",
            "power-credentials",
        ),
        (
            1,
            "Get Auth Capabilities error\nError issuing Get Channel Authentication Capabilities request\n"
            "Error: Unable to establish IPMI v2 / RMCP+ session\n",
            "power-unreachable",
        ),
        (
            1,
            "Address lookup for nosuch.invalid failed\nCould not open socket!\n"
            "Error: Unable to establish IPMI v2 / RMCP+ session\n",
            "power-unreachable",
        ),
        (
            1,
            "Error in open session response message : insufficient resources for session\n"
            "Error: Unable to establish IPMI v2 / RMCP+ session\n",
            "power-faulty",
        ),
    ],
)
def test_each_way_to_fail_is_told_apart(code: int, text: str, kind: str | None) -> None:
    error = meaning(Said(code, text), "c01: its power controller at bmc", "/etc/bmc")
    assert (error.kind if error else None) == kind


def test_silence_says_nothing_about_the_machine() -> None:
    error = meaning(Said(1, "Error: Unable to establish IPMI v2 / RMCP+ session\n"), "c01", "/etc/bmc")
    assert isinstance(error, Unreachable)


@pytest.mark.parametrize(
    ("address", "parts"),
    [("192.0.2.1", ("192.0.2.1", 623)), ("bmc.lan:7623", ("bmc.lan", 7623)), ("[fd09::1]:99", ("fd09::1", 99))],
)
def test_an_address_may_have_a_port(address: str, parts: tuple[str, int]) -> None:
    assert address_parts(address, "c01") == parts


@pytest.mark.parametrize("address", ["", "-I", "https://bmc", "me:secret@bmc", "a b", "bmc:x", "bmc\n"])
def test_another_address_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(Permanent) as caught:
        address_parts(address, "c01")
    assert caught.value.kind == "power-address"
    assert "secret" not in str(caught.value)


FAKE = """\
#!{python}
import json, os, sys, time
asked = " ".join(sys.argv[sys.argv.index("-v") + 1:])
with open({log!r}, "a") as log:
    log.write(json.dumps([sys.argv[1:], dict(os.environ), os.getpid()]) + "\\n")
if {hangs}:
    time.sleep(600)
text, code = {answers!r}.get(asked, ("", 0))
print(text)
sys.exit(code)
"""

FakeTool = Callable[..., IpmiSwitch]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "ipmitool.log"


@pytest.fixture
def with_tool(tmp_path: Path, log: Path, credentials: Path, patience: Patience) -> FakeTool:
    """A switch whose `ipmitool` is a program that notes how it was called and answers as told."""

    def make(
        answers: dict[str, tuple[str, int]] | None = None, *, hangs: bool = False, uefi: bool = False, **less: float
    ) -> IpmiSwitch:
        tool = tmp_path / "ipmitool"
        tool.write_text(
            FAKE.format(python=sys.executable, log=str(log), hangs=hangs, answers=answers or {}), encoding="utf-8"
        )
        tool.chmod(0o755)
        power = Power("ipmi", "192.0.2.1", credentials)
        return IpmiSwitch(power, "c01", uefi=uefi, patience=replace(patience, **less), program=str(tool))

    return make


def calls(log: Path) -> list[tuple[list[str], dict[str, str], int]]:
    return [tuple(json.loads(line)) for line in log.read_text(encoding="utf-8").splitlines()]


def asked(log: Path) -> list[str]:
    return [" ".join(argv[argv.index("-v") + 1 :]) for argv, _, _ in calls(log)]


async def failure(switch: IpmiSwitch, act: str) -> HostError:
    with pytest.raises(HostError) as caught:
        await getattr(switch, act)()
    return caught.value


async def test_the_password_goes_by_the_environment_alone(with_tool: FakeTool, log: Path) -> None:
    await with_tool({"chassis power status": ("Chassis Power is on", 0)}).state()
    [(argv, environment, _)] = calls(log)
    assert environment["IPMITOOL_PASSWORD"] == PASSWORD
    assert argv[:9] == ["-I", "lanplus", "-H", "192.0.2.1", "-p", "623", "-U", USER, "-E"]
    assert PASSWORD not in " ".join(argv)


async def test_an_order_that_is_taken_and_ignored_is_an_error(with_tool: FakeTool, log: Path) -> None:
    error = await failure(with_tool({"chassis power status": ("Chassis Power is on", 0)}, effect_s=0.1), "off")
    assert isinstance(error, Transient)
    assert error.kind == "power-no-effect"
    assert "chassis power off" in asked(log)


async def test_a_netboot_is_asked_for_as_the_machine_boots(with_tool: FakeTool, log: Path) -> None:
    answers = {"chassis bootparam get 5": (BOOT_FLAGS, 0)}
    await with_tool(answers).netboot_once()
    await with_tool(answers, uefi=True).netboot_once()
    assert [text for text in asked(log) if "bootdev" in text] == [
        "chassis bootdev pxe",
        "chassis bootdev pxe options=efiboot",
    ]


async def test_boot_flags_that_cannot_be_kept_longer_do_not_stop_a_netboot(with_tool: FakeTool) -> None:
    await with_tool(
        {
            "raw 0x00 0x08 0x03 0x08": ("Unable to send RAW command (rsp=0xc1): Invalid command", 1),
            "chassis bootparam get 5": (BOOT_FLAGS, 0),
        }
    ).netboot_once()


async def test_a_netboot_that_does_not_show_afterwards_is_an_error(with_tool: FakeTool) -> None:
    assert (await failure(with_tool(), "netboot_once")).kind == "power-no-effect"


async def test_a_tool_that_hangs_is_killed(with_tool: FakeTool, log: Path) -> None:
    error = await failure(with_tool(hangs=True, answer_s=1.0), "state")
    assert isinstance(error, Unreachable)
    assert not _any_lives(log)


def _any_lives(log: Path) -> bool:
    return any(Path(f"/proc/{process}").exists() for _, _, process in (calls(log) if log.exists() else []))


async def test_a_missing_tool_names_its_package(credentials: Path, tmp_path: Path) -> None:
    switch = IpmiSwitch(
        Power("ipmi", "192.0.2.1", credentials),
        "c01",
        uefi=False,
        patience=Patience(),
        program=str(tmp_path / "ipmitool"),
    )
    error = await failure(switch, "state")
    assert error.kind == "power-program"
    assert "apt-get install ipmitool" in str(error)


async def test_a_password_that_ipmi_cannot_carry_is_refused(with_tool: FakeTool, credentials: Path, log: Path) -> None:
    _write(credentials, "me:" + "p" * 21)
    error = await failure(with_tool(), "state")
    assert error.kind == "power-credentials"
    assert "20 bytes" in str(error)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
