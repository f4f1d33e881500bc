"""What the lab's images consist of. Data only, read by `images`.

Everything comes from Debian's own packages. The digest of a recipe names its images in the cache, so that an
edit here builds them anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

SUITE = "bookworm"

# What would run by itself or at boot without being needed: every second of these machines is emulated. Without
# these, and with a quiet kernel that trusts its guests (`mitigations=off`), a guest boots with a third of the work.
_NEEDLESS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "modprobe@.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-networkd-wait-online.service",
)


@dataclass(frozen=True)
class Recipe:
    """A Debian root file system.

    `initrd_modules` replaces initramfs-tools' guess, which would pick the build machine's. `units_masked` never
    start. `files` are written before the packages are configured. `mirrored` are packages that are downloaded
    with all they need beyond `packages`, for a package mirror.
    """

    name: str
    packages: tuple[str, ...]
    initrd_modules: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    units: tuple[str, ...] = ()
    units_masked: tuple[str, ...] = _NEEDLESS
    mirrored: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 (hex, 16 digits) of everything above and of the suite."""
        text = json.dumps([SUITE, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


_SEED_UNIT = """\
[Unit]
Description=Who this lab machine is, from the tar archive on its third disk
DefaultDependencies=no
After=systemd-remount-fs.service
Before=sysinit.target systemd-networkd.service systemd-modules-load.service
RequiresMountsFor=/

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'i=0; while [ ! -b /dev/DISK ] && [ $i -lt 300 ]; do sleep 0.2; i=$((i+1)); done; \\
  tar -x --no-same-owner -C / -f /dev/DISK'

[Install]
WantedBy=sysinit.target
""".replace("DISK", "vdc")

_PREPARE_UNIT = """\
[Unit]
Description=The volume group and the thin pool that a container must have, made on the blank second disk
After=vclab-seed.service
Before=ssh.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/etc/vclab/prepare

[Install]
WantedBy=multi-user.target
"""

CONTAINER = Recipe(
    name="container",
    packages=(
        "linux-image-amd64",
        "systemd-sysv",
        "udev",
        "dbus",
        "kmod",
        "openssh-server",
        "iproute2",
        "iputils-ping",
        "nftables",
        "lvm2",
        "thin-provisioning-tools",
        "xfsprogs",
        "curl",
        "zstd",
        "procps",
        "psmisc",
        "tcpdump",
        "libvirt-daemon-system",
        "libvirt-clients",
        "qemu-system-x86",
        "xen-hypervisor-4.17-amd64",
        "xen-utils-4.17",
        "xenstore-utils",
    ),
    initrd_modules=("virtio_pci", "virtio_blk", "virtio_net", "ext4", "crc32c_generic"),
    files={
        "etc/systemd/system/vclab-seed.service": _SEED_UNIT,
        "etc/systemd/system/vclab-prepare.service": _PREPARE_UNIT,
        "etc/ssh/sshd_config.d/vclab.conf": "UseDNS no\nPasswordAuthentication no\n",
    },
    units=("vclab-seed.service", "vclab-prepare.service", "systemd-networkd.service", "ssh.service"),
    units_masked=(
        *_NEEDLESS,
        "lvm2-monitor.service",
        "qemu-kvm.service",
        "libvirt-guests.service",
        "virtlockd.socket",
        "virtlockd-admin.socket",
    ),
)

GUEST = Recipe(
    name="guest",
    packages=(
        "linux-image-cloud-amd64",
        "systemd-sysv",
        "udev",
        "dbus",
        "kmod",
        "openssh-server",
        "iproute2",
        "iputils-ping",
        "procps",
    ),
    initrd_modules=(
        "virtio_pci",
        "virtio_blk",
        "virtio_net",
        "xen-blkfront",
        "xen-netfront",
        "xfs",
        "crc32c_generic",
        "pvpanic",
        # Without these two a guest does not hear `virsh shutdown`.
        "button",
        "evdev",
    ),
    files={
        # The package mirror as every guest reaches it, by way of its own container.
        "etc/apt/sources.list.d/mirror.list": "deb [trusted=yes] http://mirror/debian ./\n",
        "etc/apt/apt.conf.d/90mirror": 'Acquire::Languages "none";\nAPT::Install-Recommends "false";\n',
        "etc/ssh/sshd_config.d/vclab.conf": "UseDNS no\n",
        "etc/fstab": "/dev/root / xfs defaults 0 0\n",
    },
    units=("systemd-networkd.service", "ssh.service"),
    mirrored=("hello", "nfs-common", "nfs-kernel-server", "mpich", "pdsh"),
)
