"""Makes this host the master of a site, from an export or from a spec directory and the site's key.

Called by `vcrecon master promote`. Everything is checked before anything is written; nothing that is there is written
over. A record that comes along may be old: what it would permit is forgotten, and the first thing that the service
does is to look at every container (S1, S2).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vcrecon.core.memory import SURVEY, Intent
from vcrecon.errors import Permanent, Refused
from vcrecon.paths import listener_pid, socket_path
from vcrecon.shell.connect import load_client_key
from vcrecon.shell.connector import pinned_keys
from vcrecon.shell.master_files import KNOWN_HOSTS, RECORD, SITE_KEY, Entry, ImageFile, unpack
from vcrecon.shell.mastery import read_generation, write_generation
from vcrecon.shell.record import Record
from vcrecon.shell.record_files import prepare_directory, read_site_key
from vcrecon.spec.load import load
from vcrecon.spec.model import Spec

_DIRECTORY_MODE = 0o700


@dataclass(frozen=True, slots=True)
class Promoted:
    """Where the new master lives. `warnings` are sentences; `lacking` are images that must be brought or built."""

    site: str
    specs: Path
    state: Path
    generation: int
    has_record: bool
    lacking: tuple[ImageFile, ...]
    warnings: tuple[str, ...]


def from_export(
    source: Path,
    *,
    specs: Path | None,
    state: Path | None,
    default_state: Callable[[str], Path],
    now: Callable[[], float] = time.time,
) -> Promoted:
    """Take the archive `source`. The directories are those of the master it is from, unless others are given."""
    with tempfile.TemporaryDirectory(prefix="vcrecon-promote-") as scratch:
        manifest, files = unpack(source, Path(scratch))
        target = (specs or Path(manifest.specs)).absolute()
        home = (state or default_state(manifest.site)).absolute()
        _no_service(home)
        for name in (SITE_KEY, RECORD):
            if (home / name).exists():
                raise Refused(
                    f"{home}: a master's state is there already ({name}); to make that one the first again type "
                    f"`vcrecon master promote {target}`, or move the directory away: mv {home} {home}.old"
                )
        inside = {e.path: path for e, path in files.items() if e.place == "specs"}
        outside = {e: path for e, path in files.items() if e.place == "elsewhere"}
        _nothing_in_the_way(target, inside, outside)
        for entry, path in outside.items():
            _put(path, Path(entry.path), entry.mode)
        spec = _put_specs(target, files)
        _check_key(spec)
        prepare_directory(home)
        # The key first: a state directory without one would be given a new one.
        for name in (SITE_KEY, KNOWN_HOSTS, RECORD):
            for entry, path in files.items():
                if (entry.place, entry.path) == ("state", name):
                    _put(path, home / name, 0o600)
        lacking = tuple(i for i in manifest.images if not _has(spec.site.provisioning.images, i))
        return _take_over(spec, target, home, manifest.generation, lacking, now)


def from_specs(
    specs: Path,
    *,
    key: Path | None,
    state: Path | None,
    default_state: Callable[[str], Path],
    now: Callable[[], float] = time.time,
) -> Promoted:
    """Take a spec directory with the site's key: after the first master burnt down, or to make it the first again."""
    target = specs.absolute()
    spec = load(target).spec
    home = (state or default_state(spec.site.name)).absolute()
    _no_service(home)
    _check_key(spec)
    given = read_site_key(key) if key is not None else None
    if key is not None and given is None:
        raise Refused(f"{key}: there is no such file; name the copy of the first master's site.key")
    kept = read_site_key(home / SITE_KEY) if home.is_dir() else None
    if given is not None and kept is not None and given != kept:
        raise Refused(
            f"{home}/{SITE_KEY} is another key than {key}; move that state directory away: mv {home} {home}.old"
        )
    if given is None and kept is None:
        raise Refused(
            f"{home}: the site's key is not there, and without it every guest would get other SSH host keys; copy the "
            "first master's site.key here and name it with --key (`vcrecon master export` saves it)"
        )
    prepare_directory(home)
    if kept is None and key is not None:
        _put(key, home / SITE_KEY, 0o600)
    return _take_over(spec, target, home, read_generation(home), (), now)


def _take_over(
    spec: Spec, specs: Path, state: Path, generation: int, lacking: tuple[ImageFile, ...], now: Callable[[], float]
) -> Promoted:
    """The generation becomes the time in seconds: more than that of any master before, known here or not."""
    has_record = (state / RECORD).exists()
    with Record.open(state, clock=now) as record:
        generation = max(generation + 1, int(now()))
        if has_record:
            _forget_permissions(record, now())
        write_generation(state, generation)
        record.event("site", "promoted", f"this master has generation {generation}", generation=generation)
    return Promoted(spec.site.name, specs, state, generation, has_record, lacking, tuple(_warnings(spec, state)))


def _forget_permissions(record: Record, now_s: float) -> None:
    """A record may be older than what the site went through since: it may make us careful, and never bold.

    Fences, consents, intents and wishes go; claims stay, not taken for complete: a container may hold anything until it
    has shown what it holds.
    """
    memory = record.memory
    with record.batch() as batch:
        for container in memory.fences:
            batch.remove_fence(container)
        for consent in memory.consents.values():
            batch.remove_consent(consent.kind, consent.subject)
        for subject in memory.intents:
            batch.remove_intent(subject)
        for guest in memory.rescues:
            batch.remove_rescue(guest)
        for container in memory.tickets:
            batch.remove_ticket(container)
        for subject in memory.attempts:
            batch.remove_attempts(subject)
        for container in memory.shown:
            batch.remove_shown(container)  # what it held then may be elsewhere now
        batch.set_confirmed_digest(None)
        batch.set_claims_complete(False)
        batch.put_intent(Intent(SURVEY, "survey", now_s))


# --- checks --------------------------------------------------------------------------------------------------


def _no_service(state: Path) -> None:
    pid = listener_pid(socket_path(state))
    if pid is not None:
        raise Refused(f"{state}: a service runs here (pid {pid}); stop it first: systemctl stop vcrecon, or kill {pid}")


def _check_key(spec: Spec) -> None:
    try:
        load_client_key(spec.site.ssh.key)
    except Permanent as error:
        raise Refused(str(error)) from None


def _nothing_in_the_way(specs: Path, inside: dict[str, Path], outside: dict[Entry, Path]) -> None:
    there = {p.relative_to(specs).as_posix(): p for p in specs.rglob("*") if p.is_file()} if specs.is_dir() else {}
    if there and not (there.keys() == inside.keys() and all(_same(there[n], inside[n]) for n in inside)):
        raise Refused(
            f"{specs}: another spec is there; name another directory with --specs, or move it away: "
            f"mv {specs} {specs}.old"
        )
    for entry, path in outside.items():
        target = Path(entry.path)
        if target.exists() and not _same(target, path):
            raise Refused(
                f"{target}: another file is there than the spec needs; move it away: mv {target} {target}.old"
            )


def _same(one: Path, other: Path) -> bool:
    try:
        return one.read_bytes() == other.read_bytes()
    except OSError as error:
        raise Refused(f"{one}: cannot be read: {error.strerror}; run as its owner") from None


def _has(images: Path, image: ImageFile) -> bool:
    try:
        return (images / image.name).stat().st_size == image.bytes
    except OSError:
        return False


def _warnings(spec: Spec, state: Path) -> list[str]:
    found = []
    ssh, provisioning = spec.site.ssh, spec.site.provisioning
    if not pinned_keys(ssh.known_hosts) and not pinned_keys(state / KNOWN_HOSTS):
        found.append(f"{ssh.known_hosts} pins no host key: no container will be trusted until it does")
    if provisioning.mode == "managed":
        found.append(
            f"provisioning.interface {provisioning.interface} and address {provisioning.address} in site.yaml are the "
            "first master's: give this host that address, or correct them"
        )
    return found


# --- writing -------------------------------------------------------------------------------------------------


def _put_specs(target: Path, files: dict[Entry, Path]) -> Spec:
    """Lay the spec directory down at once, after it was loaded. Raises SpecError and leaves nothing then."""
    if target.is_dir() and any(target.iterdir()):
        return load(target).spec
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise Refused(f"{target}: cannot be made: {error.strerror}; name another directory with --specs") from None
    try:
        for entry, path in files.items():
            if entry.place == "specs":
                _put(path, draft / entry.path, entry.mode)
        load(draft)
        if target.is_dir():
            target.rmdir()
        draft.rename(target)
        return load(target).spec
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _put(source: Path, target: Path, mode: int) -> None:
    """Copy a file with its mode; one that is there already stays. Raises Refused."""
    try:
        target.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file, source.open("rb") as content:
            shutil.copyfileobj(content, file)
            os.fchmod(handle, mode & 0o777)
            file.flush()
            os.fsync(handle)
    except FileExistsError:
        return
    except OSError as error:
        raise Refused(f"{target}: cannot be written: {error.strerror}; run as root, or make room") from None
