"""VLANs, bridges, service addresses and routes of a container, as scripts. Used by `host.scripts`.

The firewall comes first, so that no bridge ever carries a frame without its rules (S12). Nothing is made
persistent on the host: after a reboot the next look finds the network missing and puts it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vcrecon.core.wanted import WantedBridge
from vcrecon.host.firewall import END, TABLES
from vcrecon.host.names import FIREWALL_FILE, MARK, RUN_DIR, bridge, bridge_mac, vlan_link
from vcrecon.host.steps import quote

LIST_RULES = " ".join(f"nft -s list table {family} {name};" for family, name in TABLES)
"""Counters left out (-s): the same rules give the same text."""


def set_up_firewall(digest: str) -> list[str]:
    """Load the rules from standard input, and remember what the kernel made of them.

    Later looks compare the kernel's listing with that sum, so any change by hand shows, without vcrecon
    having to know how nft prints each rule.
    """
    return [
        "rules=$(cat)",
        "case $rules in",
        f"  *{quote(END)}) ;;",
        "  *) echo 'the rules were cut off on their way' >&2; exit 1 ;;",
        "esac",
        f"mkdir -p {RUN_DIR}",
        "sysctl -q -w net.ipv4.ip_forward=1 net.ipv4.conf.all.arp_ignore=1",
        "sysctl -q -e -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0"
        " net.bridge.bridge-nf-call-arptables=0",
        "printf '%s\\n' \"$rules\" | nft -f -",
        f"sum=$({{ {LIST_RULES} }} | sha256sum | cut -d ' ' -f 1)",
        f'echo "{digest} $sum" > {FIREWALL_FILE}',
    ]


def set_up_bridge(wanted: WantedBridge, trunk: str, site: str, taps: Iterable[str]) -> list[str]:
    """Make or mend one VLAN's bridge; `taps` are ports of running guests that belong on it."""
    br, vlan, mark = bridge(wanted.vlan), vlan_link(wanted.vlan), quote(f"{MARK} {site}")
    lines = [
        f"ip link set dev {trunk} up",
        f"ip link show dev {br} >/dev/null 2>&1 ||",
        # The address is the mark of one that was cut off before it had its alias, which a kernel takes only later.
        f"  ip link add name {br} address {bridge_mac(wanted.vlan)} type bridge"
        " stp_state 0 forward_delay 0 mcast_snooping 0",
        f"ip link set dev {br} address {bridge_mac(wanted.vlan)}",
        f"ip link set dev {br} alias {mark}",
        f"ip link show dev {vlan} >/dev/null 2>&1 ||",
        f"  ip link add link {trunk} name {vlan} type vlan id {wanted.vlan}",
        f"ip link set dev {vlan} alias {mark}",
        f"ip link set dev {vlan} master {br}",
        f"ip link set dev {vlan} up",
        f"ip link set dev {br} up",
    ]
    lines += [f"ip addr replace {address} dev {br}" for address in sorted(wanted.addresses)]
    lines += [f"ip route replace {route} dev {br}" for route in sorted(wanted.routes)]
    for tap in taps:
        lines.append(f"if ip link show dev {tap} >/dev/null 2>&1; then ip link set dev {tap} master {br}; fi")
    return lines


def remove_bridge(vlan: int) -> list[str]:
    """Remove a VLAN that no guest here uses any more."""
    return [
        f"if ip link show dev {name} >/dev/null 2>&1; then ip link del dev {name}; fi"
        for name in (vlan_link(vlan), bridge(vlan))
    ]


def set_up(
    bridges: Mapping[int, WantedBridge],
    vlans: Iterable[int],
    leftovers: Iterable[int],
    *,
    trunk: str,
    site: str,
    taps: Mapping[int, list[str]],
) -> list[str]:
    """The commands that make the named VLANs right and take the leftovers away."""
    lines: list[str] = []
    for vlan in vlans:
        lines += set_up_bridge(bridges[vlan], trunk, site, taps.get(vlan, []))
    for vlan in leftovers:
        lines += remove_bridge(vlan)
    return lines
