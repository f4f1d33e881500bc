"""Builds the installer's kernel and initramfs from Debian packages with mmdebstrap. Called by `cli.image`.

The result lies below the images directory as `installer/vmlinuz` and `installer/initrd`, where the boot server looks,
with the digest of the recipe beside it: while that is the same, nothing is built. What a site chose for itself (suite,
further packages) lies there too, so that one can tell later whether it is current.
"""

from __future__ import annotations

import fnmatch
import json
import shutil
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path

from vcrecon.boot import cpio
from vcrecon.boot.installer.recipe import RAMFS, InstallerRecipe
from vcrecon.debian import EPOCH_S, Say, bootstrap, need_root, run, scratch
from vcrecon.errors import Refused

DIRECTORY = "installer"
_DIGEST, _CHOICE = "recipe.sha256", "choice.json"


def build(images: Path, say: Say, recipe: InstallerRecipe | None = None, *, anew: bool = False) -> Path:
    """The directory with `vmlinuz` and `initrd`, built unless they are there already. Raises Refused."""
    recipe = recipe or InstallerRecipe()
    target = images / DIRECTORY
    if not anew and is_current(images, recipe):
        say(f"installer: {target} is current")
        return target
    need_root("building the installer")
    with scratch(images) as place:
        tree, made = place / "tree", place / "made"
        made.mkdir()
        say("installer: packages")
        packages = (recipe.kernel, *recipe.packages, *recipe.extra)
        bootstrap(
            tree,
            packages,
            suite=recipe.suite,
            variant="extract",
            hooks=(),
            what="installer",
            say=say,
            components=recipe.components,
        )
        kernel = _newest(tree.glob("boot/vmlinuz-*"))
        shutil.copyfile(kernel, made / "vmlinuz")
        _keep_modules(tree, kernel.name.removeprefix("vmlinuz-"), recipe, say)
        _thin_out(tree, recipe)
        _lay_scripts(tree)
        say("installer: packing")
        _pack(tree, made, say)
        note_choice(recipe, made)
        (made / _DIGEST).write_text(f"{recipe.digest}\n")
        _replace(made, target)
    return target


def is_current(images: Path, recipe: InstallerRecipe | None = None) -> bool:
    """Whether what lies there was built by this recipe; without one, by the one of now with the choice of then."""
    target = images / DIRECTORY
    recipe = recipe or _as_chosen(target)
    try:
        built = (target / _DIGEST).read_text().strip()
    except OSError:
        return False
    files = (target / "vmlinuz", target / "initrd")
    return built == recipe.digest and all(path.is_file() for path in files)


def note_choice(recipe: InstallerRecipe, directory: Path) -> None:
    """Write down what of a recipe a site chooses, beside what is built from it."""
    choice = {"suite": recipe.suite, "extra": recipe.extra, "components": recipe.components}
    (directory / _CHOICE).write_text(json.dumps(choice) + "\n")


def _as_chosen(target: Path) -> InstallerRecipe:
    try:
        found = json.loads((target / _CHOICE).read_text())
        return InstallerRecipe(suite=found["suite"], extra=tuple(found["extra"]), components=tuple(found["components"]))
    except (OSError, ValueError, KeyError, TypeError):
        return InstallerRecipe()


def _newest(kernels: Iterable[Path]) -> Path:
    found = sorted(kernels)
    if not found:
        raise Refused("installer: the kernel's package brought no /boot/vmlinuz")
    return found[-1]


def _keep_modules(tree: Path, version: str, recipe: InstallerRecipe, say: Say) -> None:
    """Only the drivers that the recipe names, and those they depend on."""
    directory = tree / "lib/modules" / version
    _depmod(tree, version, say)
    needs: dict[str, list[str]] = {}
    for line in (directory / "modules.dep").read_text().splitlines():
        module, _, rest = line.partition(":")
        needs[module] = rest.split()
    kept: set[str] = set()
    for module in needs:
        inside = module.removeprefix("kernel/")
        if any(fnmatch.fnmatchcase(inside, pattern) for pattern in recipe.modules):
            kept.update((module, *needs[module]))
    for module in needs.keys() - kept:
        (directory / module).unlink()
    _depmod(tree, version, say)


def _depmod(tree: Path, version: str, say: Say) -> None:
    # The tree's own, since this machine may have no kernel modules at all.
    run(["chroot", str(tree), "/sbin/depmod", version], "installer", say)


def _thin_out(tree: Path, recipe: InstallerRecipe) -> None:
    for pattern in recipe.needless:
        for path in tree.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _lay_scripts(tree: Path) -> None:
    """Our scripts, and busybox for every command that no package brought."""
    shutil.copytree(RAMFS, tree, dirs_exist_ok=True)
    for script in ("init", "vcrecon/udhcpc.sh"):
        path = tree / script
        path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    for name in ("dev", "proc", "sys", "run", "tmp", "mnt", "root", "busybox"):
        (tree / name).mkdir(exist_ok=True)
    listing = ["chroot", str(tree), "/bin/busybox", "--list"]
    applets = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        (tree / "busybox" / applet).symlink_to("/bin/busybox")
    shell = tree / "bin/sh"
    shell.unlink(missing_ok=True)
    shell.symlink_to("busybox")


def _pack(tree: Path, made: Path, say: Say) -> None:
    plain = made / "initrd.cpio"
    with plain.open("wb") as stream:
        cpio.write_tree(tree, stream, mtime_s=EPOCH_S)
    run(["zstd", "-q", "-T1", "-12", "--rm", "-o", str(made / "initrd"), str(plain)], "installer", say)
    (made / "initrd").chmod(0o644)
    (made / "vmlinuz").chmod(0o644)


def _replace(made: Path, target: Path) -> None:
    """File by file, since a machine may be fetching the old ones: its open file stays whole. The digest comes last."""
    target.mkdir(parents=True, exist_ok=True)
    (target / _DIGEST).unlink(missing_ok=True)
    for name in ("vmlinuz", "initrd", _CHOICE, _DIGEST):
        (made / name).replace(target / name)
