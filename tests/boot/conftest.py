"""What the tests of installs share: an installer and a small system, built once and kept, and a bench."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from install_bench import CHASSIS, CUTS, DISK_BYTES, XEN_CHASSIS, Bench, Installed, job

from vcrecon.boot.images import build, recipe
from vcrecon.boot.installer import build as installer

# Not skipped, which would be a failure in CI: left out unless asked for.
_BY_HAND = ["test_installer_by_hand.py", "test_captured_machine.py", "test_reproducible.py"]
collect_ignore = [] if os.environ.get("VCRECON_TEST_BOOT") == "all" else _BY_HAND

CACHE = Path(os.environ.get("VCRECON_TEST_CACHE", "/var/cache/vcrecon-tests"))

SMALL = recipe.container(
    "small",
    "kvm",
    kernel="linux-image-cloud-amd64",
    with_hypervisor=False,
    modules=("virtio_pci", "virtio_blk", "virtio_net", "raid1", "dm_mod", "xfs", "ext4", "crc32c_generic", "libcrc32c"),
)
"""The smallest system that an installer's machine can boot."""

SMALL_XEN = recipe.container("small-xen", "xen", modules=SMALL.modules)
"""Debian's kernel for all machines, since the one for clouds cannot be the host under Xen."""


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
            pytest.skip(f"{name} is not installed")
    made = Bench(
        tmp_path_factory.mktemp("bench"), built_images / "installer/vmlinuz", built_images / "installer/initrd"
    )
    try:
        made.lay()
        shutil.copyfile(built_images / "small.tar.zst", made.www / "images/small.tar.zst")
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def image(bench: Bench) -> Path:
    return bench.www / "images/small.tar.zst"


@pytest.fixture
def xen_image(bench: Bench) -> Iterator[Path]:
    """A system with Xen; for the test the bench's machine is one that can start it."""
    directory = CACHE / SMALL_XEN.digest[:16]
    if not (directory / "small-xen.json").exists():
        build.build(SMALL_XEN, directory, print)
    target = bench.www / "images/small-xen.tar.zst"
    shutil.copyfile(directory / target.name, target)
    bench.chassis = XEN_CHASSIS
    yield target
    bench.chassis = CHASSIS
    target.unlink()


@pytest.fixture(scope="module")
def pair(bench: Bench, image: Path) -> Installed:
    """Two blank disks, installed while the download was cut twice."""
    disks = bench.disk("one", DISK_BYTES), bench.disk("two", DISK_BYTES)
    ended = bench.install(job(bench, image), disks, cut=CUTS)
    return Installed(disks, ended, bench.events(), (bench.www / "install.log").read_text())
