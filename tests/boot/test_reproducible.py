"""Equal inputs, equal bytes: an image is built twice by tools and people as different as they may be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.bare_metal, pytest.mark.timeout(3600)]

# Times, languages and homes of two people; the second one is careful with modes.
FIRST = {"TZ": "UTC", "LC_ALL": "C.UTF-8"}
SECOND = {"TZ": "Pacific/Auckland", "LC_ALL": "C", "HOME": "/nonexistent", "SOURCE_DATE_EPOCH": "1"}
TINY = """\
from pathlib import Path
from vcrecon.boot.images import build
from vcrecon.boot.images.recipe import ImageRecipe
recipe = ImageRecipe(
    name="tiny", kind="container", kernel="kmod", hypervisor="kvm",
    packages=("systemd-sysv", "openssh-server", "python3-minimal", "lvm2"),
    files={"etc/ssh/sshd_config.d/vcrecon.conf": "UseDNS no\\n"},
    units=("systemd-networkd.service", "ssh.service"),
)
"""
"""What packages leave behind beside their own files: users, keys, caches, byte code, alternatives, enabled units."""


def build(place: Path, what: str, environment: dict[str, str], umask: int) -> dict[str, bytes]:
    """Everything that the build leaves, by name."""
    place.mkdir(parents=True)
    command = [
        "nice",
        "-n",
        "19",
        sys.executable,
        *(["-c", what] if "\n" in what else ["-m", "vcrecon", *what.split()]),
    ]
    done = subprocess.run(
        command, cwd=place, env={**os.environ, **environment}, umask=umask, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def both(tmp_path: Path, what: str) -> tuple[dict[str, bytes], dict[str, bytes]]:
    first = build(tmp_path / "a", what, FIRST, 0o022)
    return first, build(tmp_path / "another/longer/place", what, SECOND, 0o077)


@pytest.fixture(autouse=True)
def tools(program: Callable[[str], str]) -> None:
    for name in ("mmdebstrap", "zstd", "tar"):
        program(name)


def test_a_small_image_is_the_same_whoever_builds_it(tmp_path: Path) -> None:
    first, second = both(tmp_path, f"{TINY}build.build(recipe, Path(), print)\n")
    assert first.keys() == {"tiny.tar.zst", "tiny.json"}
    assert first["tiny.json"] == second["tiny.json"]
    assert first == second


@pytest.mark.parametrize(
    ("what", "files"),
    [
        ("image build guest g --images .", {"g.tar.zst", "g.vmlinuz", "g.initrd", "g.json"}),
        ("image build installer --images .", {f"installer/{name}" for name in ("vmlinuz", "initrd")}),
        ("image build container c --images .", {"c.tar.zst", "c.json"}),
    ],
    ids=["guest", "installer", "container"],
)
def test_what_is_built_is_the_same_whoever_builds_it(tmp_path: Path, what: str, files: set[str]) -> None:
    """With kernel and initramfs, as the commands make them."""
    first, second = both(tmp_path, what)
    assert first.keys() >= files
    assert [name for name in first if first[name] != second.get(name)] == []
