"""virsh and xl of the simulated hosts, and the guests behind them."""

# ruff: noqa: ASYNC110, ASYNC221 - real tools run for milliseconds; the waits are for one loop turn
from __future__ import annotations

import asyncio
import json
import shutil
import subprocess

import pytest
from toolbox import Bytes, Sink, machine, ok, run

from vcrecon.sim.process import Process
from vcrecon.sim.tools import TOOLS

UUID = "6695eb01-f6a4-8304-79aa-97f2502e1933"
UNIT = "[Match]\nMACAddress=52:54:00:00:00:01\n[Network]\nAddress=10.1.0.11/24\n"


def domain(name="g1", uuid=UUID, memory=384, bridge="vcbr101"):
    return (
        f"<domain type='kvm'><name>{name}</name><uuid>{uuid}</uuid><title>of c01</title>"
        "<metadata><vcrecon:guest xmlns:vcrecon='urn:vcrecon' uid='1'/></metadata>"
        f"<memory unit='MiB'>{memory}</memory><os><type>hvm</type></os><devices>"
        f"<disk type='block'><source dev='/dev/vg0/{name}'/><target dev='vda'/></disk>"
        f"<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='{bridge}'/></interface>"
        "</devices></domain>"
    )


async def ready(hypervisor="kvm", **more):
    """A host with a bridge and a volume for guest g1, whose address is 10.1.0.11."""
    host = machine(hypervisor, **more)
    await ok(host, "ip link add link eth0 name eth0.101 type vlan id 101")
    await ok(host, "ip link add name vcbr101 type bridge")
    await ok(host, "ip link set dev eth0.101 master vcbr101 up")
    await ok(host, "ip link set dev vcbr101 up")
    await ok(host, "lvcreate -y --thin -V 1073741824b -n g1 vg0/vcpool")
    await ok(host, "mkfs.xfs -q -f /dev/vg0/g1")
    await ok(host, "mkdir -p /mnt/g")
    await ok(host, "mount /dev/vg0/g1 /mnt/g")
    host.files.mkdir("/mnt/g/etc/systemd/network", parents=True)
    host.files.write("/mnt/g/etc/systemd/network/10-a.network", UNIT.encode())
    await ok(host, "umount /mnt/g")
    return host


async def test_a_defined_guest_starts_answers_and_holds_its_volume():
    host = await ready()
    await ok(host, "virsh -q define /dev/stdin", domain())
    assert (await run(host, "ping -c 1 -W 1 -q -n 10.1.0.11")).status == 1
    await ok(host, "virsh -q start g1")
    outcome = await run(host, "ping -c 1 -W 1 -q -n 10.1.0.11")
    assert "1 packets transmitted, 1 received, 0% packet loss" in outcome.out
    assert (await run(host, "lvremove -y vg0/g1")).err == "  Logical volume vg0/g1 in use.\n"
    assert (await run(host, "mount /dev/vg0/g1 /mnt/g")).status == 32
    assert "vnet0" in host.network.links
    await ok(host, "ip link set dev vcbr101 down")
    assert (await run(host, "arping -c 1 -I eth0 10.1.0.11")).status == 1


@pytest.mark.parametrize(
    ("breakage", "words"),
    [
        ("ip link del dev vcbr101", "error: Cannot get interface MTU on 'vcbr101': No such device"),
        ("lvremove -y vg0/g1", "error: Cannot access storage file '/dev/vg0/g1': No such file or directory"),
    ],
)
async def test_a_start_fails_with_the_reason(breakage, words):
    host = await ready()
    await ok(host, "virsh -q define /dev/stdin", domain())
    await ok(host, breakage)
    outcome = await run(host, "virsh -q start g1")
    assert outcome.status == 1
    assert outcome.err.startswith("error: Failed to start domain 'g1'\n")
    assert words in outcome.err


async def test_kvm_starts_a_guest_whose_disk_the_host_has_mounted_and_xen_does_not():
    host = await ready()
    await ok(host, "virsh -q define /dev/stdin", domain())
    await ok(host, "mount /dev/vg0/g1 /mnt/g")
    await ok(host, "virsh -q start g1")
    host = await ready("xen")
    host.files.write("/etc/xen-g1.cfg", XL.encode())
    await ok(host, "mount /dev/vg0/g1 /mnt/g")
    outcome = await run(host, "xl create /etc/xen-g1.cfg")
    assert outcome.status == 3
    assert "is mounted in the privileged domain" in outcome.err


async def test_a_guest_larger_than_the_free_memory_does_not_start():
    host = await ready()
    await ok(host, "virsh -q define /dev/stdin", domain(memory=9000))
    assert "Cannot allocate memory" in (await run(host, "virsh -q start g1")).err


@pytest.mark.parametrize(
    ("act", "reason", "events"),
    [
        ("destroy", "destroyed", ["Shutdown Finished after host request", "Stopped Destroyed"]),
        ("kill", "crashed", ["Stopped Failed"]),
        ("inside", "shutdown", ["Shutdown Finished after guest request", "Stopped Shutdown"]),
        ("panic", "crashed", ["Crashed Panicked", "Stopped Crashed"]),
        ("acpi", "shutdown", ["Shutdown Finished after guest request", "Stopped Shutdown"]),
    ],
)
async def test_each_end_has_its_events_and_its_reason(act, reason, events):
    host = await ready()
    await ok(host, "virsh -q define /dev/stdin", domain())
    await ok(host, "virsh -q start g1")
    out = Sink()
    argv = ("virsh", "event", "--all", "--loop", "--timestamp")
    watcher = asyncio.create_task(TOOLS["virsh"](Process(host, argv, Bytes(b""), out, Sink())))
    while not host.domains.listeners:
        await asyncio.sleep(0)
    if act == "destroy":
        await ok(host, "virsh destroy g1")
    elif act == "acpi":
        await ok(host, "virsh -q shutdown g1")
        while host.domains.live():
            await asyncio.sleep(0)
    else:
        {"kill": host.kill_domain, "inside": host.shutdown_domain, "panic": host.panic_domain}[act]("g1")
    host.restart_libvirtd()
    assert await watcher == 1
    lines = [line for line in out.data.decode().splitlines() if ": event " in line]
    assert [line.split(": ", 1)[1] for line in lines] == [f"event 'lifecycle' for domain 'g1': {e}" for e in events]
    assert await ok(host, "virsh -q domstate g1 --reason") == f"shut off ({reason})\n"


async def test_a_reboot_inside_is_one_reboot_event():
    host = await ready()
    await ok(host, "virsh -q define /dev/stdin", domain())
    await ok(host, "virsh -q start g1")
    heard = []
    host.on_domain_event(lambda event: heard.append((event.kind, event.detail)))
    host.reboot_domain("g1")
    await ok(host, "virsh -q reset g1")
    assert heard == [("reboot", ""), ("reboot", "")]


REAL_SCRIPT = """list --all
echo MARK
domstate test --reason
domstats --state
list --all --title
list --all --name
list --all --uuid
nosuch
domstate foo
list --frob
destroy
list --all; echo X
destroy test
domstate test --reason
list --all --title
domstats --state --list-running
"""


@pytest.mark.skipif(shutil.which("virsh") is None, reason="virsh (libvirt-clients) is not installed")
@pytest.mark.parametrize("flags", [["-q"], []])
async def test_resident_virsh_answers_exactly_as_the_real_one(flags):
    real = subprocess.run(
        ["virsh", *flags, "-c", "test:///default"],
        input=REAL_SCRIPT,
        capture_output=True,
        text=True,
        check=False,
    )
    host = machine()
    uuid = "6695eb01-f6a4-8304-79aa-97f2502e193f"
    xml = f"<domain><name>test</name><uuid>{uuid}</uuid><memory>1024</memory></domain>"
    await ok(host, "virsh -q define /dev/stdin", xml)
    await ok(host, "virsh -q start test")
    host.domains.by_name["test"].reason = "unknown"  # the test driver's own domain was never booted
    mine = await run(host, " ".join(["virsh", *flags]), REAL_SCRIPT)
    assert (mine.out, mine.err, mine.status) == (real.stdout, real.stderr, real.returncode)


async def test_dumpxml_gives_back_title_metadata_and_kib():
    host = await ready()
    await ok(host, "virsh -q define /dev/stdin", domain())
    text = await ok(host, "virsh -q dumpxml g1")
    assert "<title>of c01</title>" in text
    assert '<vcrecon:guest xmlns:vcrecon="urn:vcrecon" uid="1"/>' in text
    assert ">393216</memory>" in text


async def test_virsh_says_so_when_libvirtd_is_stopped_and_is_missing_on_xen():
    host = machine()
    await ok(host, "systemctl stop libvirtd")
    assert (await run(host, "systemctl is-active libvirtd")).out == "inactive\n"
    outcome = await run(host, "virsh list")
    assert (outcome.status, "Failed to connect socket" in outcome.err) == (1, True)
    assert (await run(machine("xen"), "virsh list")).status == 127
    assert (await run(machine("kvm"), "xl list")).status == 127


async def test_small_virsh_commands_answer():
    host = await ready()
    await ok(host, "virsh -q define /dev/stdin", domain())
    assert "libvirt 9.0.0" in await ok(host, "virsh version")
    assert "Memory size:         8388608 KiB" in await ok(host, "virsh -q nodeinfo")
    assert "domain type='kvm'" in await ok(host, "virsh capabilities")
    await ok(host, "virsh -q undefine g1")
    assert await ok(host, "virsh -q list --all --name") == ""


XL = """name = "g1"
uuid = "6695eb01-f6a4-8304-79aa-97f2502e1933"
type = "pvh"
memory = 384
vcpus = 1
disk = ["phy:/dev/vg0/g1,xvda,w"]
vif = ["mac=52:54:00:00:00:01,bridge=vcbr101,script=vif-bridge"]
"""


async def test_a_xen_guest_is_created_listed_and_shut_down():
    host = await ready("xen")
    host.files.write("/etc/xen-g1.cfg", XL.encode())
    created = await run(host, "xl create /etc/xen-g1.cfg")
    assert (created.status, created.out) == (0, "")
    assert created.err.startswith("Parsing config from /etc/xen-g1.cfg\n")
    assert 'domain with name "g1" already exists.\n' in (await run(host, "xl create /etc/xen-g1.cfg")).err
    assert (await run(host, "ping -c 1 -W 1 10.1.0.11")).status == 0
    rows = json.loads(await ok(host, "xl list -l"))
    assert [row["domid"] for row in rows] == [0, 1]
    assert rows[1]["config"]["c_info"]["uuid"] == UUID
    table = (await ok(host, "xl list")).splitlines()
    assert [line.split()[0] for line in table] == ["Name", "Domain-0", "g1"]
    assert UUID in await ok(host, "xl list -v")
    assert "g1" in await ok(host, "xl uptime")
    assert "xen_version" in await ok(host, "xl info")
    await ok(host, "xl shutdown -w g1")
    assert (await run(host, "xl list g1")).err == "g1 is an invalid domain identifier (rc=-6)\n"
    await ok(host, "xl create /etc/xen-g1.cfg")
    await ok(host, "xl destroy g1")
    assert host.domains.live() == []


async def test_xenstore_watch_prints_a_line_for_each_change():
    host = await ready("xen")
    host.files.write("/g1.cfg", XL.encode())
    argv = ("xenstore-watch", "-n", "4", "@introduceDomain", "@releaseDomain")
    out = Sink()
    watcher = asyncio.create_task(TOOLS["xenstore-watch"](Process(host, argv, Bytes(b""), out, Sink())))
    while not host.domains.listeners:
        await asyncio.sleep(0)
    await ok(host, "xl create /g1.cfg")
    await ok(host, "xl destroy g1")
    await watcher
    assert out.data.split() == [b"@introduceDomain", b"@releaseDomain"] * 2
