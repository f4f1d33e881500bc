"""dnsmasq: the generated configuration, for us, for a site's own server, and for nginx beside it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from boot_site import MAC, a_boot_spec, a_container

from vcrecon.boot import external, nginx
from vcrecon.boot.dnsmasq import STRANGERS_MAX, free_range, ra_prefix, render
from vcrecon.boot.dnsmasq_process import tftp_directory
from vcrecon.errors import Refused
from vcrecon.spec.model import Spec

STATE, TFTP = Path("/state"), Path("/tftp")


def lines(spec: Spec) -> list[str]:
    return render(spec, state=STATE, tftp=TFTP).splitlines()


def many(*last: int) -> Spec:
    """A site with a container at 10.9.0.N for each N."""
    return a_boot_spec(*(a_container(f"c{n}", address=f"10.9.0.{n}") for n in last), strangers=None)


def test_it_serves_one_interface_and_no_names() -> None:
    found = lines(a_boot_spec())
    assert {"port=0", "interface=vcbs0", "except-interface=lo", "bind-dynamic"} <= set(found)
    assert [line for line in found if line.startswith(("interface", "listen"))] == ["interface=vcbs0"]


def test_a_container_with_a_mac_has_its_own_address_and_one_without_has_no_line() -> None:
    spec = a_boot_spec(a_container(), a_container("c2", address="10.9.0.12", mac=None))
    assert [line for line in lines(spec) if line.startswith("dhcp-host")] == [f"dhcp-host={MAC},10.9.0.11,c1,12h"]


def test_strangers_get_the_range_of_the_spec() -> None:
    assert "dhcp-range=10.9.0.200,10.9.0.250,255.255.255.0,10m" in lines(a_boot_spec())


def test_no_router_and_no_name_server_is_named_when_the_spec_has_none() -> None:
    assert {"dhcp-option=option:router", "dhcp-option=option:dns-server"} <= set(lines(a_boot_spec()))
    spec = a_boot_spec(gateway="10.9.0.254", dns=("10.9.0.2", "10.9.0.3"))
    wanted = {"dhcp-option=option:router,10.9.0.254", "dhcp-option=option:dns-server,10.9.0.2,10.9.0.3"}
    assert wanted <= set(lines(spec))


def test_each_kind_of_firmware_gets_its_loader() -> None:
    boots = [line for line in lines(a_boot_spec()) if line.startswith(("dhcp-boot", "dhcp-ignore="))]
    assert boots == [
        "dhcp-ignore=tag:httpboot",
        "dhcp-boot=tag:!ipxe,tag:!efi,undionly.kpxe,,10.9.0.1",
        "dhcp-boot=tag:!ipxe,tag:efi,snponly.efi,,10.9.0.1",
        "dhcp-boot=tag:ipxe,boot.ipxe,,10.9.0.1",
    ]


def test_the_same_spec_is_the_same_text_in_whatever_order() -> None:
    one, two = a_container(), a_container("c2", address="10.9.0.12", mac="52:54:00:aa:00:02")
    assert lines(a_boot_spec(one, two)) == lines(a_boot_spec(two, one))


def test_prefixes_of_two_sites_differ() -> None:
    assert ra_prefix(a_boot_spec()) != ra_prefix(a_boot_spec(network="10.9.1.0/24"))
    assert ra_prefix(a_boot_spec()).startswith("fd")


@pytest.mark.parametrize(
    ("taken", "found"),
    [
        ((11,), ("10.9.0.127", "10.9.0.254")),
        ((11, 200), ("10.9.0.201", "10.9.0.254")),
        ((11, 254), ("10.9.0.126", "10.9.0.253")),
        ((50, 245), ("10.9.0.117", "10.9.0.244")),
        (tuple(n for n in range(2, 255) if n not in (7, 8, 9, 99)), ("10.9.0.7", "10.9.0.9")),
        (tuple(range(2, 255)), None),
    ],
    ids=["the top", "above a container", "below one at the top", "not a small gap", "a gap where that is all", "full"],
)
def test_without_a_range_strangers_get_the_highest_that_is_free(
    taken: tuple[int, ...], found: tuple[str, str] | None
) -> None:
    assert free_range(many(*taken)) == found


def test_a_range_of_our_own_choice_is_never_huge() -> None:
    low, high = free_range(a_boot_spec(network="10.0.0.0/8", address="10.0.0.1", strangers=None)) or ("", "")
    assert (low, high) == ("10.255.255.127", "10.255.255.254")
    assert STRANGERS_MAX == 128


@pytest.mark.root
@pytest.mark.parametrize("full", [False, True], ids=["with everything", "without strangers"])
def test_dnsmasq_accepts_it(tmp_path: Path, program: Callable[[str], str], full: bool) -> None:
    spec = many(*range(2, 255)) if full else a_boot_spec(gateway="10.9.0.254", dns=("10.9.0.2",))
    configuration = tmp_path / "dnsmasq.conf"
    configuration.write_text(render(spec, state=tmp_path, tftp=tmp_path))
    done = subprocess.run(
        [program("dnsmasq"), "--test", f"--conf-file={configuration}"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.strip()) == (0, "dnsmasq: syntax check OK.")


def test_the_tftp_directory_has_both_loaders_and_the_first_script(tmp_path: Path) -> None:
    loaders = tmp_path / "ipxe"
    loaders.mkdir()
    for name in ("undionly.kpxe", "snponly.efi"):
        (loaders / name).write_text(name)
    for script in ("#!ipxe\nold\n", "#!ipxe\nnew\n"):
        tftp_directory(tmp_path / "tftp", script, loaders=loaders)
    found = {path.name: path.read_text() for path in (tmp_path / "tftp").iterdir()}
    assert found == {"undionly.kpxe": "undionly.kpxe", "snponly.efi": "snponly.efi", "boot.ipxe": "#!ipxe\nnew\n"}


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"no undionly\.kpxe and no snponly\.efi .* apt-get install dnsmasq-base ipxe"):
        tftp_directory(tmp_path / "tftp", "", loaders=tmp_path)


# --- a site with its own servers ---------------------------------------------------------------------------


def test_a_sites_own_dhcpd_is_told_loaders_script_and_machines() -> None:
    text = external.isc_dhcpd(a_boot_spec(), "10.9.0.5")
    assert "subnet 10.9.0.0 netmask 255.255.255.0 {" in text
    assert 'filename "http://10.9.0.1:8067/boot.ipxe";' in text
    assert f"host c1 {{ hardware ethernet {MAC}; fixed-address 10.9.0.11; }}" in text
    assert text.count("{") == text.count("}")


def test_the_instructions_have_both_fragments() -> None:
    text = external.instructions(a_boot_spec())
    assert external.isc_dhcpd(a_boot_spec()) in text
    assert external.dnsmasq_fragment(a_boot_spec()) in text


@pytest.mark.root
def test_a_sites_own_dnsmasq_accepts_its_fragment(tmp_path: Path, program: Callable[[str], str]) -> None:
    configuration = tmp_path / "site.conf"
    own = "port=0\ndhcp-range=10.9.0.200,10.9.0.250\n"
    configuration.write_text(own + external.dnsmasq_fragment(a_boot_spec(), "10.9.0.5"))
    done = subprocess.run(
        [program("dnsmasq"), "--test", f"--conf-file={configuration}"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.strip()) == (0, "dnsmasq: syntax check OK.")


def test_nginx_refuses_a_path_it_would_misread() -> None:
    with pytest.raises(Refused, match="plain"):
        nginx.render(a_boot_spec(images=Path("/srv/x; root /")))
