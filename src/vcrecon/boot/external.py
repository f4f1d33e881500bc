"""What a site with its own DHCP and TFTP servers (`mode: external`) must configure there. Pure.

Printed by `vcrecon boot show`.

The two fragments say the same: the first loader by the kind of firmware, then vcrecon's boot script over HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from vcrecon.boot import dnsmasq, ipxe
from vcrecon.spec.model import Container, Spec

TFTP_SERVER = "TFTP-SERVER"
"""Stands for the address that a person puts in."""


def instructions(spec: Spec, tftp_server: str = TFTP_SERVER) -> str:
    """Both fragments, with what to do around them."""
    return (
        f"{_about(tftp_server)}# Then configure ONE of these two on the DHCP server:\n"
        f"\n# --- ISC dhcpd: dhcpd.conf ---\n{isc_dhcpd(spec, tftp_server)}"
        f"\n# --- dnsmasq: a file in /etc/dnsmasq.d ---\n{dnsmasq_fragment(spec, tftp_server)}"
    )


def _about(tftp_server: str) -> str:
    loaders = f"{dnsmasq.BIOS_LOADER} and {dnsmasq.EFI_LOADER}"
    text = f"# On the TFTP server: put {loaders} of Debian's package ipxe (/usr/lib/ipxe) where it serves them.\n"
    return text + (f"# Replace {TFTP_SERVER} below by its address.\n" if tftp_server == TFTP_SERVER else "")


def _script_url(spec: Spec) -> str:
    return f"{ipxe.master(spec.site.provisioning)}/{dnsmasq.BOOTSTRAP}"


def _known(spec: Spec) -> Iterable[tuple[str, Container]]:
    found = [(c.mac, c) for c in spec.containers.values() if c.mac is not None]
    return sorted(found, key=lambda pair: IPv4Address(pair[1].address))


def isc_dhcpd(spec: Spec, tftp_server: str = TFTP_SERVER) -> str:
    """A fragment for ISC dhcpd 4. Kinds of firmware are numbered by RFC 4578; 16 is UEFI's HTTP boot."""
    provisioning = spec.site.provisioning
    network = IPv4Network(provisioning.network)
    lines = [
        "option architecture code 93 = unsigned integer 16;",
        "option space ipxe;",
        "option ipxe-encapsulated code 175 = encapsulate ipxe;",
        "option ipxe.no-proxy code 176 = unsigned integer 8;",
        f"subnet {network.network_address} netmask {network.netmask} {{",
        f"  next-server {tftp_server};",
        '  if exists user-class and option user-class = "iPXE" {',
        "    option ipxe.no-proxy 1;",
        f'    filename "{_script_url(spec)}";',
        "  } elsif option architecture = 00:07 or option architecture = 00:09 {",
        f'    filename "{dnsmasq.EFI_LOADER}";',
        "  } elsif option architecture != 00:10 {",
        f'    filename "{dnsmasq.BIOS_LOADER}";',
        "  }",
        "}",
    ]
    for mac, container in _known(spec):
        lines.append(f"host {container.name} {{ hardware ethernet {mac}; fixed-address {container.address}; }}")
    return "\n".join([*lines, ""])


def dnsmasq_fragment(spec: Spec, tftp_server: str = TFTP_SERVER) -> str:
    """A fragment for dnsmasq; the site's own configuration has the interface and the range."""
    hosts = [f"dhcp-host={mac},{container.address},{container.name}" for mac, container in _known(spec)]
    return "\n".join([*hosts, *dnsmasq.boot_lines(tftp_server, _script_url(spec)), ""])
