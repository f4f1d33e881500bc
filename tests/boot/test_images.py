"""Images: what is left out of them, that equal trees give equal bytes, and the commands around the directory."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from vcrecon.boot import cpio
from vcrecon.boot.images import build, store
from vcrecon.boot.images.description import Description, digest_of, read, yaml_lines
from vcrecon.boot.images.recipe import container, guest
from vcrecon.boot.installer import build as installer
from vcrecon.boot.installer.recipe import InstallerRecipe
from vcrecon.cli.app import app
from vcrecon.errors import Refused

SECRETS = {
    "etc/ssh/ssh_host_ed25519_key": "-----BEGIN OPENSSH PRIVATE KEY-----\n",
    "etc/ssh/ssh_host_ed25519_key.pub": "ssh-ed25519 AAAA\n",
    "root/.ssh/authorized_keys": "ssh-ed25519 AAAA\n",
    "etc/machine-id": "0123456789abcdef\n",
    "etc/lvm/backup/vg0": "vg0 {}\n",
    "etc/hostname": "c01\n",
    "var/log/apt/history.log": "a line\n",
    "var/lib/dbus/machine-id": "0123456789abcdef\n",
    "tmp/left": "over\n",
}
KEPT = {"etc/apt/sources.list": "deb x\n", "etc/ssh/sshd_config": "UseDNS no\n", "srv/data": "kept\n"}


def plant(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names_in(archive: Path, program: Callable[[str], str]) -> set[str]:
    command = [program("tar"), "-t", "--zstd", "-f", str(archive)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return {name.removeprefix("./").rstrip("/") for name in listed}


def make_image(directory: Path, name: str, program: Callable[[str], str]) -> Description:
    tree = directory / f"{name}-tree"
    plant(tree, KEPT)
    program("zstd")
    root = directory / f"{name}.tar.zst"
    sha256 = build.pack(tree, root, 0)
    made = Description(name, "container", digest_of(root), sha256, "built", hypervisor="kvm")
    made.write(directory)
    return made


def test_a_built_image_holds_no_keys_names_logs_or_machine_ids(tmp_path: Path, program: Callable[[str], str]) -> None:
    program("zstd")
    tree = tmp_path / "tree"
    plant(tree, {**SECRETS, **KEPT})
    build.clean(tree)
    build.pack(tree, tmp_path / "a.tar.zst", 0)
    names = names_in(tmp_path / "a.tar.zst", program)
    assert names & SECRETS.keys() == {"etc/machine-id"}
    assert (tree / "etc/machine-id").read_text() == ""
    assert {"etc/ssh/sshd_config", "srv/data", "var/log/apt"} <= names


def test_equal_trees_give_equal_bytes_whenever_they_were_made(tmp_path: Path, program: Callable[[str], str]) -> None:
    program("zstd")
    digests = []
    for name, age_s in (("one", 0), ("two", 5000)):
        tree = tmp_path / name
        plant(tree, {key: KEPT[key] for key in sorted(KEPT, reverse=name == "two")})
        shipped = tree / "srv/data"
        os.utime(shipped, (1_600_000_000, 1_600_000_000))
        for path in tree.rglob("*"):
            if path != shipped:
                os.utime(path, (1_700_000_000 + age_s, 1_700_000_000 + age_s))
        newest_s = build.newest_before(tree, 1_700_000_000)
        assert newest_s == 1_600_000_000
        digests.append(
            (build.pack(tree, tmp_path / f"{name}.zst", newest_s), digest_of(tmp_path / f"{name}.zst").sha256)
        )
    assert digests[0] == digests[1]


def test_a_description_is_read_as_it_was_written(tmp_path: Path, program: Callable[[str], str]) -> None:
    made = make_image(tmp_path, "a", program)
    assert read(tmp_path / "a.json") == made


def test_the_lines_for_images_yaml_name_url_and_digest(tmp_path: Path, program: Callable[[str], str]) -> None:
    made = make_image(tmp_path, "node", program)
    found = yaml.safe_load("\n".join(yaml_lines(made, "http://10.0.0.1:8067/images/")))
    root = {"url": "http://10.0.0.1:8067/images/node.tar.zst", "sha256": made.root.sha256}
    assert found == {"systems": {"node": {"root": root, "hypervisor": "kvm"}}}


def test_verify_names_the_file_that_changed(tmp_path: Path, program: Callable[[str], str]) -> None:
    make_image(tmp_path, "a", program)
    make_image(tmp_path, "b", program)
    archive = tmp_path / "b.tar.zst"
    content = bytearray(archive.read_bytes())
    content[-1] ^= 1
    archive.write_bytes(content)
    result = CliRunner().invoke(app, ["image", "verify", "--images", str(tmp_path)])
    assert result.exit_code == 1
    assert "a: a.tar.zst is as described" in result.output
    assert "b: b.tar.zst has the SHA-256" in result.output


def test_verify_refuses_a_name_that_is_not_there(tmp_path: Path, program: Callable[[str], str]) -> None:
    make_image(tmp_path, "a", program)
    with pytest.raises(Refused, match="there is no image 'b'"):
        list(store.verify(tmp_path, ["b"]))


def test_list_shows_images_and_passes_over_other_files(tmp_path: Path, program: Callable[[str], str]) -> None:
    make_image(tmp_path, "a", program)
    (tmp_path / "other.json").write_text("{}")
    result = CliRunner().invoke(app, ["image", "list", "--json", "--images", str(tmp_path)])
    # What the command says beside its document goes to standard error.
    assert [image["name"] for image in json.loads(result.stdout)["images"]] == ["a"]


def test_prune_removes_what_the_spec_does_not_name_and_asks_first(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    specs = Path(__file__).parents[2] / "specs/tutorial"
    make_image(tmp_path, "debian-12", program)
    make_image(tmp_path, "old", program)
    command = ["image", "prune", str(specs), "--images", str(tmp_path)]
    assert CliRunner().invoke(app, command, input="n\n").exit_code == 1
    assert (tmp_path / "old.json").exists()
    result = CliRunner().invoke(app, [*command, "--yes"])
    assert (result.exit_code, [path.name for path in tmp_path.glob("*.zst")]) == (0, ["debian-12.tar.zst"]), (
        result.output
    )


def test_the_rest_of_a_build_goes_only_when_it_is_old(tmp_path: Path) -> None:
    (tmp_path / "building-x").mkdir()
    now_s = (tmp_path / "building-x").stat().st_mtime
    assert store.rests(tmp_path, now_s + 60) == []
    assert store.rests(tmp_path, now_s + 86400) == [tmp_path / "building-x"]


def test_a_name_that_would_leave_the_directory_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["image", "build", "guest", "../x", "--images", str(tmp_path)])
    assert result.exit_code == 1
    assert "cannot name an image" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["guest", "a", "--package", "--x"], "--package --x: '--x' is not the name of a Debian package"),
        (["container", "a", "--component", "firmware"], "--component firmware: "),
        (["installer", "--package", "Bad_Name"], "is not the name of a Debian package"),
        (["guest", "a", "--suite", "Book worm"], "--suite Book worm: "),
        (["guest", "a", "--specs", "SPECS", "--package", "htop"], "says what is built"),
        (["guest", "a", "--specs", "SPECS"], "has no guest 'a' under 'builds'; there are: none"),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_is_made(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    specs = str(Path(__file__).parents[2] / "specs/small")
    given = [specs if word == "SPECS" else word for word in arguments]
    result = CliRunner().invoke(app, ["image", "build", *given, "--images", str(tmp_path / "images")])
    assert result.exit_code == 1, result.output
    assert words in " ".join(result.output.split())
    assert not (tmp_path / "images").exists()


def test_an_installer_that_was_built_with_firmware_counts_as_current(tmp_path: Path) -> None:
    """Also for who does not know what was chosen then; not when what everybody gets has changed since."""
    recipe = InstallerRecipe(extra=("firmware-bnx2",), components=("main", "non-free-firmware"))
    plant(tmp_path / "installer", {"vmlinuz": "", "initrd": "", "recipe.sha256": f"{recipe.digest}\n"})
    assert not installer.is_current(tmp_path)
    installer.note_choice(recipe, tmp_path / "installer")
    assert installer.is_current(tmp_path)
    assert not installer.is_current(tmp_path, InstallerRecipe())
    (tmp_path / "installer/recipe.sha256").write_text("0123456789abcdef\n")
    assert not installer.is_current(tmp_path)


def test_recipes_differ_in_their_digest_by_what_they_say() -> None:
    kvm, xen = container("a", "kvm"), container("a", "xen")
    assert len({kvm.digest, xen.digest, guest("a").digest, replace(kvm, suite="trixie").digest}) == 4
    assert InstallerRecipe().digest != InstallerRecipe(packages=("tar",)).digest


def test_the_initramfs_is_what_cpio_reads(tmp_path: Path, program: Callable[[str], str]) -> None:
    busybox = program("busybox")
    tree = tmp_path / "tree"
    plant(tree, {"init": "#!/bin/sh\n", "etc/odd": "x"})
    (tree / "sh").symlink_to("/bin/busybox")
    archive = tmp_path / "initrd"
    with archive.open("wb") as stream:
        cpio.write_tree(tree, stream, mtime_s=1)
    with archive.open("rb") as stream:
        listed = subprocess.run(
            [busybox, "cpio", "-t"], stdin=stream, capture_output=True, text=True, check=True
        ).stdout
    assert listed.split() == ["etc", "etc/odd", "init", "sh", "dev/console"]


def test_tar_reads_what_was_packed(tmp_path: Path, program: Callable[[str], str]) -> None:
    make_image(tmp_path, "a", program)
    plain = tmp_path / "a.tar"
    plain.write_bytes(
        subprocess.run(["zstd", "-dcq", str(tmp_path / "a.tar.zst")], capture_output=True, check=True).stdout
    )
    with tarfile.open(plain) as tar:
        assert "./srv/data" in tar.getnames()
