"""What a full look at a container with many guests prints, of the size that the real tools give it.

Used by `ssh_fleet`: the machine that runs the benchmark has no volume group and no bridges, so that its own
tools print far less than a working container's. The names of the fields are lvm2's and iproute2's.
"""

from __future__ import annotations

import json

from vcrecon.host.names import MARK, site_tag

BOOT_ID = "6f0b7a4e-6d0f-4f0e-9a53-6f1f3cf7c0de"
GIB = 1024**3


def look_text(guests: int, site: str) -> str:
    """The output of the look's script on a container that holds this many guests, each on a VLAN of its own."""
    sections = {
        "boot": BOOT_ID,
        "release": f"hypervisor=kvm\nsite={site}",
        "memory": "MemTotal:       65843012 kB",
        "images": "a" * 64,
        "lvm": json.dumps({"report": [_report(guests, site)]}, indent=1),
        "address": json.dumps([link for n in range(guests) for link in _links(n + 100, site)]),
        "route": json.dumps([route for n in range(guests) for route in _routes(n + 100)]),
        "firewall": f"{'b' * 32} {'c' * 64}",
        "rules": f"{'c' * 64}  -",
    }
    return "".join(f"@@ {name}\n{text}\n@@ = 0\n" for name, text in sections.items())


def _report(guests: int, site: str) -> dict[str, list[dict[str, str]]]:
    marks = f"{MARK},{site_tag(site)}"
    names = [f"k{n:02}-n1" for n in range(guests)]
    pool = {"lv_name": "pool", "lv_size": str(450 * GIB), "pool_lv": "", "lv_tags": ""}
    volumes = [pool | {"data_percent": "20.00", "metadata_percent": "5.00"}]
    for name in names:
        tags = f"{marks},vc.guest={name},vc.epoch=1,vc.boots=1,vc.touched,vc.image={'a' * 64},vc.context={'d' * 32}"
        row = {"lv_name": f"vcg-{name}", "lv_size": str(10 * GIB), "pool_lv": "pool", "lv_tags": tags}
        volumes.append(row | {"data_percent": "10.00", "metadata_percent": ""})
    # The fields that the look asks for, and no others.
    return {
        "vg": [{"vg_name": "vg0", "vg_free": str(50 * GIB)}],
        "pv": [{"pv_name": "/dev/vda2"}],
        "lv": volumes,
        "pvseg": [{"pvseg_start": "0"} for _ in range(4)],
        "seg": [{"seg_start": "0"} for _ in volumes],
    }


def _links(vlan: int, site: str) -> list[dict[str, object]]:
    """A VLAN's bridge, its tagged interface and one guest's port, about as long as with `ip -d`."""
    common: dict[str, object] = {
        "ifindex": vlan,
        "flags": ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"],
        "mtu": 1500,
        "qdisc": "noqueue",
        "operstate": "UP",
        "group": "default",
        "txqlen": 1000,
        "link_type": "ether",
        "address": "52:54:00:00:00:01",
        "broadcast": "ff:ff:ff:ff:ff:ff",
        "promiscuity": 1,
        "min_mtu": 68,
        "max_mtu": 65535,
        "inet6_addr_gen_mode": "eui64",
        "num_tx_queues": 1,
        "num_rx_queues": 1,
        "gso_max_size": 65536,
        "gso_max_segs": 65535,
        "tso_max_size": 65536,
        "tso_max_segs": 65535,
        "gro_max_size": 65536,
        "addr_info": [],
    }
    details = {f"bridge_detail_{n}": 30000 for n in range(60)}
    address = {"family": "inet", "local": "172.31.0.1", "prefixlen": 32, "scope": "global", "label": f"vcbr{vlan}"}
    bridge = {"ifname": f"vcbr{vlan}", "ifalias": f"{MARK} {site}", "addr_info": [address]}
    tagged = {"ifname": f"vcvl{vlan}", "link": "eth0", "master": f"vcbr{vlan}"}
    port = {"ifname": f"vcg{vlan:012x}", "master": f"vcbr{vlan}"}
    data = {"protocol": "802.1Q", "id": vlan, "flags": ["REORDER_HDR"]}
    return [
        common | bridge | {"linkinfo": {"info_kind": "bridge", "info_data": details}},
        common | tagged | {"linkinfo": {"info_kind": "vlan", "info_data": data, "info_slave_data": details}},
        common | port | {"linkinfo": {"info_kind": "tun", "info_data": {"type": "tap"}, "info_slave_data": details}},
    ]


def _routes(vlan: int) -> list[dict[str, object]]:
    return [{"dst": f"10.0.{vlan % 250}.0/24", "dev": f"vcbr{vlan}", "scope": "link", "flags": []}]
