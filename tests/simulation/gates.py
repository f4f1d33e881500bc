"""What keeps clusters apart on a host, and masters: rules, bridges and the lease, read from the host itself (S12).

Called by `truth`. The rules are judged by what they must contain, in the host's own words, not by comparing them with
what the product would write.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vcrecon.sim.machine import Machine

if TYPE_CHECKING:
    from tests.simulation.truth import Truth

LEASE_FILE = "/run/vcrecon/master"
MARK = "vcbr"
OUR_BRIDGE = re.compile(r"^ip link add name (vcbr\d+)\b")


class Gates:
    """Finds what is open that must be shut. `flushed` holds hosts whose rules somebody else took away."""

    def __init__(self, truth: Truth) -> None:
        self.truth, self.room = truth, truth.room
        self.flushed: set[str] = set()
        self._leases: dict[str, tuple[str, int, int]] = {}
        """By host: name and generation of the master that holds it, and when it said so last (uptime in seconds)."""

    # --- rules and bridges ---------------------------------------------------------------------------------

    def bridge_is_made(self, host: str, line: str) -> None:
        """No bridge ever carries a frame without its rules."""
        machine = self.room.site.hosts[host].machine
        if OUR_BRIDGE.match(line) and host not in self.flushed and machine.nft.find("bridge", "vcrecon") is None:
            self.truth.violate("S12", f"`{line[:60]}` on {host}, where no rules of ours are loaded")

    def rules(self, host: str, machine: Machine) -> list[str]:
        """What the loaded rules lack; nothing when they are as they must be."""
        found = []
        texts = {
            (table.family, name): [rule for _, rule in chain.rules]
            for (family, _), table in machine.nft.tables.items()
            if table.name == "vcrecon"
            for name, chain in table.chains.items()
        }
        must = {
            ("bridge", "forward"): ("@services drop", "jump honest", "@taps drop"),
            ("bridge", "input"): ("jump honest",),
            ("bridge", "output"): ('"vcvl*" drop', "@taps drop"),
            ("bridge", "honest"): ("@macs drop", "@pairs drop", "8021q drop"),
            ("inet", "input"): ('"vcbr*" drop',),
            ("inet", "forward"): ('iifname "vcbr*" drop', 'oifname "vcbr*" drop'),
            ("ip", "postrouting"): ("masquerade",),
            ("ip", "prerouting"): ("dnat to",),
        }
        for chain, words in must.items():
            lines = texts.get(chain)
            if lines is None:
                found.append(f"{' '.join(chain)} is not there")
                continue
            found += [f"{' '.join(chain)} has no {word}" for word in words if not any(word in line for line in lines)]
        for network in self.room.good.networks_by_vlan.values():
            # A guest that left the spec and still runs is not among the MACs that may send anything at all.
            here = [self.room.good.guests.get(domain.name) for domain in machine.domains.live()]
            vlans = {interface.vlan for guest in here if guest is not None for interface in guest.interfaces}
            if network.gateway is None or network.vlan not in vlans:
                continue
            way_out = texts.get(("bridge", f"out-{network.vlan}"))
            if way_out is None or not way_out or way_out[-1] != "drop":
                found.append(f"what leaves on VLAN {network.vlan} is not dropped in the end")
        return found

    def at_rest(self, host: str) -> None:
        """The rules, the ports in them and the bridges are those that the guests here need, and no more."""
        machine = self.room.site.hosts[host].machine
        guests = [self.room.good.guests[g] for g, place in self.room.home.items() if place == host]
        wanted = {interface.vlan for guest in guests for interface in guest.interfaces}
        links = machine.network.links.values()
        bridges = {int(link.name.removeprefix(MARK)) for link in links if re.fullmatch(r"vcbr\d+", link.name)} - {7}
        if bridges != wanted:
            self.truth.violate(
                "leak", f"{host} has bridges for VLANs {sorted(bridges)}, its guests need {sorted(wanted)}"
            )
        if not wanted:
            return
        for lack in self.rules(host, machine):
            self.truth.violate("S12", f"{host}: {lack}")
        table = machine.nft.find("bridge", "vcrecon")
        ports = {i.mac for guest in guests for i in guest.interfaces}
        pairs = [element.split(" . ") for element in (table.sets["macs"].elements if table else [])]
        known = {mac for _, mac in pairs}
        if known != ports:
            self.truth.violate("S12", f"the rules of {host} know {sorted(known)}, its guests have {sorted(ports)}")
        if sorted(tap for tap, _ in pairs) != sorted(table.sets["taps"].elements if table else []):
            self.truth.violate("S12", f"the ports that may hear on {host} are not those that may speak")

    # --- masters -------------------------------------------------------------------------------------------

    def watch_lease(self, host: str) -> None:
        """A lease changes hands when it is void, given up or outranked, and at no other time."""
        was, now = self._leases.get(host), self._lease(host)
        if now == was:
            return
        name, generation, at_s = now
        if was is not None and name not in ("", "-", was[0]) and was[0] not in ("", "-"):
            held_s = at_s - was[2]  # both by the host's own uptime; less than nothing once it has booted anew
            if 0 <= held_s < self.room.settings.lease_s - 1 and generation <= was[1]:
                self.truth.violate("masters", f"{host} passes from {was[0]} to {name} after {held_s} s")
        self._leases[host] = now

    def acts(self, host: str, owner: str) -> None:
        """A step of a service runs only where the lease is its own."""
        name, _, _ = self._lease(host)
        if name not in ("", "-") and name.lstrip("0") != owner.partition("/")[0]:
            self.truth.violate("masters", f"{owner} acts on {host}, which is {name}'s")

    def _lease(self, host: str) -> tuple[str, int, int]:
        try:
            words = self.room.site.hosts[host].machine.files.read(LEASE_FILE).decode("utf-8", "replace").split()
        except OSError:
            return "", 0, 0
        if len(words) < 3 or not (words[1].isdigit() and words[2].isdigit()):
            return "", 0, 0
        return words[0], int(words[1]), int(words[2])
