"""The rule set: deterministic text, and accepted by the real nft as far as this kernel goes."""

from __future__ import annotations

import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from worlds import a_guest, a_spec

from vcrecon.core.wanted import Wanted, tap
from vcrecon.host.firewall import render
from vcrecon.spec.model import AllowRule, Interface

OUTSIDE_PORT = Interface("52:54:00:00:02:01", 200, "outside", "10.200.0.11/16", "10.200.0.1")


def rules(*, guests: tuple[str, ...] = ("bob", "head"), allow: tuple[AllowRule, ...] | None = None) -> str:
    """The rules of a container with a head that reaches out and a node that does not."""
    head = a_guest("head", 1, role="head")
    head = replace(head, interfaces=(*head.interfaces, OUTSIDE_PORT))
    spec = a_spec({"c1": ["head", "bob"]}, guests={"head": head, "bob": a_guest("bob", 2)})
    if allow is not None:
        outside = replace(spec.networks["outside"], allow=allow)
        spec = replace(spec, networks={**spec.networks, "outside": outside})
    wanted = Wanted(spec)
    return render(wanted.firewall("c1", [spec.guests[name] for name in guests]))


def chain(text: str, name: str) -> list[str]:
    body = re.search(rf"chain {name} \{{\n(.*?)\n    \}}", text, re.S)
    assert body, f"no chain {name}"
    return [line.strip() for line in body[1].splitlines()]


def test_the_order_of_guests_does_not_matter() -> None:
    assert rules(guests=("bob", "head")) == rules(guests=("head", "bob"))


def test_loading_replaces_our_tables_and_no_other() -> None:
    named = set(re.findall(r"^(?:delete )?table (\S+ \S+)", rules(), re.M))
    assert named == {"bridge vcrecon", "ip vcrecon", "inet vcrecon"}


def test_a_guest_sends_only_from_its_own_port_mac_and_address() -> None:
    honest = chain(rules(), "honest")
    assert "iifname . ether saddr != @macs drop" in honest
    assert "ether type arp iifname . arp saddr ether != @macs drop" in honest
    assert "ether type ip iifname . ether saddr . ip saddr != @pairs drop" in honest
    assert re.search(r"vcg[0-9a-f]{12} \. 52:54:00:00:01:02 \. 10\.1\.1\.12", rules())


def test_the_container_itself_sends_nothing_onto_the_trunk() -> None:
    assert chain(rules(), "output") == [
        "type filter hook output priority 0; policy accept;",
        'oifname "vcvl*" drop',
        'oifname "vcg*" oifname != @taps drop',
    ]


def test_heads_of_two_clusters_do_not_meet_on_the_network_outside() -> None:
    assert not [rule for rule in chain(rules(), "out-200") if "10.200.0.0/16" in rule]


def test_outside_only_what_the_spec_allows() -> None:
    outside = chain(rules(), "out-200")
    assert outside[-1] == "drop"
    assert "ether saddr { 52:54:00:00:02:01 } ip daddr 0.0.0.0/0 tcp dport { 80, 443 } accept" in outside


def test_a_network_without_a_gateway_has_no_way_out() -> None:
    assert "out-101" not in rules()


def test_a_rule_for_roles_that_nobody_here_has_lets_nobody_out() -> None:
    assert chain(rules(allow=(AllowRule("0.0.0.0/0", roles=("single",)),)), "out-200")[-2:] == [
        "ct state established,related accept",
        "drop",
    ]


def test_guests_are_kept_from_the_container_itself() -> None:
    inet = rules().rpartition("table inet vcrecon {")[2]
    assert chain(inet, "input")[-1] == 'iifname "vcbr*" drop'
    assert chain(inet, "forward")[-2:] == ['iifname "vcbr*" drop', 'oifname "vcbr*" drop']


KERNEL_LACKS = (r"^ +ct state .*\n", r"^ +obrname .*\n")
"""Rules of the bridge table that a kernel without nft_ct or nft_meta for bridges refuses."""


def without_what_the_kernel_lacks(bridge: str) -> str:
    for rule in KERNEL_LACKS:
        bridge = re.sub(rule, "", bridge, flags=re.M)
    return bridge


@pytest.fixture
def namespace(program: Callable[[str], str]) -> Iterator[list[str]]:
    ip, nft = program("ip"), program("nft")
    name = f"vct{uuid.uuid4().hex[:8]}"
    subprocess.run([ip, "netns", "add", name], check=True)
    yield [ip, "netns", "exec", name, nft]
    subprocess.run([ip, "netns", "del", name], check=True)


def check(nft: list[str], text: str) -> str:
    return subprocess.run([*nft, "-c", "-f", "-"], input=text, text=True, capture_output=True, check=False).stderr


@pytest.mark.root
@pytest.mark.parametrize("guests", [("bob", "head"), ("bob",), ()])
def test_nft_accepts_the_rules(namespace: list[str], guests: tuple[str, ...]) -> None:
    text = rules(guests=guests)
    said = check(namespace, text)
    if not said:
        return
    # Syntax was checked for all of it; what the kernel itself lacks is left out, and the rest must pass.
    refusals = [line for line in said.splitlines() if "Error" in line]
    assert all("Could not process rule" in line for line in refusals), said
    bridge, rest = text.split("table ip vcrecon {", 1)
    assert check(namespace, f"{without_what_the_kernel_lacks(bridge)}table ip vcrecon {{{rest}") == ""


SEND_AND_LISTEN = """
import select, socket, sys
mac, port, *hear = sys.argv[1:]
ears = {name: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x88B5) for name in hear}
for name, ear in ears.items():
    ear.bind((name, 0x88B5))
mouth = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
mouth.bind((port, 0))
for _ in range(3):
    mouth.send(bytes.fromhex("ff" * 6 + mac.replace(":", "") + "88b5") + b"who is there" * 5)
# When the last frame is heard by one, all have heard the first, or never will.
ears[hear[-1]].settimeout(20)
for _ in range(3):
    ears[hear[-1]].recv(100)
mute = [name for name in hear[:-1] if not select.select([ears[name]], [], [], 0)[0]]
print(*mute)
"""


@pytest.mark.root
@pytest.mark.parametrize("sender", ["guest", "container"])
def test_a_port_that_the_spec_does_not_know_hears_no_frame(namespace: list[str], sender: str) -> None:
    """As that of a guest that runs on the VLAN it had before an edit gave that to another cluster."""
    ip, name = namespace[0], namespace[3]
    taps = {guest: tap(guest, 101) for guest in ("head", "bob", "mallory")}
    subprocess.run([ip, "-n", name, "link", "add", "vcbr101", "type", "bridge", "forward_delay", "0"], check=True)
    for guest, port in taps.items():
        subprocess.run([ip, "-n", name, "link", "add", port, "type", "veth", "peer", "name", guest], check=True)
        subprocess.run([ip, "-n", name, "link", "set", port, "master", "vcbr101"], check=True)
    for link in ("vcbr101", *taps.values(), *taps):
        subprocess.run([ip, "-n", name, "link", "set", link, "up"], check=True)
    bridge = without_what_the_kernel_lacks(rules().partition("table ip vcrecon {")[0])
    subprocess.run([*namespace, "-f", "-"], input=bridge, text=True, check=True)
    mac, port, hear = "52:54:00:00:01:02", "bob", ["mallory", "head"]
    if sender == "container":
        mac, port, hear = "52:54:00:00:99:99", "vcbr101", ["mallory", "head", "bob"]
    done = subprocess.run(
        [*namespace[:4], sys.executable, "-c", SEND_AND_LISTEN, mac, port, *hear],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["mallory"]


@pytest.mark.root
def test_nft_refuses_what_is_wrong(namespace: list[str]) -> None:
    assert "syntax error" in check(namespace, rules().replace("ether saddr != @macs", "ether saddr !! @macs"))
