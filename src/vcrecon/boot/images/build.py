"""Builds an image from its recipe with mmdebstrap, so that equal inputs give equal bytes. Called by `cli.image`.

Times: what packages ship keeps its own time, since it is older than the build; whatever the build writes gets the
newest of those. So the archive depends on the recipe and on the packages' versions, and on nothing else. The tar's
digest proves it (`tree_sha256`); that of the compressed file also depends on the version of zstd.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import time
from pathlib import Path
from typing import IO

from vcrecon.boot.images.description import SUFFIX, Description, FileDigest, digest_of
from vcrecon.boot.images.recipe import ImageRecipe
from vcrecon.debian import NICENESS, Say, bootstrap, hooks, need_root, scratch
from vcrecon.errors import Refused

_CHUNK_BYTES = 1 << 20
COMPRESS = ("zstd", "-q", "-c", "-T1", "-9")

LEFT_OUT = (
    "etc/.pwd.lock",
    "etc/*-",
    "etc/hostname",
    "etc/lvm/archive/*",
    "etc/lvm/backup/*",
    "etc/resolv.conf",
    "etc/ssh/ssh_host_*",
    "root/.ssh",
    "run/*",
    "tmp/*",
    "var/cache/apt/*",
    "var/cache/debconf/*-old",
    "var/cache/ldconfig/*",
    "var/lib/apt/extended_states",
    "var/lib/apt/lists/*",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/*-old",
    "var/lib/systemd/random-seed",
    "var/lib/vcrecon",
    "var/log/journal/*",
    "var/tmp/*",
)
"""What no image holds: keys, names of one machine, caches; below the root, as shell patterns."""
LOGS = "var/log"
"""Below it files are left out and directories stay: services expect theirs."""


def build(recipe: ImageRecipe, images: Path, say: Say) -> Description:
    """Build `NAME.tar.zst` and `NAME.json` in `images`. Raises Refused."""
    need_root("building an image")
    what = f"image {recipe.name}"
    with scratch(images) as place:
        tree, made = place / "tree", place / "made"
        made.mkdir()
        began_s = int(time.time())
        _bootstrap(recipe, tree, place / "files", what, say)
        packages = _packages(tree)
        clean(tree)
        if recipe.kind == "guest":
            _take_boot_files(tree, made, recipe.name)
        say(f"{what}: packing")
        root = made / f"{recipe.name}{SUFFIX}"
        tree_sha256 = pack(tree, root, newest_before(tree, began_s))
        description = Description(
            name=recipe.name,
            kind=recipe.kind,
            root=digest_of(root),
            tree_sha256=tree_sha256,
            source="built",
            hypervisor=recipe.hypervisor,
            suite=recipe.suite,
            recipe_sha256=recipe.digest,
            disk_bytes=recipe.disk_bytes if recipe.kind == "guest" else 0,
            kernel=_optional(made / f"{recipe.name}.vmlinuz"),
            initrd=_optional(made / f"{recipe.name}.initrd"),
            packages=packages,
        )
        for file in description.files:
            # A web server of another user may serve them.
            (made / file.name).chmod(0o644)
            (made / file.name).replace(images / file.name)
        description.write(images)
    return description


def _bootstrap(recipe: ImageRecipe, tree: Path, place: Path, what: str, say: Say) -> None:
    given = hooks(place, {**recipe.files, **_initramfs(recipe)}, units=recipe.units, units_masked=recipe.units_masked)
    packages = (recipe.kernel, *recipe.packages)
    bootstrap(
        tree,
        packages,
        suite=recipe.suite,
        variant="minbase",
        hooks=given,
        what=what,
        say=say,
        components=recipe.components,
    )


def _initramfs(recipe: ImageRecipe) -> dict[str, str]:
    chosen = "list" if recipe.modules else "most"
    # Never the swap space of the machine that builds.
    settings = f"MODULES={chosen}\nCOMPRESS=zstd\nFSTYPE=xfs\nRESUME=none\n"
    return {
        "etc/initramfs-tools/conf.d/vcrecon": settings,
        "etc/initramfs-tools/modules": "".join(f"{module}\n" for module in recipe.modules),
    }


def _packages(tree: Path) -> dict[str, str]:
    command = ["dpkg-query", f"--admindir={tree}/var/lib/dpkg", "-W", "-f", "${Package} ${Version}\n"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(sorted(line.split() for line in said.splitlines()))


def clean(tree: Path) -> None:
    """Take out of a tree what no image may hold, and empty its machine id."""
    for pattern in LEFT_OUT:
        for path in tree.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    for path in (tree / LOGS).rglob("*"):
        if not path.is_dir():
            path.unlink()
    machine_id = tree / "etc/machine-id"
    machine_id.write_text("")
    machine_id.chmod(0o444)
    # The build machine's mirror is no business of the machines that boot this.
    (tree / "etc/apt/sources.list").write_text("")


def newest_before(tree: Path, began_s: int) -> int:
    """The newest time of modification below `tree` that is older than the build; in Unix seconds."""
    newest = 0
    for directory, _, names in os.walk(tree):
        for name in names:
            found = os.lstat(os.path.join(directory, name))
            if stat.S_ISREG(found.st_mode) and newest < found.st_mtime < began_s:
                newest = int(found.st_mtime)
    return newest


def pack(tree: Path, target: Path, mtime_s: int) -> str:
    """Write `tree` as a normalised, compressed tar; returns the SHA-256 of the tar itself. Raises Refused."""
    tar = [
        *("nice", "-n", str(NICENESS), "tar", "--create", "--sort=name", "--format=pax"),
        "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
        *("--numeric-owner", "--xattrs", "--xattrs-include=*", f"--mtime=@{mtime_s}", "--clamp-mtime"),
        *("-C", str(tree), "-f", "-", "."),
    ]
    with (
        target.open("wb") as stream,
        subprocess.Popen(tar, stdout=subprocess.PIPE) as reader,
        subprocess.Popen(["nice", "-n", str(NICENESS), *COMPRESS], stdin=subprocess.PIPE, stdout=stream) as writer,
    ):
        assert reader.stdout is not None
        assert writer.stdin is not None
        digest = _pour(reader.stdout, writer.stdin)
        writer.stdin.close()
    if reader.returncode or writer.returncode:
        raise Refused(f"packing {target.name} failed (tar: {reader.returncode}, zstd: {writer.returncode})")
    return digest


def _pour(source: IO[bytes], sink: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK_BYTES):
        digest.update(chunk)
        sink.write(chunk)
    return digest.hexdigest()


def _take_boot_files(tree: Path, made: Path, name: str) -> None:
    """A guest is booted by its container: kernel and initramfs lie beside the image and not in it."""
    for kind, suffix in (("vmlinuz-*", "vmlinuz"), ("initrd.img-*", "initrd")):
        found = sorted((tree / "boot").glob(kind))
        if not found:
            raise Refused(f"image {name}: its kernel's package left no /boot/{kind}")
        shutil.copyfile(found[-1], made / f"{name}.{suffix}")
    for path in (tree / "boot").iterdir():
        path.unlink() if not path.is_dir() else shutil.rmtree(path)


def _optional(path: Path) -> FileDigest | None:
    return digest_of(path) if path.exists() else None
