"""The configuration of dnsmasq for the provisioning network. Pure; run by `boot.dnsmasq_process`.

DHCP for the containers by MAC and for strangers from a range, TFTP for the first loader only (everything larger goes
over HTTP), router advertisements so that iPXE does not wait for them in vain. No DNS, and no interface but one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_network
from pathlib import Path

from vcrecon.spec.model import Spec

BOOTSTRAP = "boot.ipxe"
BIOS_LOADER = "undionly.kpxe"
EFI_LOADER = "snponly.efi"
STRANGERS_MAX = 128
STRANGERS_GOOD = 16
TFTP_MAX = 1000
"""Transfers at once. A request that is sent again begins another one, which stays for minutes: with dnsmasq's own limit
of 50 those fill it when a whole site is switched on at once, and then nobody's request is heard any more."""
KNOWN_LEASE = "12h"
STRANGER_LEASE = "10m"
IPXE_NO_PROXY = "encap:175,176,1b"
"""iPXE's own option: do not wait five seconds for a proxy DHCP server."""


def render(spec: Spec, *, state: Path, tftp: Path) -> str:
    """The whole configuration file; the same spec gives the same text. Leases are kept below `state`."""
    provisioning = spec.site.provisioning
    network = IPv4Network(provisioning.network)
    lines = [
        f"# Made by vcrecon for the site {spec.site.name}; what is written here by hand is lost.",
        *("port=0", "no-resolv", "no-hosts", "pid-file="),
        *(f"interface={provisioning.interface}", "except-interface=lo", "bind-dynamic"),
        *("dhcp-authoritative", "no-ping", "dhcp-ignore-clid", f"dhcp-leasefile={state / 'leases'}"),
        f"dhcp-lease-max={network.num_addresses}",
        f"dhcp-range={network.network_address},static,{network.netmask},{KNOWN_LEASE}",
    ]
    strangers = provisioning.strangers or free_range(spec)
    if strangers is not None:
        lines.append(f"dhcp-range={strangers[0]},{strangers[1]},{network.netmask},{STRANGER_LEASE}")
    for container in sorted(spec.containers.values(), key=lambda c: IPv4Address(c.address)):
        if container.mac is not None:
            lines.append(f"dhcp-host={container.mac},{container.address},{container.name},{KNOWN_LEASE}")
    lines += _options(provisioning.gateway, provisioning.dns)
    lines += boot_lines(provisioning.address)
    lines += ["enable-tftp", f"tftp-root={tftp}", f"tftp-max={TFTP_MAX}"]
    # Zeros: how often is left to dnsmasq, and this is no router to anywhere.
    lines += ["enable-ra", f"ra-param={provisioning.interface},0,0", f"dhcp-range={ra_prefix(spec)},ra-only,64"]
    return "\n".join(lines) + "\n"


def _options(gateway: str | None, dns: Iterable[str]) -> list[str]:
    """Without a value an option is not sent: dnsmasq would name itself as router and name server."""
    servers = ",".join(dns)
    return [
        f"dhcp-option=option:router,{gateway}" if gateway else "dhcp-option=option:router",
        f"dhcp-option=option:dns-server,{servers}" if servers else "dhcp-option=option:dns-server",
    ]


def boot_lines(server: str, bootstrap: str = BOOTSTRAP) -> list[str]:
    """What each kind of machine loads first (RFC 4578 numbers the kinds). Also for a site's own dnsmasq.

    16 is UEFI's own HTTP boot, which would take the TFTP file's name for an address: it gets no answer, and the
    firmware goes on with PXE.
    """
    return [
        "dhcp-match=set:ipxe,175",
        *(f"dhcp-match=set:efi,option:client-arch,{kind}" for kind in (7, 9)),
        "dhcp-match=set:httpboot,option:client-arch,16",
        "dhcp-ignore=tag:httpboot",
        f"dhcp-option=tag:ipxe,{IPXE_NO_PROXY}",
        f"dhcp-boot=tag:!ipxe,tag:!efi,{BIOS_LOADER},,{server}",
        f"dhcp-boot=tag:!ipxe,tag:efi,{EFI_LOADER},,{server}",
        f"dhcp-boot=tag:ipxe,{bootstrap},,{server}",
    ]


def free_range(spec: Spec) -> tuple[str, str] | None:
    """Addresses for strangers where the spec gives none: the highest run that nobody has, or None in a full network.

    A run of 16 is long enough; of shorter ones the longest is taken.
    """
    provisioning = spec.site.provisioning
    network = ip_network(provisioning.network)
    taken = {int(IPv4Address(container.address)) for container in spec.containers.values()}
    taken |= {int(IPv4Address(a)) for a in (provisioning.address, provisioning.gateway, *provisioning.dns) if a}
    lowest, highest = int(network.network_address) + 1, int(network.broadcast_address) - 1
    best: tuple[int, int] | None = None
    inside = sorted((number for number in taken if lowest <= number <= highest), reverse=True)
    for low, high in _runs(lowest, highest, inside):
        if best is None or high - low > best[1] - best[0]:
            best = (low, high)
        if high - low + 1 >= STRANGERS_GOOD:
            break
    if best is None:
        return None
    return str(IPv4Address(max(best[0], best[1] - STRANGERS_MAX + 1))), str(IPv4Address(best[1]))


def _runs(lowest: int, highest: int, taken: list[int]) -> Iterable[tuple[int, int]]:
    """The runs between the taken addresses (in falling order), the highest first."""
    for number in (*taken, lowest - 1):
        if number < highest:
            yield number + 1, highest
        highest = number - 1


def ra_prefix(spec: Spec) -> str:
    """A prefix of unique local addresses (RFC 4193) that is this network's own."""
    about = json.dumps([spec.site.name, spec.site.provisioning.network]).encode()
    packed = b"\xfd" + hashlib.sha256(about).digest()[:5] + bytes(10)
    return str(IPv6Address(packed))
