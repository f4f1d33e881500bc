"""What the tests of installs share: an installer and a small system, built once and kept, and a bench."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from install_bench import Bench

from vcrecon.boot.images import build, recipe
from vcrecon.boot.installer import build as installer

CACHE = Path(os.environ.get("VCRECON_TEST_CACHE", "/var/cache/vcrecon-tests"))

SMALL = recipe.container(
    "small",
    "kvm",
    kernel="linux-image-cloud-amd64",
    with_hypervisor=False,
    modules=("virtio_pci", "virtio_blk", "virtio_net", "raid1", "dm_mod", "xfs", "ext4", "crc32c_generic", "libcrc32c"),
)
"""The smallest system that an installer's machine can boot."""


@pytest.fixture(scope="session")
def built_images() -> Path:
    """The directory with the installer and the small system."""
    directory = CACHE / SMALL.digest[:16]
    if not installer.is_current(directory):
        installer.build(directory, print)
    if not (directory / "small.json").exists():
        build.build(SMALL, directory, print)
    return directory


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, built_images: Path) -> Iterator[Bench]:
    """Its network is up; machines are switched on by the tests."""
    for name in ("qemu-system-x86_64", "dnsmasq", "ip", "nsenter", "ssh", "ssh-keygen"):
        if shutil.which(name) is None:
            pytest.fail(f"{name} is not installed: add its package to TEST_PACKAGES in the Makefile")
    made = Bench(
        tmp_path_factory.mktemp("bench"), built_images / "installer/vmlinuz", built_images / "installer/initrd"
    )
    made.lay()
    os.link(built_images / "small.tar.zst", made.www / "images/small.tar.zst") if same_disk(
        built_images, made.www
    ) else shutil.copyfile(built_images / "small.tar.zst", made.www / "images/small.tar.zst")
    yield made
    made.remove()


def same_disk(one: Path, two: Path) -> bool:
    return one.stat().st_dev == two.stat().st_dev
