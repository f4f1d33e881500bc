"""The whole installer on an emulated machine: a pair of blank disks, what is refused, and what is left behind.

One machine at a time. What takes longer than continuous integration may is in test_installer_by_hand.
"""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest
from install_bench import CUTS, DISK_BYTES, MIB, TOKEN, Bench, Installed, copied, job, sha256_of

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.bare_metal, pytest.mark.timeout(1800)]


def test_two_blank_disks_are_installed_though_the_download_was_cut_twice(pair: Installed) -> None:
    assert pair.ended["error"] == "", pair.log[-3000:]
    fetched = [event["start"] for event in pair.events if event["kind"] == "get"]
    assert fetched == [0, *(int(cut) for cut in CUTS.split())]


def test_every_step_is_reported_in_order_and_the_bytes_only_go_up(pair: Installed) -> None:
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
