"""The lease on a container: a section of the look that shows it and, where it is ours to hold, renews it.

Called by `host.look`; `release` by `controller` when it stops. The file has one line, `NAME GENERATION UPTIME TITLE`,
and lives in /run: a container that boots anew belongs to whoever looks first. Times are the container's own uptime, so
no two clocks are compared.
"""

from __future__ import annotations

import re

from vcrecon.core.mastery import Master
from vcrecon.core.observation import FoundLease, Lease
from vcrecon.host.names import RUN_DIR
from vcrecon.host.steps import printable, quote

LEASE_FILE = f"{RUN_DIR}/master"
_LOCK_S = 5
_NOBODY = "-"
"""In the place of a name: the master of this generation gave the container up."""
_TITLE = re.compile(r"[^A-Za-z0-9@:/._+-]+")

_READ = f"""\
name= gen=0 at=0 title=
if [ -s {LEASE_FILE} ]; then read -r name gen at title <{LEASE_FILE} || :; fi
case $gen in ''|0?*|*[!0-9]*) name= gen=0 at=0;; esac
case $at in ''|0?*|*[!0-9]*) name= gen=0 at=0;; esac
read -r up idle </proc/uptime; up=${{up%%.*}}"""
"""What the file says, and now; a line that is not one counts as none."""


def show_and_renew(master: Master) -> str:
    """The commands. They may run twice: a lease that was renewed is renewed again.

    It is taken when it is free, ours, void, of a lower generation, or given up by one of our generation. Only then, and
    when a third of its time is over, is the lock taken and the file written; otherwise nothing but the shell's own
    commands runs. What lay there before is shown as well: it tells a new record that the site was in use.
    """
    take = f"""\
set -eu
{_READ}
if [ -z "$name" ] || [ "$name" = {master.name} ] || [ $gen -lt {master.generation} ] \
|| [ "$name $gen" = "{_NOBODY} {master.generation}" ] || [ $((up - at)) -ge {master.lease_s} ] || [ $up -lt $at ]; then
  echo "{master.name} {master.generation} $up {title(master)}" >{LEASE_FILE}
fi"""
    return f"""\
(
{_READ}
found="${{name:+$name $((up - at)) $title}}"
if [ "$name $gen" != "{master.name} {master.generation}" ] || [ $((up - at)) -ge {max(1, master.lease_s // 3)} ]; then
  mkdir -p {RUN_DIR} && flock -w {_LOCK_S} {LEASE_FILE}.lock sh -c {quote(take)} || exit
{_READ}
fi
echo "$name $gen $((up - at)) $title"
echo "$found"
)"""


def release(master: Master) -> str:
    """The command by which a master that stops gives a container up; one that is another's is left as it is.

    The generation stays in place for the time of a lease: while its master is started anew, one of a lower generation,
    whose spec may be old, must not slip in. It may run twice. Its status is 0 when no lease of ours is left.
    """
    drop = f"""\
set -eu
{_READ}
if [ "$name $gen" = "{master.name} {master.generation}" ]; then
  echo "{_NOBODY} $gen $up $title" >{LEASE_FILE}
fi"""
    return f"[ ! -e {LEASE_FILE} ] || flock -w {_LOCK_S} {LEASE_FILE}.lock sh -c {quote(drop)}"


def title(master: Master) -> str:
    """The master's title as one word that no shell minds."""
    return _TITLE.sub("_", master.title)[:120] or "unknown"


def parse_lease(text: str, master: Master) -> Lease:
    """The lease that a look showed to `master`. Raises ValueError for anything else."""
    now, _, before = text.strip("\n").partition("\n")
    match = re.fullmatch(r"([^ ]+) ([0-9]{1,18}) (-?[0-9]{1,18}) (.*)", now)
    lay = re.fullmatch(r"([^ ]+) (-?[0-9]{1,18}) (.*)", before)
    if match is None or (before and lay is None):
        raise ValueError(f"the lease is {text.strip()[:80]!r}")
    found = None
    if lay is not None:
        ours = lay[1] == master.name or (lay[1] == _NOBODY and lay[3] == title(master))
        found = FoundLease(int(lay[2]), ours)
    return Lease(match[1], int(match[2]), int(match[3]), printable(match[4])[:120], match[1] == master.name, found)
