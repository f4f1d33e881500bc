"""`boot show`: what a site must tell its own DHCP server, or nginx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_site import Type

from vcrecon.boot import external, nginx
from vcrecon.spec.load import load
from vcrecon.spec.model import Spec
from vcrecon.spec.rewrite import rewrite

ADDRESS = "10.64.0.1"


def bootable(specs: Path, **provisioning: Any) -> Spec:
    """The spec of a site with its own DHCP, one of whose containers can be installed."""
    values = {"mode": "external", "address": ADDRESS, "images": "/srv/vcrecon", **provisioning}
    rewrite(specs / "site.yaml", lambda document: document["provisioning"].update(values))
    return load(specs).spec


@pytest.mark.parametrize(
    ("server", "fragment"), [("isc-dhcpd", external.isc_dhcpd), ("dnsmasq", external.dnsmasq_fragment)]
)
def test_the_fragment_for_a_dhcp_server_is_all_that_is_printed(
    server: str, fragment: Any, vcrecon: Type, specs: Path
) -> None:
    spec = bootable(specs)
    done = vcrecon("boot", "show", specs, "--external", server, "--tftp-server", "10.64.0.5")
    assert done.code == 0
    assert done.out == fragment(spec, "10.64.0.5")
    assert "10.64.0.5" in done.out
    assert external.TFTP_SERVER not in done.out


def test_without_an_option_both_are_printed_with_what_to_do(vcrecon: Type, specs: Path) -> None:
    spec = bootable(specs)
    done = vcrecon("boot", "show", specs)
    assert (done.code, done.out) == (0, external.instructions(spec))
    assert f"Replace {external.TFTP_SERVER}" in done.out
    named = vcrecon("boot", "show", specs, "--tftp-server", "10.64.0.5").out
    assert external.TFTP_SERVER not in named


def test_nginx_is_told_where_vcrecon_listens(vcrecon: Type, specs: Path) -> None:
    spec = bootable(specs, nginx_port=9068)
    done = vcrecon("boot", "show", specs, "--nginx")
    assert (done.code, done.out) == (0, nginx.render(spec))
    assert "proxy_pass http://127.0.0.1:9068;" in done.out
    assert f"listen {ADDRESS}:8067;" in done.out


def test_a_site_without_an_address_of_the_master_is_told_to_name_it(vcrecon: Type, specs: Path) -> None:
    done = vcrecon("boot", "show", specs)
    assert done.code == 1
    assert "has no `address` under provisioning" in done.err


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--nginx", "--external", "dnsmasq"), "--nginx is a configuration of its own"),
        (("--tftp-server", "tftp;"), "--tftp-server tftp;: write its IPv4 address"),
    ],
)
def test_what_makes_no_sense_is_refused(options: tuple[str, ...], why: str, vcrecon: Type, specs: Path) -> None:
    bootable(specs)
    done = vcrecon("boot", "show", specs, *options)
    assert (done.code, done.out) == (1, "")
    assert why in done.err
