"""What makes a host the master of a site, in one archive: written by `vcrecon master export`, read by `promote`.

A gzipped tar: `manifest.json` first, then the files that it lists, each with its SHA-256. It holds secrets (S10): the
site's key, the SSH key, password hashes. So it is made with mode 0600, and nothing of it is ever printed.
"""

from __future__ import annotations

import hashlib
import io
import os
import sqlite3
import stat
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from pydantic import TypeAdapter, ValidationError

from vcrecon.errors import Refused
from vcrecon.shell.mastery import read_generation
from vcrecon.shell.record_files import make_private, read_site_key
from vcrecon.spec.model import Spec

FORMAT = 1
SITE_KEY, RECORD, KNOWN_HOSTS = "site.key", "record.sqlite", "known_hosts"
_MANIFEST = "manifest.json"
_MANIFEST_BYTES_MAX = 16 << 20
_FILE_BYTES_MAX = 2 << 30
_ENTRIES_MAX = 100_000
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: below the spec directory or the state directory (a relative path), or elsewhere (an absolute one)."""

    place: Literal["specs", "state", "elsewhere"]
    path: str
    mode: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file that the boot server offers. It is listed, not carried: images are large, public and can be rebuilt."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """`specs` and `state` are where these directories were on the master that was exported."""

    format: int
    version: str
    site: str
    specs: str
    state: str
    generation: int
    made_at_s: float
    entries: tuple[Entry, ...]
    images: tuple[ImageFile, ...]


_ADAPTER = TypeAdapter(Manifest)


# --- writing -------------------------------------------------------------------------------------------------


def export(target: Path, specs: Path, state: Path, spec: Spec, *, version: str, now_s: float) -> Manifest:
    """Write the archive to `target` at once or not at all; also while the service runs. Raises Refused.

    `spec` is what `specs` holds. The record is copied by SQLite itself, so it is of one moment.
    """
    if read_site_key(state / SITE_KEY) is None:
        raise Refused(f"{state}: there is no site key, so no master ever ran here; name its directory with --state")
    with tempfile.TemporaryDirectory(prefix="vcrecon-export-") as scratch:
        record = Path(scratch) / RECORD
        sources = [*_spec_files(specs, spec), *_state_files(state, record)]
        manifest = Manifest(
            format=FORMAT,
            version=version,
            site=spec.site.name,
            specs=str(specs.absolute()),
            state=str(state.absolute()),
            generation=read_generation(state),
            made_at_s=now_s,
            entries=tuple(entry for entry, _ in sources),
            images=tuple(image_files(spec.site.provisioning.images)),
        )
        _write(target, manifest, [path for _, path in sources])
    return manifest


def referenced(spec: Spec) -> list[Path]:
    """The files that a spec names and that are not part of it: keys, pins, password files."""
    ssh, provisioning = spec.site.ssh, spec.site.provisioning
    paths: list[Path | None] = [ssh.key, ssh.known_hosts, provisioning.root_password]
    paths += [guest.root_password for guest in spec.guests.values()]
    for container in spec.containers.values():
        paths += [container.power.credentials, container.power.ca]
    return [Path(os.path.normpath(path)) for path in dict.fromkeys(paths) if path is not None]


def image_files(directory: Path) -> Iterator[ImageFile]:
    """What the boot server offers, by name."""
    for path in sorted(directory.rglob("*")) if directory.is_dir() else []:
        name = path.relative_to(directory).as_posix()
        if path.is_file() and not any(part.startswith(".") for part in PurePosixPath(name).parts):
            with _reading(path) as file:
                yield ImageFile(name, path.stat().st_size, _sha256(file))


def _spec_files(specs: Path, spec: Spec) -> Iterator[tuple[Entry, Path]]:
    root = Path(os.path.normpath(specs.absolute()))
    for above, directories, names in os.walk(root):
        directories[:] = sorted(name for name in directories if name != ".git")
        for name in sorted(names):
            path = Path(above) / name
            if path.is_file():
                yield _entry("specs", path.relative_to(root).as_posix(), path)
    for path in referenced(spec):
        if not path.is_relative_to(root) and path.is_file():
            yield _entry("elsewhere", str(path), path)


def _state_files(state: Path, record: Path) -> Iterator[tuple[Entry, Path]]:
    for name in (SITE_KEY, KNOWN_HOSTS):
        if (state / name).is_file():
            yield _entry("state", name, state / name)
    if (state / RECORD).is_file():
        _back_up(state / RECORD, record)
        yield _entry("state", RECORD, record)


def _back_up(source: Path, target: Path) -> None:
    make_private(target)
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as live,
            closing(sqlite3.connect(target)) as copy,
        ):
            live.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise Refused(f"{source}: the record cannot be copied: {error}; export again") from None


def _entry(place: Literal["specs", "state", "elsewhere"], name: str, path: Path) -> tuple[Entry, Path]:
    with _reading(path) as file:
        status = os.fstat(file.fileno())
        return Entry(place, name, stat.S_IMODE(status.st_mode), status.st_size, _sha256(file)), path


def _write(target: Path, manifest: Manifest, paths: Iterable[Path]) -> None:
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=target.absolute().parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "wb") as file:
            with tarfile.open(fileobj=file, mode="w:gz") as tar:
                text = _ADAPTER.dump_json(manifest, indent=1)
                _add(tar, _MANIFEST, len(text), io.BytesIO(text))
                for index, (entry, path) in enumerate(zip(manifest.entries, paths, strict=True)):
                    with _reading(path) as content:
                        _add(tar, f"files/{index}", entry.bytes, content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    except OSError as error:
        raise Refused(f"{target}: cannot be written: {error.strerror or error}; make room or name another") from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _add(tar: tarfile.TarFile, name: str, size: int, content: IO[bytes]) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    tar.addfile(info, content)


# --- reading -------------------------------------------------------------------------------------------------


def unpack(source: Path, scratch: Path) -> tuple[Manifest, dict[Entry, Path]]:
    """The archive's files, laid into the private directory `scratch`, each proved by its SHA-256. Raises Refused."""
    try:
        with tarfile.open(source, mode="r:gz") as tar:
            manifest = _manifest(tar, source)
            found = {}
            for index, entry in enumerate(manifest.entries):
                target = scratch / str(index)
                _extract(tar, index, entry, target, source)
                found[entry] = target
            return manifest, found
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise Refused(f"{source}: this is no whole export of a master ({error}); export again") from None


def _manifest(tar: tarfile.TarFile, source: Path) -> Manifest:
    member = tar.next()
    content = tar.extractfile(member) if member is not None and member.name == _MANIFEST else None
    if content is None or member is None or member.size > _MANIFEST_BYTES_MAX:
        raise Refused(f"{source}: this is no export of a master; make one with `vcrecon master export`")
    try:
        manifest = _ADAPTER.validate_json(content.read())
    except ValidationError as error:
        where = ".".join(str(step) for step in error.errors()[0]["loc"])
        raise Refused(f"{source}: its manifest is damaged at {where or 'its start'}; export again") from None
    if manifest.format != FORMAT:
        raise Refused(f"{source}: made by vcrecon {manifest.version}, which this one cannot read; use that version")
    if len(manifest.entries) > _ENTRIES_MAX or not all(_is_safe(entry) for entry in manifest.entries):
        raise Refused(f"{source}: its manifest names files outside its directories; do not trust this archive")
    return manifest


def _is_safe(entry: Entry) -> bool:
    path = PurePosixPath(entry.path)
    if not entry.path.isprintable() or ".." in path.parts or not 0 <= entry.bytes <= _FILE_BYTES_MAX:
        return False
    if entry.place == "state":
        return entry.path in {SITE_KEY, KNOWN_HOSTS, RECORD}
    return path.is_absolute() == (entry.place == "elsewhere") and path.name != ""


def _extract(tar: tarfile.TarFile, index: int, entry: Entry, target: Path, source: Path) -> None:
    member = tar.next()
    content = tar.extractfile(member) if member is not None and member.name == f"files/{index}" else None
    if content is None or member is None or member.size != entry.bytes:
        raise Refused(f"{source}: {entry.path} is missing in it; export again")
    digest = hashlib.sha256()
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        while chunk := content.read(_CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != entry.sha256:
        raise Refused(f"{source}: {entry.path} in it is damaged; export again")


def _reading(path: Path) -> IO[bytes]:
    """Open a file; a pipe in its place must not block. Raises Refused."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise Refused(f"{path}: not a regular file; put a copy there")
        return os.fdopen(handle, "rb")
    except OSError as error:
        raise Refused(f"{path}: cannot be read: {error.strerror}; run as its owner") from None


def _sha256(file: IO[bytes]) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
