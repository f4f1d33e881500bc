"""What survives a loss of power on a simulated host, and what its files answer."""

from __future__ import annotations

import asyncio

import pytest
from toolbox import machine, ok, run

from vcrecon.sim.machine import PowerLost
from vcrecon.sim.timing import Timing

DOMAIN = "<domain><name>g1</name><memory unit='MiB'>64</memory></domain>"


async def test_a_reboot_keeps_disks_and_definitions_and_loses_the_rest():
    host = machine()
    await ok(host, "lvcreate -y --thin -V 1073741824b -n v --addtag t vg0/vcpool")
    await ok(host, "mkfs.xfs -q /dev/vg0/v")
    await ok(host, "mkdir -p /mnt/v /etc/vcrecon")
    await ok(host, "mount /dev/vg0/v /mnt/v")
    host.files.write("/mnt/v/kept", b"on the volume")
    host.files.write("/run/lock/x", b"lost")
    host.files.write("/etc/vcrecon/release", b"kept")
    await ok(host, "ip link add name b type bridge")
    await ok(host, "nft add table inet x")
    await ok(host, "virsh -q define /dev/stdin", DOMAIN)
    await ok(host, "virsh -q start g1")
    boot_id, calls = host.boot_id, []
    host.on_down(lambda: calls.append("down"))
    host.on_up(lambda: calls.append("up"))
    host.reboot()
    assert calls == ["down", "up"]
    assert host.boot_id != boot_id
    assert "b" not in host.network.links
    assert await ok(host, "nft list tables") == ""
    assert not host.files.exists("/run/lock/x")
    assert not host.files.exists("/mnt/v/kept")
    assert host.files.read("/etc/vcrecon/release") == b"kept"
    assert await ok(host, "virsh -q domstate g1") == "shut off\n"
    await ok(host, "mount /dev/vg0/v /mnt/v")
    assert host.files.read("/mnt/v/kept") == b"on the volume"


async def test_the_reboot_command_comes_back_by_itself():
    host = machine()
    boots = host.boots
    await ok(host, "systemctl reboot")
    assert not host.up
    for _ in range(10):
        await asyncio.sleep(0)
    assert (host.up, host.boots) == (True, boots + 1)
    await ok(host, "poweroff")
    assert not host.up


async def test_power_that_goes_ends_a_reboot():
    """Else a machine that is cut off in the middle comes up with its old system beside the installer."""
    host = machine()
    await ok(host, "systemctl reboot")
    host.power_off()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not host.up


async def test_a_tool_at_work_dies_with_the_power():
    gate = asyncio.Event()

    async def wait(seconds: float) -> None:
        await gate.wait()

    host = machine(timing=Timing(sleeper=wait))
    task = asyncio.create_task(run(host, "lvcreate -y --thin -V 1073741824b -n v vg0/vcpool"))
    await asyncio.sleep(0)
    host.reboot()
    gate.set()
    with pytest.raises(PowerLost):
        await task
    assert "v" not in host.lvm.groups["vg0"].volumes


async def test_a_guest_answers_only_after_its_boot_time():
    clock = [0.0]

    async def tick(seconds: float) -> None:
        clock[0] += seconds

    host = machine(timing=Timing(sleeper=tick, now=lambda: clock[0]))
    await ok(host, "virsh -q define /dev/stdin", DOMAIN)
    await ok(host, "virsh -q start g1")
    domain = host.domains.by_name["g1"]
    assert domain.answers_at == pytest.approx(domain.started_at + 3.0)


async def test_starts_are_announced_and_a_kill_of_nobody_is_an_error():
    host = machine()
    started = []
    host.on_domain_start(lambda domain: started.append(domain.name))
    await ok(host, "virsh -q define /dev/stdin", DOMAIN)
    await ok(host, "virsh -q start g1")
    assert started == ["g1"]
    host.kill_domain("g1")
    with pytest.raises(LookupError):
        host.kill_domain("g1")


def test_files_fail_as_a_kernel_would():
    files = machine().files
    files.write("/a", b"1")
    files.symlink("loop", "/loop")
    with pytest.raises(FileNotFoundError):
        files.read("/nope")
    with pytest.raises(IsADirectoryError):
        files.read("/etc")
    with pytest.raises(NotADirectoryError):
        files.read("/a/b")
    with pytest.raises(FileNotFoundError):
        files.write("/no/pe", b"")
    with pytest.raises(OSError, match="Too many levels"):
        files.read("/loop")
    with pytest.raises(OSError, match="No space left"):
        files.write("/big", bytes(1), append=False) or files.mounts[0].filesystem.charge(1 << 60)


def test_links_lead_on_and_a_rename_replaces():
    files = machine().files
    files.write("/a", b"1")
    files.mkdir("/d")
    files.symlink("../a", "/d/l")
    assert files.read("/d/l") == b"1"
    files.write("/b", b"2")
    files.rename("/b", "/a")
    assert (files.read("/d/l"), files.exists("/b")) == (b"2", False)
    files.write("/d/l", b"3")
    assert files.read("/a") == b"3"
