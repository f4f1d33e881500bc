"""The programs that a container must have, their Debian packages, and what to say when one is missing. Pure.

Used by the planner and by `host.steps`, so that it is recognised and said in one way.
"""

from __future__ import annotations

_LVM = ("lvm", "lvs", "vgs", "lvcreate", "lvchange", "lvremove", "lvrename", "lvextend")
_PACKAGES = {
    **dict.fromkeys(_LVM, "lvm2 thin-provisioning-tools"),
    "nft": "nftables",
    "virsh": "libvirt-clients libvirt-daemon-system qemu-system-x86",
    "xl": "xen-system-amd64",
    "xenstore-watch": "xen-system-amd64",
    "ip": "iproute2",
    "mkfs.xfs": "xfsprogs",
    "xfs_growfs": "xfsprogs",
    "curl": "curl",
    "zstd": "zstd",
    "xz": "xz-utils",
    "gzip": "gzip",
    "tar": "tar",
    "ping": "iputils-ping",
    "sysctl": "procps",
    "chpasswd": "passwd",
    **dict.fromkeys(("mount", "umount", "mountpoint"), "mount util-linux"),
    "flock": "util-linux",
}
_REASONS = {**dict.fromkeys(_LVM, "no-lvm"), "nft": "no-nftables", "virsh": "no-hypervisor", "xl": "no-hypervisor"}


def missing(program: str, container: str) -> tuple[str, str]:
    """The reason code and the message for a program that `container` does not have."""
    reason = _REASONS.get(program, "missing-program")
    package = _PACKAGES.get(program)
    install = f"`apt-get install {package}`" if package else f"`apt-file search bin/{program}` names its package"
    message = f"{container} has no {program}: {install} there"
    if reason == "no-hypervisor":
        message += ", or correct 'hypervisor' in containers.yaml"
    return reason, message
