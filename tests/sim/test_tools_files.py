"""File, text and system tools: each command gives what the real one on this machine gives."""

# ruff: noqa: ASYNC221 - the real tools run for milliseconds
from __future__ import annotations

import shlex
import shutil
import subprocess

import pytest
from toolbox import machine, ok, run

TEXT = "pear 3\napple 1\napple 1\nfig 20\n"
SAME_AS_REAL = [
    "cat t",
    "cat nope",
    "cat -",
    "ls -1",
    "ls nope",
    "mkdir d",
    "mkdir t",
    "mkdir no/pe",
    "mkdir",
    "mkdir -p d/e/f",
    "rm t",
    "rm nope",
    "rm -f nope",
    "rm sub",
    "rm -rf sub",
    "rmdir sub",
    "rmdir t",
    "mv t u",
    "mv nope u",
    "mv t",
    "cp t u",
    "cp sub x",
    "cp -r sub x",
    "cp nope x",
    "ln -s t l",
    "ln -s t t",
    "chmod 600 t",
    "chmod 600 nope",
    "touch new",
    "touch no/pe",
    "stat -c '%n %s %F' t sub",
    "stat -c %s nope",
    "head -n 2 t",
    "head -n -1 t",
    "head -c 3 t",
    "head nope",
    "tail -n 1 t",
    "tail -n +2 t",
    "cut -d ' ' -f 2 t",
    "cut -d ' ' -f 1- t",
    "cut t",
    "sort t",
    "sort -u t",
    "sort -r t",
    "sort -k 2 -n t",
    "wc -l t",
    "wc -c t",
    "uniq t",
    "uniq -c t",
    "basename /a/b.tar .tar",
    "dirname /a/b",
    "dirname b",
    "grep apple t",
    "grep -c apple t",
    "grep -v apple t",
    "grep -q nope t",
    "grep -E '^(fig|pear)' t",
    "grep -F '.' t",
    "grep -H fig t",
    "grep -n fig t",
    "grep -o '[0-9]*' t",
    "grep x nope",
    "grep -s x nope",
    "sed -n 2p t",
    "sed s/apple/plum/ t",
    "sed -e 's|p|q|g' t",
    "sed -n 's/^pear //p' t",
    "sed -E 's/([a-z]+) ([0-9]+)/\\2-\\1/' t",
    "sed '/fig/d' t",
    "sed -n '2,$p' t",
    "seq 3",
    "seq 2 4",
    "seq -w 8 10",
    "readlink l",
    "sha256sum t",
    "sha256sum nope",
    "base64 t",
    "base64 -w0 t",
    "base64 -d bad",
    "tr a-z A-Z",
    "tr -d a",
    "sleep x",
    "id -u",
    "date -d @0 +%s",
    "dd if=t bs=4 count=2 status=none",
    "dd frob=1",
    "dd if=nope status=none",
    "sha256sum -c sums",
    "sha256sum -c --quiet sums",
    "sha256sum -c --status sums",
    "tar -xf nope",
]


@pytest.mark.parametrize("command", SAME_AS_REAL)
async def test_the_simulated_tool_says_what_the_real_one_says(command, tmp_path):
    if shutil.which(shlex.split(command)[0]) is None:
        pytest.skip(f"{command.split()[0]} is not installed")
    host = machine()
    files = {"t": TEXT, "bad": "!!", "sums": f"{'0' * 64}  t\n", "sub/x": "y"}
    (tmp_path / "sub").mkdir()
    host.files.mkdir("/root/sub")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        host.files.write(f"/root/{name}", text.encode())
    real = subprocess.run(
        shlex.split(command),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        input=TEXT,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"},
        check=False,
    )
    mine = await run(host, command, TEXT)
    assert (mine.out, mine.err, mine.status) == (real.stdout, real.stderr, real.returncode)


async def test_system_tools_tell_about_the_machine():
    host = machine()
    assert await ok(host, "hostname") == "c01\n"
    assert await ok(host, "nproc") == "4\n"
    assert (await ok(host, "uname -r")).startswith("6.1.0-")
    assert (await ok(host, "cat /proc/sys/kernel/random/boot_id")).strip() == host.boot_id
    assert "MemTotal:        8388608 kB" in await ok(host, "cat /proc/meminfo")
    assert "tmpfs /run tmpfs" in await ok(host, "cat /proc/mounts")
    assert float((await ok(host, "cat /proc/uptime")).split()[0]) >= 0
    assert (await ok(host, "cat /proc/loadavg")).startswith("0.00")
    assert await ok(host, "printenv PWD") == "/root\n"
    assert (await run(host, "printenv NOPE")).status == 1
    assert await ok(host, "sync") == ""
    name = (await ok(host, "mktemp -d /run/x.XXXXXX")).strip()
    assert host.files.is_dir(name)
    await ok(host, "chown -R 7:8 /run")
    assert await ok(host, f"stat -c %u:%g {name}") == "7:8\n"
    assert await ok(host, "readlink -f /run/../etc/hostname") == "/etc/hostname\n"


async def test_sysctl_keeps_what_is_written_and_refuses_what_is_not_there():
    host = machine()
    await ok(host, "sysctl -q -w net.ipv4.ip_forward=1")
    assert await ok(host, "sysctl -n net.ipv4.ip_forward") == "1\n"
    assert host.files.read("/proc/sys/net/ipv4/ip_forward") == b"1\n"
    outcome = await run(host, "sysctl -w net.bridge.bridge-nf-call-iptables=0")
    assert (outcome.status, "cannot stat /proc/sys/net/bridge" in outcome.err) == (255, True)
    await ok(host, "modprobe br_netfilter")
    await ok(host, "sysctl -w net.bridge.bridge-nf-call-iptables=0")
    assert (await run(host, "modprobe frob")).status == 1


async def test_chpasswd_changes_one_hash_in_the_shadow_file_of_a_root():
    host = machine()
    host.files.mkdir("/mnt/g/etc", parents=True)
    host.files.write("/mnt/g/etc/shadow", b"root:*:19000:0:99999:7:::\nbin:*:1::::::\n")
    host.files.write("/mnt/g/etc/passwd", b"root:x:0:0::/root:/bin/sh\nbin:x:1:1::/:/bin/sh\n")
    await ok(host, "chpasswd -e -R /mnt/g", "root:$6$abc\n")
    assert host.files.read("/mnt/g/etc/shadow").startswith(b"root:$6$abc:")
    outcome = await run(host, "chpasswd -e -R /mnt/g", "nobody:x\n")
    assert (outcome.status, "user 'nobody' does not exist" in outcome.err) == (1, True)
