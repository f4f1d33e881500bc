"""How a container that still answers is sent through the network once, to be installed anew. Called by `shell.install`.

With UEFI its firmware is told so for the next boot alone (BootNext, UEFI specification 3.1.1), by the entry that the
firmware itself made for the network card. A BIOS cannot be told: there the network must stand first in the boot order,
and the boot server sends the machine on to its disk at every other boot.
"""

from __future__ import annotations

REBOOT = "systemctl reboot"


def netboot_script(mac: str, efi: str = "/sys/firmware/efi") -> str:
    """Boot next from the network card with this MAC, if the firmware can be told; then reboot in any case.

    `efi` is there on a machine that was booted by UEFI.
    """
    digits = mac.replace(":", "")
    return f"""\
if [ -d {efi} ] && command -v efibootmgr >/dev/null; then
  entry=$(efibootmgr -v | grep -i 'MAC({digits}' | grep -i 'IPv4(' | grep -vi 'Uri(' | head -n 1 | cut -c 5-8)
  [ -z "$entry" ] || efibootmgr -q -n "$entry"
fi
{REBOOT}
"""
