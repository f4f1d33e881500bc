"""The installer's scripts, part by part, under the shell they run in: choosing disks, downloading, writing files.

No disk, no network beyond loopback and no root is needed; the whole installer is proved in test_installer_machine.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from install_stub import Stub

from vcrecon.boot.installer.recipe import RAMFS

SCRIPTS = RAMFS / "vcrecon"
GIB = 1 << 30
Sh = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def sh(program: Callable[[str], str], tmp_path: Path) -> Sh:
    """Run a script after the named parts were read; `RUN`, `SYS` and `ROOT` are directories of the test's own."""
    busybox = program("busybox")
    tools = tmp_path / "tools"
    tools.mkdir()
    # A disk of these tests has no SMART and can always be read, unless it is called bad.
    (tools / "smartctl").write_text('#!/bin/sh\ncase "$*" in *bad*) exit 8;; esac\nexit 1\n')
    (tools / "dd").write_text("#!/bin/sh\nexit 0\n")
    # What would reach beyond the files of a test.
    for name in ("vgchange", "mdadm", "umount", "mount", "pvs", "blockdev"):
        (tools / name).write_text("#!/bin/sh\nexit 0\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    for name in ("run", "root/boot", "sys/block", "sys/devices"):
        (tmp_path / name).mkdir(parents=True)

    def call(parts: str, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        read = "".join(f". {SCRIPTS}/{part}.sh\n" for part in ("common", *parts.split()))
        environment: Mapping[str, str] = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "RUN": f"{tmp_path}/run",
            "SYS": f"{tmp_path}/sys",
            "ROOT": f"{tmp_path}/root",
            "ROOT_BYTES": str(8 * GIB),
            "SWAP_BYTES": "0",
            "RAID": "auto",
            "MATCH": "",
            # Never this machine's own devices; the disks of these tests have names that no machine has.
            "DEV": f"{tmp_path}/dev",
            "VOLUME_GROUP": "vg0",
            "WIPE": "0",
            "DISKS_WAIT_S": "0",
            "STALL_WAIT_S": "0",
            "STALLS_MAX": "3",
            **variables,
        }
        return subprocess.run(
            [busybox, "sh", "-c", read + script],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return call


def add_disk(tmp_path: Path, name: str, size_bytes: int, **facts: str) -> None:
    """A disk as sysfs shows it."""
    bus = facts.pop("bus", "pci0000:00")
    real = tmp_path / "sys/devices" / bus / name
    for path, value in {
        "size": str(size_bytes // 512), "removable": "0", "ro": "0", "queue/rotational": "0", "device/model": "Disk  ",
        "serial": f"S-{name}", **{key.replace("__", "/"): value for key, value in facts.items()},
    }.items():  # fmt: skip
        (real / path).parent.mkdir(parents=True, exist_ok=True)
        (real / path).write_text(value + "\n")
    (tmp_path / "sys/block" / name).symlink_to(real)


def chosen(tmp_path: Path) -> list[str]:
    return (tmp_path / "run/disks").read_text().split()


def error(tmp_path: Path) -> list[str]:
    return (tmp_path / "run/error").read_text().splitlines()


def test_two_like_disks_are_mirrored_and_flash_goes_before_rotating(sh: Sh, tmp_path: Path) -> None:
    add_disk(tmp_path, "sda", 4000 * GIB, queue__rotational="1")
    add_disk(tmp_path, "sdb", 4000 * GIB, queue__rotational="1")
    add_disk(tmp_path, "nvme0n1", 500 * GIB)
    add_disk(tmp_path, "nvme1n1", 497 * GIB)
    done = sh("disks", "choose_disks")
    assert (done.returncode, chosen(tmp_path)) == (0, ["nvme0n1", "nvme1n1"]), done.stderr


def test_disks_that_differ_by_more_than_a_hundredth_are_not_mirrored(sh: Sh, tmp_path: Path) -> None:
    add_disk(tmp_path, "sda", 500 * GIB)
    add_disk(tmp_path, "sdb", 480 * GIB)
    sh("disks", "choose_disks")
    assert chosen(tmp_path) == ["sda"]


def test_flash_and_rotating_disks_of_one_size_are_not_mirrored(sh: Sh, tmp_path: Path) -> None:
    add_disk(tmp_path, "sda", 500 * GIB, queue__rotational="1")
    add_disk(tmp_path, "sdb", 500 * GIB)
    sh("disks", "choose_disks")
    assert chosen(tmp_path) == ["sdb"]


def test_a_mirror_that_is_demanded_in_vain_is_no_mirror(sh: Sh, tmp_path: Path) -> None:
    add_disk(tmp_path, "sda", 500 * GIB)
    sh("disks", "choose_disks", RAID="mirror")
    assert error(tmp_path)[0] == "no-mirror"


def test_single_takes_one_disk_though_there_is_a_pair(sh: Sh, tmp_path: Path) -> None:
    add_disk(tmp_path, "sda", 500 * GIB)
    add_disk(tmp_path, "sdb", 500 * GIB)
    sh("disks", "choose_disks", RAID="single")
    assert chosen(tmp_path) == ["sda"]


def test_removable_read_only_and_usb_disks_are_never_used(sh: Sh, tmp_path: Path) -> None:
    add_disk(tmp_path, "sda", 500 * GIB, removable="1")
    add_disk(tmp_path, "sdb", 500 * GIB, ro="1")
    add_disk(tmp_path, "sdc", 500 * GIB, bus="pci0000:00/usb1/1-1")
    done = sh("disks", "choose_disks")
    assert (done.returncode, error(tmp_path)[0]) == (1, "no-disk")


def test_a_failing_disk_is_left_out(sh: Sh, tmp_path: Path) -> None:
    add_disk(tmp_path, "sdbad", 500 * GIB)
    add_disk(tmp_path, "sdc", 500 * GIB)
    sh("disks", "choose_disks")
    assert chosen(tmp_path) == ["sdc"]


def test_only_failing_disks_are_disk_failing(sh: Sh, tmp_path: Path) -> None:
    add_disk(tmp_path, "sdbad", 500 * GIB)
    sh("disks", "choose_disks")
    assert error(tmp_path)[0] == "disk-failing"


def test_a_disk_that_is_too_small_is_named_with_what_is_needed(sh: Sh, tmp_path: Path) -> None:
    add_disk(tmp_path, "sda", 8 * GIB)
    sh("disks", "choose_disks")
    assert error(tmp_path)[0] == "disk-too-small"
    assert "8.8 GiB are needed" in error(tmp_path)[1]
    assert "sda (8.0 GiB, Disk, serial S-sda)" in error(tmp_path)[1]


@pytest.mark.parametrize(
    ("match", "disks"),
    [
        ("Samsung*|*||", ["sdb"]),
        ("*|S-sda||", ["sda"]),
        (f"*|*|{600 * GIB}|", ["sdc"]),
        (f"*|*|0|{450 * GIB}", ["sda"]),
        ("Nothing*|*||\n*|S-sdc||", ["sdc"]),
    ],
)
def test_the_layout_chooses_by_model_serial_and_size(sh: Sh, tmp_path: Path, match: str, disks: list[str]) -> None:
    add_disk(tmp_path, "sda", 400 * GIB)
    add_disk(tmp_path, "sdb", 500 * GIB, device__model="Samsung SSD")
    add_disk(tmp_path, "sdc", 700 * GIB)
    sh("disks", "choose_disks", MATCH=match)
    assert chosen(tmp_path) == disks


def test_a_layout_that_fits_no_disk_says_what_there_is(sh: Sh, tmp_path: Path) -> None:
    add_disk(tmp_path, "sda", 400 * GIB)
    sh("disks", "choose_disks", MATCH="Nothing|*||")
    assert error(tmp_path)[0] == "disk-no-match"
    assert "S-sda" in error(tmp_path)[1]


@pytest.mark.parametrize(("disk", "partition"), [("sda", "sda2"), ("nvme0n1", "nvme0n1p2"), ("vdb", "vdb2")])
def test_partitions_are_named_as_the_kernel_does(sh: Sh, disk: str, partition: str) -> None:
    assert sh("disks", f"partition_of {disk} 2").stdout.strip() == partition


def test_a_disk_beyond_2_tib_gets_a_table_that_can_count_it(sh: Sh, tmp_path: Path) -> None:
    add_disk(tmp_path, "sda", 3000 * GIB)
    add_disk(tmp_path, "sdb", 500 * GIB)
    (tmp_path / "run/disks").write_text("sda\n")
    tables = [sh("disks wipe volumes", f"table {disk}").stdout for disk in ("sda", "sdb")]
    assert ["label: gpt" in table for table in tables] == [True, False]
    assert ["LegacyBIOSBootable" in table for table in tables] == [True, False]


def test_the_kernel_line_names_the_volume_as_the_device_mapper_does(sh: Sh, tmp_path: Path) -> None:
    script = "version=6.1; newest_kernel() { echo 6.1; }; boot_by_bios() { extlinux_config; }; install_boot_loader"
    said = sh("disks bootloader", script, VOLUME_GROUP="vg-c01", CMDLINE="console=ttyS0", HYPERVISOR="kvm").stdout
    assert "APPEND root=/dev/mapper/vg--c01-root ro console=ttyS0" in said


def test_xen_is_started_with_its_own_options(sh: Sh, tmp_path: Path) -> None:
    (tmp_path / "root/boot/xen-4.17-amd64.gz").write_text("")
    script = "newest_kernel() { echo 6.1; }; boot_by_bios() { extlinux_config; }; install_boot_loader"
    line = "dom0_mem=1024M --- console=hvc0"
    said = sh("disks bootloader", script, VOLUME_GROUP="vg0", CMDLINE=line, HYPERVISOR="xen").stdout
    assert (
        "APPEND /xen-4.17-amd64.gz dom0_mem=1024M --- /vmlinuz-6.1 root=/dev/mapper/vg0-root ro console=hvc0"
        " --- /initrd.img-6.1"
    ) in said


@pytest.mark.parametrize(("machine_mib", "host_mib"), [(2000, 1024), (16384, 2048), (512 * 1024, 4096)])
def test_xen_leaves_the_host_an_eighth_of_the_memory_unless_told_otherwise(
    sh: Sh, tmp_path: Path, machine_mib: int, host_mib: int
) -> None:
    """Told nothing of Xen, as by a system without a `cmdline` of its own."""
    (tmp_path / "root/boot/xen-4.17-amd64.gz").write_text("")
    (tmp_path / "meminfo").write_text(f"MemTotal:       {machine_mib * 1024} kB\nMemFree: 1 kB\n")
    script = "newest_kernel() { echo 6.1; }; boot_by_bios() { extlinux_config; }; install_boot_loader"
    line = "console=tty0 console=ttyS0,115200"
    said = sh(
        *("disks bootloader", script), VOLUME_GROUP="vg0", CMDLINE=line, HYPERVISOR="xen", MEMINFO=f"{tmp_path}/meminfo"
    ).stdout
    assert "DEFAULT system\n" in said
    xen, linux, initrd = said.partition("  APPEND ")[2].splitlines()[0].split(" --- ")
    assert xen == f"/xen-4.17-amd64.gz console=vga,com1 com1=115200 dom0_mem={host_mib}M,max:{host_mib}M"
    assert linux == f"/vmlinuz-6.1 root=/dev/mapper/vg0-root ro {line} console=hvc0"
    assert initrd == "/initrd.img-6.1"


def test_with_uefi_our_disks_stand_first_in_the_boot_order_and_old_entries_go(sh: Sh, tmp_path: Path) -> None:
    """The entries of an earlier install, by their label; the firmware's own stay. The one made last is first."""
    listed = "BootOrder: 0002,0001\\nBoot0001* UEFI PXEv4 (MAC:525400770010)\\n"
    listed += "Boot000A* vcrecon sda\\nBoot0003  vcrecon sdb\\n"
    tool = tmp_path / "tools/efibootmgr"
    tool.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/log\n[ -n "$1" ] || printf \'{listed}\'\n')
    tool.chmod(0o755)
    (tmp_path / "run/disks").write_text("sda\nnvme0n1\n")
    assert sh("disks bootloader", "boot_disks_first").returncode == 0
    loader = "\\EFI\\BOOT\\BOOTX64.EFI"
    assert (tmp_path / "log").read_text().splitlines() == [
        "",
        "-q -b 000A -B",
        "-q -b 0003 -B",
        f"-q -c -d {tmp_path}/dev/nvme0n1 -p 1 -L vcrecon nvme0n1 -l {loader}",
        f"-q -c -d {tmp_path}/dev/sda -p 1 -L vcrecon sda -l {loader}",
        "",
    ]


def test_firmware_that_takes_no_entry_does_not_fail_the_install(sh: Sh, tmp_path: Path) -> None:
    tool = tmp_path / "tools/efibootmgr"
    tool.write_text("#!/bin/sh\necho 'Could not prepare Boot variable: No space left on device' >&2\nexit 1\n")
    tool.chmod(0o755)
    (tmp_path / "run/disks").write_text("sda\n")
    done = sh("disks bootloader", "boot_disks_first; echo goes on")
    assert "put the disks in front of the network by hand" in done.stdout
    assert done.stdout.endswith("goes on\n")


def test_a_xen_image_without_xen_is_refused(sh: Sh, tmp_path: Path) -> None:
    script = "newest_kernel() { echo 6.1; }; install_boot_loader"
    sh("disks bootloader", script, VOLUME_GROUP="vg0", CMDLINE="quiet", HYPERVISOR="xen", ROOT_URL="http://m/x.tar.zst")
    assert error(tmp_path) == ["image-no-kernel", "http://m/x.tar.zst has no /boot/xen-VERSION.gz"]


@pytest.mark.parametrize("swap_bytes", [0, 1 << 30])
def test_boot_and_swap_may_lack_or_come_late_and_hold_nothing_up(sh: Sh, tmp_path: Path, swap_bytes: int) -> None:
    """systemd gives up on a device after 90 s, and then /boot stays unmounted though its disk is there by then."""
    (tmp_path / "tools/blkid").write_text("#!/bin/sh\necho 6a8a-3e53\n")
    (tmp_path / "tools/blkid").chmod(0o755)
    (tmp_path / "run/boot.device").write_text("/dev/md0\n")
    script = "root_device=/dev/mapper/vg0-root; write_fstab"
    lines = sh("context", script, SWAP_BYTES=str(swap_bytes)).stdout.splitlines()
    assert lines[:2] == [
        "/dev/mapper/vg0-root / xfs defaults 0 0",
        "UUID=6a8a-3e53 /boot ext4 defaults,nofail,x-systemd.device-timeout=10min 0 2",
    ]
    swap = "/dev/vg0/swap none swap defaults,nofail,x-systemd.device-timeout=10min 0 0"
    assert lines[2:] == ([swap] if swap_bytes else [])


# What is on a disk already. A disk is a file here, which the tools take as well.


@pytest.fixture
def disk(sh: Sh, tmp_path: Path, program: Callable[[str], str]) -> Path:
    """A blank disk of 400 MiB called vctesta, the one that was chosen."""
    for name in ("wipefs", "sfdisk", "mkfs.xfs", "mke2fs"):
        program(name)
    (tmp_path / "tools/dd").unlink()
    path = tmp_path / "dev/vctesta"
    path.parent.mkdir()
    with path.open("wb") as stream:
        stream.truncate(400 << 20)
    add_disk(tmp_path, "vctesta", 400 << 20)
    (tmp_path / "run/disks").write_text("vctesta\n")
    return path


def refused(sh: Sh, tmp_path: Path, **variables: str) -> str:
    """What is said of the disk, or "" when it may be used; in both cases it was not written to."""
    path = tmp_path / "dev/vctesta"
    before = path.read_bytes()
    done = sh("disks wipe", "refuse_unless_blank", **variables)
    assert path.read_bytes() == before
    if done.returncode == 0:
        return ""
    assert error(tmp_path)[0] == "disk-not-blank"
    return error(tmp_path)[1]


def test_a_blank_disk_may_be_used(sh: Sh, tmp_path: Path, disk: Path) -> None:
    assert refused(sh, tmp_path) == ""


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("mkfs.xfs -q -L work DISK", "xfs labelled work on vctesta"),
        ("mke2fs -q -t ext4 DISK", "ext4 on vctesta"),
        ("echo label:gpt | sfdisk -q DISK", "gpt on vctesta"),
        ("echo ',,L' | sfdisk -q DISK", "dos on vctesta"),
        (
            "printf 'LABELONE\\001\\0\\0\\0\\0\\0\\0\\0' | dd of=DISK bs=512 seek=1 conv=notrunc",
            "data of an unknown kind on vctesta",
        ),
    ],
)
def test_what_is_on_a_disk_is_named_and_nothing_is_written(
    sh: Sh, tmp_path: Path, disk: Path, command: str, found: str
) -> None:
    subprocess.run(["sh", "-c", command.replace("DISK", str(disk))], check=True, capture_output=True)
    assert found in refused(sh, tmp_path)


def test_consent_lets_a_disk_be_used_whatever_is_on_it(sh: Sh, tmp_path: Path, disk: Path) -> None:
    subprocess.run(["mkfs.xfs", "-q", str(disk)], check=True)
    assert refused(sh, tmp_path, WIPE="1") == ""


def test_the_mark_of_an_install_that_was_cut_off_lets_the_next_one_begin(sh: Sh, tmp_path: Path, disk: Path) -> None:
    subprocess.run(
        ["sfdisk", "-q", str(disk)], input=sh("disks wipe volumes", "table vctesta").stdout, text=True, check=True
    )
    assert refused(sh, tmp_path) == ""


def test_nothing_is_written_on_a_machine_that_did_not_boot_the_installer(sh: Sh, tmp_path: Path, disk: Path) -> None:
    """Whoever runs the scripts by hand: without a token on the kernel's line no device is touched."""
    for function in ("make_blank", "partition_disks", "finish_disks"):
        done = sh("disks wipe volumes", function, DEV="/dev")
        assert (done.returncode, error(tmp_path)) == (
            1,
            ["step-failed", "this machine did not boot the installer; its disks are left alone"],
        )


def test_an_install_that_ended_takes_the_mark_away(sh: Sh, tmp_path: Path, disk: Path) -> None:
    subprocess.run(
        ["sfdisk", "-q", str(disk)], input=sh("disks wipe volumes", "table vctesta").stdout, text=True, check=True
    )
    done = sh("disks wipe volumes", "finish_disks")
    assert done.returncode == 0, done.stdout
    assert "dos on vctesta" in refused(sh, tmp_path)


def test_another_disk_s_volume_group_of_the_same_name_is_refused_even_with_consent(
    sh: Sh, tmp_path: Path, disk: Path
) -> None:
    (tmp_path / "tools/pvs").write_text("#!/bin/sh\necho '  /dev/vctesta2|vg0'\necho '  /dev/vctestaa1|vg0'\n")
    assert "the volume group vg0 is on vctestaa1" in refused(sh, tmp_path, WIPE="1")


def test_the_edges_of_a_disk_are_zero_after_a_wipe(sh: Sh, tmp_path: Path, disk: Path) -> None:
    subprocess.run(["sfdisk", "-q", str(disk)], input="label: gpt\n", text=True, check=True)
    (tmp_path / "sys/class/block/vctesta").mkdir(parents=True)
    (tmp_path / "sys/class/block/vctesta/size").write_text(f"{(400 << 20) // 512}\n")
    done = sh("disks wipe", "make_blank")
    assert done.returncode == 0, done.stdout
    assert not any(disk.read_bytes())
    assert disk.stat().st_size == 400 << 20


# The download.


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The stand-in for the boot server on loopback; files below `www`, cuts in `www/cut`."""
    (tmp_path / "www/images").mkdir(parents=True)

    class Mine(Stub):
        directory = tmp_path / "www"

    server = ThreadingHTTPServer(("127.0.0.1", 0), Mine)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def archive(path: Path, *, size_bytes: int = 3_000_000, **extra: bytes) -> str:
    """A plain tar with a file of noise; its SHA-256."""
    with tarfile.open(path, "w") as tar:
        for name, data in {"etc/noise": os.urandom(size_bytes), **extra}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fetch(sh: Sh, url: str, sha256: str) -> subprocess.CompletedProcess[str]:
    return sh("report disks volumes download", "fetch_root", ROOT_URL=url, ROOT_SHA256=sha256)


def test_a_download_that_is_cut_twice_goes_on_where_it_was_cut(
    sh: Sh, tmp_path: Path, server: str, program: Callable[[str], str]
) -> None:
    program("curl")
    sha256 = archive(tmp_path / "www/images/a.tar")
    (tmp_path / "www/cut").write_text("1000000 2000000")
    done = fetch(sh, f"{server}/images/a.tar", sha256)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "root/etc/noise").stat().st_size == 3_000_000
    starts = [line.split('"start": ')[1].split(",")[0] for line in events(tmp_path) if '"get"' in line]
    assert starts == ["0", "1000000", "2000000"]


def events(tmp_path: Path) -> list[str]:
    return (tmp_path / "www/events.jsonl").read_text().splitlines()


def test_a_wrong_digest_is_corrupt(sh: Sh, tmp_path: Path, server: str) -> None:
    archive(tmp_path / "www/images/a.tar")
    assert fetch(sh, f"{server}/images/a.tar", "0" * 64).returncode == 1
    assert error(tmp_path)[0] == "corrupt"


def test_a_broken_archive_with_a_wrong_digest_is_corrupt_and_not_only_odd(sh: Sh, tmp_path: Path, server: str) -> None:
    """tar stops early; the rest must be read all the same for the digest to be that of the file."""
    path = tmp_path / "www/images/a.tar"
    sha256 = archive(path)
    path.write_bytes(b"\xff" * 1000 + path.read_bytes())
    fetch(sh, f"{server}/images/a.tar", sha256)
    assert error(tmp_path)[0] == "corrupt"
    assert hashlib.sha256(path.read_bytes()).hexdigest() in error(tmp_path)[1]


def test_what_is_no_archive_is_not_a_tree_though_its_digest_is_right(sh: Sh, tmp_path: Path, server: str) -> None:
    path = tmp_path / "www/images/a.tar"
    path.write_bytes(b"\xff" * 100_000)
    fetch(sh, f"{server}/images/a.tar", hashlib.sha256(path.read_bytes()).hexdigest())
    assert error(tmp_path)[0] == "image-not-a-tree"


@pytest.mark.parametrize(("suffix", "tool"), [("zst", "zstd -q"), ("gz", "gzip"), ("xz", "xz")])
def test_compressed_archives_are_unpacked(
    sh: Sh, tmp_path: Path, server: str, program: Callable[[str], str], suffix: str, tool: str
) -> None:
    program(tool.split()[0])
    plain = tmp_path / "www/images/a.tar"
    archive(plain, size_bytes=10_000)
    subprocess.run([*tool.split(), str(plain)], check=True)
    packed = tmp_path / f"www/images/a.tar.{suffix}"
    done = fetch(sh, f"{server}/images/{packed.name}", hashlib.sha256(packed.read_bytes()).hexdigest())
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "root/etc/noise").stat().st_size == 10_000


def test_an_image_that_is_not_there_is_download_failed(sh: Sh, tmp_path: Path, server: str) -> None:
    fetch(sh, f"{server}/images/none.tar", "0" * 64)
    assert error(tmp_path)[0] == "download-failed"
    assert "404" in error(tmp_path)[1]


def test_a_tree_without_a_kernel_cannot_be_booted(sh: Sh, tmp_path: Path) -> None:
    for name in ("etc", "usr/bin", "usr/sbin", "sbin"):
        (tmp_path / "root" / name).mkdir(parents=True)
    (tmp_path / "root/sbin/init").symlink_to("/lib/systemd/systemd")
    (tmp_path / "root/boot/vmlinuz-6.1").write_text("")
    sh("disks download", "check_root", ROOT_URL="http://x/a.tar")
    assert error(tmp_path)[0] == "image-no-kernel"


def test_the_newest_kernel_with_an_initramfs_is_taken(sh: Sh, tmp_path: Path) -> None:
    for version in ("6.1.9", "6.1.10", "6.1.11"):
        (tmp_path / f"root/boot/vmlinuz-{version}").write_text("")
    for version in ("6.1.9", "6.1.10"):
        (tmp_path / f"root/boot/initrd.img-{version}").write_text("")
    assert sh("download", "newest_kernel").stdout.strip() == "6.1.10"


# What the master hears.


def say_to(sh: Sh, tmp_path: Path, server: str, script: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "www/token").write_text("t")
    (tmp_path / "run/authorization").write_text("Authorization: Bearer t\n")
    (tmp_path / "run/claimed").write_text("")
    (tmp_path / "run/install.log").write_text("a line\n" * 20_000)
    return sh("report", script, MASTER=server)


def test_a_step_is_reported_with_its_percent_and_words(sh: Sh, tmp_path: Path, server: str) -> None:
    say_to(sh, tmp_path, server, 'step lvm "volume group a&b=ü"')
    report: Any = __import__("json").loads(events(tmp_path)[-1])
    assert {key: report[key] for key in ("step", "percent", "bytes_done", "bytes_total", "message")} == {
        "step": "lvm",
        "percent": "6",
        "bytes_done": "0",
        "bytes_total": "0",
        "message": "volume group a&b=ü",
    }


def test_the_log_is_sent_once_and_whole_in_bounded_pieces(sh: Sh, tmp_path: Path, server: str) -> None:
    say_to(sh, tmp_path, server, "ship_log; ship_log")
    assert (tmp_path / "www/install.log").read_bytes() == (tmp_path / "run/install.log").read_bytes()


def test_an_install_that_the_master_closed_does_not_begin_another_step(sh: Sh, tmp_path: Path, server: str) -> None:
    (tmp_path / "www/closed").write_text("")
    done = say_to(sh, tmp_path, server, "step disks a; step partition b; echo went on")
    assert (done.returncode, "went on" in done.stdout) == (1, False)


def test_every_script_is_valid_for_the_shells_at_hand(program: Callable[[str], str]) -> None:
    busybox = program("busybox")
    for script in [RAMFS / "init", *sorted(SCRIPTS.glob("*.sh"))]:
        for shell in ([busybox, "sh"], ["sh"]):
            done = subprocess.run([*shell, "-n", str(script)], capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, ""), script
