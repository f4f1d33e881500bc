"""What a person's own commands on a held guest are made of: the shell, one command, a recipe, the guest's facts.

Scripts and data only; called by `controls` (facts) and by `cli.rescue`, which runs the scripts over its own
connection. Nothing in the mounted tree is ever run, and nothing changes its root into it: a student may have put
traps there.
"""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

from vcrecon.core.wanted import Wanted
from vcrecon.host.names import RUN_DIR, rescue_point
from vcrecon.host.steps import UNSAFE, locked, quote
from vcrecon.spec.model import Guest


def _enter(guest: str) -> str:
    """Go into the mounted tree, or end: without the mount, a command would work on the container itself."""
    mount = rescue_point(guest)
    return (
        f"mountpoint -q {mount} || "
        f"{{ echo 'the disk of {guest} is not mounted at {mount}: vcrecon rescue {guest}' >&2; exit {UNSAFE}; }}\n"
        f"cd {mount} || exit {UNSAFE}\n"
    )


def shell(guest: str) -> str:
    """The login user's shell on the container, in the mounted tree."""
    return _enter(guest) + 'exec "${SHELL:-/bin/sh}" -i'


def shell_without_terminal(guest: str) -> str:
    """A shell that reads commands from standard input, for scripts."""
    return _enter(guest) + "exec sh"


def command(guest: str, text: str) -> str:
    """One command of a person, as it would be typed in that shell."""
    return _enter(guest) + f"exec sh -c {quote(text)}"


def recipe(guest: str) -> str:
    """Run the recipe that comes on standard input (see `parcel`) under the guest's lock; leave nothing behind."""
    lines = [
        _enter(guest).rstrip(),
        "umask 077",
        f"parcel=$(mktemp -d {RUN_DIR}/fix.XXXXXXXX)",
        "trap 'rm -rf \"$parcel\"' EXIT",
        "trap 'exit 129' HUP",
        "trap 'exit 143' TERM",
        'tar -x --no-same-owner -C "$parcel" -f -',
        f"export VCRECON_ROOT={rescue_point(guest)}",
        'export VCRECON_FACTS="$parcel/facts.json"',
        "umask 022",
        'sh "$parcel/recipe" < "$parcel/input"',
    ]
    return locked(guest, lines)


def parcel(script: bytes, facts: dict[str, Any], password_line: bytes) -> bytes:
    """Standard input for `recipe`: the script, the guest's facts, and what the script reads as its own input.

    The hash of the root password is that input: it is in no argument and no environment (S10).
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        document = json.dumps(facts, indent=2, sort_keys=True).encode() + b"\n"
        for name, content in (("recipe", script), ("facts.json", document), ("input", password_line)):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o600
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def facts(guest: Guest, wanted: Wanted) -> dict[str, Any]:
    """What a recipe may know of its guest, as JSON. Holds no secret."""
    return {
        "name": guest.name,
        "site": wanted.spec.site.name,
        "cluster": guest.cluster,
        "role": guest.role,
        "image": guest.image,
        "interfaces": [
            {
                "mac": interface.mac,
                "vlan": interface.vlan,
                "network": interface.network,
                "address": interface.address,
                "gateway": interface.gateway,
            }
            for interface in guest.interfaces
        ],
        "hosts": [{"address": address, "name": name} for address, name in wanted.hosts(guest)],
        "services": [{"name": s.name, "address": s.address} for s in wanted.spec.site.services],
        "authorized_keys": list(guest.authorized_keys),
    }
