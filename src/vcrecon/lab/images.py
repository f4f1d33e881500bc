"""Builds the lab's images from their recipes with mmdebstrap, once: the cache is named by the recipes' digests.

Called by `lab.up`. Needs root, and Debian's archive as this machine's own apt knows it.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vcrecon.debian import Say, bootstrap, hooks, scratch
from vcrecon.lab.recipes import CONTAINER, GUEST, SUITE, Recipe

ROOT_BYTES = 8 * 1024**3
"""Size of a container's system disk; sparse."""


@dataclass(frozen=True, slots=True)
class ContainerImage:
    """A bootable system disk (raw ext4), and the kernels that QEMU loads directly."""

    disk: Path
    kernel: Path
    initrd: Path
    xen: Path


@dataclass(frozen=True, slots=True)
class GuestImage:
    """What images.yaml names, and a Debian repository for the mirror."""

    root: Path
    kernel: Path
    initrd: Path
    repository: Path


def container_image(cache: Path, say: Say) -> ContainerImage:
    """The containers' image, built if the cache lacks it. Raises Refused."""
    made = _cached(CONTAINER, cache, say, _finish_container)
    return ContainerImage(made / "disk.raw", made / "vmlinuz", made / "initrd", made / "xen")


def guest_image(cache: Path, say: Say) -> GuestImage:
    """The guests' image, built if the cache lacks it. Raises Refused."""
    made = _cached(GUEST, cache, say, _finish_guest)
    files = made / "images"
    return GuestImage(files / "debian-12.tar.zst", files / "vmlinuz", files / "initrd", made / "repository")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _cached(recipe: Recipe, cache: Path, say: Say, finish: Callable[[Path, Path], None]) -> Path:
    """The directory of a finished image. A build that is cut off leaves nothing that looks finished."""
    target = cache / f"{recipe.name}-{recipe.digest}"
    if target.is_dir():
        say(f"image {recipe.name}: from the cache ({target.name})")
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with scratch(cache) as place:
        tree, made = place / "tree", place / "made"
        made.mkdir()
        _bootstrap(recipe, tree, place / "files", made, say)
        say(f"image {recipe.name}: packing")
        finish(tree, made)
        made.rename(target)
    return target


def _bootstrap(recipe: Recipe, tree: Path, files: Path, made: Path, say: Say) -> None:
    given = hooks(files, {**recipe.files, **_initramfs(recipe)}, units=recipe.units, units_masked=recipe.units_masked)
    given.append('--customize-hook=rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/machine-id; : > "$1"/etc/machine-id')
    if recipe.mirrored:
        repository = made / "repository"
        repository.mkdir()
        fetch = f"apt-get -q -y --no-install-recommends --download-only install {' '.join(recipe.mirrored)}"
        given.append(f'--customize-hook=chroot "$1" apt-get clean; chroot "$1" {fetch}')
        given.append(f'--customize-hook=cp "$1"/var/cache/apt/archives/*.deb {repository}/')
    bootstrap(tree, recipe.packages, suite=SUITE, variant="minbase", hooks=given, what=f"image {recipe.name}", say=say)
    # The build machine's mirror is no business of the machines that boot this.
    (tree / "etc/apt/sources.list").write_text("")


def _initramfs(recipe: Recipe) -> dict[str, str]:
    return {
        "etc/initramfs-tools/conf.d/vclab": "MODULES=list\nCOMPRESS=zstd\nFSTYPE=ext4\n",
        "etc/initramfs-tools/modules": "".join(f"{module}\n" for module in recipe.initrd_modules),
    }


def _finish_container(tree: Path, made: Path) -> None:
    _boot_files(tree, made)
    packed = next(tree.glob("boot/xen-*.gz"))
    with (made / "xen").open("wb") as stream:
        subprocess.run(["zcat", str(packed)], stdout=stream, check=True)
    disk = made / "disk.raw"
    with disk.open("wb") as stream:
        stream.truncate(ROOT_BYTES)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", str(tree), str(disk)], check=True)


def _finish_guest(tree: Path, made: Path) -> None:
    files = made / "images"
    files.mkdir()
    _boot_files(tree, files)
    subprocess.run(
        [
            *("tar", "-c", "--zstd", "--numeric-owner", "--xattrs", "--exclude=./boot/*"),
            *("-C", str(tree), "-f", str(files / "debian-12.tar.zst"), "."),
        ],
        check=True,
    )
    repository = made / "repository"
    with (repository / "Packages").open("wb") as stream:
        subprocess.run(["apt-ftparchive", "packages", "."], cwd=repository, stdout=stream, check=True)
    with (repository / "Release").open("wb") as stream:
        subprocess.run(["apt-ftparchive", "release", "."], cwd=repository, stdout=stream, check=True)


def _boot_files(tree: Path, target: Path) -> None:
    shutil.copyfile(next(tree.glob("boot/vmlinuz-*")), target / "vmlinuz")
    shutil.copyfile(next(tree.glob("boot/initrd.img-*")), target / "initrd")
