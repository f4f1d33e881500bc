"""KVM through libvirt's `virsh`. The mark and the definition's digest are the domain's title.

The title is what `virsh list` shows, so that one resident `virsh -q` answers a whole look in two lines;
a new virsh process costs the host 25 times as much.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from vcrecon.core.observation import Domain, DomainState
from vcrecon.hypervisor.base import Launch, Port

_ROW = re.compile(
    r"^\s*(?P<id>\d+|-)\s+(?P<name>\S+)\s+"
    r"(?P<state>running|idle|paused|in shutdown|shut off|crashed|pmsuspended|dying|no state)"
    r"(?:\s+(?P<title>\S.*?))?\s*$"
)
_TITLE = re.compile(r"^vcrecon site=(?P<site>\S+) def=(?P<definition>\S+)$")
_STATES: dict[str, DomainState] = {
    "running": "running",
    "idle": "running",
    "no state": "running",
    "paused": "paused",
    "pmsuspended": "paused",
    "in shutdown": "stopping",
    "dying": "stopping",
    "shut off": "off",
    "crashed": "off",
}
# virDomainShutoffReason in libvirt's public API
_OFF_REASONS = (
    "unknown",
    "shutdown",
    "destroyed",
    "crashed",
    "migrated",
    "saved",
    "failed",
    "from-snapshot",
    "daemon",
)


class Kvm:
    """See `hypervisor.base.Hypervisor`."""

    name = "kvm"
    resident: str | None = "virsh -q"
    look: tuple[str, ...] = ("list --all --title", "domstats --state")
    watch = "virsh event --all --loop --timestamp"

    def parse(self, answers: Sequence[str], site: str, boot_id: str) -> tuple[Domain, ...]:
        listing, stats = answers
        reasons = _reasons(stats)
        domains = []
        for line in listing.splitlines():
            if not line.strip():
                continue
            row = _ROW.match(line)
            if row is None:
                raise ValueError(f"virsh list said: {line.strip()[:200]!r}")
            title = _TITLE.match(row["title"] or "")
            if title is None or title["site"] != site:
                continue
            state = _STATES[row["state"]]
            reason = "crashed" if row["state"] == "crashed" else reasons.get(row["name"], "")
            domains.append(
                Domain(
                    row["name"],
                    state,
                    serial=f"{boot_id}/{row['id']}" if state != "off" else "",
                    reason=reason if state == "off" else "",
                    definition=title["definition"],
                )
            )
        return tuple(domains)

    def strangers(self, answers: Sequence[str], site: str) -> frozenset[str]:
        rows = (_ROW.match(line) for line in answers[0].splitlines())
        titles = ((row["name"], _TITLE.match(row["title"] or "")) for row in rows if row)
        return frozenset(name for name, title in titles if title is None or title["site"] != site)

    def define(self, launch: Launch) -> tuple[list[str], bytes]:
        return ["virsh -q define /dev/stdin >/dev/null"], domain_xml(launch).encode()

    def start(self, guest: str) -> list[str]:
        return [
            f'if [ "$(virsh -q domstate {guest})" = running ]; then exit 0; fi',
            f"virsh -q start {guest} >/dev/null",
        ]

    def stop(self, guest: str, *, force: bool) -> list[str]:
        verb = "destroy" if force else "shutdown"
        return [
            f'if [ "$(virsh -q domstate {guest})" = "shut off" ]; then exit 0; fi',
            f"virsh -q {verb} {guest} >/dev/null",
        ]

    def require_off(self, guest: str, status: int) -> list[str]:
        # Asked for the whole list: a libvirt that does not answer ends the script, and is not taken for "off".
        return [
            "active=$(virsh -q list --name)",
            f"if printf '%s\\n' \"$active\" | grep -q -x -F -e {guest}; then",
            f"  echo '{guest} still runs' >&2",
            f"  exit {status}",
            "fi",
        ]

    def console(self, guest: str) -> str:
        return f"virsh console {guest}"

    def forget(self, guest: str) -> list[str]:
        return [f"if virsh -q domstate {guest} >/dev/null 2>&1; then virsh -q undefine {guest} >/dev/null; fi"]


def _reasons(stats: str) -> dict[str, str]:
    """Domain name to the reason it is off, from `virsh domstats --state`."""
    found: dict[str, str] = {}
    name, state = "", ""
    for line in stats.splitlines():
        text = line.strip()
        if text.startswith("Domain: '"):
            name = text[len("Domain: '") : -1]
        elif text.startswith("state.state="):
            state = text.removeprefix("state.state=")
        elif text.startswith("state.reason=") and state == "5":
            index = int(text.removeprefix("state.reason="))
            found[name] = _OFF_REASONS[index] if index < len(_OFF_REASONS) else "unknown"
    return found


def _interface(port: Port) -> str:
    return (
        "    <interface type='bridge'>\n"
        f"      <mac address={quoteattr(port.mac)}/>\n"
        f"      <source bridge={quoteattr(port.bridge)}/>\n"
        f"      <target dev={quoteattr(port.tap)}/>\n"
        "      <model type='virtio'/>\n"
        "      <rom enabled='no'/>\n"
        "    </interface>\n"
    )


def domain_xml(launch: Launch) -> str:
    """The libvirt domain. On a crash or power-off it stays off: vcrecon decides what follows."""
    guest = launch.guest
    boot = ""
    if launch.kernel:
        boot += f"    <kernel>{escape(launch.kernel)}</kernel>\n"
        if launch.initrd:
            boot += f"    <initrd>{escape(launch.initrd)}</initrd>\n"
        boot += f"    <cmdline>{escape(launch.cmdline)}</cmdline>\n"
    return (
        "<domain type='kvm'>\n"
        f"  <name>{escape(guest.name)}</name>\n"
        f"  <uuid>{launch.uuid}</uuid>\n"
        f"  <title>vcrecon site={escape(launch.site)} def={launch.definition}</title>\n"
        f"  <memory unit='b'>{guest.memory_bytes}</memory>\n"
        f"  <vcpu>{guest.cores}</vcpu>\n"
        "  <os>\n"
        "    <type arch='x86_64' machine='q35'>hvm</type>\n"
        f"{boot}"
        "  </os>\n"
        "  <features><acpi/><apic/></features>\n"
        "  <cpu mode='host-passthrough'/>\n"
        "  <on_poweroff>destroy</on_poweroff>\n"
        "  <on_reboot>restart</on_reboot>\n"
        "  <on_crash>destroy</on_crash>\n"
        "  <devices>\n"
        "    <disk type='block' device='disk'>\n"
        "      <driver name='qemu' type='raw' cache='none' discard='unmap'/>\n"
        f"      <source dev={quoteattr(launch.disk)}/>\n"
        "      <target dev='vda' bus='virtio'/>\n"
        "    </disk>\n"
        f"{''.join(_interface(port) for port in launch.ports)}"
        "    <serial type='pty'/>\n"
        "    <console type='pty'/>\n"
        "    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>\n"
        "    <panic model='isa'/>\n"
        "    <memballoon model='none'/>\n"
        "  </devices>\n"
        "</domain>\n"
    )
