"""Boot scripts for iPXE, one for each answer. Pure; called by `boot.server`, and for TFTP by `boot.dnsmasq`.

iPXE has no quoting: `${…}` is expanded, `||`, `&&` and `;` end a command, `#` begins a comment. So whatever a
person wrote is reduced to characters that mean nothing before it is shown.
"""

from __future__ import annotations

import re

from vcrecon.core.installs import BootAnswer, LocalBoot, RunInstaller, WaitInLine
from vcrecon.spec.model import Provisioning

SHOWN_MAX = 200
"""Longer messages are cut: they are for one line of a console."""
BOOTSTRAP_TRIES = 12
RETRY_S = 5
_MEANT = re.compile(r"[^A-Za-z0-9 .,:/()_+@%=<>*-]")
_WAIT_S_MAX = 300


def master(provisioning: Provisioning) -> str:
    """The URL that machines know the boot server by."""
    return f"http://{provisioning.address}:{provisioning.port}"


def shown(text: str) -> str:
    """The text as one harmless line: what iPXE might take for more than text becomes a question mark."""
    return _MEANT.sub("?", " ".join(text.split()))[:SHOWN_MAX]


def bootstrap(url: str) -> str:
    """The first script, the same for all machines: it asks the master by MAC.

    `url` is that of the master. A master that does not answer must not keep a container from its disk, so it
    is asked for about a minute, and then the disk is booted.
    """
    lines = [
        "set tries:int32 0",
        ":ask",
        f"chain --replace {_ask(url)} ||",
        "inc tries",
        f"iseq ${{tries}} {BOOTSTRAP_TRIES} && goto disk ||",
        f"echo vcrecon: no answer from {url}, asking again",
        f"sleep {RETRY_S} ||",
        "goto ask",
        ":disk",
        f"echo vcrecon: no answer from {url}, booting the local disk",
        *_disk(),
    ]
    return _script(lines)


def script(answer: BootAnswer, *, url: str, token: str, platform: str, kernel_args: str) -> str:
    """The script for an answer.

    `token` and `kernel_args` (further words for the installer's kernel) count for RunInstaller only. `platform` is
    what iPXE calls the firmware: "efi", or "pcbios".
    """
    match answer:
        case LocalBoot(reason):
            return _script([f"echo vcrecon: {shown(reason)}: booting the local disk", *_disk()])
        case WaitInLine(message, seconds):
            pause_s = min(max(1, seconds), _WAIT_S_MAX)
            lines = [
                ":wait",
                f"echo vcrecon: {shown(message)}",
                f"sleep {pause_s} ||",
                f"chain --replace {_ask(url)} || goto wait",
            ]
            return _script(lines)
        case RunInstaller(ticket):
            # An EFI kernel finds its initrd by this name; on BIOS nobody reads it.
            initrd = "initrd=initrd " if platform == "efi" else ""
            words = f"{initrd}vcrecon.master={url} vcrecon.token={token} vcrecon.mac={ticket.mac} {kernel_args}"
            lines = [
                f"echo vcrecon: {shown(ticket.container)}: starting the installer",
                f"kernel {url}/installer/vmlinuz {words.strip()} || goto failed",
                f"initrd {url}/installer/initrd || goto failed",
                "boot || goto failed",
                ":failed",
                "echo vcrecon: the installer could not be started, asking again",
                "imgfree ||",
                f"sleep {RETRY_S} ||",
                f"chain --replace {_ask(url)} || goto failed",
            ]
            return _script(lines)


def _ask(url: str) -> str:
    # netX is the interface that was opened last: the one that this machine booted from.
    about = "mac=${netX/mac}&uuid=${uuid}&serial=${serial:uristring}&platform=${platform}"
    return f"{url}/boot.ipxe?{about}"


def _disk() -> list[str]:
    """Leave for the disk: EFI goes on in its boot order, BIOS is told which disk."""
    return ["iseq ${platform} efi && exit ||", "sanboot --no-describe --drive 0x80 || exit"]


def _script(lines: list[str]) -> str:
    return "\n".join(["#!ipxe", *lines, ""])
