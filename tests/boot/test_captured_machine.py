"""From a host that runs to a machine that was installed with its image: captured over SSH, installed, booted."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from capture_host import command, plant, serving, unpack
from install_bench import DISK_BYTES, INSTALL_S, Bench, job
from typer.testing import CliRunner

from support import sshd
from vcrecon.cli.app import app

pytestmark = [
    *(pytest.mark.root, pytest.mark.slow, pytest.mark.bare_metal, pytest.mark.timeout(3600)),
    pytest.mark.skipif(sshd.SSHD is None, reason=sshd.SKIP_REASON),
]

CANARY = "canary-77d0c4a1"


def test_a_machine_installed_with_a_captured_image_boots_as_itself(
    bench: Bench, built_images: Path, tmp_path: Path
) -> None:
    """The host is the small system with traces of a life: they stay behind, and what people installed comes along."""
    host = tmp_path / "host"
    unpack(built_images / "small.tar.zst", host)
    plant(
        host,
        {
            "etc/hostname": f"old-{CANARY}\n",
            "etc/fstab": f"UUID={CANARY} / ext4 defaults 0 1\n",
            "etc/systemd/network/20-old.network": f"# {CANARY}\n[Match]\nName=*\n\n[Network]\nAddress=10.77.0.99/24\n",
            "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
            "var/log/syslog": f"{CANARY}\n",
            "root/.bash_history": f"{CANARY}\n",
            "etc/ssh/ssh_host_rsa_key": f"{CANARY}\n",
            "usr/local/sbin/site-tool": "#!/bin/sh\necho of the site\n",
        },
    )
    (host / "usr/local/sbin/site-tool").chmod(0o755)
    with serving(host, tmp_path / "keys") as server:
        result = CliRunner().invoke(app, command(server, "live", bench.www / "images"))
    assert result.exit_code == 0, result.output
    disk = bench.disk("live", DISK_BYTES)
    ended = bench.install(job(bench, bench.www / "images/live.tar.zst"), [disk])
    assert ended["error"] == "", (bench.www / "install.log").read_text()[-3000:]
    machine = bench.boot([disk])
    try:
        assert bench.ssh("cat /etc/hostname; site-tool").stdout.splitlines() == ["c01", "of the site"]
        found = f"grep -rl {CANARY} /etc /root /var/log /home /srv; ls /root/.ssh /etc/ssh/ssh_host_*"
        assert bench.ssh(found).stdout.split() == [
            *("/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_ed25519_key.pub", "/root/.ssh:", "authorized_keys")
        ]
        assert bench.ssh("cat /etc/machine-id").stdout.strip() not in ("", "0123456789abcdef0123456789abcdef")
        until(lambda: bench.ssh("mountpoint -q /boot && swapon --noheadings").stdout.strip(), "/boot and swap")
        assert bench.ssh("ls /boot/vmlinuz-*").returncode == 0
    finally:
        machine.pull_the_plug()


def until(true: Callable[[], object], what: str) -> None:
    ends_s = time.monotonic() + INSTALL_S
    while not true():
        assert time.monotonic() < ends_s, f"in vain: {what}"
        time.sleep(1.0)
