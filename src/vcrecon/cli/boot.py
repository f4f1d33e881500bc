"""The commands `boot …`: what a site must configure that runs a part of the boot services itself."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address
from typing import Annotated

import typer

from vcrecon.cli import options
from vcrecon.errors import Refused

app = typer.Typer(
    name="boot",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="What machines meet that boot from the network.",
)


class Server(StrEnum):
    """DHCP servers that there is a configuration for."""

    ISC_DHCPD = "isc-dhcpd"
    DNSMASQ = "dnsmasq"


@app.callback()
def boot() -> None:
    """What machines meet that boot from the network."""


@app.command("show", short_help="Print what your own DHCP server, or nginx, must be told.")
def show(
    specs: options.Specs,
    server: Annotated[
        Server | None,
        typer.Option("--external", help="Only the fragment for this DHCP server.", show_default=False),
    ] = None,
    tftp_server: Annotated[
        str | None,
        typer.Option("--tftp-server", metavar="ADDRESS", help="Of the server that has iPXE's loaders."),
    ] = None,
    nginx: Annotated[bool, typer.Option("--nginx", help="A site for nginx, which then serves the files.")] = False,
) -> None:
    """Print the configuration of what you run yourself in the place of vcrecon's own boot services.

    A site with its own DHCP (`mode: external`) gets a fragment for it; without an option both are printed, with what
    to do around them. With --nginx: a file for /etc/nginx/sites-enabled.
    """
    from vcrecon.boot import external
    from vcrecon.boot.nginx import render
    from vcrecon.spec.load import load

    if nginx and (server or tftp_server):
        raise Refused("--nginx is a configuration of its own: leave --external and --tftp-server out")
    spec = load(specs).spec
    if not spec.site.provisioning.address:
        raise Refused(
            f"{specs}/site.yaml has no `address` under provisioning: write the master's own address there, which "
            "machines fetch their boot scripts from"
        )
    where = external.TFTP_SERVER if tftp_server is None else _address(tftp_server)
    if nginx:
        text = render(spec)
    elif server is Server.ISC_DHCPD:
        text = external.isc_dhcpd(spec, where)
    elif server is Server.DNSMASQ:
        text = external.dnsmasq_fragment(spec, where)
    else:
        text = external.instructions(spec, where)
    typer.echo(text, nl=False)


def _address(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise Refused(f"--tftp-server {text}: write its IPv4 address, such as 10.0.0.5") from None
