"""What a simulated host lacks, it lacks in the words of the real tools (dash 0.5.12, iproute2 6.1, GNU tar 1.34)."""

from __future__ import annotations

import pytest
from toolbox import Bytes, Sink, machine, ok, run

from vcrecon.sim.machine import Machine
from vcrecon.sim.programs import Programs
from vcrecon.sim.shell import run_script
from vcrecon.sim.tools import TOOLS


async def shell(
    host: Machine, script: str, stdin: bytes = b"", programs: Programs | None = None
) -> tuple[int, str, str]:
    out, err = Sink(), Sink()
    status = await run_script(host, script, Bytes(stdin), out, err, programs or Programs(TOOLS))
    return status, out.data.decode(), err.data.decode()


async def test_a_program_that_is_not_installed_is_not_found() -> None:
    programs = Programs(TOOLS)
    del programs.tools["nft"]
    assert await shell(machine(), "nft list ruleset", programs=programs) == (127, "", "sh: 1: nft: not found\n")


@pytest.mark.parametrize("kind", ["vlan", "bridge"])
async def test_a_device_type_without_its_module_is_unknown(kind: str) -> None:
    host = machine()
    host.network.unknown_types.add(kind)
    outcome = await run(host, f"ip link add link eth0 name x type {kind} id 5")
    assert (outcome.status, outcome.err) == (2, "Error: Unknown device type.\n")


async def test_a_lower_device_is_looked_up_before_the_type() -> None:
    host = machine()
    host.network.unknown_types.add("vlan")
    outcome = await run(host, "ip link add link eth9 name x type vlan id 5")
    assert (outcome.status, outcome.err) == (1, 'Cannot find device "eth9"\n')


@pytest.mark.parametrize(
    ("junk", "skipping"), [(b"hello\n", ""), (b"", ""), (b"junk" * 1000, "tar: Skipping to next header\n")]
)
async def test_tar_says_what_does_not_look_like_an_archive(junk: bytes, skipping: str) -> None:
    host = machine()
    host.files.write("/tmp/junk", junk)
    outcome = await run(host, "tar -x -C /tmp -f /tmp/junk")
    assert outcome.status == 2
    end = "tar: Exiting with failure status due to previous errors\n"
    assert outcome.err == f"tar: This does not look like a tar archive\n{skipping}{end}"


async def test_head_takes_its_bytes_and_leaves_the_rest() -> None:
    assert await shell(machine(), "head -c 3; echo; cat", b"abcdef") == (0, "abc\ndef", "")
    assert await ok(machine(), "head -c 3", b"ab") == "ab"


async def test_env_without_an_environment_keeps_the_working_directory() -> None:
    status, out, _ = await shell(machine(), "cd /etc && env -i A=1 sh -c 'pwd; echo $A'")
    assert (status, out) == (0, "/etc\n1\n")


async def test_a_file_that_a_shell_keeps_open_keeps_its_mount_busy_until_it_lets_go() -> None:
    host = machine()
    await ok(host, "mkdir -p /mnt/a")
    await ok(host, "mount -t tmpfs cf /mnt/a")
    script = "exec 9>/mnt/a/open; umount /mnt/a; echo $?; ls -l /proc/$$/fd; exec 9>&-; umount /mnt/a; echo $?"
    status, out, err = await shell(host, script)
    busy, link, gone = out.splitlines()
    assert (status, busy, gone, err) == (0, "32", "0", "umount: /mnt/a: target is busy.\n")
    assert link.endswith("-> /mnt/a/open")


async def test_a_volume_whose_device_a_shell_keeps_open_is_not_removed() -> None:
    host = machine()
    await ok(host, "lvcreate -y -Wy -L 8m -n a vg0")
    status, out, err = await shell(host, "exec 9</dev/vg0/a; lvremove -y vg0/a; echo $?; exec 9<&-; lvremove -y vg0/a")
    assert (status, out) == (0, '5\n  Logical volume "a" successfully removed.\n')
    assert err == "  Logical volume vg0/a in use.\n"
