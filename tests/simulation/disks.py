"""What a volume's own tags say of it, read from the simulated host."""

from __future__ import annotations

import hashlib

from vcrecon.sim.files import Files, FileSystem
from vcrecon.sim.images import _files
from vcrecon.sim.lvm import Volume


def epoch_of(volume: Volume) -> int:
    """The number of a disk; 0 when it has none."""
    return next((int(tag.removeprefix("vc.epoch=")) for tag in volume.tags if tag.startswith("vc.epoch=")), 0)


def value_of(volume: Volume, tag: str) -> str:
    """What a tag such as `vc.image=` says; nothing without it."""
    return next((found.removeprefix(tag) for found in volume.tags if found.startswith(tag)), "")


def is_live(volume: Volume) -> bool:
    """Whether the guest may be booted from it."""
    return not any(tag.startswith(("vc.quarantined", "vc.incoming", "vc.building")) for tag in volume.tags)


def is_aside(volume: Volume) -> bool:
    """Whether it was put aside, to be kept until a person lets it go."""
    return any(tag.startswith("vc.quarantined") for tag in volume.tags)


def digest_of(filesystem: FileSystem | None, path: str) -> str:
    """The SHA-256 of a file; nothing when it is not there."""
    files = Files(filesystem, clock=float) if filesystem is not None else None
    return hashlib.sha256(files.read(path)).hexdigest() if files is not None and files.exists(path) else ""


def image_digests(image: str) -> dict[str, str]:
    """Path to digest of files that an image has and a contextualization leaves alone."""
    found = _files(image)
    return {
        f"/{path}": hashlib.sha256(content).hexdigest()
        for path, (_, content) in found.items()
        if path.startswith("usr/") or path == "etc/os-release"
    }
