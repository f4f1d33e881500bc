"""Power by IPMI over the network, through Debian's `ipmitool`. Made by `power.power_switch`.

One process a question, with the password in its environment only. `ipmitool` says little in its exit code: it is 0
after a boot setting that the controller refused, and 1 without the reason when a password is wrong. So what it
prints is read, by the pure functions at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vcrecon.errors import HostError, Permanent, Transient, Unreachable
from vcrecon.power.login import read_login
from vcrecon.power.switch import Patience, PowerState, VerifiedSwitch, words
from vcrecon.spec.model import Power

_PASSWORD_BYTES_MAX = 20
_KEEP_BOOT_FLAGS = ("raw", "0x00", "0x08", "0x03", "0x08")
"""IPMI 2.0, table 28-14, parameter 3: do not drop boot flags when no restart follows within 60 s."""

_NOT_ADMITTED = re.compile(
    r"RAKP \d HMAC is invalid|RAKP \d message has invalid|unauthorized (?:name|role)|insufficient privilege"
    r"|privilege level insufficient",
    re.IGNORECASE,
)
_BUSY = re.compile(r"insufficient resources|node busy|timeout while processing", re.IGNORECASE)
_SILENT = re.compile(r"Unable to establish|Could not open socket|Address lookup for .* failed|No response")
_SETTING_FAILED = re.compile(r"^Set Chassis (?!Boot Parameter 4).* failed: ", re.MULTILINE)
"""Parameter 4 only acknowledges who set the flags; many controllers do not have it."""


@dataclass(frozen=True, slots=True)
class Said:
    """How `ipmitool` ended: exit code, and standard output with standard error."""

    code: int
    text: str


class IpmiSwitch(VerifiedSwitch):
    def __init__(
        self,
        power: Power,
        name: str,
        *,
        uefi: bool,
        patience: Patience,
        program: str = "ipmitool",
        options: Sequence[str] = (),
    ) -> None:
        """`options` are further ones of `program`."""
        super().__init__(f"{name}: its power controller", patience)
        self._power = power
        self._uefi = uefi
        self._program = program
        self._options = tuple(options)

    async def state(self) -> PowerState:
        return power_state((await self._run("chassis", "power", "status")).text)

    async def _press(self, wanted: Literal["on", "off"]) -> None:
        await self._run("chassis", "power", wanted)

    async def netboot_once(self) -> None:
        # Optional in the standard; where it is refused, the flags hold for a minute, which is enough for a cycle.
        with contextlib.suppress(Permanent):
            await self._run(*_KEEP_BOOT_FLAGS)
        await self._run("chassis", "bootdev", "pxe", *(["options=efiboot"] if self._uefi else []))
        if not netboots((await self._run("chassis", "bootparam", "get", "5")).text):
            raise Transient(
                f"{self.title} took the order to boot from the network, but does not show it afterwards; "
                "set the boot order by hand: network first",
                delay_s=30.0,
                kind="power-no-effect",
            )

    async def _run(self, *words_: str) -> Said:
        """What `ipmitool` said. Raises HostError when it could not do as asked."""
        host, port = address_parts(self._power.address, self.title)
        login = read_login(self._power.credentials, self.title)
        if len(login.password.encode()) > _PASSWORD_BYTES_MAX:
            raise Permanent(
                f"{self.title}: the password in {self._power.credentials} is longer than IPMI allows, "
                f"{_PASSWORD_BYTES_MAX} bytes; set a shorter one there",
                kind="power-credentials",
            )
        # -v: without it a wrong password looks like a controller that is off. -N, -R: 1 s, four times.
        options = ("-I", "lanplus", "-H", host, "-p", str(port), "-U", login.user, "-E", "-N", "1", "-R", "4")
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C",
            "IPMITOOL_PASSWORD": login.password,
        }
        said = await self._said([self._program, *options, *self._options, "-v", *words_], environment)
        if error := meaning(said, f"{self.title} at {self._power.address}", str(self._power.credentials)):
            raise error
        return said

    async def _said(self, command: Sequence[str], environment: dict[str, str]) -> Said:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=environment,
            )
        except FileNotFoundError:
            raise Permanent(
                f"{self.title}: {self._program} is not installed on the master; type: apt-get install ipmitool",
                kind="power-program",
            ) from None
        try:
            async with asyncio.timeout(self._patience.answer_s):
                output, _ = await process.communicate()
        except TimeoutError:
            raise Unreachable(
                f"{self.title} at {self._power.address} did not answer within {self._patience.answer_s:g} s",
                kind="power-unreachable",
            ) from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        return Said(process.returncode or 0, output.decode(errors="replace"))


def address_parts(address: str, title: str) -> tuple[str, int]:
    """Host and port of `HOST`, `HOST:PORT` or `[IPV6]:PORT`. Raises Permanent (power-address)."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9][A-Za-z0-9.-]*))(?::(\d{1,5}))?", address)
    if match is None:
        raise Permanent(
            f"{title}: power.address is not HOST or HOST:PORT; correct it, and keep user and password in the file "
            "under power.credentials",
            kind="power-address",
        )
    return match[1] or match[2], int(match[3] or 623)


def power_state(text: str) -> PowerState:
    """What `ipmitool chassis power status` shows."""
    match = re.search(r"^Chassis Power is (on|off)\s*$", text, re.MULTILINE)
    if match is None:
        return "unknown"
    return "on" if match[1] == "on" else "off"


def netboots(text: str) -> bool:
    """Whether `ipmitool chassis bootparam get 5` shows that the next boot is from the network.

    "Boot Flag Invalid" beside it is passed over: several controllers say so of flags that they act upon.
    """
    return re.search(r"^\s*- Boot Device Selector : Force PXE\s*$", text, re.MULTILINE) is not None


def meaning(said: Said, where: str, credentials: str) -> HostError | None:
    """The error that `ipmitool`'s words come to, None when it did as asked."""
    text = said.text
    if _NOT_ADMITTED.search(text):
        return Permanent(
            f"{where} does not take user and password of {credentials}, or they may not do this; correct the file, "
            "or the user's privilege there (administrator, IPMI over LAN enabled)",
            kind="power-credentials",
        )
    if _BUSY.search(text):
        return Transient(f"{where} is busy: {words(_last(text))}", delay_s=15.0, kind="power-faulty")
    if _SILENT.search(text):
        return Unreachable(
            f"{where} does not answer; is it powered and cabled, is IPMI over LAN enabled, and is power.address right?",
            kind="power-unreachable",
        )
    # A refused boot setting ends with 0.
    if said.code != 0 or _SETTING_FAILED.search(text):
        return Permanent(f"{where} refuses: {words(_last(text))}; do it by hand there", kind="power-refused")
    return None


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
