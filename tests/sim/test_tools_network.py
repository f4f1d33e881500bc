"""ip, bridge and nft of the simulated hosts, beside the real ones in a network namespace."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
from toolbox import machine, ok, run

CAN_UNSHARE = (
    os.geteuid() == 0
    and shutil.which("ip") is not None
    and shutil.which("nft") is not None
    and subprocess.run(["unshare", "-n", "true"], check=False, capture_output=True).returncode == 0
)
in_namespace = pytest.mark.skipif(not CAN_UNSHARE, reason="needs root, iproute2, nftables and namespaces")
RULES = """table bridge vc {
  chain c {
    type filter hook forward priority 0; policy accept;
    iifname "vnet0" ether saddr != 52:54:00:00:00:01 drop
    meta iifname vnet1 counter packets 4 bytes 3 drop
  }
}
table inet vcrecon {
  comment "digest 1"
  set nets { type ipv4_addr; flags interval; elements = { 10.3.0.0/24, 10.1.0.0/24, 10.2.0.0/24 }
  }
  set ifs { type ifname; elements = { "vcbr101", "vcbr102" }
  }
  map m { type ipv4_addr : ipv4_addr; elements = { 10.1.0.1 : 10.2.0.1 }
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    ip saddr @nets counter accept comment "hello"
    tcp dport { 80, 22 } accept; iif lo accept
  }
  chain other { }
}
"""
RULES = RULES.replace("chain other { }", "chain other {\n  }")


def real(script: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = ["unshare", "-n", "sh", "-c", script]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


@pytest.mark.root
@in_namespace
async def test_nft_lists_what_the_real_nft_lists():
    host = machine()
    await ok(host, "nft -f -", RULES)
    truth = real("nft -f - && nft -s list ruleset", RULES)
    assert truth.returncode == 0, truth.stderr
    assert await ok(host, "nft -s list ruleset") == truth.stdout


@pytest.mark.root
@in_namespace
async def test_nft_json_has_the_real_objects_without_their_handles():
    host = machine()
    await ok(host, "nft -f -", RULES)

    def strip(rows):
        return [
            {k: {f: v for f, v in row.items() if f not in ("handle", "comment")}} for e in rows for k, row in e.items()
        ]

    mine = strip(json.loads(await ok(host, "nft -j -s list ruleset"))["nftables"])
    truth = strip(json.loads(real("nft -f - && nft -j -s list ruleset", RULES).stdout)["nftables"])
    assert [row for row in mine if row not in truth] == []


BAD_BATCHES = [
    "table inet x {\n",
    "frob x\n",
    "table inet x {\n chain c {\n frob accept\n }\n}\n",
    "table inet x {\n chain c {\n accept\n }\n}\n}\n",
    "table inet x {\n frob c {\n accept\n }\n}\n",
    "table inet x {\n chain c {\n ip saddr @nope accept\n }\n}\n",
    "table inet x { chain c { accept } }\n",
    "delete table inet nope\n",
]


@pytest.mark.root
@in_namespace
@pytest.mark.parametrize("text", BAD_BATCHES)
async def test_a_bad_batch_is_refused_with_the_real_first_line_and_changes_nothing(text):
    host = machine()
    await ok(host, "nft -f -", "table inet keep {\n}\n")
    outcome = await run(host, "nft -f -", f"table ip other {{\n}}\n{text}")
    truth = real("nft -f -", f"table ip other {{\n}}\n{text}")
    assert (outcome.status, truth.returncode) == (1, 1)
    assert outcome.err.splitlines()[0] == truth.stderr.splitlines()[0]
    assert await ok(host, "nft list tables") == "table inet keep\n"


async def test_the_replace_idiom_puts_a_table_in_place_of_another():
    host = machine()
    for port in (1, 2):
        rules = f" chain c {{\n tcp dport {port} accept\n }}\n"
        text = f"table inet x\ndelete table inet x\ntable inet x {{\n{rules}}}\n"
        await ok(host, "nft -f -", text)
    assert "dport 2" in await ok(host, "nft list table inet x")
    assert "dport 1" not in await ok(host, "nft list table inet x")
    await ok(host, "nft add table ip y")
    await ok(host, "nft delete table ip y")
    outcome = await run(host, "nft list table ip y")
    assert outcome.err == "Error: No such file or directory\nlist table ip y\n              ^\n"
    await ok(host, "nft flush ruleset")
    assert await ok(host, "nft list ruleset") == ""


SETUP = [
    "ip link add name vcbr101 type bridge stp_state 0 forward_delay 200",
    "ip link set dev vcbr101 up alias vcrecon",
    "ip addr add 10.0.0.1/24 dev vcbr101",
    "ip route add 10.9.0.0/16 via 10.0.0.2",
]
REFUSALS = [
    "ip link add name vcbr101 type bridge",
    "ip link add name averyveryverylongname type bridge",
    "ip link add link nope name x type vlan id 5",
    "ip link del dev nope",
    "ip link show dev nope",
    "ip link set dev nope up",
    "ip link set dev vcbr101 master nope",
    "ip addr add 10.0.0.1/24 dev vcbr101",
    "ip addr del 10.0.0.9/24 dev vcbr101",
    "ip route add 10.9.0.0/16 via 10.0.0.2",
    "ip route del 10.77.0.0/16",
    "ip route add 10.8.0.0/16 via 10.55.0.2",
    "ip frob",
]


@pytest.mark.root
@in_namespace
@pytest.mark.parametrize("command", REFUSALS)
async def test_ip_refuses_as_the_real_ip_does(command):
    host = machine(trunk="d0")
    for line in SETUP:
        await ok(host, line)
    truth = real(" && ".join([*SETUP, command]))
    mine = await run(host, command)
    assert (mine.status, mine.err) == (truth.returncode, truth.stderr)


@pytest.mark.root
@in_namespace
async def test_ip_shows_a_bridge_with_the_real_keys():
    host = machine()
    for line in SETUP:
        await ok(host, line)
    show = "ip -j -d link show dev vcbr101"
    mine = json.loads(await ok(host, show))[0]
    truth = json.loads(real(" && ".join([*SETUP, show])).stdout)[0]
    assert set(mine) <= set(truth)
    for key in ("ifname", "mtu", "link_type", "ifalias"):
        assert mine[key] == truth[key], key
    data, real_data = mine["linkinfo"]["info_data"], truth["linkinfo"]["info_data"]
    assert {k: v for k, v in data.items() if k.endswith(("state", "filtering", "delay", "snooping"))} == {
        k: v for k, v in real_data.items() if k in data and k.endswith(("state", "filtering", "delay", "snooping"))
    }
    route = "ip -j route show"
    mine_routes = json.loads(await ok(host, route))
    for row in json.loads(real(" && ".join([*SETUP, route])).stdout):
        assert {k: v for k, v in row.items() if k != "flags"} in [
            {k: v for k, v in mine_row.items() if k != "flags"} for mine_row in mine_routes
        ]


async def test_a_vlan_a_bridge_and_their_order():
    host = machine()
    batch = (
        "link add link eth0 name eth0.101 type vlan id 101\nlink add name vcbr101 type bridge\n"
        "link set dev eth0.101 master vcbr101\nlink set dev eth0.101 up\nlink set dev vcbr101 up\n"
    )
    await ok(host, "ip -batch -", batch)
    row = json.loads(await ok(host, "ip -j -d link show type vlan"))[0]
    assert (row["link"], row["master"]) == ("eth0", "vcbr101")
    assert row["linkinfo"]["info_data"] == {"protocol": "802.1Q", "id": 101, "flags": ["REORDER_HDR"]}
    assert [r["ifname"] for r in json.loads(await ok(host, "bridge -j link show"))] == ["eth0.101"]
    outcome = await run(host, "ip -batch -", "link set vcbr101 down\nlink set nope up\nlink set vcbr101 up\n")
    assert (outcome.status, outcome.err) == (1, 'Cannot find device "nope"\nCommand failed -:2\n')
    assert not host.network.links["vcbr101"].up
    await ok(host, "ip link del dev vcbr101")
    assert host.network.links["eth0.101"].master == ""


async def test_the_machine_answers_pings_to_its_own_address_and_nobody_elses():
    host = machine(address="10.64.0.11/24")
    assert (await run(host, "ping -c 1 -W 1 10.64.0.11")).status == 0
    assert (await run(host, "ping -c 1 -W 1 -I nope 10.64.0.11")).status == 2
    assert (await run(host, "ping -c 1 -W 1 10.64.0.12")).status == 1
    assert json.loads(await ok(host, "ip -j addr show dev eth0"))[0]["addr_info"][0]["local"] == "10.64.0.11"
