"""The job: what an installer is told, complete and in the form that it reads."""

from __future__ import annotations

import io
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from boot_site import MAC, SYSTEM, a_boot_spec, a_container, a_ticket

from vcrecon.boot.job import JobSecrets, consoles, install_token, job
from vcrecon.core.installs import Ticket
from vcrecon.errors import Permanent
from vcrecon.spec.model import DiskLayout, DiskMatch

SECRETS = JobSecrets(b"s" * 32, ("ssh-ed25519 KEY master",), "$6$salt$hash")


def entries(ticket: Ticket | None = None, secrets: JobSecrets = SECRETS, **provisioning: Any) -> dict[str, Any]:
    """Every entry of the job: (mode, content), or (mode, None) for a directory; in order."""
    spec = a_boot_spec(**{"gateway": "10.9.0.254", "dns": ("10.9.0.2", "10.9.0.3"), **provisioning})
    return opened(job(spec, ticket or a_ticket(), secrets))


def opened(archive: bytes) -> dict[str, Any]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = tar.getmembers()
        assert {(m.uid, m.gid) for m in members} == {(0, 0)}
        return {m.name: (m.mode, stream.read() if (stream := tar.extractfile(m)) else None) for m in members}


def environment(tmp_path: Path, archive: dict[str, Any]) -> dict[str, str]:
    """job.env as a shell reads it."""
    (tmp_path / "job.env").write_bytes(archive["job.env"][1])
    names = [line.split("=")[0] for line in archive["job.env"][1].decode().splitlines() if "='" in line]
    script = f". {tmp_path}/job.env; " + "; ".join(f'printf "%s\\0" "${name}"' for name in names)
    said = subprocess.run(["sh", "-euc", script], capture_output=True, check=True).stdout.decode()
    return dict(zip(names, said.split("\0"), strict=False))


def test_the_environment_says_everything_the_installer_needs(tmp_path: Path) -> None:
    assert environment(tmp_path, entries()) == {
        "NAME": "c1",
        "ADDRESS": "10.9.0.11/24",
        "GATEWAY": "10.9.0.254",
        "DNS": "10.9.0.2 10.9.0.3",
        "MAC": MAC,
        "SYSTEM": "base",
        "HYPERVISOR": "kvm",
        "GENERATION": "7",
        "ROOT_URL": SYSTEM.root.url,
        "ROOT_SHA256": SYSTEM.root.sha256,
        "WIPE": "0",
        "RAID": "auto",
        "ROOT_BYTES": str(8 << 30),
        "SWAP_BYTES": "0",
        "VOLUME_GROUP": "vg",
        "POOL": "guests",
        "CMDLINE": SYSTEM.cmdline,
        "TRUNK": "eno2",
        "NONCE": "nonce-1",
        "MATCH": "",
    }


def test_a_consent_is_passed_on(tmp_path: Path) -> None:
    assert environment(tmp_path, entries(a_ticket(wipe=True)))["WIPE"] == "1"


def test_disk_matches_are_lines_whose_fields_no_pattern_can_shift(tmp_path: Path) -> None:
    match = (DiskMatch("SAMSUNG*", "*", 5, 9), DiskMatch("a|b\n*", "it's"))
    spec = a_boot_spec(a_container(layout=DiskLayout(match)))
    found = environment(tmp_path, opened(job(spec, a_ticket(), SECRETS)))
    assert found["MATCH"] == "SAMSUNG*|*|5|9\na?b?*|it's|0|"


def test_no_value_is_run_by_the_shell_that_reads_it(tmp_path: Path) -> None:
    hostile = "'; touch hacked; echo '$(id)`id`\\"
    spec = replace(a_boot_spec(), systems={"base": replace(SYSTEM, cmdline=hostile)})
    assert environment(tmp_path, opened(job(spec, a_ticket(), SECRETS)))["CMDLINE"] == hostile


def test_the_host_key_is_the_pair_of_this_install() -> None:
    found = entries()
    private = asyncssh.import_private_key(found["root/etc/ssh/ssh_host_ed25519_key"][1])
    public = asyncssh.import_public_key(found["root/etc/ssh/ssh_host_ed25519_key.pub"][1])
    assert private.convert_to_public() == public
    assert (
        entries(a_ticket(nonce="other"))["root/etc/ssh/ssh_host_ed25519_key"]
        != found["root/etc/ssh/ssh_host_ed25519_key"]
    )


def test_private_files_are_private() -> None:
    found = entries()
    modes = {name: found[name][0] for name in found}
    assert modes["root/etc/ssh/ssh_host_ed25519_key"] == 0o600
    assert modes["root/root/.ssh/authorized_keys"] == 0o600
    assert modes["shadow"] == 0o600
    assert (modes["root"], modes["root/root"], modes["root/root/.ssh"]) == (0o755, 0o700, 0o700)


def test_the_system_is_marked_with_what_it_is_and_which_install_made_it() -> None:
    assert entries()["root/etc/vcrecon/release"][1].decode().splitlines() == [
        "hypervisor=kvm",
        "generation=7",
        f"system={SYSTEM.root.sha256}",
        "install=nonce-1",
    ]


def test_the_network_is_set_up_by_mac() -> None:
    text = entries()["root/etc/systemd/network/10-provisioning.network"][1].decode()
    assert f"MACAddress={MAC}\n" in text
    assert "Address=10.9.0.11/24\nGateway=10.9.0.254\nDNS=10.9.0.2\nDNS=10.9.0.3\n" in text


def test_root_has_the_masters_key_and_the_password_line() -> None:
    found = entries()
    assert found["root/root/.ssh/authorized_keys"][1] == b"ssh-ed25519 KEY master\n"
    assert found["shadow"][1] == b"root:$6$salt$hash\n"


def test_without_a_password_there_is_no_shadow_line() -> None:
    assert "shadow" not in entries(secrets=replace(SECRETS, password_hash=None))


def test_without_name_servers_there_is_no_resolv_conf() -> None:
    assert "root/etc/resolv.conf" in entries()
    assert "root/etc/resolv.conf" not in entries(dns=())


def test_the_last_entry_says_that_it_is_complete() -> None:
    assert list(entries())[-1] == ".complete"


def test_the_same_job_is_the_same_bytes() -> None:
    assert job(a_boot_spec(), a_ticket(), SECRETS) == job(a_boot_spec(), a_ticket(), SECRETS)


@pytest.mark.parametrize("ticket", [a_ticket(container="gone"), a_ticket(system="gone")])
def test_what_the_spec_no_longer_has_cannot_be_installed(ticket: Ticket) -> None:
    with pytest.raises(Permanent, match="gone"):
        job(a_boot_spec(), ticket, SECRETS)


def test_secrets_are_not_shown() -> None:
    assert "hash" not in repr(SECRETS).replace("password_hash", "")
    assert "ssss" not in repr(SECRETS)


def test_a_token_is_of_one_container_nonce_and_site() -> None:
    tickets = (a_ticket(), a_ticket(container="c2"), a_ticket(nonce="other"))
    tokens = {install_token(secret, ticket) for secret in (b"a", b"b") for ticket in tickets}
    assert len(tokens) == 6


def test_the_installer_talks_where_the_system_will_talk() -> None:
    assert consoles(replace(SYSTEM, cmdline="quiet console=ttyS1,9600n8 x=console=no console=a;b")) == (
        "console=ttyS1,9600n8"
    )
