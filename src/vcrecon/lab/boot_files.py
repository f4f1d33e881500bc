"""The lab's directory of what machines boot and are installed from. Called by `lab.up`.

What lies in the cache was built by `vcrecon lab up --bare-metal`; the lab itself knows only the names of the files.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from vcrecon.errors import Refused
from vcrecon.lab.images import sha256
from vcrecon.lab.layout import Files

DIRECTORY = "boot"
"""Below the cache."""
SYSTEM = "system-kvm"
"""The system image that spare machines are installed with: its file is NAME.tar.zst."""
INSTALLER = ("installer/vmlinuz", "installer/initrd")


def system_file(directory: Path) -> Path:
    """The system image in the cache's or the lab's directory."""
    return directory / f"{SYSTEM}.tar.zst"


def lay(cache: Path, files: Files) -> str:
    """Give the lab what the cache has; returns the SHA-256 of the system image. Files that are the same already stay.

    Raises Refused when nothing was built yet.
    """
    files.boot.mkdir(parents=True, exist_ok=True)
    source = cache / DIRECTORY
    for name in (*INSTALLER, system_file(source).name):
        _place(source / name, files.boot / name)
    system = system_file(source)
    if not system.exists():
        raise Refused(f"lab: {system} is not built yet; try: vcrecon lab up --bare-metal")
    return sha256(system)


def _place(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where that is on another file system. No symbolic link: the boot
    server serves nothing that leads out of its directory."""
    if not source.exists() or (target.exists() and source.samefile(target)):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f"{target.name}.new")
    fresh.unlink(missing_ok=True)
    try:
        os.link(source, fresh)
    except OSError:
        shutil.copyfile(source, fresh)
    fresh.replace(target)
