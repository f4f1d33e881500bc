"""The images directory: what is there, whether it is whole, what nobody names any more. Called by `cli.image`.

Only files that belong to a description are ever touched here, and the rests of builds that were cut off.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from vcrecon.boot.images.description import Description, digest_of, read
from vcrecon.errors import Refused
from vcrecon.spec.model import Spec

_REST_AGE_S = 6 * 3600.0
"""A build that began longer ago than this does not run any more."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What `verify` found about one file; `trouble` is "" when it is as described."""

    image: str
    file: str
    trouble: str


def images(directory: Path) -> list[Description]:
    """The images in a directory, by name. A file that is no description is passed over."""
    found = []
    for path in sorted(directory.glob("*.json")):
        try:
            found.append(read(path))
        except Refused:
            continue
    return found


def verify(directory: Path, names: Iterable[str] = ()) -> Iterator[Finding]:
    """Read every file of the named images (of all without names) and compare. Raises Refused for an unknown name."""
    known = {image.name: image for image in images(directory)}
    wanted = list(names) or list(known)
    for name in wanted:
        if name not in known:
            there = ", ".join(known) or "none"
            raise Refused(f"there is no image {name!r} in {directory}; there are: {there}")
    for name in wanted:
        for file in known[name].files:
            yield Finding(name, file.name, _trouble(directory / file.name, file.sha256, file.size_bytes))


def _trouble(path: Path, sha256: str, size_bytes: int) -> str:
    try:
        if path.stat().st_size != size_bytes:
            return f"has {path.stat().st_size} bytes instead of {size_bytes}"
        found = digest_of(path).sha256
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if found == sha256 else f"has the SHA-256 {found} instead of {sha256}"


def unnamed(directory: Path, spec: Spec) -> list[Description]:
    """The images of which the spec names no file, by URL or by digest."""
    artifacts = [system.root for system in spec.systems.values()]
    for image in spec.images.values():
        artifacts += [artifact for artifact in (image.root, image.kernel, image.initrd) if artifact is not None]
    named = {Path(urlsplit(artifact.url).path).name for artifact in artifacts}
    digests = {artifact.sha256 for artifact in artifacts}
    return [
        image
        for image in images(directory)
        if not any(file.name in named or file.sha256 in digests for file in image.files)
    ]


def rests(directory: Path, now_s: float | None = None) -> list[Path]:
    """What builds and captures left that were cut off long ago."""
    before_s = (time.time() if now_s is None else now_s) - _REST_AGE_S
    found = [*directory.glob("building-*"), *directory.glob(".*.capturing"), *directory.glob("*.json.new")]
    return sorted(path for path in found if path.lstat().st_mtime < before_s)


def remove(directory: Path, image: Description) -> int:
    """Remove an image; returns how many bytes that freed. The description goes first: half an image is none."""
    (directory / f"{image.name}.json").unlink(missing_ok=True)
    freed = 0
    for file in image.files:
        path = directory / Path(file.name).name
        if path.exists():
            freed += path.stat().st_size
            path.unlink()
    return freed


def remove_rest(path: Path) -> None:
    """Remove what `rests` found."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
