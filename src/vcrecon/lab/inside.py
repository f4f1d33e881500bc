"""How to get inside a container or a guest of the lab by SSH. Called by `cli.lab_command` and `breakage`."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from vcrecon.errors import Refused
from vcrecon.lab import lab, machine
from vcrecon.lab.layout import Files
from vcrecon.spec.load import load


def ssh_command(
    name: str, command: Sequence[str], files: Files, *options: str, record: Path | None = None
) -> list[str]:
    """The ssh command line that runs `command` (a shell without it) on a container, spare machine or guest, as root.

    `record` is the state directory of the master, where that is not the site's own. Raises Refused for a name that the
    lab does not know, SpecError for a spec directory that was broken.
    """
    plan = lab.read_plan(files)
    record = record or plan.record
    known = {entry.name: entry.address for entry in (*plan.machines, *plan.spares)}
    if name in known:
        return [*machine.ssh(files, *options, record=record), f"root@{known[name]}", *command]
    spec = load(files.specs).spec
    if name in spec.containers:  # a spare machine under the name that it was adopted with
        return [*machine.ssh(files, *options, record=record), f"root@{spec.containers[name].address}", *command]
    guest = spec.guests.get(name)
    if guest is None:
        raise Refused(f"lab: no container or guest {name}; there are {', '.join([*spec.containers, *spec.guests])}")
    address = next((i.address.partition("/")[0] for i in guest.interfaces if i.address), None)
    if address is None:
        raise Refused(f"lab: {name} has no address; reach it by: vcrecon console {name}")
    # By way of its container, which has a foot on every VLAN of its guests. A guest's host key stays the same
    # for as long as the site lives, so the first one seen is kept.
    home = spec.placement[name]
    host = known.get(home, spec.containers[home].address)
    way = shlex.join([*machine.ssh(files, record=record), "-W", "%h:%p", f"root@{host}"])
    pins = ["-o", f"UserKnownHostsFile={files.root / 'guests_known_hosts'}", "-o", "StrictHostKeyChecking=accept-new"]
    key = ["ssh", "-i", str(files.key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]
    return [*key, *pins, "-o", f"ProxyCommand={way}", *options, f"root@{address}", *command]


def run_on(name: str, script: str, files: Files, *, deadline_s: float = 120.0) -> str:
    """The output of a shell script on a container or guest. Raises Refused with its own words when it fails."""
    try:
        done = subprocess.run(
            ssh_command(name, [script], files), capture_output=True, text=True, check=False, timeout=deadline_s
        )
    except subprocess.TimeoutExpired:
        raise Refused(f"lab: {name} did not finish within {deadline_s:.0f} s: {script}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise Refused(f"lab: on {name}: {script!r} ended with status {done.returncode}: {said}")
    return done.stdout
