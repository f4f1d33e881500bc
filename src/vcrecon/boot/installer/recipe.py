"""What the installer's initramfs consists of. Data only, read by `build`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

RAMFS = Path(__file__).parent / "ramfs"
"""The scripts, as they lie in the initramfs."""


@dataclass(frozen=True, slots=True)
class InstallerRecipe:
    """Packages, and patterns (below the kernel's module directory) of the drivers that are kept with all they need.

    `extra` packages come beside these, out of the archive's `components`: firmware of network cards, mostly.
    `needless` goes: documents, and what the packages would need only on a running Debian.
    """

    suite: str = "bookworm"
    kernel: str = "linux-image-amd64"
    packages: tuple[str, ...] = (
        "busybox",
        "udhcpc",
        "kmod",
        "tar",
        "curl",
        "ca-certificates",
        "zstd",
        "xz-utils",
        "coreutils",
        "util-linux",
        "fdisk",
        "mount",
        "lvm2",
        "mdadm",
        "xfsprogs",
        "e2fsprogs",
        "dosfstools",
        "smartmontools",
        "extlinux",
        "syslinux-common",
        "systemd-boot-efi",
        "efibootmgr",
    )
    extra: tuple[str, ...] = ()
    components: tuple[str, ...] = ("main",)
    modules: tuple[str, ...] = (
        "drivers/ata/*",
        "drivers/block/virtio_blk*",
        "drivers/block/xen-blkfront*",
        "drivers/char/hw_random/virtio*",
        "drivers/hid/hid*",
        "drivers/hid/usbhid/*",
        "drivers/md/dm-mod*",
        "drivers/md/dm-thin*",
        "drivers/md/md-mod*",
        "drivers/md/raid1.*",
        "drivers/message/fusion/*",
        # Some need firmware, which Debian's main archive does not have: see `extra`.
        *(
            f"drivers/net/ethernet/{vendor}/*"
            for vendor in ("amazon", "amd", "aquantia", "atheros", "broadcom", "emulex", "intel", "marvell", "mellanox")
        ),
        "drivers/net/ethernet/nvidia/*",
        "drivers/net/ethernet/realtek/*",
        "drivers/net/vmxnet3/*",
        "drivers/net/phy/*",
        "drivers/net/virtio_net*",
        "drivers/nvme/host/nvme.*",
        "drivers/pci/controller/vmd*",
        *(
            f"drivers/scsi/{driver}*"
            for driver in ("aacraid/", "arcmsr/", "hpsa", "isci/", "libsas/", "megaraid/", "mpi3mr/", "mpt3sas/")
        ),
        "drivers/scsi/mvsas/*",
        "drivers/scsi/scsi_mod*",
        "drivers/scsi/scsi_transport_*",
        "drivers/scsi/sd_mod*",
        "drivers/scsi/smartpqi/*",
        "drivers/scsi/virtio_scsi*",
        "drivers/scsi/vmw_pvscsi*",
        "drivers/usb/host/*",
        "drivers/virtio/*",
        "crypto/crc32c_generic*",
        "arch/x86/crypto/crc32*",
        "fs/efivarfs/*",
        "fs/ext4/*",
        "fs/fat/*",
        "fs/nls/nls_ascii*",
        "fs/nls/nls_cp437*",
        "fs/nls/nls_utf8*",
        "fs/xfs/*",
    )
    needless: tuple[str, ...] = (
        "boot",
        "etc/apt",
        "etc/init.d",
        "lib/systemd",
        "lib/udev",
        "usr/lib/python3*",
        "usr/lib/x86_64-linux-gnu/perl*",
        "usr/lib/x86_64-linux-gnu/gconv",
        "usr/share/bash-completion",
        "usr/share/bug",
        "usr/share/doc",
        "usr/share/info",
        "usr/share/lintian",
        "usr/share/locale",
        "usr/share/man",
        "usr/share/perl*",
        "usr/share/zoneinfo",
        "usr/lib/syslinux/modules/efi*",
        "usr/bin/openssl",
        "usr/bin/perl*",
        "usr/bin/python3*",
        "usr/lib/x86_64-linux-gnu/libicu*",
        "usr/lib/x86_64-linux-gnu/libperl*",
        "var",
    )
    scripts: tuple[str, ...] = field(default_factory=lambda: _digests(RAMFS))

    @property
    def digest(self) -> str:
        """SHA-256 (hex, 16 digits) of everything above, the scripts' content included."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def _digests(directory: Path) -> tuple[str, ...]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return tuple(
        f"{path.relative_to(directory).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files
    )
