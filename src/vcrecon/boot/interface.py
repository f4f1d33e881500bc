"""The one address that boot services add to the provisioning interface themselves. Called by `boot.services`.

dnsmasq advertises a prefix only on an interface that has an address in it, and without advertisements every iPXE waits
fifteen seconds for them. The address is a unique local one, and is taken away again at the end.
"""

from __future__ import annotations

import asyncio
from ipaddress import ip_interface

import structlog

_log = structlog.get_logger("vcrecon")


async def add_address(interface: str, address: str) -> bool:
    """Add an IPv6 address (with /length); False, and a line in the log, when that is not possible."""
    return await _ip("replace", interface, "nodad", "local", address)


async def remove_address(interface: str, address: str) -> None:
    """Take its whole prefix away from the interface; no error when that is gone.

    The kernel may have given the interface another address in it, by the advertisements that we sent ourselves.
    """
    await _ip("flush", interface, "to", str(ip_interface(address).network))


async def _ip(verb: str, interface: str, *more: str) -> bool:
    try:
        process = await asyncio.create_subprocess_exec(
            *("ip", "-6", "address", verb, "dev", interface, *more),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
    except OSError as error:
        _log.warning("router advertisements: cannot run ip", error=error.strerror)
        return False
    if process.returncode and verb != "flush":
        words = said.decode("utf-8", "replace").strip()
        _log.warning("no router advertisements: machines take 15 s longer to boot", interface=interface, error=words)
    return process.returncode == 0
