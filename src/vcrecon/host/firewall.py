"""The nftables rule set of a container, as text for `nft -f`. Pure; used by `host.scripts`.

Three tables carry our name, and only these are ever replaced:

- `bridge vcrecon` sees frames between a guest and its VLAN: guests send only from their own MAC and IP
  address, never a VLAN tag of their own; a port that the spec does not know hears nothing either, such as that of
  a guest which still runs on the VLAN it had before an edit; the masqueraded addresses never cross a bridge,
  neither their ARP nor their traffic, so that each guest is served by its own container; a network with a gateway
  lets out only what the spec allows.
- `ip vcrecon` turns a masqueraded address into the real service.
- `inet vcrecon` keeps guests away from the container itself and from routing through it.
"""

from __future__ import annotations

from ipaddress import ip_interface

from vcrecon.core.wanted import Firewall, GuestPort
from vcrecon.host.names import TAP_PATTERN, VLAN_PATTERN, bridge
from vcrecon.spec.model import AllowRule, Network, Service

TABLES = (("bridge", "vcrecon"), ("ip", "vcrecon"), ("inet", "vcrecon"))
END = "# complete"
"""The last line. What was cut off between two tables on its way would be a rule set of its own."""


def render(firewall: Firewall) -> str:
    """The whole rule set; loading it replaces the earlier one in one transaction."""
    fresh = "".join(f"table {family} {name}\ndelete table {family} {name}\n" for family, name in TABLES)
    tables = _bridge_table(firewall) + _nat_table(firewall.services, firewall.networks) + _inet_table(firewall)
    return f"{fresh}{tables}{END}\n"


def _set(name: str, kind: str, elements: list[str]) -> str:
    body = f"        elements = {{ {', '.join(elements)} }}\n" if elements else ""
    return f"    set {name} {{\n        type {kind}\n{body}    }}\n"


def _bridge_table(firewall: Firewall) -> str:
    taps = sorted(port.tap for port in firewall.ports)
    macs = sorted(f"{port.tap} . {port.mac}" for port in firewall.ports)
    pairs = sorted(
        f"{port.tap} . {port.mac} . {ip_interface(port.address).ip}"
        for port in firewall.ports
        if port.address is not None
    )
    services = sorted({service.address for service in firewall.services})
    not_ours = f'oifname "{TAP_PATTERN}" oifname != @taps drop'
    guarded = [network for network in firewall.networks if network.gateway is not None]
    text = "table bridge vcrecon {\n"
    text += _set("taps", "ifname", taps)
    text += _set("macs", "ifname . ether_addr", macs)
    text += _set("pairs", "ifname . ether_addr . ipv4_addr", pairs)
    text += _set("services", "ipv4_addr", services)
    text += _chain(
        "honest",
        None,
        [
            "iifname . ether saddr != @macs drop",
            "ether type vlan drop",
            "ether type 0x88a8 drop",
            "ether type arp iifname . ether saddr . arp saddr ip != @pairs drop",
            "ether type arp iifname . arp saddr ether != @macs drop",
            "ether type ip iifname . ether saddr . ip saddr != @pairs drop",
        ],
    )
    for network in guarded:
        text += _chain(f"out-{network.vlan}", None, _outside_rules(network, firewall.ports))
    text += _chain(
        "forward",
        "type filter hook forward priority 0; policy accept;",
        [
            "ip daddr @services drop",
            "ip saddr @services drop",
            "arp daddr ip @services drop",
            "arp saddr ip @services drop",
            f'iifname "{TAP_PATTERN}" jump honest',
            not_ours,
            *(f'obrname "{bridge(network.vlan)}" jump out-{network.vlan}' for network in guarded),
        ],
    )
    text += _chain(
        "input", "type filter hook input priority 0; policy accept;", [f'iifname "{TAP_PATTERN}" jump honest']
    )
    # The container talks to its own guests only: not even an ARP request of its own reaches a trunk.
    text += _chain(
        "output",
        "type filter hook output priority 0; policy accept;",
        [f'oifname "{VLAN_PATTERN}" drop', not_ours],
    )
    return text + "}\n"


def _outside_rules(network: Network, ports: tuple[GuestPort, ...]) -> list[str]:
    """What guests may send on a network with a gateway: as the spec allows, and nothing else.

    Not to their neighbours there either: those are other clusters' heads (S12).
    """
    rules = [
        f'iifname != "{TAP_PATTERN}" accept',
        "ether type arp accept",
    ]
    rules.append("ct state established,related accept")
    for rule in network.allow:
        macs = sorted(p.mac for p in ports if p.vlan == network.vlan and p.role in rule.roles)
        if macs:
            rules += [f"ether saddr {{ {', '.join(macs)} }} {match} accept" for match in _matches(rule)]
    return [*rules, "drop"]


def _matches(rule: AllowRule) -> list[str]:
    matches = []
    for protocol, numbers in (("tcp", rule.tcp), ("udp", rule.udp)):
        if numbers:
            matches.append(f"ip daddr {rule.to} {protocol} dport {{ {', '.join(map(str, numbers))} }}")
    return matches or [f"ip daddr {rule.to}"]


def _nat_table(services: tuple[Service, ...], networks: tuple[Network, ...]) -> str:
    subnets = sorted({network.subnet for network in networks})
    forwards = [
        f'iifname "vcbr*" ip daddr {service.address} tcp dport {service.port} dnat to {service.to}'
        for service in services
    ]
    return (
        "table ip vcrecon {\n"
        + _chain("prerouting", "type nat hook prerouting priority -100; policy accept;", forwards)
        + _chain(
            "postrouting",
            "type nat hook postrouting priority 100; policy accept;",
            [f"ip saddr {{ {', '.join(subnets)} }} ct status dnat masquerade"] if subnets else [],
        )
        + "}\n"
    )


def _inet_table(firewall: Firewall) -> str:
    return (
        "table inet vcrecon {\n"
        + _chain(
            "input",
            "type filter hook input priority 0; policy accept;",
            [
                'iifname "vcbr*" ct state established,related accept',
                'iifname "vcbr*" ct status dnat accept',
                'iifname "vcbr*" drop',
            ],
        )
        + _chain(
            "forward",
            "type filter hook forward priority 0; policy accept;",
            [
                'iifname "vcbr*" ct status dnat accept',
                'oifname "vcbr*" ct state established,related accept',
                'iifname "vcbr*" drop',
                'oifname "vcbr*" drop',
            ],
        )
        + "}\n"
    )


def _chain(name: str, hook: str | None, rules: list[str]) -> str:
    lines = [f"        {hook}"] if hook else []
    lines += [f"        {rule}" for rule in rules]
    return f"    chain {name} {{\n" + "".join(f"{line}\n" for line in lines) + "    }\n"
