"""The commands `image …`: build, capture, list, verify and prune images. Each is a thin call of `boot.images`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vcrecon.cli import options
from vcrecon.cli.output import columns, say, say_json
from vcrecon.errors import Refused

if TYPE_CHECKING:
    from vcrecon.boot.images.description import Description
    from vcrecon.spec.model import Build

app = typer.Typer(
    name="image",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="The images that machines are installed with: build, capture, list, verify, prune.",
)
build = typer.Typer(
    name="build",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Build an image from Debian packages. Needs root and mmdebstrap.",
)
app.add_typer(build, name="build", short_help="Build an image from Debian packages.")

Images = Annotated[
    Path,
    typer.Option("--images", metavar="DIR", help="Where images lie: provisioning.images of site.yaml."),
]
Url = Annotated[
    str,
    typer.Option(
        "--url", metavar="URL", help="Where machines fetch images from, for the lines to put into images.yaml."
    ),
]
Packages = Annotated[
    list[str] | None, typer.Option("--package", metavar="PACKAGE", help="A further Debian package; repeatable.")
]
Components = Annotated[
    list[str] | None,
    typer.Option(
        "--component", metavar="COMPONENT", help="A part of Debian's archive beside main (firmware: non-free-firmware)."
    ),
]
Suite = Annotated[str | None, typer.Option("--suite", help="The release of Debian; bookworm without it.")]
_HYPERVISOR_HELP = "What runs the guests; kvm without it."
Hypervisor = Annotated[Literal["kvm", "xen"] | None, typer.Option("--hypervisor", help=_HYPERVISOR_HELP)]
From = Annotated[
    Path | None,
    typer.Option("--specs", metavar="SPECS", help="Take it from 'builds' in images.yaml there, and not from options."),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The image's name; letters, digits, dots and hyphens.")]

_IMAGES = Path("/var/lib/vcrecon/images")
_URL = "http://MASTER:8067/images"


def _progress(what: str) -> Callable[[str], None]:
    """Progress on standard error, each line with the seconds since the start."""
    began_s = time.monotonic()
    return lambda line: typer.echo(f"{what}: {time.monotonic() - began_s:5.0f} s  {line}", err=True)


def _named(name: str) -> str:
    import re

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}", name):
        raise Refused(f"{name!r} cannot name an image: letters, digits, dots and hyphens, at most 63 of them")
    return name


def _tell(made: Description, images: Path, url: str, as_json: bool) -> None:
    from vcrecon.boot.images.description import yaml_lines

    if as_json:
        import json

        say_json(json.loads((images / f"{made.name}.json").read_text()))
        return
    say(f"# {images / made.root.name}: {made.root.size_bytes >> 20} MiB. For images.yaml:", to_stderr=True)
    say(yaml_lines(made, url))


@build.command("container", short_help="A system for containers.")
def build_container(
    name: Name,
    hypervisor: Hypervisor = None,
    suite: Suite = None,
    component: Components = None,
    package: Packages = None,
    specs: From = None,
    images: Images = _IMAGES,
    url: Url = _URL,
    as_json: options.Json = False,
) -> None:
    """Build the system image of containers: Debian with the hypervisor and all that vcrecon uses on a host.

    The same recipe and the same package versions give the same digest.
    """
    from vcrecon.boot.images import recipe
    from vcrecon.boot.images.build import build as make

    said = _build(_named(name), "container", specs, suite, component, package, hypervisor)
    wanted = recipe.container(name, said.hypervisor, suite=said.suite, extra=said.packages, components=said.components)
    _tell(make(wanted, images, _progress("image")), images, url, as_json)


@build.command("guest", short_help="A system for guests.")
def build_guest(
    name: Name,
    suite: Suite = None,
    component: Components = None,
    package: Packages = None,
    specs: From = None,
    images: Images = _IMAGES,
    url: Url = _URL,
    as_json: options.Json = False,
) -> None:
    """Build a guest image with its kernel and initramfs: a small Debian that boots under KVM and Xen."""
    from vcrecon.boot.images import recipe
    from vcrecon.boot.images.build import build as make

    said = _build(_named(name), "guest", specs, suite, component, package)
    wanted = recipe.guest(name, suite=said.suite, extra=said.packages, components=said.components)
    _tell(make(wanted, images, _progress("image")), images, url, as_json)


@build.command("installer", short_help="The installer that blank machines boot.")
def build_installer(
    suite: Suite = None,
    component: Components = None,
    package: Packages = None,
    specs: From = None,
    images: Images = _IMAGES,
    anew: Annotated[bool, typer.Option("--anew", help="Also when it is current: takes in newer packages.")] = False,
) -> None:
    """Build the kernel and initramfs that a blank machine boots; nothing is done when they are current."""
    from vcrecon.boot.installer.build import build as make
    from vcrecon.boot.installer.recipe import InstallerRecipe

    said = _build("installer", "installer", specs, suite, component, package)
    wanted = InstallerRecipe(suite=said.suite, extra=said.packages, components=said.components)
    say(str(make(images, _progress("image"), wanted, anew=anew)))


def _build(
    name: str,
    kind: Literal["container", "guest", "installer"],
    specs: Path | None,
    suite: str | None,
    components: list[str] | None,
    packages: list[str] | None,
    hypervisor: Literal["kvm", "xen"] | None = None,
) -> Build:
    """What is to be built, as the spec or the options say. Raises Refused."""
    from vcrecon.spec.load import load
    from vcrecon.spec.model import Build
    from vcrecon.spec.text import BuildText

    given = {"suite": suite, "components": components, "packages": packages, "hypervisor": hypervisor}
    given = {key: value for key, value in given.items() if value}
    if specs is None:
        given["components"] = ["main", *(word for word in components or () if word != "main")]
        try:
            text = BuildText.model_validate({"kind": kind, **given})
        except ValueError as error:
            raise Refused(_first_words(error)) from None
        return Build(name, kind, text.hypervisor or "kvm", text.suite, text.components, text.packages)
    if given:
        raise Refused(f"with --specs, {specs}/images.yaml says what is built: write it there, or leave --specs out")
    builds = load(specs, require_placement=False).spec.builds
    if name not in builds or builds[name].kind != kind:
        there = ", ".join(sorted(known.name for known in builds.values() if known.kind == kind)) or "none"
        raise Refused(f"{specs}/images.yaml has no {kind} {name!r} under 'builds'; there are: {there}")
    return builds[name]


def _first_words(error: ValueError) -> str:
    """What pydantic found first, for people."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    option = {"components": "--component", "packages": "--package", "suite": "--suite"}.get(str(first["loc"][0]), "")
    return f"{option} {first['input']}: {first['msg'].removeprefix('Value error, ')}"


@app.command("list", short_help="List the images.")
def list_images(images: Images = _IMAGES, as_json: options.Json = False) -> None:
    """List the images in the directory, and whether the installer there is current."""
    from dataclasses import asdict

    from vcrecon.boot.images import store
    from vcrecon.boot.installer.build import is_current

    found = store.images(images)
    if as_json:
        say_json({"images": [asdict(image) for image in found], "installer_current": is_current(images)})
        return
    rows = [
        (image.name, image.kind, f"{image.root.size_bytes >> 20} MiB", image.root.sha256[:16], image.source)
        for image in found
    ]
    say(columns(("IMAGE", "KIND", "SIZE", "SHA-256", "SOURCE"), rows))
    if not is_current(images):
        say("the installer is missing or old: vcrecon image build installer", to_stderr=True)


@app.command("verify", short_help="Compare images with their descriptions.")
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="All without names.")] = None,
    images: Images = _IMAGES,
) -> None:
    """Read every file of the images and compare it with its description. Exits with 1 when one differs."""
    from vcrecon.boot.images import store

    findings = list(store.verify(images, names or ()))
    for finding in findings:
        say(f"{finding.image}: {finding.file} {finding.trouble or 'is as described'}")
    if any(finding.trouble for finding in findings):
        raise typer.Exit(1)


@app.command("prune", short_help="Remove images that no spec names.")
def prune(
    specs: options.Specs,
    images: Images = _IMAGES,
    yes: options.Yes = False,
) -> None:
    """List the images that the spec does not name, and what cut-off builds left; remove them with --yes."""
    from vcrecon.boot.images import store
    from vcrecon.spec.load import load

    gone = store.unnamed(images, load(specs).spec)
    rests = store.rests(images)
    for image in gone:
        say(f"{image.name} ({sum(file.size_bytes for file in image.files) >> 20} MiB) is named nowhere in {specs}")
    for path in rests:
        say(f"{path.name} is what a build left that was cut off")
    if not gone and not rests:
        say("nothing to prune")
        return
    if not yes and not typer.confirm("Remove them?"):
        raise typer.Exit(1)
    freed = sum(store.remove(images, image) for image in gone)
    for path in rests:
        store.remove_rest(path)
    say(f"freed {freed >> 20} MiB")


@app.command("capture", short_help="Make an image of a running host.")
def capture(
    host: Annotated[str, typer.Argument(metavar="HOST", help="Its address: [USER@]ADDRESS[:PORT].")],
    name: Name,
    key: Annotated[Path, typer.Option("--key", help="The private SSH key that may log in as root.")],
    known_hosts: Annotated[Path, typer.Option("--known-hosts", help="The file that pins its host key.")],
    hypervisor: Annotated[Literal["kvm", "xen"], typer.Option("--hypervisor", help=_HYPERVISOR_HELP)] = "kvm",
    images: Images = _IMAGES,
    url: Url = _URL,
    as_json: options.Json = False,
) -> None:
    """Make a system image of a host while it runs.

    Only its own system is read: no guests, and nothing mounted over it. Keys, names, addresses, logs and machine
    ids are left out. Nothing on the host changes.
    """
    import asyncio

    made = asyncio.run(_capture(host, _named(name), key, known_hosts, hypervisor, images))
    _tell(made, images, url, as_json)


async def _capture(host: str, name: str, key: Path, known_hosts: Path, hypervisor: str, images: Path) -> Description:
    from vcrecon.boot.images.capture import capture as take
    from vcrecon.cli.reach import connected

    user, _, place = host.rpartition("@")
    address, _, port = place.partition(":")
    if port and not port.isdigit():
        raise Refused(f"{host!r} is no [USER@]ADDRESS[:PORT]")
    ssh = {
        "name": address, "address": address, "port": int(port or 22), "user": user or "root",
        "key": str(key), "known_hosts": str(known_hosts),
    }  # fmt: skip
    async with connected({"ssh": ssh, "container": address}) as connection:
        return await take(connection, address, name, hypervisor, images, _progress("image"))
