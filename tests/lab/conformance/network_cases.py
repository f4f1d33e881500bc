"""Cases of the network: firewall, VLANs, bridges, addresses, and the pings that ask guests for an answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from tests.lab.conformance.case import Answer, Case, Facts, look_script, looked
from tests.lab.conformance.disk_cases import Builder
from tests.lab.conformance.place import SITE, VLAN, Place

from vcrecon.core.actions import SetUpNetwork
from vcrecon.core.observation import Part
from vcrecon.core.wanted import WantedBridge
from vcrecon.host import firewall, network, scripts
from vcrecon.host.names import FIREWALL_FILE, bridge, vlan_link
from vcrecon.host.steps import Step, locked

WHY = "conformance"
TAGGED = frozenset({"vlan"})
BRIDGE, LINK = bridge(VLAN), vlan_link(VLAN)
LOCK = f"network-{SITE}"


def cases(place: Place) -> Iterator[Case]:
    yield from _firewall(place)
    yield from _bridges(place)
    yield from _looks(place)
    yield from _pings(place)


class NetworkBuilder(Builder):
    """Cases that look at the network afterwards and take away what they made."""

    def network(self, situation: str, command: Step | str, given: tuple[str, ...] = (), **more: object) -> Case:
        tables = [f"nft delete table {family} {name} 2>/dev/null" for family, name in firewall.TABLES]
        links = [f"ip link del dev {name} 2>/dev/null" for name in (LINK, BRIDGE, "vcgcf0", "vcgcf1")]
        defaults: dict[str, object] = {
            "then": look_script(self.place, [Part.NETWORK]),
            "reduce": looked(Part.NETWORK),
            "cleanup": (*tables, *links, f"rm -f {FIREWALL_FILE}"),
        }
        return self.case(situation, command, given, **(defaults | more))


def _wanted(*taps: str) -> WantedBridge:
    return WantedBridge(VLAN, frozenset(taps), frozenset({"192.0.2.80/32"}), frozenset({"10.241.1.0/24"}))


def _firewall(place: Place) -> Iterator[Case]:
    b = NetworkBuilder(place, "firewall")
    steps = scripts.steps(SetUpNetwork("here", WHY, (VLAN,), ()), place.bench())
    load, rules = steps[0], steps[0].stdin or b""
    made = piped(load)
    yield b.network("loaded", load)
    yield b.network("loaded twice", load, (made,))
    end = f"{firewall.END}\n".encode()
    junk = rules.removesuffix(end) + b"garbage here\n" + end
    yield b.network("a rule that nft does not take", load, (made,), stdin=junk)
    yield b.network("rules cut short", load, (made,), stdin=rules[: len(rules) // 2])
    yield b.network("rules cut between two tables", load, (made,), stdin=rules[: rules.index(b"table inet vcrecon {")])
    yield b.network("no rules at all", load, stdin=b"")
    look = look_script(place, [Part.NETWORK])
    now: dict[str, object] = {"then": "", "reduce": looked(Part.NETWORK, of="stdout")}
    yield b.network("the look after loading", look, (made,), **now)
    yield b.network("the look after a table was deleted", look, (made, "nft delete table ip vcrecon"), **now)
    yield b.network("the look after a flush", look, (made, "nft flush ruleset"), **now)
    added = "nft add rule inet vcrecon forward counter"
    yield b.network("the look after a rule was added by hand", look, (made, added), **now)
    yield b.network("the look after the mark was lost", look, (made, f"rm {FIREWALL_FILE}"), **now)
    listed = network.LIST_RULES
    yield b.network("how nft lists the rules", listed, (made,), then="", reduce=_listing)
    yield b.network("how nft lists what is not there", listed, then="", reduce=lambda a, p: a.stdout)
    networks = tuple(place.spec.networks.values())
    open_rules = replace(place.bench().wanted.firewall("here", place.spec.guests.values()), networks=networks)
    text = firewall.render(open_rules).encode()
    guarded: dict[str, object] = {"stdin": text, "needs": frozenset({"bridge-conntrack"})}
    yield b.network("a guarded network", load, **guarded)
    yield b.network(
        "how nft lists a guarded network",
        f"nft -f - && {{ {listed} }}",
        then="",
        reduce=_listing,
        **guarded,
    )


def _listing(answer: Answer, place: Place) -> Facts:
    """The listing, with the elements of sets in an order of their own: the kernel's is that of its hashes."""

    def ordered(match: re.Match[str]) -> str:
        return "{ " + ", ".join(sorted(item.strip() for item in match[1].split(","))) + " }"

    return re.sub(r"\{ ([^{}]*) \}", ordered, answer.stdout).splitlines()


def piped(step: Step) -> str:
    import base64

    return f"echo {base64.b64encode(step.stdin or b'').decode()} | base64 -d | {{ {step.script}\n}}"


def _bridges(place: Place) -> Iterator[Case]:
    b = NetworkBuilder(place, "bridges")
    trunk = place.trunk

    def made(wanted: WantedBridge | None = None, trunk: str = trunk, taps: tuple[str, ...] = ()) -> str:
        return locked(LOCK, network.set_up_bridge(wanted or _wanted(), trunk, SITE, taps))

    gone = locked(LOCK, network.remove_bridge(VLAN))
    port = ("ip tuntap add dev vcgcf0 mode tap",)
    yield b.network("made", made(), needs=TAGGED)
    yield b.network("made twice", made(), (made(),), needs=TAGGED)
    yield b.network("with a port that exists", made(_wanted("vcgcf0"), taps=("vcgcf0",)), port, needs=TAGGED)
    yield b.network("with a port that does not", made(_wanted("vcgcf1"), taps=("vcgcf1",)), needs=TAGGED)
    yield b.network("no such trunk", made(trunk="cfnothing"))
    yield b.network("mended after it went down", made(), (made(), f"ip link set dev {BRIDGE} down"), needs=TAGGED)
    yield b.network("mended after its VLAN went", made(), (made(), f"ip link del dev {LINK}"), needs=TAGGED)
    yield b.network("mended after its address went", made(), (made(), f"ip addr flush dev {BRIDGE}"), needs=TAGGED)
    yield b.network("the VLAN's name is taken", made(), (f"ip link add name {LINK} type bridge",))
    yield b.network(
        "the bridge's name is taken",
        made(),
        (f"ip tuntap add dev {BRIDGE} mode tap",),
        needs=TAGGED,
    )
    yield b.network("a VLAN id out of range", f"ip link add link {trunk} name {LINK} type vlan id 5000", needs=TAGGED)
    yield b.network(
        "the VLAN is there under another name",
        made(),
        (f"ip link add link {trunk} name vcgcf0 type vlan id {VLAN}",),
        needs=TAGGED,
    )
    yield b.network(
        "a bad address", f"ip addr replace 10.1.2.300/32 dev {BRIDGE}", (f"ip link add name {BRIDGE} type bridge",)
    )
    yield b.network(
        "a bad route",
        f"ip route replace 10.241.1.5/24 dev {BRIDGE}",
        (f"ip link add name {BRIDGE} type bridge", f"ip link set {BRIDGE} up"),
    )
    yield b.network(
        "a route over a bridge that is down",
        f"ip route replace 10.241.1.0/24 dev {BRIDGE}",
        (f"ip link add name {BRIDGE} type bridge",),
    )
    yield b.network("taken away", gone, (made(),), needs=TAGGED)
    yield b.network("taken away, nothing there", gone)
    yield b.network("taken away, twice", gone, (gone,))


def _looks(place: Place) -> Iterator[Case]:
    b = NetworkBuilder(place, "look at the network")
    look = look_script(place, [Part.NETWORK])
    now: dict[str, object] = {"then": "", "reduce": looked(Part.NETWORK, of="stdout")}
    plain = f"ip link add name {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
    ours = f"ip link set dev {BRIDGE} alias 'vcrecon {SITE}'"
    up = f"ip link set dev {BRIDGE} up"
    addressed = (f"ip addr replace 192.0.2.80/32 dev {BRIDGE}", f"ip route replace 10.241.1.0/24 dev {BRIDGE}")
    yield b.network("nothing of ours", look, **now)
    yield b.network("a bridge without our mark", look, (plain, up), **now)
    yield b.network("a bridge of another site", look, (plain, f"ip link set dev {BRIDGE} alias 'vcrecon other'"), **now)
    yield b.network("a bridge that is down", look, (plain, ours), **now)
    yield b.network("a bridge without its VLAN", look, (plain, ours, up, *addressed), **now)
    loose = ("ip tuntap add dev vcgcf0 mode tap", "ip tuntap add dev vcgcf1 mode tap")
    yield b.network(
        "a port on no bridge", look, (plain, ours, up, *loose, f"ip link set dev vcgcf1 master {BRIDGE}"), **now
    )
    yield b.network(
        "a VLAN that hangs on no bridge",
        look,
        (plain, ours, up, f"ip link add link {place.trunk} name {LINK} type vlan id {VLAN}"),
        needs=TAGGED,
        **now,
    )


def _pings(place: Place) -> Iterator[Case]:
    b = NetworkBuilder(place, "answers")
    made = (
        f"ip link add name {BRIDGE} type bridge",
        f"ip link set dev {BRIDGE} up",
        f"ip addr replace 192.0.2.80/32 dev {BRIDGE}",
        f"ip route replace 10.241.1.0/24 dev {BRIDGE}",
    )

    def look(*probes: tuple[str, int]) -> tuple[str, dict[str, object]]:
        return look_script(place, [Part.ANSWERS], probes), {"then": "", "reduce": looked(Part.ANSWERS, of="stdout")}

    script, now = look(("10.241.1.99", VLAN))
    yield b.network("nobody answers", script, made, **now)
    yield b.network("no bridge", script, **now)
    script, now = look(("10.241.1.99", VLAN), ("10.241.1.98", VLAN))
    yield b.network("nobody of two answers", script, made, **now)
    script, now = look(("192.0.2.80", VLAN))
    yield b.network("an address of the host itself", script, made, **now)
    script, now = look(("bogus.invalid", VLAN))
    yield b.network("a garbage address", script, made, **now)
