"""The host keys of installs: which are trusted, and what becomes of them when an install fails."""

from __future__ import annotations

from pathlib import Path

import asyncssh
import pytest

from vcrecon.errors import Transient
from vcrecon.host.context import host_key
from vcrecon.shell.pins import Pins
from vcrecon.spec.model import Container

SPEC = "10.64.0.11 ssh-ed25519 OLD\n"


def c01(**changes: object) -> Container:
    values = {
        "name": "c01", "address": "10.64.0.11", "port": 22, "hypervisor": "kvm", "memory_bytes": 1, "cores": 1,
        "disk_bytes": 1, "trunk": "eno1", "volume_group": "vg", "pool": "p", "generation": "1",
    }  # fmt: skip
    return Container(**{**values, **changes})  # type: ignore[arg-type]


def public(nonce: str) -> bytes:
    return host_key(b"secret", f"container/c01/{nonce}")[1]


def key_of(nonce: str) -> str:
    return public(nonce).decode().split()[1]


@pytest.fixture
def pins(tmp_path: Path) -> Pins:
    return Pins(tmp_path / "known_hosts")


def test_a_container_that_was_not_installed_is_trusted_as_the_spec_says(pins: Pins) -> None:
    assert pins.over(c01(), SPEC) == SPEC


def test_the_key_of_an_install_outranks_the_specs(pins: Pins) -> None:
    pins.pin(c01(), public("one"), "one")
    assert pins.over(c01(), SPEC) == f"10.64.0.11 ssh-ed25519 {key_of('one')} vcrecon/c01/one\n"
    assert pins.over(c01(name="c02"), SPEC) == SPEC


def test_the_file_is_private_and_a_known_hosts_file(pins: Pins) -> None:
    pins.pin(c01(port=2222), public("one"), "one")
    assert pins.path.stat().st_mode & 0o777 == 0o600
    trusted = asyncssh.import_known_hosts(pins.path.read_text()).match("10.64.0.11", "10.64.0.11", 2222)[0]
    assert {key.export_public_key("openssh").split()[1].decode() for key in trusted} == {key_of("one")}


def test_it_follows_a_container_to_another_address(pins: Pins) -> None:
    pins.pin(c01(), public("one"), "one")
    assert pins.over(c01(address="10.64.0.99"), "").startswith("10.64.0.99 ")


def test_an_install_that_failed_is_not_trusted(pins: Pins) -> None:
    pins.pin(c01(), public("one"), "one")
    pins.restore("c01", "one")
    assert pins.over(c01(), SPEC) == SPEC


def test_after_a_reinstall_that_failed_the_install_before_is_trusted_again(pins: Pins) -> None:
    pins.pin(c01(), public("one"), "one")
    pins.keep("c01")
    pins.pin(c01(), public("two"), "two")
    assert key_of("two") in pins.over(c01(), SPEC)
    pins.restore("c01", "two")
    assert key_of("one") in pins.over(c01(), SPEC)


def test_one_that_succeeded_forgets_the_key_before(pins: Pins) -> None:
    pins.pin(c01(), public("one"), "one")
    pins.pin(c01(), public("two"), "two")
    pins.keep("c01")
    pins.restore("c01", "one")
    assert key_of("two") in pins.over(c01(), SPEC)
    assert key_of("one") not in pins.path.read_text()


def test_to_pin_again_changes_nothing(pins: Pins) -> None:
    pins.pin(c01(), public("one"), "one")
    before = pins.path.read_text()
    pins.pin(c01(), public("one"), "one")
    assert pins.path.read_text() == before


def test_a_file_of_garbage_is_replaced(pins: Pins) -> None:
    pins.path.write_bytes(b"\xff\n# what\nx y\n")
    assert pins.over(c01(), SPEC) == SPEC
    pins.pin(c01(), public("one"), "one")
    assert key_of("one") in pins.over(c01(), SPEC)


def test_a_directory_that_is_gone_is_a_passing_error(tmp_path: Path) -> None:
    with pytest.raises(Transient, match="cannot write the pinned host keys"):
        Pins(tmp_path / "gone" / "known_hosts").pin(c01(), public("one"), "one")
