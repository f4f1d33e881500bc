"""Clusters and guests: from ranges, templates and single entries to frozen models. Called by `spec.load`.

Where the text gives no address, the head has host 1 of its cluster's subnet, nodes have 11, 12, … and a
guest on all clusters has 250 (the last host where the subnet is smaller). MACs follow from VLAN and host
number, so they never collide and never change while the address stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from vcrecon.spec.draft import CLUSTERS, Draft
from vcrecon.spec.findings import At
from vcrecon.spec.model import Cluster, Guest, Interface, Network, Role
from vcrecon.spec.recipe import Recipe, Recipes
from vcrecon.spec.text import (
    ClustersFile,
    ClusterText,
    GroupText,
    GuestFields,
    GuestText,
    HeadText,
    InterfaceText,
)
from vcrecon.spec.values import derived_mac, escaped, ipv4, mac, shorten, subnet, vlan_id

HEAD_HOST = 1
FIRST_NODE_HOST = 11
GUESTS_MAX = 50_000
INTERFACES_MAX = 200_000
_LAST_IPV4 = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Port:
    """An interface to be. No `address` means none, no `mac` means derived; `at` is where the text says so."""

    network: str
    address: str | None
    mac: str | None
    at: At
    vlan: int | None = None


def expand_guests(draft: Draft, text: ClustersFile, recipes: Recipes) -> None:
    """Fill `draft.clusters`, `draft.guests` and the clusters' own part of `draft.networks`."""
    _Expansion(draft, text, recipes).run()


class _Expansion:
    def __init__(self, draft: Draft, text: ClustersFile, recipes: Recipes) -> None:
        self.draft = draft
        self.text = text
        self.recipes = recipes
        self.members: dict[str, list[str]] = {}
        self.heads: dict[str, list[str]] = {}
        self.vlans: dict[int, str] = {}
        self.cluster_at: dict[str, At] = {}
        self.paths: dict[tuple[str, str | None], Path | None] = {}
        self.count = 0
        self.interfaces = 0

    def run(self) -> None:
        for index, entry in enumerate(self.text.clusters):
            if not self._clusters(entry, At(CLUSTERS, ("clusters", index))):
                break
        self.vlans = {network.vlan: name for name, network in self.draft.networks.items()}
        for index, guest in enumerate(self.text.guests):
            at = At(CLUSTERS, ("guests", index))
            ports = len(guest.interfaces) + (len(self.members) if guest.networks is not None else 0)
            if self._too_many(at, 1, ports):
                break
            self._single(guest, at)
        for name, at in self.cluster_at.items():
            self._close(name, at)

    def _close(self, name: str, at: At) -> None:
        heads = self.heads[name]
        if len(heads) != 1 and "guest" not in self.draft.gaps:
            found = f"{len(heads)}: {', '.join(heads[:3])}" if heads else "none"
            fix = "give it a 'head', or one guest with 'role: head'"
            self.draft.findings.error(at, f"cluster {name!r} must have one head, it has {found}; {fix}")
        nodes = [guest for guest in self.members[name] if guest not in heads]
        self.draft.clusters[name] = Cluster(name, name, (*heads, *nodes))

    def _clusters(self, entry: ClusterText, at: At) -> bool:
        """Add the clusters of one entry; False when they are too many, so that the rest is not looked at."""
        draft = self.draft
        names = draft.spread(at / "name", entry.name)
        length = None if names is None else len(names)
        like = f"name {shorten(entry.name)}"
        vlans = draft.spread(at / "vlan", entry.vlan, like, length)
        spans = draft.spread(at / "subnet", entry.subnet, like, length)
        if names is None or vlans is None or spans is None:
            draft.gaps.update(("guest", "cluster", "network"))
            return True
        ports = 1 + len(entry.head.networks if entry.head is not None else ())
        ports += sum(group.count * (1 + len(group.networks)) for group in entry.nodes)
        if self._too_many(at, len(names) * (sum(group.count for group in entry.nodes) + 1), len(names) * ports):
            return False
        head = None if entry.head is None else _HeadPlan(self, entry.head, at / "head", entry.name, len(names))
        groups = [
            _GroupPlan(self, group, at / "nodes" / index, entry.name, len(names))
            for index, group in enumerate(entry.nodes)
        ]
        for position, name in enumerate(names):
            if not self._open(name, vlans[position], spans[position], at):
                draft.gaps.update(("guest", "cluster", "network"))
                continue
            if head is not None:
                head.add(name, position)
            ordinal = 0
            numbers: dict[str, int] = {}
            for group in groups:
                ordinal = group.add(name, position, ordinal, numbers)
        return True

    def _too_many(self, at: At, guests: int, interfaces: int) -> bool:
        """Whether so many more are beyond what a site may have; what is refused leaves gaps."""
        self.count += guests
        self.interfaces += interfaces
        if self.count <= GUESTS_MAX and self.interfaces <= INTERFACES_MAX:
            return False
        most = f"{GUESTS_MAX:,} guests" if self.count > GUESTS_MAX else f"{INTERFACES_MAX:,} interfaces of guests"
        self.draft.findings.error(at, f"this makes more than {most}; check counts and ranges")
        self.draft.gaps.update(("guest", "cluster", "network"))
        return True

    def _open(self, name: str, vlan_text: str, span_text: str, at: At) -> bool:
        draft = self.draft
        vlan = draft.attempt(at / "vlan", vlan_id, vlan_text)
        span = draft.attempt(at / "subnet", subnet, span_text)
        if span is not None and span.prefixlen > 30:
            draft.findings.error(at / "subnet", f"{span} has no room for hosts; use /30 or wider")
            return False
        if not draft.claim("cluster", name, at / "name") or vlan is None or span is None:
            return False
        if not draft.claim("network", name, at / "name"):
            return False
        draft.networks[name] = Network(name, vlan, str(span), cluster=name)
        draft.subnets[name] = span
        self.members[name], self.heads[name], self.cluster_at[name] = [], [], at / "name"
        return True

    def template(self, at: At, name: str | None) -> GuestFields | None:
        if name is None:
            return None
        if name not in self.text.templates:
            self.draft.unknown(at / "template", "template", name, self.text.templates)
        return self.text.templates.get(name)

    def add(
        self, name: str, role: Role, cluster: str | None, recipe: Recipe | None, ports: list[Port], at: At,
        pinned: str | None = None,
    ) -> None:  # fmt: skip
        """Put one guest into the draft, with as many of its interfaces as are sound."""
        draft = self.draft
        if recipe is None or not draft.claim("guest", name, at):
            draft.gaps.add("guest")
            return
        key = (recipe.root_password, cluster)
        if key not in self.paths:
            self.paths[key] = self.recipes.password_file(at, recipe.root_password, cluster)
        interfaces = []
        places = []
        routed = False
        for port in ports:
            interface = self._interface(port, routed)
            if interface is not None:
                routed = routed or interface.gateway is not None
                interfaces.append(interface)
                places.append(port.at)
        draft.interfaces_at[name] = places
        draft.guests[name] = Guest(
            name=name,
            role=role,
            cluster=cluster,
            image=recipe.image,
            memory_bytes=recipe.memory_bytes,
            cores=recipe.cores,
            disk_bytes=recipe.disk_bytes,
            root_password=self.paths[key] or draft.directory,
            interfaces=tuple(interfaces),
            authorized_keys=recipe.authorized_keys,
            storage=recipe.storage,
            on_poweroff=recipe.on_poweroff,
            pinned=pinned,
            hooks=recipe.hooks,
        )
        if cluster is not None and cluster in self.members:
            self.members[cluster].append(name)
            if role == "head":
                self.heads[cluster].append(name)

    def _interface(self, port: Port, routed: bool) -> Interface | None:
        draft = self.draft
        name = port.network
        if port.vlan is not None:
            by_vlan = self.vlans.get(port.vlan)
            if by_vlan is None:
                if "network" not in draft.gaps:
                    fix = "add a network with this vlan to site.yaml, or a cluster to clusters.yaml"
                    draft.findings.error(port.at / "vlan", f"no network has VLAN {port.vlan}; {fix}")
                return None
            name = by_vlan
        network = draft.networks.get(name)
        if network is None:
            draft.unknown(port.at, "network", name, draft.networks)
            return None
        host_number = None
        address = None
        if port.address is not None:
            host_number = self._host_number(port, network)
            if host_number is None:
                return None
            span = draft.subnets[name]
            address = f"{IPv4Address(int(span.network_address) + host_number)}/{span.prefixlen}"
        if port.mac is not None:
            chosen = draft.attempt(port.at, mac, port.mac)
        elif host_number is None:
            draft.findings.error(port.at, "an interface without an address needs a mac")
            return None
        else:
            chosen = draft.attempt(port.at, lambda _: derived_mac(network.vlan, host_number), "")
        if chosen is None:
            return None
        gateway = None if routed or address is None else network.gateway
        return Interface(chosen, network.vlan, name, address, gateway)

    def _host_number(self, port: Port, network: Network) -> int | None:
        """Which host of its subnet the port's address is; None once it is noted that it is none."""
        draft, text = self.draft, port.address or ""
        span = draft.subnets[network.name]
        bare, slash, prefix = text.partition("/")
        address = draft.attempt(port.at, ipv4, bare)
        if address is None:
            return None
        if slash and prefix != str(span.prefixlen):
            draft.findings.error(port.at, f"/{escaped(prefix, 9)} is not the prefix of {network.name!r}, {span}")
            return None
        if address not in span:
            draft.findings.error(port.at, f"address {address} is outside {span}, the subnet of {network.name!r}")
            return None
        number = int(address) - int(span.network_address)
        if number == 0 or address == span.broadcast_address:
            which = "network" if number == 0 else "broadcast"
            draft.findings.error(port.at, f"{address} is the {which} address of {span}; choose a host address")
            return None
        if bare == network.gateway:
            draft.findings.error(port.at, f"{address} is the gateway of {network.name!r}; choose another")
            return None
        return number

    def _single(self, entry: GuestText, at: At) -> None:
        recipe = self.recipes.resolve(at, f"guest {shorten(entry.name)}", entry, self.template(at, entry.template))
        role: Role = entry.role or ("node" if entry.cluster else "single")
        if entry.cluster is not None and entry.cluster not in self.members:
            self.draft.unknown(at / "cluster", "cluster", entry.cluster, self.members)
        if (role == "single") != (entry.cluster is None):
            fix = "a head or node needs a 'cluster', a single guest has none"
            self.draft.findings.error(at / "role", f"role {role!r} does not fit guest {shorten(entry.name)}: {fix}")
        ports = []
        for index, interface in enumerate(entry.interfaces):
            port = self._port(interface, at / "interfaces" / index)
            if port is not None:
                ports.append(port)
        if entry.networks is not None:
            for cluster in self.members:
                ports.append(Port(cluster, self.late_host(cluster, entry.host_number), None, at / "networks"))
        if not entry.interfaces and entry.networks is None:
            self.draft.findings.error(
                at, f"guest {shorten(entry.name)} has no interface; give 'interfaces' or 'networks: all-clusters'"
            )
        self.add(entry.name, role, entry.cluster, recipe, ports, at / "name", entry.pinned)

    def late_host(self, network: str, host_number: int) -> str:
        """Host `host_number` of a subnet, or its last host where it is smaller."""
        span = self.draft.subnets[network]
        return str(span.network_address + min(host_number, span.num_addresses - 2))

    def _port(self, text: InterfaceText, at: At) -> Port | None:
        if (text.vlan is None) == (text.network is None):
            self.draft.findings.error(at, "an interface is on a 'vlan' or on a 'network': give exactly one")
            return None
        if text.ip is not None and text.address is not None:
            self.draft.findings.error(at, "'ip' and 'address' mean the same: give one")
            return None
        key = "ip" if text.ip is not None else "address" if text.address is not None else None
        place = at if key is None else at / key
        if text.network is not None and text.network not in self.draft.networks:
            self.draft.unknown(at / "network", "network", text.network, self.draft.networks)
            return None
        return Port(text.network or "", text.ip or text.address, text.mac, place, text.vlan)


def _extra_ports(
    expansion: _Expansion, networks: dict[str, str], at: At, like: str, length: int
) -> list[tuple[str, At, list[str]]]:
    """Each extra network with its addresses, one for every guest of the entry."""
    columns = []
    for name, text in networks.items():
        place = at / "networks" / name
        if name not in expansion.draft.networks:
            expansion.draft.unknown(place.name(), "network", name, expansion.draft.networks)
            continue
        column = expansion.draft.spread(place, text, like, length)
        if column is not None:
            columns.append((name, place, column))
    return columns


class _HeadPlan:
    """The heads of an entry of clusters, column by column."""

    def __init__(self, expansion: _Expansion, text: HeadText, at: At, names: str, length: int) -> None:
        draft, like = expansion.draft, f"name {shorten(names)}"
        self.expansion = expansion
        self.at = at
        self.recipe = expansion.recipes.resolve(
            at, f"the head of {shorten(names)}", text, expansion.template(at, text.template)
        )
        self.addresses = None if text.address is None else draft.spread(at / "address", text.address, like, length)
        self.macs = None if text.mac is None else draft.spread(at / "mac", text.mac, like, length)
        self.extra = _extra_ports(expansion, text.networks, at, like, length)
        self.pinned: list[str] | None = None
        if text.pinned is not None:
            shared = "[" not in text.pinned
            column = draft.spread(at / "pinned", text.pinned, like, None if shared else length)
            self.pinned = column * length if shared and column else column

    def add(self, cluster: str, position: int) -> None:
        at = self.at
        if self.addresses is not None:
            address, at = self.addresses[position], self.at / "address"
        else:
            address = self.expansion.late_host(cluster, HEAD_HOST)
        mac_text = None if self.macs is None else self.macs[position]
        private = Port(cluster, address, mac_text, at if self.macs is None else self.at / "mac")
        ports = [private, *(Port(name, column[position], None, place) for name, place, column in self.extra)]
        pinned = None if self.pinned is None else self.pinned[position]
        self.expansion.add(f"{cluster}-head", "head", cluster, self.recipe, ports, self.at, pinned)


class _GroupPlan:
    """One group of nodes of an entry of clusters, column by column."""

    def __init__(self, expansion: _Expansion, text: GroupText, at: At, names: str, length: int) -> None:
        like = f"name {shorten(names)}"
        self.expansion = expansion
        self.text = text
        self.at = at
        self.recipe = expansion.recipes.resolve(
            at, f"the nodes {shorten(text.name)} of {shorten(names)}", text, expansion.template(at, text.template)
        )
        self.addresses = self._lists("addresses", text.addresses, like, length)
        self.macs = self._lists("macs", text.macs, like, length)
        whole = f"{like} times count {text.count}" if text.count > 1 else like
        self.extra = _extra_ports(expansion, text.networks, at, whole, length * text.count)

    def _lists(self, key: str, texts: tuple[str, ...] | None, like: str, length: int) -> list[list[str] | None] | None:
        if texts is None:
            return None
        if len(texts) != self.text.count:
            self.expansion.draft.findings.error(
                self.at / key,
                f"{key}: {len(texts)} given for count {self.text.count}; give one for each node",
            )
            return None
        draft = self.expansion.draft
        return [draft.spread(self.at / key / i, text, like, length) for i, text in enumerate(texts)]

    def add(self, cluster: str, position: int, ordinal: int, numbers: dict[str, int]) -> int:
        """Add this group's nodes to `cluster`; `ordinal` counts its nodes so far, the result those after."""
        for index in range(self.text.count):
            number = numbers.get(self.text.name, 0) + 1
            numbers[self.text.name] = number
            place = self.at
            given = None if self.addresses is None else self.addresses[index]
            if given is not None:
                address, place = given[position], self.at / "addresses" / index
            else:
                base = int(self.expansion.draft.subnets[cluster].network_address)
                address = str(IPv4Address(min(base + FIRST_NODE_HOST + ordinal, _LAST_IPV4)))
            macs = None if self.macs is None else self.macs[index]
            ports = [Port(cluster, address, None if macs is None else macs[position], place)]
            row = position * self.text.count + index
            ports += [Port(name, column[row], None, at) for name, at, column in self.extra]
            name = f"{cluster}-{self.text.name}{number}"
            self.expansion.add(name, "node", cluster, self.recipe, ports, self.at)
            ordinal += 1
        return ordinal
