"""The smaller parts of the boot services: files of the site, complaints, the child process, the whole without root."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from boot_site import MAC, NOW_S, a_boot_spec
from structlog.testing import capture_logs

from vcrecon.boot.complaints import BURST, BURST_REFILL_S, REPEAT_S, Complaints
from vcrecon.boot.desk import Desk
from vcrecon.boot.dnsmasq_process import Dnsmasq
from vcrecon.boot.job_secrets import job_secrets, public_key
from vcrecon.boot.services import BootServices
from vcrecon.errors import Refused

HASH = "$6$salt$" + "h" * 86


# --- files of the site -------------------------------------------------------------------------------------


@pytest.fixture
def key(tmp_path: Path) -> asyncssh.SSHKey:
    found = asyncssh.generate_private_key("ssh-ed25519", comment="vcrecon")
    found.write_private_key(str(tmp_path / "key"))
    return found


def public_line(key: asyncssh.SSHKey) -> str:
    return key.export_public_key().decode().strip()


def test_the_controllers_key_and_the_password_hash_are_read(tmp_path: Path, key: asyncssh.SSHKey) -> None:
    (tmp_path / "root.hash").write_text(f"{HASH}\n")
    found = job_secrets(a_boot_spec(key=tmp_path / "key", root_password=tmp_path / "root.hash"), b"s")
    assert (found.authorized_keys, found.password_hash) == ((public_line(key),), HASH)


def test_without_a_password_file_there_is_no_password(tmp_path: Path, key: asyncssh.SSHKey) -> None:
    assert job_secrets(a_boot_spec(key=tmp_path / "key"), b"s").password_hash is None


@pytest.mark.root
def test_a_key_with_a_passphrase_is_known_by_the_file_beside_it(tmp_path: Path, program: Callable[[str], str]) -> None:
    locked, beside = tmp_path / "locked", tmp_path / "locked.pub"
    subprocess.run([program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "passphrase", "-f", str(locked)], check=True)
    line = beside.read_text()
    beside.unlink()
    with pytest.raises(Refused, match="ssh-keygen -y"):
        public_key(locked)
    beside.write_text(line)
    assert public_key(locked) == line.strip()


def test_a_key_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"cannot read the controller's SSH key .*missing"):
        public_key(tmp_path / "missing")


@pytest.mark.parametrize("content", ["", "plain password", "$6$a:b", f"{HASH}\nroot::0:0", "$6$\x00x"])
def test_what_is_no_hash_is_never_written_into_a_shadow_file(
    tmp_path: Path, key: asyncssh.SSHKey, content: str
) -> None:
    (tmp_path / "root.hash").write_text(content)
    with pytest.raises(Refused, match=r"root\.hash") as refused:
        job_secrets(a_boot_spec(key=tmp_path / "key", root_password=tmp_path / "root.hash"), b"s")
    assert not content or content not in str(refused.value)


# --- complaints --------------------------------------------------------------------------------------------


class Heard:
    def __init__(self) -> None:
        self.now_s = NOW_S
        self.messages: list[str] = []
        self.complaints = Complaints(lambda subject, reason, message: self.messages.append(message), lambda: self.now_s)

    def tell(self, message: str, about: str = "") -> None:
        self.complaints.tell("site", "stranger", message, about=about)


def test_the_same_is_told_once_until_some_time_has_passed() -> None:
    heard = Heard()
    heard.tell("one")
    heard.tell("two")
    heard.now_s += REPEAT_S
    heard.tell("three")
    assert heard.messages == ["one", "three"]


def test_a_thousand_machines_gone_mad_are_told_of_in_small_numbers() -> None:
    heard = Heard()
    for number in range(1000):
        heard.tell("mad", str(number))
    heard.now_s += 2 * BURST_REFILL_S
    for number in range(1000, 2000):
        heard.tell("mad", str(number))
    assert len(heard.messages) == BURST + 2


# --- the child process -------------------------------------------------------------------------------------


class Child:
    """A program in dnsmasq's place; what it does comes from files beside it."""

    def __init__(self, tmp_path: Path) -> None:
        self._path = tmp_path / "fake-dnsmasq"
        self.does("echo 'dnsmasq[7]: started, version 2.90' >&2; exec sleep 600")
        self.accepts = tmp_path / "accepts"
        self.accepts.touch()
        self.dnsmasq = Dnsmasq(tmp_path / "dnsmasq", program=str(self._path), pause_s_first=0.01)

    def does(self, what: str) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text(
            f'#!/bin/sh\nif [ "$1" = --test ]; then [ -e {self._path.parent}/accepts ] && exit 0; '
            f"echo 'dnsmasq: bad option at line 3' >&2; exit 1; fi\n{what}\n"
        )
        fresh.chmod(0o755)
        fresh.replace(self._path)


@pytest.fixture
async def child(tmp_path: Path) -> AsyncIterator[Child]:
    found = Child(tmp_path)
    yield found
    await found.dnsmasq.stop()


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


async def test_it_runs_and_its_log_is_ours(child: Child) -> None:
    with capture_logs() as logs:
        await child.dnsmasq.use("port=0\n")
    assert child.dnsmasq.pid is not None
    assert {"event": "started, version 2.90", "source": "dnsmasq", "log_level": "info"} in logs


async def test_the_same_text_again_starts_nothing(child: Child) -> None:
    await child.dnsmasq.use("port=0\n")
    before = child.dnsmasq.pid
    await child.dnsmasq.use("port=0\n")
    assert (child.dnsmasq.pid, child.dnsmasq.starts) == (before, 1)


async def test_a_new_text_starts_it_anew(child: Child, tmp_path: Path) -> None:
    await child.dnsmasq.use("port=0\n")
    await child.dnsmasq.use("port=0\n# new\n")
    assert child.dnsmasq.starts == 2
    assert (tmp_path / "dnsmasq" / "dnsmasq.conf").read_text().endswith("# new\n")


async def test_a_text_it_does_not_accept_changes_nothing(child: Child, tmp_path: Path) -> None:
    await child.dnsmasq.use("port=0\n")
    before = child.dnsmasq.pid
    child.accepts.unlink()
    with pytest.raises(Refused, match="bad option at line 3"):
        await child.dnsmasq.use("nonsense\n")
    assert child.dnsmasq.pid == before
    assert (tmp_path / "dnsmasq" / "dnsmasq.conf").read_text() == "port=0\n"


async def test_one_that_dies_says_why_and_is_tried_until_it_works(child: Child) -> None:
    works = "echo 'dnsmasq[7]: started, version 2.90' >&2; exec sleep 600"
    child.does("echo 'dnsmasq[7]: FAILED' >&2; echo 'dnsmasq: unknown interface vcbs9' >&2; exit 2")
    await child.dnsmasq.use("port=0\n")
    assert "dnsmasq died (unknown interface vcbs9)" in (child.dnsmasq.trouble or "")
    child.does(works)
    await until(lambda: child.dnsmasq.trouble is None)
    assert child.dnsmasq.starts >= 2


async def test_stopping_ends_also_one_that_does_not_listen(tmp_path: Path) -> None:
    child = Child(tmp_path)
    child.does("trap '' TERM; echo 'dnsmasq[7]: started, version 2.90' >&2; while :; do read line </dev/zero; done")
    await child.dnsmasq.use("port=0\n")
    pid = child.dnsmasq.pid
    await child.dnsmasq.stop()
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_missing_dnsmasq_names_its_package(tmp_path: Path) -> None:
    missing = Dnsmasq(tmp_path, program="vcbs-no-such-dnsmasq")
    with pytest.raises(Refused, match="apt-get install dnsmasq-base ipxe"):
        await missing.use("port=0\n")


# --- the whole, without root -------------------------------------------------------------------------------


class Nobody:
    def mac_of(self, address: str) -> str | None:
        return MAC


async def test_a_taken_port_is_a_problem_that_heals(tmp_path: Path) -> None:
    events: list[tuple[str, str, str]] = []
    with socket.socket() as taken:
        taken.bind(("127.0.0.10", 0))
        taken.listen()
        port = taken.getsockname()[1]
        spec = a_boot_spec(network="127.0.0.0/8", address="127.0.0.10", port=port, mode="external", images=tmp_path)
        desk = Desk(clock=lambda: NOW_S, claim=lambda ticket: None, on_change=lambda name: None)
        services = BootServices(
            spec, tmp_path, desk, b"s", lambda *told: events.append(told), neighbours=Nobody(), retry_s=0.05
        )
        await services.start()
        await services.settled()
        assert services.problem is not None
        assert f"cannot serve boots on 127.0.0.10:{port}" in services.problem
    await until(lambda: services.problem is None)
    await services.stop()
    assert [event[:2] for event in events] == [("site", "boot-services")] * 2


async def test_behind_a_proxy_it_listens_on_loopback_only(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spec = a_boot_spec(mode="external", images=tmp_path, nginx_port=port)
    desk = Desk(clock=lambda: NOW_S, claim=lambda ticket: None, on_change=lambda name: None)
    services = BootServices(spec, tmp_path, desk, b"s", lambda *told: None, neighbours=Nobody())
    await services.start()
    await services.settled()
    assert services.problem is None, "its own address is not on this machine"
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    await services.stop()


async def test_switched_off_nothing_is_started(tmp_path: Path) -> None:
    state = tmp_path / "state"
    desk = Desk(clock=lambda: NOW_S, claim=lambda ticket: None, on_change=lambda name: None)
    services = BootServices(a_boot_spec(mode="off"), state, desk, b"s", lambda *told: None)
    await services.start()
    await services.settled()
    await services.stop()
    assert os.listdir(tmp_path) == []
