"""The whole installer on an emulated machine: a pair of blank disks, what is refused, and what is left behind.

One machine at a time. What takes longer than continuous integration may is run with VCRECON_TEST_BOOT=all.
"""

from __future__ import annotations

import os
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from install_bench import MIB, TOKEN, Bench, job, sha256_of

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.xdist_group("installer")]
everything = pytest.mark.skipif(os.environ.get("VCRECON_TEST_BOOT") != "all", reason="set VCRECON_TEST_BOOT=all")

DISK_BYTES = 6 << 30
# About a third and two thirds of the small system.
CUTS = "50000000 90000000"


@dataclass
class Installed:
    """A pair of disks after an install that was cut twice, and what the master heard of it."""

    disks: tuple[Path, Path]
    ended: dict[str, Any]
    events: list[dict[str, Any]]
    log: str


@pytest.fixture(scope="module")
def image(bench: Bench) -> Path:
    return bench.www / "images/small.tar.zst"


@pytest.fixture(scope="module")
def pair(bench: Bench, image: Path) -> Installed:
    disks = bench.disk("one", DISK_BYTES), bench.disk("two", DISK_BYTES)
    ended = bench.install(job(bench, image), disks, cut=CUTS)
    return Installed(disks, ended, bench.events(), (bench.www / "install.log").read_text())


def test_two_blank_disks_are_installed_though_the_download_was_cut_twice(pair: Installed) -> None:
    assert pair.ended["error"] == "", pair.log[-3000:]
    fetched = [event["start"] for event in pair.events if event["kind"] == "get"]
    assert fetched == [0, *(int(cut) for cut in CUTS.split())]


def test_every_step_is_reported_in_order_and_bytes_at_least_every_three_seconds(pair: Installed) -> None:
    reports = [event for event in pair.events if event["kind"] == "report"]
    steps = list(dict.fromkeys(report["step"] for report in reports))
    assert steps == [
        *("disks", "partition", "raid", "lvm", "filesystems", "download", "unpack", "boot-loader", "context", "done")
    ]
    moving = [report for report in reports if report["step"] == "download"]
    done = [int(report["bytes_done"]) for report in moving]
    assert done == sorted(done)
    assert 0 < done[-1] <= int(moving[-1]["bytes_total"])


def test_the_log_that_the_master_gets_holds_no_secret(pair: Installed, bench: Bench) -> None:
    assert "SHA-256 proved" in pair.log
    assert [word for word in (TOKEN, "PRIVATE KEY", "$6$") if word in pair.log] == []


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


def test_what_is_on_a_disk_is_named_and_left_alone_without_consent(pair: Installed, bench: Bench, image: Path) -> None:
    disk = copied(pair.disks[0])
    before = sha256_of(disk, MIB)
    ended = bench.install(job(bench, image, RAID="single"), [disk])
    assert ended["error"] == "disk-not-blank"
    assert "linux_raid_member" in ended["message"]
    assert sha256_of(disk, MIB) == before


def test_a_corrupted_image_installs_nothing_and_leaves_a_blank_disk(bench: Bench, image: Path) -> None:
    bad = bench.www / "images/bad.tar.zst"
    content = bytearray(image.read_bytes())
    content[len(content) // 2] ^= 1
    bad.write_bytes(content[: 20 * MIB])
    disk = bench.disk("three", DISK_BYTES)
    ended = bench.install(job(bench, bad, sha256=sha256_of(image)), [disk])
    assert ended["error"] == "corrupt"
    assert subprocess.run(["wipefs", "-n", str(disk)], capture_output=True, text=True, check=True).stdout == ""


def test_a_real_image_holds_no_key(image: Path) -> None:
    """By name, and by what a key file begins with (programs that read keys hold the same words, further on)."""
    found = []
    with subprocess.Popen(["zstd", "-dcq", str(image)], stdout=subprocess.PIPE) as unpack:
        assert unpack.stdout is not None
        with tarfile.open(fileobj=unpack.stdout, mode="r|") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isreg() else None
                head = content.read(200) if content is not None else b""
                if "ssh_host_" in member.name or "/.ssh/" in member.name or b"PRIVATE KEY-----" in head:
                    found.append(member.name)
    assert found == []


@everything
def test_a_machine_without_a_disk_says_so(bench: Bench, image: Path) -> None:
    assert bench.install(job(bench, image), [])["error"] == "no-disk"


@everything
def test_consent_lets_an_existing_system_be_replaced(pair: Installed, bench: Bench, image: Path) -> None:
    disks = [copied(disk) for disk in pair.disks]
    assert bench.install(job(bench, image, WIPE="1", NAME="c02"), disks)["error"] == ""
    machine = bench.boot(disks)
    machine.pull_the_plug()


@everything
def test_a_mirror_boots_with_its_second_disk_gone(pair: Installed, bench: Bench) -> None:
    bench.boot([copied(pair.disks[0])]).pull_the_plug()


@everything
def test_uefi_installs_and_boots(bench: Bench, image: Path) -> None:
    disks = [bench.disk("efi", DISK_BYTES)]
    assert bench.install(job(bench, image), disks, firmware="uefi")["error"] == ""
    bench.boot(disks, firmware="uefi").pull_the_plug()


def copied(disk: Path) -> Path:
    """A copy of a disk, so that no test sees what another wrote."""
    copy = disk.with_name(f"copy-{disk.name}")
    subprocess.run(["cp", "--sparse=always", str(disk), str(copy)], check=True)
    return copy
