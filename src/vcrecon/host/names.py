"""Names and marks of what vcrecon makes on a container. Only what carries the mark is ever touched (S5).

LVM tags are the witnesses of a guest's disk: they live and die with it. All of them:

    vcrecon vc.site=SITE          the mark; every volume of ours has both
    vc.golden=SHA256              a golden volume, complete
    vc.guest=NAME vc.epoch=N      whose disk, and which of its disks over time
    vc.image=SHA256               what it was made from, set once complete
    vc.context=DIGEST             what contextualization wrote
    vc.boots=N                    how often it was handed to a running guest or a person, set before each time
    vc.touched                    may hold a student's work (S2)
    vc.building | vc.incoming     not complete: being made | being copied here
    vc.copy=EPOCH.BOOTS           an incoming copy proved equal to that disk
    vc.held                       in rescue
    vc.quarantined=WHY            put aside: moved, removed or rebuilt
"""

from __future__ import annotations

import re

from vcrecon.core.wanted import golden_volume as golden_volume
from vcrecon.core.wanted import guest_volume as guest_volume

MARK = "vcrecon"
VOLUME_PREFIXES = ("vcg-", "vcq-", "vcimg-")
RUN_DIR = "/run/vcrecon"
IMAGE_DIR = "/var/lib/vcrecon/images"
RELEASE_FILE = "/etc/vcrecon/release"
FIREWALL_FILE = f"{RUN_DIR}/firewall"


def site_tag(site: str) -> str:
    """The site's name as an LVM tag; characters that LVM does not take become underscores."""
    return "vc.site=" + re.sub(r"[^A-Za-z0-9_+.-]", "_", site)


def quarantined_volume(guest: str, epoch: int) -> str:
    """The logical volume of a disk that was put aside."""
    return f"vcq-{guest}-{epoch}"


def device(group: str, volume: str) -> str:
    return f"/dev/{group}/{volume}"


def mount_point(volume: str) -> str:
    """Where vcrecon mounts a volume for a moment."""
    return f"{RUN_DIR}/mnt/{volume}"


def rescue_point(guest: str) -> str:
    """Where a held guest's disk is mounted for a person to work on."""
    return f"{RUN_DIR}/rescue/{guest}"


def bridge(vlan: int) -> str:
    """Interface names have at most 15 characters (IFNAMSIZ)."""
    return f"vcbr{vlan}"


def bridge_mac(vlan: int) -> str:
    """A locally administered address (IEEE 802, second bit), the same for a VLAN's bridge on every container.

    Guests that have asked for a service's address keep the answer when the bridge is made anew and when they
    move. Containers never send onto the trunk (`host.firewall`), so no switch sees it twice.
    """
    return f"02:76:63:72:{vlan >> 8:02x}:{vlan & 0xFF:02x}"


def vlan_link(vlan: int) -> str:
    return f"vcvl{vlan}"


TAP_PATTERN = "vcg*"
"""Matches `core.wanted.tap`."""
VLAN_PATTERN = "vcvl*"
"""Matches `vlan_link`."""
