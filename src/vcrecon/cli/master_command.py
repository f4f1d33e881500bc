"""The commands `master …`: save what makes this host the master of a site, and make another host the master."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from vcrecon import __version__
from vcrecon.cli import options
from vcrecon.cli.output import count, say
from vcrecon.cli.target import Target, default_state, talk
from vcrecon.paths import state_directory

app = typer.Typer(
    name="master",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Save what makes this host the master of a site, and let another host take that part over.",
)


@app.command("export", short_help="Save all that another host needs to take over.")
def export(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="Where to; by default SITE-master.tar.gz here.", show_default=False),
    ] = None,
    specs: options.SpecsOption = None,
    state: options.State = None,
) -> None:
    """Write one archive: the spec directory and the files it names, the site's key, pinned host keys, the record.

    Also while the service runs; then it needs no --specs. The archive holds secrets and has mode 0600: keep it as you
    keep the keys. Images are listed, not carried.
    """
    from vcrecon.shell import master_files
    from vcrecon.spec.load import load

    directory, home = _where(specs, state)
    spec = load(directory).spec
    target = file or Path(f"{spec.site.name}-master.tar.gz")
    manifest = master_files.export(target, directory, home, spec, version=__version__, now_s=time.time())
    size_kib = -(-target.stat().st_size // 1024)
    say(f"Written: {target} ({count(len(manifest.entries), 'file')}, {size_kib} KiB, mode 0600: it holds secrets).")
    if manifest.images:
        listed = count(len(manifest.images), "image file")
        say(f"Not in it: {listed} below {spec.site.provisioning.images}; copy them too, or build them anew.")
    say(f"On another host: vcrecon master promote {target.name}")


def _where(specs: Path | None, state: Path | None) -> tuple[Path, Path]:
    """Spec and state directory: as named, or of the service that runs."""
    target = Target(state=state, specs=specs)
    directory = specs or (Path(os.environ["VCRECON_SPECS"]) if os.environ.get("VCRECON_SPECS") else None)
    if directory is not None:
        return directory, default_state(directory, state)
    socket = target.must_find_socket()
    status = talk(target, lambda client: client.status())
    return Path(status["spec"]["directory"]), socket.parent


@app.command("promote", short_help="Make this host the master.")
def promote(
    source: Annotated[
        Path,
        typer.Argument(metavar="FILE|SPECS", help="An export, or a spec directory.", show_default=False),
    ],
    state: options.State = None,
    specs: Annotated[
        Path | None,
        typer.Option(
            "--specs", metavar="DIR", help="Where the spec directory of an export goes. Default: where it was."
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="With a spec directory: the copy of the first master's site.key."),
    ] = None,
) -> None:
    """Take over from a master that is gone, with an export, or with the spec directory and the site's key alone.

    Checks everything first and starts nothing. The new master ranks higher than the one before: should that come
    back, it finds itself outranked on every container and keeps its hands off.
    """
    from vcrecon.errors import Refused
    from vcrecon.shell import promote as promotion

    if source.is_dir():
        if specs is not None:
            raise Refused("--specs is for an export; a spec directory is used where it is")
        done = promotion.from_specs(source, key=key, state=state, default_state=state_directory)
    elif source.is_file():
        if key is not None:
            raise Refused("--key is for a spec directory; an export holds the site's key")
        done = promotion.from_export(source, specs=specs, state=state, default_state=state_directory)
    else:
        raise Refused(f"{source}: no such file or directory; name an export, or the spec directory")
    _tell(done, named=state is not None)


def _tell(done: object, *, named: bool) -> None:
    from vcrecon.shell.promote import Promoted

    assert isinstance(done, Promoted)
    say(f"This host is the master of {done.site} now, generation {done.generation}. Spec: {done.specs}")
    if done.has_record:
        say("Its record may be old: consents, fences and wishes in it were dropped; give them again where needed.")
    else:
        say("It begins without a record: history, pauses and consents are gone; no guest is restarted for that.")
    for warning in done.warnings:
        say(f"Mind: {warning}.")
    for image in done.lacking:
        say(f"Missing image: {image.name} ({image.bytes} bytes, SHA-256 {image.sha256}); copy it here or build it.")
    option = f" --state {done.state}" if named else ""
    say(f"Look first:  vcrecon plan {done.specs}{option}")
    say(f"Then start:  vcrecon run {done.specs}{option}")
