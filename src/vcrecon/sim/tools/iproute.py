"""iproute2 6.1 on a simulated host: ip and bridge."""

from __future__ import annotations

import ipaddress
import json
import shlex
from collections.abc import Sequence
from typing import Any

from vcrecon.sim.network import BRIDGE_DEFAULTS, Link, NetError, Network, Route
from vcrecon.sim.process import Process, Tool
from vcrecon.sim.tools._common import read_input, tool

TOOLS: dict[str, Tool] = {}
INCOMPLETE = 'Command line is not complete. Try option "help"'
OBJECTS = ("link", "address", "route", "tuntap")
FOREVER = 4294967295


class Words:
    """The arguments of one ip command, taken one by one. A missing one raises NetError(255)."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = list(words)

    def __bool__(self) -> bool:
        return bool(self._words)

    def take(self) -> str:
        if not self._words:
            raise NetError(INCOMPLETE, 255)
        return self._words.pop(0)

    def take_if(self, *names: str) -> str | None:
        return self._words.pop(0) if self._words and self._words[0] in names else None

    def number(self, what: str) -> int:
        text = self.take()
        if not text.isdigit():
            raise NetError(f'Error: argument "{text}" is wrong: {what}\n', 255)
        return int(text)


def describe(network: Network, link: Link, *, details: bool, addresses: bool = False) -> dict[str, Any]:
    """A link as `ip -j` prints it."""
    ether = "00:00:00:00:00:00" if link.kind == "loopback" else "ff:ff:ff:ff:ff:ff"
    row: dict[str, Any] = {"ifindex": link.index}
    if link.lower:
        row["link"] = link.lower
    row |= {"ifname": link.name, "flags": network.flags(link), "mtu": link.mtu}
    row["qdisc"] = "noqueue" if link.kind in ("loopback", "bridge", "vlan") else "fq_codel"
    if not link.up:
        row["qdisc"] = "noop"
    if link.master:
        row["master"] = link.master
    row["operstate"] = network.operstate(link)
    if not addresses:
        row["linkmode"] = "DEFAULT"
    row |= {"group": "default", "txqlen": 1000}
    row |= {
        "link_type": "loopback" if link.kind == "loopback" else "ether",
        "address": link.mac,
        "broadcast": ether,
    }
    if details:
        row |= {
            "promiscuity": int(bool(link.master)),
            "allmulti": int(bool(link.master)),
            "min_mtu": 68,
            "max_mtu": 65535,
        }
        info = _link_info(link)
        if info:
            row["linkinfo"] = info
        row |= {"inet6_addr_gen_mode": "eui64", "num_tx_queues": 1, "num_rx_queues": 1}
    if link.alias:
        row["ifalias"] = link.alias
    if addresses:
        row["addr_info"] = [_address_info(link, address) for address in link.addresses]
    return row


def _link_info(link: Link) -> dict[str, Any]:
    info: dict[str, Any] = {}
    if link.kind == "bridge":
        identity = f"8000.{link.mac}"
        info = {
            "info_kind": "bridge",
            "info_data": {**link.bridge, "bridge_id": identity, "root_id": identity},
        }
    elif link.kind == "vlan":
        data = {"protocol": "802.1Q", "id": link.vlan_id, "flags": ["REORDER_HDR"]}
        info = {"info_kind": "vlan", "info_data": data}
    elif link.kind == "tun":
        info = {
            "info_kind": "tun",
            "info_data": {"type": "tap", "pi": False, "vnet_hdr": True, "persist": False},
        }
    if link.master:
        info |= {
            "info_slave_kind": "bridge",
            "info_slave_data": {
                "state": "forwarding",
                "priority": 32,
                "cost": 100,
                "learning": True,
                "flood": True,
                "isolated": False,
            },
        }
    return info


def _address_info(link: Link, text: str) -> dict[str, Any]:
    interface = ipaddress.ip_interface(text)
    row: dict[str, Any] = {
        "family": "inet" if interface.version == 4 else "inet6",
        "local": str(interface.ip),
        "prefixlen": interface.network.prefixlen,
    }
    if interface.version == 4 and link.kind == "ether":
        row["broadcast"] = str(interface.network.broadcast_address)
    row["scope"] = "host" if link.kind == "loopback" else "global"
    if interface.version == 4:
        row["label"] = link.name
    return row | {"valid_life_time": FOREVER, "preferred_life_time": FOREVER}


def as_text(network: Network, link: Link, *, addresses: bool) -> str:
    """A link as plain `ip link` or `ip addr` prints it."""
    name = f"{link.name}@{link.lower}" if link.lower else link.name
    row = describe(network, link, details=False, addresses=addresses)
    master = f" master {link.master}" if link.master else ""
    mode = "" if addresses else " mode DEFAULT"
    lines = [
        f"{link.index}: {name}: <{','.join(row['flags'])}> mtu {link.mtu} qdisc {row['qdisc']}{master} "
        f"state {row['operstate']}{mode} group default qlen 1000"
    ]
    lines.append(f"    link/{row['link_type']} {link.mac} brd {row['broadcast']}")
    if link.alias:
        lines.append(f"    alias {link.alias}")
    for info in row.get("addr_info", []):
        lines.append(f"    {info['family']} {info['local']}/{info['prefixlen']} scope {info['scope']} {link.name}")
        lines.append("       valid_lft forever preferred_lft forever")
    return "\n".join(lines) + "\n"


BRIDGE_OPTIONS = frozenset(BRIDGE_DEFAULTS)


def _bridge_options(words: Words) -> dict[str, int]:
    found = {}
    while words:
        name = words.take()
        if name not in BRIDGE_OPTIONS:
            raise NetError(f'bridge: unknown command "{name}"?\nUsage: ... bridge [ fdb_flush ]', 255)
        found[name] = words.number(f"invalid {name}")
    return found


class Ip:
    """One ip command after another on one host's network; `out` collects what it prints."""

    def __init__(self, network: Network, *, as_json: bool, details: bool) -> None:
        self.network = network
        self.as_json = as_json
        self.details = details

    def run(self, words: Sequence[str]) -> str:
        left = Words(words)
        word = left.take()
        kind = next((name for name in OBJECTS if name.startswith(word)), None)
        if kind is None:
            raise NetError(f'Object "{word}" is unknown, try "ip help".', 1)
        verb = left.take_if("show", "list", "ls", "s", "l", "lst", "sh") or (left.take() if left else "show")
        if verb in ("show", "list", "ls", "s", "l", "lst", "sh"):
            return self._routes(left) if kind == "route" else self._show(left, addresses=kind == "address")
        act = {"link": self._link, "address": self._address, "route": self._route, "tuntap": self._tuntap}[kind]
        return act(verb, left)

    def _show(self, words: Words, *, addresses: bool) -> str:
        links = list(self.network.links.values())
        while words:
            word = words.take()
            if word == "type":
                kind = words.take()
                links = [link for link in links if link.kind == kind]
                if kind not in ("bridge", "vlan", "tun", "veth", "dummy", "bond"):
                    raise NetError(f'Device type "{kind}" is unknown', 1)
            elif word == "master":
                master = words.take()
                if master not in self.network.links:
                    raise NetError(f'Error: argument "{master}" is wrong: Device does not exist\n', 255)
                links = [link for link in links if link.master == master]
            elif word == "up":
                links = [link for link in links if link.up]
            elif word not in ("primary", "scope", "global", "permanent"):
                name = words.take() if word == "dev" else word
                if name not in self.network.links:
                    raise NetError(f'Device "{name}" does not exist.', 1)
                links = [link for link in links if link.name == name]
        if not self.as_json:
            return "".join(as_text(self.network, link, addresses=addresses) for link in links)
        rows = [describe(self.network, link, details=self.details, addresses=addresses) for link in links]
        return json.dumps(rows, separators=(",", ":")) + "\n"

    def _routes(self, words: Words) -> str:
        rows = []
        device = ""
        while words:
            if words.take() == "dev":
                device = words.take()
        for route in self.network.routes:
            if device in ("", route.device):
                row: dict[str, Any] = {"dst": route.destination}
                row |= {"gateway": route.gateway} if route.gateway else {}
                row["dev"] = route.device
                row |= {"protocol": route.protocol} if route.protocol != "boot" else {}
                row |= {"scope": route.scope} if route.scope != "global" else {}
                row |= {"prefsrc": route.source} if route.source else {}
                row |= {"metric": route.metric} if route.metric else {}
                rows.append({**row, "flags": []})
        if self.as_json:
            return json.dumps(rows, separators=(",", ":")) + "\n"
        text = ""
        for row in rows:
            gateway = f" via {row['gateway']}" if "gateway" in row else ""
            extra = "".join(
                f" {label} {row[key]}"
                for key, label in (("protocol", "proto"), ("scope", "scope"), ("prefsrc", "src"))
                if key in row
            )
            text += f"{row['dst']}{gateway} dev {row['dev']}{extra} \n"
        return text

    def _link(self, verb: str, words: Words) -> str:
        if verb == "add":
            self._link_add(words)
        elif verb in ("del", "delete"):
            words.take_if("dev")
            self.network.remove(words.take())
        elif verb == "set":
            self._link_set(words)
        else:
            raise NetError(f'Command "{verb}" is unknown, try "ip link help".', 255)
        return ""

    def _link_add(self, words: Words) -> None:
        lower = name = ""
        settings: list[str] = []
        while words:
            word = words.take()
            if word == "link":
                lower = words.take()
                self.network.find(lower)  # looked up at once, whatever follows
            elif word in ("name", "dev"):
                name = words.take()
            elif word in ("up", "down", "mtu", "address"):
                settings += [word] + ([words.take()] if word not in ("up", "down") else [])
            elif word == "alias":
                words.take()  # read, and passed over by the kernel, which takes it only for a link that is there
            elif word == "type":
                kind = words.take()
                if kind in self.network.unknown_types:
                    raise NetError("Error: Unknown device type.")
                if kind == "bridge":
                    self.network.add_bridge(name, _bridge_options(words))
                elif kind == "vlan":
                    vlan_id = 0
                    while words:
                        if words.take() == "id":
                            vlan_id = words.number("id is invalid")
                        else:
                            words.take()
                    if not lower:
                        raise NetError('Error: either "link" is required for a vlan device.', 255)
                    self.network.add_vlan(lower, name, vlan_id)
                else:
                    raise NetError("Error: Unknown device type.")
            else:
                name = word
        if name not in self.network.links:
            raise NetError('Not enough information: "type" argument is required', 255)
        if settings:
            self._link_set(Words([name, *settings]))

    def _link_set(self, words: Words) -> None:
        words.take_if("dev")
        name = words.take()
        link = self.network.find(name)
        while words:
            word = words.take()
            if word in ("up", "down"):
                if word == "up" and link.lower and not self.network.links[link.lower].up:
                    raise NetError("RTNETLINK answers: Network is down")
                link.up = word == "up"
            elif word == "master":
                self.network.set_master(name, words.take())
            elif word == "nomaster":
                link.master = ""
            elif word in ("alias", "address"):
                setattr(link, "mac" if word == "address" else "alias", words.take())
            elif word == "mtu":
                link.mtu = words.number('Invalid "mtu" value')
            elif word == "type":
                if words.take() != link.kind or link.kind != "bridge":
                    raise NetError("RTNETLINK answers: Operation not supported")
                link.bridge |= _bridge_options(words)
            elif word == "addrgenmode":
                words.take()
            else:
                raise NetError(f'Error: either "dev" is duplicate, or "{word}" is a garbage.', 255)

    def _tuntap(self, verb: str, words: Words) -> str:
        name = mode = ""
        while words:
            word = words.take()
            if word == "mode":
                mode = words.take()
            elif word not in ("multi_queue", "vnet_hdr", "pi", "one_queue"):
                name = words.take() if word in ("dev", "name") else word
        if mode not in ("tap", "tun"):
            raise NetError("You failed to specify a tunnel mode", 255)
        if verb == "add":
            self.network.add_own_tap(name)
        else:
            self.network.remove(name)
        return ""

    def _address(self, verb: str, words: Words) -> str:
        if verb not in ("add", "replace", "change", "del", "delete", "flush"):
            raise NetError(f'Command "{verb}" is unknown, try "ip address help".', 255)
        address = device = ""
        while words:
            word = words.take()
            if word == "dev":
                device = words.take()
            elif word in ("scope", "brd", "broadcast", "label"):
                words.take()
            elif word not in ("noprefixroute",):
                address = word
        if not device:
            raise NetError('Not enough information: "dev" argument is required.', 255)
        if verb == "flush":
            for each in list(self.network.find(device).addresses):
                self.network.remove_address(device, each)
        elif verb in ("del", "delete"):
            self.network.remove_address(device, address)
        else:
            self.network.add_address(device, address, replace=verb != "add")
        return ""

    def _route(self, verb: str, words: Words) -> str:
        if verb not in ("add", "replace", "del", "delete"):
            raise NetError(f'Command "{verb}" is unknown, try "ip route help".', 255)
        destination = device = gateway = source = scope = ""
        metric = 0
        while words:
            word = words.take()
            if word == "dev":
                device = words.take()
            elif word == "via":
                gateway = words.take()
            elif word == "src":
                source = words.take()
            elif word == "metric":
                metric = words.number('"metric" value is invalid')
            elif word in ("proto", "table", "scope"):
                scope = words.take() if word == "scope" else scope or (words.take() and "")
            else:
                destination = word
        if destination not in ("default", "") and "/" in destination:
            try:
                ipaddress.ip_network(destination)
            except ValueError:
                raise NetError(
                    "Error: Invalid prefix for given prefix length."
                    if "/" in destination
                    else f'Error: any valid prefix is expected rather than "{destination}".'
                ) from None
        if verb in ("del", "delete"):
            self.network.remove_route(destination, device, gateway)
        else:
            scope = scope or ("global" if gateway else "link")
            route = Route(destination, device, gateway, scope=scope, source=source, metric=metric)
            self.network.add_route(route, replace=verb == "replace")
        return ""


@tool(TOOLS, "ip")
async def ip(process: Process, args: Sequence[str]) -> int:
    flags = []
    rest = list(args)
    batch = None
    while rest and rest[0].startswith("-"):
        flag = rest.pop(0).replace("--", "-")
        if flag in ("-batch", "-b"):
            batch = rest.pop(0) if rest else "-"
        elif flag in ("-V", "-Version"):
            await process.say("ip utility, iproute2-6.1.0, libbpf 1.1.2\n")
            return 0
        elif flag in (
            "-j",
            "-json",
            "-d",
            "-details",
            "-o",
            "-oneline",
            "-4",
            "-6",
            "-br",
            "-force",
            "-p",
            "-s",
            "-n",
        ):
            flags.append(flag)
        else:
            return await process.fail(f'Option "{flag}" is unknown, try "ip -help".', 255)
    runner = Ip(
        process.machine.network,
        as_json=given_any(flags, "-j", "-json"),
        details=given_any(flags, "-d", "-details"),
    )
    await process.machine.work("ip")
    if batch is None:
        if not rest:
            return await process.fail("Usage: ip [ OPTIONS ] OBJECT { COMMAND | help }", 255)
        try:
            await process.say(runner.run(rest))
        except NetError as error:
            return await process.fail(str(error), error.status)
        return 0
    status = 0
    for number, line in enumerate((await read_input(process, batch)).decode().splitlines(), 1):
        words = shlex.split(line, comments=True)
        if not words:
            continue
        try:
            await process.say(runner.run(words))
        except NetError as error:
            await process.fail(f"{error}\nCommand failed {batch}:{number}")
            status = 1
            if "-force" not in flags:
                break
    return status


def given_any(flags: Sequence[str], *names: str) -> bool:
    return any(name in flags for name in names)


@tool(TOOLS, "bridge")
async def bridge(process: Process, args: Sequence[str]) -> int:
    words = [word for word in args if not word.startswith("-")]
    network = process.machine.network
    await process.machine.work("ip")
    kind = words[0] if words else ""
    ports = [link for link in network.links.values() if link.master]
    rows: list[dict[str, Any]] = []
    if kind == "link":
        for port in ports:
            row: dict[str, Any] = {
                "ifindex": port.index,
                **({"link": port.lower} if port.lower else {}),
                "ifname": port.name,
                "flags": network.flags(port),
                "mtu": port.mtu,
                "master": port.master,
                "state": "forwarding",
                "priority": 32,
                "cost": 100,
            }
            rows.append(row)
    elif kind == "vlan":
        for link in network.links.values():
            if link.kind == "bridge" or link.master:
                rows.append({"ifname": link.name, "vlans": [{"vlan": 1, "flags": ["PVID", "Egress Untagged"]}]})
    elif kind == "fdb":
        rows = [{"mac": p.mac, "ifname": p.name, "flags": [], "master": p.master, "state": "permanent"} for p in ports]
    else:
        return await process.fail(f'Object "{kind}" is unknown, try "bridge help".', 255)
    if "-j" in args or "-json" in args:
        await process.say(json.dumps(rows, separators=(",", ":")) + "\n")
    else:
        await process.say("".join(f"{row['ifname']}\n" for row in rows))
    return 0
