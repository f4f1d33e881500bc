"""More of what test_installer_machine proves, for which continuous integration has no time: VCRECON_TEST_BOOT=all."""

from __future__ import annotations

from pathlib import Path

import pytest
from install_bench import DISK_BYTES, Bench, Installed, copied, job

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
