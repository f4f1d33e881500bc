"""More of what test_installer_machine proves, for which continuous integration has no time: VCRECON_TEST_BOOT=all."""

from __future__ import annotations

from pathlib import Path

import pytest
from install_bench import BOOT_S, DISK_BYTES, MAC, Bench, Installed, copied, job

from vcrecon.host.netboot import netboot_script

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.bare_metal, pytest.mark.timeout(1800)]


def test_a_machine_without_a_disk_says_so(bench: Bench, image: Path) -> None:
    assert bench.install(job(bench, image), [])["error"] == "no-disk"


def test_consent_lets_an_existing_system_be_replaced(pair: Installed, bench: Bench, image: Path) -> None:
    disks = [copied(disk) for disk in pair.disks]
    assert bench.install(job(bench, image, WIPE="1", NAME="c02"), disks)["error"] == ""
    machine = bench.boot(disks)
    machine.pull_the_plug()


def test_a_mirror_boots_by_itself_with_its_first_disk_gone(pair: Installed, bench: Bench) -> None:
    """To sshd, with the host key that the master made for it."""
    machine = bench.boot([copied(pair.disks[1])])
    try:
        said = bench.ssh("cat /etc/hostname /etc/vcrecon/release; cat /proc/mdstat; lvs --noheadings -o lv_name").stdout
    finally:
        machine.pull_the_plug()
    assert said.splitlines()[:2] == ["c01", "hypervisor=kvm"]
    assert {"root", "swap", "guests"} <= set(said.split())
    assert "raid1" in said


def test_a_mirror_boots_with_its_second_disk_gone(pair: Installed, bench: Bench) -> None:
    bench.boot([copied(pair.disks[0])]).pull_the_plug()


def test_uefi_installs_and_boots(bench: Bench, image: Path) -> None:
    disks = [bench.disk("efi", DISK_BYTES)]
    assert bench.install(job(bench, image), disks, firmware="uefi")["error"] == ""
    bench.boot(disks, firmware="uefi").pull_the_plug()


def test_a_machine_installed_for_xen_boots_into_xen_by_itself(bench: Bench, xen_image: Path) -> None:
    """The words before the dashes are what an emulated machine needs; memory for the host is left to the installer."""
    line = "console=com1 com1=115200 xpti=no spec-ctrl=no cpuidle=0 --- console=hvc0 mitigations=off net.ifnames=0"
    disk = bench.disk("xen", DISK_BYTES)
    ended = bench.install(job(bench, xen_image, HYPERVISOR="xen", CMDLINE=line, ROOT_BYTES=str(4 << 30)), [disk])
    assert ended["error"] == ""
    machine = bench.boot([disk])
    try:
        said = bench.ssh("cat /sys/hypervisor/type; xl list | awk 'NR == 2 { print $1, $3 }'; cat /proc/cmdline").stdout
    finally:
        machine.pull_the_plug()
    assert said.splitlines()[:2] == ["xen", "Domain-0 1024"]
    assert "root=/dev/mapper/vg--c01-root ro console=hvc0" in said


def test_with_uefi_a_machine_goes_through_the_network_once_when_it_is_told_so(bench: Bench, image: Path) -> None:
    """It was installed, so its disk stands first; told by its own system, its firmware tries the network at the next
    start. Nobody answers there with a loader, so it falls back to the disk."""
    disk = bench.disk("efi-next", DISK_BYTES)
    assert bench.install(job(bench, image), [disk], firmware="uefi")["error"] == ""
    machine = bench.boot([disk], firmware="uefi", reboots=True)
    try:
        assert "PXE" not in machine.said()
        bench.ssh(netboot_script(MAC))
        bench.wait_for(lambda: "PXE over IPv4" in machine.said(), machine, BOOT_S, "the firmware's try of the network")
        bench.wait_for(lambda: bench.ssh("true").returncode == 0, machine, BOOT_S, "sshd")
    finally:
        machine.pull_the_plug()
