"""Xen through `xl`. The mark and the definition's digest are the first line of the guest's configuration file.

The file lives in /run: like Xen's domains it is gone after a reboot of the host, and is written at each start.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vcrecon.core.observation import Domain, DomainState
from vcrecon.hypervisor.base import Launch

_DIR = "/run/vcrecon/xen"
_END = "# end"
_MARK = re.compile(
    r"^(?P<file>.*/)?(?P<name>[^/:]+)\.cfg:# vcrecon site=(?P<site>\S+) uuid=(?P<uuid>\S+) def=(?P<definition>\S+)$"
)
_LOGS = "/var/log/xen/xl-*.log"
_DOWN = re.compile(r"^(?:.*/)?xl-(?P<name>[^/:]+)\.log:Domain \d+ has shut down, reason code (?P<code>\d+)\b")
# SHUTDOWN_* of Xen's public sched.h, in libvirt's words
_OFF_REASONS = {0: "shutdown", 1: "rebooted", 2: "saved", 3: "crashed", 4: "crashed"}
_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")


class Xen:
    """See `hypervisor.base.Hypervisor`."""

    name = "xen"
    resident: str | None = None
    look: tuple[str, ...] = (
        "xl list -v",
        f"grep -s -H '^# vcrecon' {_DIR}/*.cfg || true",
        # xl begins a new log with each domain, and says there why it went down: `xl list` forgets it.
        f"grep -s -H 'has shut down, reason code' {_LOGS} || true",
    )
    watch = "xenstore-watch @introduceDomain @releaseDomain"

    def parse(self, answers: Sequence[str], site: str, boot_id: str) -> tuple[Domain, ...]:
        listing, marks, logs = answers
        reasons = _reasons(logs)
        known = {m["name"]: m for m in map(_MARK.match, marks.splitlines()) if m and m["site"] == site}
        by_uuid = {mark["uuid"]: mark for mark in known.values()}
        rows = listing.splitlines()
        if not rows or not rows[0].startswith("Name"):
            raise ValueError(f"xl list said: {listing.strip()[:200]!r}")
        domains = {
            name: Domain(name, "off", reason=reasons.get(name, ""), definition=mark["definition"])
            for name, mark in known.items()
        }
        for row in rows[1:]:
            fields = row.split()
            uuid = _UUID.search(row)
            if len(fields) < 6 or uuid is None:
                raise ValueError(f"xl list said: {row.strip()[:200]!r}")
            # By UUID: a domain that is being torn down has lost its name, "(null)", and not yet its disk.
            mark = by_uuid.get(uuid[0])
            if mark is not None:
                found = Domain(mark["name"], _state(fields[4]), f"{boot_id}/{fields[1]}", "", mark["definition"])
                if found.state != "stopping" or not domains[found.guest].active:
                    domains[found.guest] = found
        return tuple(domains.values())

    def strangers(self, answers: Sequence[str], site: str) -> frozenset[str]:
        listing, marks, _ = answers
        found = [m for m in map(_MARK.match, marks.splitlines()) if m]
        ours = {mark["uuid"] for mark in found if mark["site"] == site}
        others = {mark["name"] for mark in found if mark["site"] != site}
        for row in listing.splitlines()[1:]:
            uuid = _UUID.search(row)
            if uuid is not None and uuid[0] not in ours:
                others.add(row.split()[0])
        return frozenset(others)

    def define(self, launch: Launch) -> tuple[list[str], bytes]:
        file = f"{_DIR}/{launch.guest.name}.cfg"
        lines = [
            f"mkdir -p {_DIR}",
            f"cat > {file}.new",
            # A definition that was cut off on its way would start a guest without its network.
            f"if ! tail -n 1 {file}.new | grep -q -x '{_END}'; then",
            "  echo 'the definition was cut off on its way' >&2",
            "  exit 1",
            "fi",
            f"mv {file}.new {file}",
        ]
        return lines, config(launch).encode()

    def start(self, guest: str) -> list[str]:
        log = f"/var/log/xen/xl-{guest}.log"
        return [
            f"if xl list {guest} >/dev/null 2>&1; then exit 0; fi",
            # What it says of an earlier shutdown must not be taken for the end of a start that fails.
            f"if [ -e {log} ]; then mv {log} {log}.before; fi",
            f"xl create {_DIR}/{guest}.cfg >/dev/null",
        ]

    def stop(self, guest: str, *, force: bool) -> list[str]:
        verb = "destroy" if force else "shutdown"
        # It may go down by itself meanwhile; and a kernel that does not listen refuses a request (never a
        # destroy), which is no failure: after the grace time its plug is pulled.
        then = f"! xl list {guest} >/dev/null 2>&1" if force else "true"
        return [f"if xl list {guest} >/dev/null 2>&1; then xl {verb} {guest} >/dev/null || {then}; fi"]

    def require_off(self, guest: str, status: int) -> list[str]:
        # Asked for the whole list: an xl that does not answer ends the script, and is not taken for "off".
        return [
            "active=$(xl list)",
            f"if printf '%s\\n' \"$active\" | cut -d ' ' -f 1 | grep -q -x -F -e {guest}; then",
            f"  echo '{guest} still runs' >&2",
            f"  exit {status}",
            "fi",
        ]

    def console(self, guest: str) -> str:
        return f"xl console {guest}"

    def forget(self, guest: str) -> list[str]:
        return [f"rm -f {_DIR}/{guest}.cfg"]


def _reasons(logs: str) -> dict[str, str]:
    """Domain name to why it last went down by itself; nothing for one that was destroyed."""
    found = {}
    for line in logs.splitlines():
        row = _DOWN.match(line)
        if row is not None:
            found[row["name"]] = _OFF_REASONS.get(int(row["code"]), "unknown")
    return found


def _state(flags: str) -> DomainState:
    """From xl's r-b-p-s-c-d column."""
    if "c" in flags or "d" in flags or "s" in flags:
        return "stopping"
    return "paused" if "p" in flags else "running"


def _cmdline(text: str) -> str:
    """The kernel's command line with Xen's names for the disk and for the console."""
    return re.sub(r"(?<!\S)console=ttyS0(,\S*)?(?!\S)", "console=hvc0", text.replace("/dev/vda", "/dev/xvda"))


def config(launch: Launch) -> str:
    """The xl configuration of a PVH guest; PVH wants tsc_mode native where the host itself is emulated."""
    guest = launch.guest
    vifs = ", ".join(
        f"'mac={port.mac},bridge={port.bridge},vifname={port.tap},script=vif-bridge'" for port in launch.ports
    )
    lines = [
        f"# vcrecon site={launch.site} uuid={launch.uuid} def={launch.definition}",
        f'name = "{guest.name}"',
        f'uuid = "{launch.uuid}"',
        'type = "pvh"',
        f"memory = {guest.memory_bytes // 1024**2}",
        f"vcpus = {guest.cores}",
        'tsc_mode = "native"',
    ]
    if launch.kernel:
        lines.append(f'kernel = "{launch.kernel}"')
    if launch.initrd:
        lines.append(f'ramdisk = "{launch.initrd}"')
    lines += [
        f'cmdline = "{_cmdline(launch.cmdline)}"',
        f"disk = ['phy:{launch.disk},xvda,w']",
        f"vif = [{vifs}]",
        'on_poweroff = "destroy"',
        'on_reboot = "restart"',
        'on_crash = "destroy"',
        _END,
    ]
    return "\n".join(lines) + "\n"
