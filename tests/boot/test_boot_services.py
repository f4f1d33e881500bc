"""Boot services on a real wire: a real dnsmasq, real clients, in namespaces of their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from boot_site import MAC, a_boot_spec
from wire import INTERFACE, Wire, a_wire, run, until

from vcrecon.boot import dnsmasq

pytestmark = [pytest.mark.root, pytest.mark.timeout(400)]
STRANGER = "52:54:00:aa:00:99"
UNIT = Path(__file__).parents[2] / "src" / "vcrecon" / "data" / "vcrecon.service"
BOOT = "http://10.9.0.1:8067/boot.ipxe"


@pytest.fixture
def wire(program: Callable[[str], str]) -> Iterator[Wire]:
    for name in ("dnsmasq", "busybox", "nsenter", "curl", "ip"):
        program(name)
    if not Path("/usr/lib/ipxe/undionly.kpxe").exists():
        program("ipxe's files in /usr/lib/ipxe (package ipxe)")
    with a_wire() as found:
        yield found


def runs(pid: int) -> bool:
    """Whether the process is alive: one that nobody has waited for yet has no command line any more."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


def test_a_known_machine_gets_its_address_and_a_stranger_one_of_the_range(wire: Wire) -> None:
    known, stranger = wire.machine(MAC), wire.machine(STRANGER)
    with wire.services() as services:
        assert services.ask()["problem"] is None
        assert wire.lease(known) == {
            "address": "10.9.0.11",
            "mask": "24",
            "router": "",
            "dns": "",
            "file": "undionly.kpxe",
            "server": "10.9.0.1",
        }
        found = wire.lease(stranger)
        assert found is not None
        assert 200 <= int(found["address"].split(".")[3]) <= 250


def test_each_kind_of_firmware_gets_its_loader(wire: Wire) -> None:
    machine = wire.machine(MAC)
    with wire.services() as services:
        services.ask()
        files = {
            kind: (wire.lease(machine, "-x", f"0x5d:{kind}") or {}).get("file") for kind in ("0000", "0007", "0009")
        }
        assert files == {"0000": "undionly.kpxe", "0007": "snponly.efi", "0009": "snponly.efi"}
        assert wire.lease(machine, "-x", "0x5d:0010", tries=2) is None


def test_the_loaders_come_by_tftp(wire: Wire) -> None:
    machine = wire.machine(MAC)
    with wire.services() as services:
        services.ask()
        wire.lease(machine)
        for name in ("undionly.kpxe", "snponly.efi", "boot.ipxe"):
            copy = wire.home / f"copy-{name}"
            run(*wire.inside(machine, ["busybox", "tftp", "-g", "-r", name, "-l", str(copy), "-b", "1400", "10.9.0.1"]))
            assert copy.read_bytes() == (wire.home / "public" / "tftp" / name).read_bytes()


def test_a_machine_is_believed_by_its_packets(wire: Wire) -> None:
    machine = wire.machine(MAC)
    with wire.services() as services:
        services.ask(open=1)
        wire.lease(machine)
        lie = wire.get(machine, f"{BOOT}?mac=52%3A54%3A00%3Aaa%3A00%3A02&platform=pcbios")
        truth = wire.get(machine, f"{BOOT}?mac={MAC}&platform=pcbios")
        assert "vcrecon.token" not in lie
        assert "vcrecon.token" in truth
        state = services.ask()
        assert state["netboots"] == {MAC: "10.9.0.11"}
        assert [event[1] for event in state["events"]] == ["mac-mismatch"]


def test_nothing_listens_on_another_interface(wire: Wire) -> None:
    wire.ip("link", "add", "outside", "type", "bridge")
    wire.ip("addr", "add", "10.8.0.1/24", "dev", "outside")
    wire.ip("link", "set", "outside", "up")
    with wire.services() as services:
        services.ask()
        heard = run(*wire.inside(wire.master, ["ss", "-H", "-lntu"])).splitlines()
        where = {line.split()[4] for line in heard}
        assert {f"0.0.0.0%{INTERFACE}:67", "10.9.0.1:69", "10.9.0.1:8067"} <= where
        # TFTP also on the interface's own IPv6 addresses.
        own = (f"0.0.0.0%{INTERFACE}:", "10.9.0.1:", "[fd", "[fe80")
        assert [socket for socket in where if not socket.startswith(own)] == []


def test_a_dnsmasq_that_dies_comes_back(wire: Wire) -> None:
    machine = wire.machine(MAC)
    with wire.services() as services:
        first = services.ask()["dnsmasq"]
        os.kill(first, signal.SIGKILL)
        until(lambda: services.ask()["dnsmasq"] not in (None, first), "dnsmasq is started again")
        assert wire.lease(machine) is not None
        until(lambda: services.ask()["problem"] is None, "the trouble is over")


def test_dnsmasq_is_started_anew_only_when_the_spec_changes_it(wire: Wire) -> None:
    machine = wire.machine("52:54:00:aa:00:02")
    with wire.services() as services:
        before = services.ask()
        same = services.ask(adopt={"install_deadline_s": 5.0})
        assert (same["dnsmasq"], same["starts"]) == (before["dnsmasq"], 1)
        services.ask(adopt={"containers": 2})
        until(lambda: services.ask()["starts"] == 2, "dnsmasq has the new configuration")
        assert (wire.lease(machine) or {}).get("address") == "10.9.0.12"


def test_a_bad_configuration_changes_nothing(wire: Wire) -> None:
    with wire.services() as services:
        before = services.ask()
        after = services.ask(adopt={"strangers": ["10.9.0.200", "nonsense"]})
        assert "dnsmasq does not accept" in after["problem"]
        assert after["dnsmasq"] == before["dnsmasq"]


def test_stopping_leaves_nothing_behind(wire: Wire) -> None:
    with wire.services() as services:
        services.ask()
        assert "inet6 fd" in run("ip", "-n", wire.master, "address", "show", INTERFACE)
        services.stop()
        assert run("ip", "netns", "pids", wire.master) == ""
        assert "inet6 fd" not in run("ip", "-n", wire.master, "address", "show", INTERFACE)


def test_they_work_with_no_more_rights_than_the_unit_gives(wire: Wire) -> None:
    machine = wire.machine(MAC)
    kept = re.search(r"^CapabilityBoundingSet=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert kept is not None
    names = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in kept[1].split())
    limited = ["setpriv", f"--bounding-set=-all,{names}", "--inh-caps=-all", "--no-new-privs"]
    with wire.services(under=[*limited, "sh", "-c", 'umask 077; exec "$@"', "sh"]) as services:
        assert services.ask()["problem"] is None
        assert wire.lease(machine) is not None
        copy = wire.home / "copy"
        run(*wire.inside(machine, ["busybox", "tftp", "-g", "-r", "boot.ipxe", "-l", str(copy), "10.9.0.1"]))
        services.stop()
        assert run("ip", "netns", "pids", wire.master) == ""


def test_switched_off_nothing_answers(wire: Wire) -> None:
    with wire.services() as services:
        services.ask()
        assert services.ask(adopt={"mode": "off"})["dnsmasq"] is None
        assert run(*wire.inside(wire.master, ["ss", "-H", "-lntu"])) == ""


def test_while_another_master_holds_the_site_nobody_gets_an_address_or_an_installer(wire: Wire) -> None:
    machine = wire.machine(MAC)
    with wire.services() as services:
        services.ask(open=1)
        assert wire.lease(machine) is not None
        assert "vcrecon.token" in wire.get(machine, f"{BOOT}?mac={MAC}&platform=pcbios")
        first = services.ask()["dnsmasq"]
        # The kernel now and then takes an address from the master's own advertisements.
        prefix = dnsmasq.ra_prefix(a_boot_spec())
        run("ip", "-n", wire.master, "address", "replace", f"{prefix}77/64", "dev", INTERFACE, "nodad")
        state = services.ask(quiet="held by m2")
        assert (state["problem"], state["dnsmasq"]) == ("held by m2", None)
        assert not runs(first)
        heard = run(*wire.inside(wire.master, ["ss", "-H", "-lntu"])).splitlines()
        assert [line.split()[4] for line in heard] == ["10.9.0.1:8067"], "no DHCP, no TFTP"
        assert "inet6 fd" not in (found := run("ip", "-n", wire.master, "address", "show", INTERFACE)), found
        assert wire.lease(machine, tries=2) is None
        told = wire.get(machine, f"{BOOT}?mac={MAC}&platform=pcbios")
        assert "held by m2: booting the local disk" in told
        assert "vcrecon.token" not in told
        assert services.ask(quiet=None)["problem"] is None
        assert wire.lease(machine) is not None
        assert "vcrecon.token" in wire.get(machine, f"{BOOT}?mac={MAC}&platform=pcbios")


def test_in_external_mode_only_http_answers(wire: Wire) -> None:
    with wire.services(mode="external") as services:
        assert services.ask()["dnsmasq"] is None
        assert "10.9.0.1:8067" in run(*wire.inside(wire.master, ["ss", "-H", "-lntu"]))


def test_a_dnsmasq_that_a_killed_controller_left_is_replaced(wire: Wire) -> None:
    machine = wire.machine(MAC)
    with wire.services() as killed:
        orphan = killed.ask()["dnsmasq"]
        killed.process.kill()
        killed.process.wait(120)
    assert runs(orphan)
    with wire.services() as services:
        # Its offers are its successor's own: they come from the same address.
        assert services.ask()["problem"] is None
        assert not runs(orphan)
        assert (wire.lease(machine) or {}).get("address") == "10.9.0.11"


def test_another_dhcp_server_is_named_and_ours_stays_off_until_it_is_gone(wire: Wire) -> None:
    other, machine = wire.machine("52:54:00:bb:00:01"), wire.machine(MAC)
    run("ip", "-n", other, "addr", "add", "10.9.0.77/24", "dev", "eth0")
    leases = wire.home / "other-leases"
    theirs = subprocess.Popen(
        wire.inside(
            other,
            ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=eth0",
             "--bind-interfaces", "--dhcp-range=10.9.0.100,10.9.0.110", "--no-ping",
             f"--dhcp-leasefile={leases}", "--pid-file="],
        )
    )  # fmt: skip
    try:
        until(lambda: ":67" in run(*wire.inside(other, ["ss", "-H", "-lun"])), "the other server listens")
        with wire.services(listen_s=30) as services:
            state = services.ask()
            assert "another DHCP server answers on vcbs0: 10.9.0.77 (52:54:00:bb:00:01)" in state["problem"]
            assert state["dnsmasq"] is None
            assert state["events"][0][:2] == ["site", "boot-services"]
            assert (wire.lease(machine) or {}).get("server") != "10.9.0.1"
            assert "#!ipxe" in wire.get(machine, BOOT)
            services.ask(adopt={"listen_s": 0.1})
            theirs.terminate()
            theirs.wait(120)
            until(lambda: services.ask()["problem"] is None, "ours takes over")
            assert services.ask()["dnsmasq"] is not None
    finally:
        theirs.kill()
        theirs.wait(120)


def test_a_missing_interface_is_a_problem_and_heals(wire: Wire) -> None:
    with wire.services(interface="vcbs9") as services:
        assert "vcbs9" in services.ask()["problem"]
        wire.ip("link", "add", "vcbs9", "type", "bridge")
        wire.ip("link", "set", "vcbs9", "up")
        until(lambda: services.ask()["problem"] is None, "the interface is used")


_FORGOTTEN = """
import socket, sys
for _ in range(100):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asks:
        asks.sendto(b"\\0\\1undionly.kpxe\\0octet\\0", ("10.9.0.1", 69))
"""


def test_requests_that_nobody_waits_for_keep_no_machine_from_its_loader(wire: Wire) -> None:
    machine = wire.machine(MAC)
    with wire.services() as services:
        services.ask()
        wire.lease(machine)
        run(*wire.inside(machine, [sys.executable, "-c", _FORGOTTEN]))
        copy = wire.home / "copy"
        run(*wire.inside(machine, ["busybox", "tftp", "-g", "-r", "boot.ipxe", "-l", str(copy), "10.9.0.1"]))
        assert copy.read_bytes() == (wire.home / "public" / "tftp" / "boot.ipxe").read_bytes()
