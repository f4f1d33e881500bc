"""What an image consists of, with sensible defaults for containers and guests. Data only, read by `build`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from vcrecon.spec.model import HypervisorName

Kind = Literal["container", "guest"]
SUITE = "bookworm"

_BASE = ("systemd-sysv", "udev", "dbus", "kmod", "openssh-server", "iproute2", "iputils-ping", "procps")
# What a container is driven with (docs/containers.md), and what its initramfs finds the system with.
_CONTAINER = (
    *(
        "lvm2",
        "thin-provisioning-tools",
        "mdadm",
        "xfsprogs",
        "e2fsprogs",
        "nftables",
        "curl",
        "zstd",
        "ca-certificates",
    ),
    # busybox: without it the initramfs has no rm, which mdadm's script for a mirror with a disk gone calls.
    *("psmisc", "tcpdump", "smartmontools", "busybox"),
    # With UEFI a container is sent through the network once to be installed anew.
    "efibootmgr",
)
_HYPERVISOR: Mapping[HypervisorName, tuple[str, ...]] = {
    "kvm": ("libvirt-daemon-system", "libvirt-clients", "qemu-system-x86"),
    # The first brings the hypervisor and its tools in the versions that the release has.
    "xen": ("xen-system-amd64", "xenstore-utils", "qemu-system-xen"),
}
_GUEST_MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_net", "xen-blkfront", "xen-netfront", "xfs", "crc32c_generic", "pvpanic"),
    # Without these two a guest does not hear `virsh shutdown`.
    *("button", "evdev"),
)
_NEEDLESS = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer")


@dataclass(frozen=True, slots=True)
class ImageRecipe:
    """A Debian root file system.

    `components` are the parts of Debian's archive that packages may come from. `modules` are what the initramfs loads;
    empty means initramfs-tools' "most". `files` are written before the packages are configured, by path. `units` are
    enabled, `units_masked` never start. `disk_bytes` is a guest's smallest disk.
    """

    name: str
    kind: Kind
    kernel: str
    packages: tuple[str, ...]
    suite: str = SUITE
    components: tuple[str, ...] = ("main",)
    hypervisor: HypervisorName | None = None
    modules: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    units: tuple[str, ...] = ("systemd-networkd.service", "ssh.service")
    units_masked: tuple[str, ...] = _NEEDLESS
    disk_bytes: int = 2 << 30

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of everything above."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def container(
    name: str,
    hypervisor: HypervisorName,
    *,
    suite: str = SUITE,
    kernel: str = "linux-image-amd64",
    extra: tuple[str, ...] = (),
    components: tuple[str, ...] = ("main",),
    modules: tuple[str, ...] = (),
    with_hypervisor: bool = True,
) -> ImageRecipe:
    """A system for containers. `with_hypervisor=False` leaves its packages out: it boots, and runs no guests."""
    hypervisors = _HYPERVISOR[hypervisor] if with_hypervisor else ()
    return ImageRecipe(
        name=name,
        kind="container",
        kernel=kernel,
        packages=(*_BASE, *_CONTAINER, *hypervisors, *extra),
        suite=suite,
        components=components,
        hypervisor=hypervisor,
        modules=modules,
        files={
            "etc/ssh/sshd_config.d/vcrecon.conf": (
                "UseDNS no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
                # By default a step that waits for input from a master that lost its power holds its lock for two hours.
                "ClientAliveInterval 10\nClientAliveCountMax 2\n"
            ),
            "etc/modules-load.d/vcrecon.conf": "8021q\ndm_thin_pool\n",
        },
    )


def guest(
    name: str,
    *,
    suite: str = SUITE,
    kernel: str = "linux-image-cloud-amd64",
    extra: tuple[str, ...] = (),
    components: tuple[str, ...] = ("main",),
) -> ImageRecipe:
    """A system for guests, booted by the hypervisor with a kernel and initramfs that lie beside the image."""
    return ImageRecipe(
        name=name,
        kind="guest",
        kernel=kernel,
        packages=(*_BASE, *extra),
        suite=suite,
        components=components,
        modules=_GUEST_MODULES,
        files={
            "etc/fstab": "/dev/root / xfs defaults 0 0\n",
            "etc/ssh/sshd_config.d/vcrecon.conf": "UseDNS no\n",
        },
    )
