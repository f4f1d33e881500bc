"""Runs a site's own hooks against a guest's mounted tree, on its container. Scripts only; used by `host.scripts`.

Hooks may hold secrets (S10): they travel on standard input, in front of the context, and are for a moment in a
directory of their own in /run, which is memory and root's alone. /run is mounted noexec on Debian, so each hook is
given to its interpreter instead of being executed.
"""

from __future__ import annotations

import io
import json
import posixpath
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass

from vcrecon.core.facts import facts, peers
from vcrecon.host.names import RUN_DIR
from vcrecon.host.steps import quote, refuse
from vcrecon.spec.model import Guest, Hook, Spec

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KILL_AFTER_S = 5.0
SAID_BYTES_MAX = 2000
SAID_SHOWN_MAX = 200


@dataclass(frozen=True, slots=True)
class Hooks:
    """The hooks of one guest. `archive` is the first part of the step's standard input; times are seconds."""

    guest: Guest
    deadline_s: float
    archive: bytes
    kill_after_s: float = KILL_AFTER_S

    @property
    def directory(self) -> str:
        """Where they are for a moment, with the facts: readable by root alone."""
        return f"{RUN_DIR}/hooks/{self.guest.name}"

    @property
    def longest_s(self) -> float:
        """More than all of them together can take."""
        return len(self.guest.hooks) * (self.deadline_s + 2 * self.kill_after_s)

    def unpack(self) -> list[str]:
        """Take them from standard input. `head` takes as many bytes as it was told and leaves the rest."""
        return [
            f"mkdir -p {posixpath.dirname(self.directory)}",
            f"rm -rf {self.directory}",
            f"mkdir -m 700 {self.directory}",
            f"head -c {len(self.archive)} | tar -x -C {self.directory} -f -",
        ]

    def run(self, root: str) -> list[str]:
        """Run them one after the other on the tree at `root`; the first that fails ends the step."""
        lines = self._function(root)
        for index, hook in enumerate(self.guest.hooks):
            words = (hook.name, *hook.interpreter, f"{self.directory}/{_place(index, hook)}")
            lines.append("hook " + " ".join(quote(word) for word in words))
        return lines

    def _function(self, root: str) -> list[str]:
        limit, longest = f"{self.deadline_s:g}", f"{self.deadline_s + 2 * self.kill_after_s:g}"
        work = self.directory
        environment = {
            "PATH": PATH,
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            "VCRECON_ROOT": root,
            "VCRECON_FACTS": f"{work}/facts.json",
            "VCRECON_NODES": f"{work}/nodes",
            "VCRECON_GUEST": self.guest.name,
            "VCRECON_ROLE": self.guest.role,
            "VCRECON_CLUSTER": self.guest.cluster or "",
        }
        settings = " ".join(f"{name}={quote(value)}" for name, value in environment.items())
        fix = "mend it in the spec directory: it is tried again when it is saved"
        return [
            "hook() {",
            "  name=$1",
            "  shift",
            "  {",
            "    status=0",
            f'    (cd {root} && umask 022 && exec env -i {settings} VCRECON_HOOK="$name" \\',
            f'      timeout -k {self.kill_after_s:g} {limit} "$@") </dev/null 2>&1 >/dev/null || status=$?',
            f"    echo $status > {work}/status",
            # Whatever a hook leaves behind and still holds its standard error must not hold this step.
            f"  }} | timeout {longest} tail -c {SAID_BYTES_MAX} > {work}/said || true",
            f"  read -r status < {work}/status",
            "  case $status in",
            "    0) return ;;",
            f"    124) how='still ran after {limit} s' ;;",
            f"    137) how='was killed: out of memory, or it did not end when told to after {limit} s' ;;",
            '    *) how="exit status $status" ;;',
            "  esac",
            f"  said=$(grep . {work}/said | tail -n 1 | cut -c 1-{SAID_SHOWN_MAX})",
            f"  {refuse('hook-failed', f'hook $name of {self.guest.name}: $how: ${{said:-it said nothing}}; {fix}')}",
            "}",
        ]


def prepare(spec: Spec, guest: Guest) -> Hooks | None:
    """What the hooks of `guest` need, or None when it has none."""
    if not guest.hooks:
        return None
    nodes = peers(spec, guest.cluster)
    rows = ((name, address or "-", role, cores, size >> 20) for name, address, role, cores, size in nodes)
    files = {
        "facts.json": json.dumps(facts(spec, guest), indent=1).encode() + b"\n",
        "nodes": "".join(f"{' '.join(map(str, row))}\n" for row in rows).encode(),
    }
    return Hooks(guest, spec.site.hook_deadline_s, _archive(guest.hooks, files))


def _place(index: int, hook: Hook) -> str:
    """Two directories may hold hooks of the same name."""
    return f"{index:03}/{posixpath.basename(hook.name)}"


def _archive(hooks: Sequence[Hook], files: dict[str, bytes]) -> bytes:
    entries = {_place(index, hook): hook.content for index, hook in enumerate(hooks)} | files
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in entries.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(content), 0o600
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
