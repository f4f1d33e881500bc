"""How a container is sent through the network once: what its firmware is told, by the words of efibootmgr."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from vcrecon.host.netboot import netboot_script

MAC = "52:54:00:77:00:10"
# As efibootmgr 17 says it of OVMF, and of a server with two cards.
LISTED = """\
BootCurrent: 0003
Timeout: 0 seconds
BootOrder: 0003,0000,0001,0002,0004,0005,0006
Boot0000* UiApp\tFvVol(7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1)/FvFile(462caa21-7614-4503-836e-8ab6f4662331)
Boot0001* UEFI PXEv4 (MAC:525400770011)\tPciRoot(0x0)/Pci(0x2,0x0)/MAC(525400770011,1)/IPv4(0.0.0.00.0.0.0,0,0)
Boot0002* UEFI PXEv6 (MAC:525400770010)\tPciRoot(0x0)/Pci(0x3,0x0)/MAC(525400770010,1)/IPv6([::]:<->[::]:,0,0)
Boot0003* vcrecon vda\tHD(1,GPT,5dcd9b5f-9a0b-4a2f-8d8d-0c1f3a5e7b9d,0x800,0x100000)/File(\\EFI\\BOOT\\BOOTX64.EFI)
Boot0004* UEFI HTTPv4 (MAC:525400770010)\tPciRoot(0x0)/Pci(0x3,0x0)/MAC(525400770010,1)/IPv4(0.0.0.00.0.0.0,0,0)/Uri()
Boot000A* UEFI PXEv4 (MAC:525400770010)\tPciRoot(0x0)/Pci(0x3,0x0)/MAC(525400770010,1)/IPv4(0.0.0.00.0.0.0,0,0)
"""


@pytest.mark.parametrize(
    ("efi", "listed", "said"),
    [
        (True, LISTED, ["efibootmgr -v", "efibootmgr -q -n 000A", "systemctl reboot"]),
        (True, LISTED.replace("525400770010", "525400770099"), ["efibootmgr -v", "systemctl reboot"]),
        (True, "", ["efibootmgr -v", "systemctl reboot"]),
        (False, LISTED, ["systemctl reboot"]),
    ],
    ids=["by its own entry", "without an entry for it", "without any", "BIOS"],
)
def test_a_reboot_goes_through_the_network_once_where_the_firmware_can_be_told(
    tmp_path: Path, efi: bool, listed: str, said: list[str]
) -> None:
    tools, log = tmp_path / "tools", tmp_path / "log"
    tools.mkdir()
    (tmp_path / "listed").write_text(listed)
    note = f'#!/bin/sh\necho "${{0##*/}}" "$@" >>{log}\n'
    (tools / "efibootmgr").write_text(f'{note}[ "$1" != -v ] || cat {tmp_path}/listed\n')
    (tools / "systemctl").write_text(note)
    for tool in tools.iterdir():
        tool.chmod(0o755)
    if efi:
        (tmp_path / "efi").mkdir()
    script = netboot_script(MAC, str(tmp_path / "efi"))
    subprocess.run(["sh", "-c", script], env={"PATH": f"{tools}:/usr/bin:/bin"}, check=True)
    assert log.read_text().splitlines() == said
