"""Builds what the lab's spare machines are installed with, into the lab's cache. Called by `cli.lab_command`.

Here and not in `vcrecon.lab`, which knows nothing of the code under test: these are vcrecon's own builders, with a
recipe that boots quickly where it is emulated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from vcrecon.boot.images import build as images
from vcrecon.boot.images import description, recipe
from vcrecon.boot.installer import build as installer
from vcrecon.errors import Refused
from vcrecon.lab import boot_files, layout
from vcrecon.lab.recipes import CONTAINER

# All that a machine of the lab needs to find its root; a small initramfs loads sooner where a disk is emulated.
_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "raid1", "dm_mod", "xfs", "ext4", "crc32c_generic", "libcrc32c")


def build(say: Callable[[str], None], cache: Path = layout.CACHE_DIR) -> None:
    """The installer and the system image, unless the cache has them as they would be built now. Raises Refused."""
    directory = cache / boot_files.DIRECTORY
    directory.mkdir(parents=True, exist_ok=True)
    installer.build(directory, say)
    wanted = system_recipe()
    if is_current(directory, wanted):
        say(f"image {wanted.name}: from the cache")
    else:
        images.build(wanted, directory, say)


def system_recipe() -> recipe.ImageRecipe:
    """A KVM container whose start costs little where every second is emulated."""
    plain = recipe.container(boot_files.SYSTEM, "kvm", modules=_MODULES)
    return replace(plain, units_masked=tuple(dict.fromkeys((*plain.units_masked, *CONTAINER.units_masked))))


def is_current(directory: Path, wanted: recipe.ImageRecipe) -> bool:
    """Whether the image there was built from this recipe and is whole."""
    try:
        found = description.read(directory / f"{wanted.name}.json")
        return found.recipe_sha256 == wanted.digest and description.digest_of(directory / found.root.name) == found.root
    except (Refused, OSError):
        return False
