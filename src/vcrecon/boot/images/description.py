"""What is said about an image: its JSON description, and its lines for images.yaml. Pure but for the file itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vcrecon.errors import Refused

SUFFIX = ".tar.zst"


@dataclass(frozen=True, slots=True)
class FileDigest:
    """A file beside the description. `size_bytes` is of the file as it lies there."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Description:
    """`NAME.json`. `packages` are versions by name; `tree_sha256` is of the tar before compression: equal inputs,
    equal digest. `source` says how it came about ("built", or "captured from HOST")."""

    name: str
    kind: str
    root: FileDigest
    tree_sha256: str
    source: str
    hypervisor: str | None = None
    suite: str = ""
    recipe_sha256: str = ""
    disk_bytes: int = 0
    kernel: FileDigest | None = None
    initrd: FileDigest | None = None
    packages: Mapping[str, str] = field(default_factory=dict)

    @property
    def files(self) -> tuple[FileDigest, ...]:
        """All files of the image but the description itself."""
        return tuple(file for file in (self.root, self.kernel, self.initrd) if file is not None)

    def write(self, directory: Path) -> Path:
        """Write it beside its files, whole or not at all."""
        path = directory / f"{self.name}.json"
        draft = path.with_suffix(".json.new")
        try:
            draft.write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        return path


def read(path: Path) -> Description:
    """The description in a file. Raises Refused when it is none."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        for key in ("root", "kernel", "initrd"):
            if found.get(key) is not None:
                found[key] = FileDigest(**found[key])
        return Description(**found)
    except (OSError, ValueError, TypeError) as error:
        raise Refused(f"{path} is not the description of an image: {error}") from None


def digest_of(path: Path) -> FileDigest:
    """Name, SHA-256 and size of a file. Raises OSError."""
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return FileDigest(path.name, sha256, path.stat().st_size)


def yaml_lines(description: Description, base_url: str) -> list[str]:
    """What to add to images.yaml, where the images are served below `base_url`."""
    lines = ["systems:" if description.kind == "container" else "images:", f"  {description.name}:"]
    named = (("root", description.root), ("kernel", description.kernel), ("initrd", description.initrd))
    for key, file in named:
        if file is not None:
            lines += [f"    {key}:", f"      url: {base_url.rstrip('/')}/{file.name}", f"      sha256: {file.sha256}"]
    if description.kind == "container":
        lines.append(f"    hypervisor: {description.hypervisor}")
    else:
        lines.append(f"    disk: {-(-description.disk_bytes // (1 << 30))}GiB")
    return lines
