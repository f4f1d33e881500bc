"""Links, addresses and routes of a simulated host, with the kernel's refusals as iproute2 6.1 prints them.

State and rules only: `sim.tools.iproute` reads options and prints; `sim.domains` asks whether a bridge works.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass, field
from typing import Literal

MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}\Z")
IFNAME_BYTES_MAX = 15


class NetError(Exception):
    """A refusal: the text `ip` prints and its exit status (1, 2: the kernel said no, 255: bad word)."""

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


@dataclass(eq=False)
class Link:
    """One network device. `master` and `lower` are names of other links."""

    index: int
    name: str
    kind: Literal["loopback", "ether", "bridge", "vlan", "tun"]
    mac: str
    mtu: int = 1500
    up: bool = False
    master: str = ""
    lower: str = ""
    vlan_id: int = 0
    alias: str = ""
    bridge: dict[str, int] = field(default_factory=dict)
    addresses: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Route:
    """`destination` is `default` or CIDR; `metric` 0 is the kernel's own default."""

    destination: str
    device: str
    gateway: str = ""
    protocol: str = "boot"
    scope: str = "global"
    source: str = ""
    metric: int = 0


def mac_for(seed: str) -> str:
    """A locally administered address, the same for the same seed."""
    digest = hashlib.sha256(seed.encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))


BRIDGE_DEFAULTS = {
    "forward_delay": 1500,
    "hello_time": 200,
    "max_age": 2000,
    "ageing_time": 30000,
    "stp_state": 0,
    "priority": 32768,
    "vlan_filtering": 0,
    "mcast_snooping": 1,
    "mcast_querier": 0,
    "vlan_default_pvid": 1,
    "group_fwd_mask": 0,
    "nf_call_iptables": 0,
    "nf_call_ip6tables": 0,
    "nf_call_arptables": 0,
}


class Network:
    """All links and routes of a host. `trunk` is the physical interface that carries the VLANs."""

    def __init__(self, host: str, trunk: str, address: str | None) -> None:
        self.host = host
        self.trunk = trunk
        self.address = address
        self.links: dict[str, Link] = {}
        self.routes: list[Route] = []
        self.unknown_types: set[str] = set()
        """Kinds of devices that the kernel has no module for."""
        self._next_index = 1
        self.restart()

    def restart(self) -> None:
        """As after a boot: the loopback and the trunk, nothing that was made by hand."""
        self.links.clear()
        self.routes.clear()
        self._next_index = 1
        loopback = self._new("lo", "loopback", "00:00:00:00:00:00")
        loopback.up, loopback.mtu, loopback.addresses = True, 65536, ["127.0.0.1/8"]
        trunk = self._new(self.trunk, "ether", mac_for(self.host))
        trunk.up = True
        if self.address is not None:
            self.add_address(self.trunk, self.address)

    def _new(self, name: str, kind: Literal["loopback", "ether", "bridge", "vlan", "tun"], mac: str) -> Link:
        link = Link(self._next_index, name, kind, mac)
        self._next_index += 1
        self.links[name] = link
        return link

    def find(self, name: str) -> Link:
        link = self.links.get(name)
        if link is None:
            raise NetError(f'Cannot find device "{name}"', 1)
        return link

    def _free_name(self, name: str) -> None:
        if not name or len(name) > IFNAME_BYTES_MAX or "/" in name or any(c.isspace() for c in name):
            raise NetError(f'Error: argument "{name}" is wrong: "name" not a valid ifname', 255)
        if name in self.links:
            raise NetError("RTNETLINK answers: File exists")

    def add_bridge(self, name: str, options: dict[str, int]) -> Link:
        self._free_name(name)
        link = self._new(name, "bridge", mac_for(f"{self.host}/{name}/{self._next_index}"))
        link.bridge = BRIDGE_DEFAULTS | options
        return link

    def add_vlan(self, lower: str, name: str, vlan_id: int) -> Link:
        below = self.find(lower)
        self._free_name(name)
        if vlan_id > 0xFFFF:
            raise NetError(f'Error: argument "{vlan_id}" is wrong: id is invalid\n', 255)
        if vlan_id >= 4095:
            raise NetError("Error: 8021q: Invalid VLAN id.")
        if any(link.lower == lower and link.vlan_id == vlan_id for link in self.links.values()):
            raise NetError("Error: 8021q: VLAN device already exists.")
        link = self._new(name, "vlan", below.mac)
        link.lower, link.vlan_id, link.mtu = lower, vlan_id, below.mtu
        return link

    def add_tap(self, name: str, master: str) -> Link:
        """A guest's port, made and taken away by the hypervisor."""
        link = self._new(name, "tun", mac_for(f"{self.host}/{name}"))
        link.up, link.master = True, master
        return link

    def add_own_tap(self, name: str) -> Link:
        """A port made by hand (`ip tuntap`): down, and on no bridge."""
        self._free_name(name)
        return self._new(name, "tun", mac_for(f"{self.host}/{name}"))

    def free_tap(self, prefix: str) -> str:
        number = 0
        while f"{prefix}{number}" in self.links:
            number += 1
        return f"{prefix}{number}"

    def remove(self, name: str) -> None:
        link = self.find(name)
        if link.kind in ("loopback", "ether"):
            raise NetError("RTNETLINK answers: Operation not supported")
        del self.links[name]
        self.routes = [route for route in self.routes if route.device != name]
        for other in list(self.links.values()):
            if other.master == name:
                other.master = ""
            if other.lower == name:
                self.remove(other.name)

    def set_master(self, name: str, master: str) -> None:
        link = self.find(name)
        if master not in self.links:
            raise NetError(f'Error: argument "{master}" is wrong: Device does not exist\n', 255)
        if self.links[master].kind != "bridge" or link.kind == "loopback":
            raise NetError("RTNETLINK answers: Operation not supported")
        if link.kind == "bridge":
            raise NetError("Error: Can not enslave a bridge to a bridge.")
        link.master = master

    def running(self, link: Link) -> bool:
        """Whether the link has a carrier: a bridge needs a running port, a VLAN a running lower device."""
        if not link.up:
            return False
        if link.kind == "vlan":
            return link.lower in self.links and self.running(self.links[link.lower])
        if link.kind == "bridge":
            ports = [port for port in self.links.values() if port.master == link.name]
            return any(self.running(port) for port in ports)
        return True

    def flags(self, link: Link) -> list[str]:
        flags = []
        if link.up and not self.running(link):
            flags.append("NO-CARRIER")
        flags += ["LOOPBACK"] if link.kind == "loopback" else ["BROADCAST", "MULTICAST"]
        if link.up:
            flags.append("UP")
        if self.running(link):
            flags.append("LOWER_UP")
        if link.kind == "vlan" and link.up and "LOWER_UP" not in flags:
            flags.insert(0, "M-DOWN")
            flags.remove("NO-CARRIER")
        return flags

    def operstate(self, link: Link) -> str:
        if link.kind == "loopback" and link.up:
            return "UNKNOWN"
        if link.kind == "vlan" and link.up and not self.running(link):
            return "LOWERLAYERDOWN"
        return "UP" if self.running(link) else "DOWN"

    # -- addresses and routes -----------------------------------------------------------------------

    @staticmethod
    def _interface(text: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
        try:
            return ipaddress.ip_interface(text)
        except ValueError:
            raise NetError(f'Error: any valid prefix is expected rather than "{text}".', 1) from None

    def add_address(self, name: str, address: str, *, replace: bool = False) -> None:
        link = self.find(name)
        interface = self._interface(address)
        text = interface.with_prefixlen
        if text in link.addresses:
            if not replace:
                family = "ipv4" if interface.version == 4 else "ipv6"
                raise NetError(f"Error: {family}: Address already assigned.")
            return
        link.addresses.append(text)
        network = interface.network
        if network.prefixlen < network.max_prefixlen:
            self.routes.append(Route(str(network), name, protocol="kernel", scope="link", source=str(interface.ip)))

    def remove_address(self, name: str, address: str) -> None:
        link = self.find(name)
        interface = self._interface(address)
        if interface.with_prefixlen not in link.addresses:
            family = "ipv4" if interface.version == 4 else "ipv6"
            raise NetError(f"Error: {family}: Address not found.")
        link.addresses.remove(interface.with_prefixlen)
        self.routes = [r for r in self.routes if (r.device, r.source) != (name, str(interface.ip))]

    def add_route(self, route: Route, *, replace: bool = False) -> None:
        if not route.device:
            route = self._through(route)
        elif route.device not in self.links:
            raise NetError(f'Cannot find device "{route.device}"', 1)
        if not self.links[route.device].up:
            raise NetError("Error: Device for nexthop is not up.")
        same = [r for r in self.routes if (r.destination, r.metric) == (route.destination, route.metric)]
        if same and not replace:
            raise NetError("RTNETLINK answers: File exists")
        for old in same[:1]:
            self.routes.remove(old)
        self.routes.append(route)

    def _through(self, route: Route) -> Route:
        """Find the device that reaches the gateway."""
        for link in self.links.values():
            for address in link.addresses:
                if route.gateway and ipaddress.ip_address(route.gateway) in ipaddress.ip_interface(address).network:
                    return Route(route.destination, link.name, route.gateway, route.protocol, metric=route.metric)
        raise NetError("Error: Nexthop has invalid gateway.")

    def remove_route(self, destination: str, device: str, gateway: str) -> None:
        for route in self.routes:
            if route.destination == destination and device in ("", route.device) and gateway in ("", route.gateway):
                self.routes.remove(route)
                return
        raise NetError("RTNETLINK answers: No such process")

    def owns(self, address: str) -> bool:
        """Whether one of the host's own addresses is `address`."""
        return any(entry.split("/")[0] == address for link in self.links.values() for entry in link.addresses)
