"""What a machine that boots from the network is told: a ticket or its own disk, never a guess."""

from __future__ import annotations

from dataclasses import replace

import pytest
from worlds import a_container, a_spec

from vcrecon.core.boot_rules import answer
from vcrecon.core.installs import BootAnswer, LocalBoot, RunInstaller, Ticket, WaitInLine
from vcrecon.spec.model import Artifact, Provisioning, Spec, System

MAC = "52:54:00:aa:00:01"
TICKET = Ticket("c1", MAC, "base", False, "nonce", 0.0, 1800.0)


def spec(mode: str = "managed", mac: str = MAC) -> Spec:
    found = a_spec({"c1": []}, containers={"c1": a_container("c1", mac=mac, system="base")})
    provisioning = Provisioning("10.9.0.0/24", mode=mode)  # type: ignore[arg-type]
    systems = {"base": System("base", Artifact("http://10.9.0.1/base.tar.zst", "e" * 64), "kvm")}
    return replace(found, site=replace(found.site, provisioning=provisioning), systems=systems)


def told(mac: str = MAC, *tickets: Ticket, waiting: str | None = None, of: Spec | None = None) -> BootAnswer:
    line = {} if waiting is None else {"c1": waiting}
    return answer(mac, spec=of or spec(), tickets={t.container: t for t in tickets}, waiting=line)


def test_a_ticket_runs_the_installer() -> None:
    assert told(MAC, TICKET) == RunInstaller(TICKET)


def test_a_ticket_outranks_the_queue() -> None:
    assert told(MAC, TICKET, waiting="3 before you") == RunInstaller(TICKET)


def test_a_machine_in_the_queue_waits_with_its_message() -> None:
    assert told(waiting="3 before you") == WaitInLine("3 before you")


def test_a_machine_that_lost_its_installer_waits_for_what_comes_next() -> None:
    assert isinstance(told(MAC, replace(TICKET, state="claimed")), WaitInLine)


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(told("52:54:00:aa:00:99", TICKET, waiting="soon"), id="a stranger"),
        pytest.param(told(), id="nobody asked"),
        pytest.param(told(MAC, replace(TICKET, mac="52:54:00:aa:00:02")), id="ticket of the MAC it had before"),
        pytest.param(told("52:54:00:aa:00:02", TICKET, of=spec(mac="52:54:00:aa:00:02")), id="MAC it was given since"),
        pytest.param(told(MAC, replace(TICKET, system="gone")), id="its system left the spec"),
        pytest.param(told(MAC, TICKET, of=spec("off")), id="provisioning is off"),
    ],
)
def test_everybody_else_boots_the_local_disk(found: BootAnswer) -> None:
    assert isinstance(found, LocalBoot)
