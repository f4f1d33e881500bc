"""One install as the controller carries it out: what is durable when, and how a machine is roused."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from vcrecon.boot.desk import Desk
from vcrecon.core.actions import Install
from vcrecon.core.installs import Ended, Ticket
from vcrecon.core.mastery import Quiet
from vcrecon.core.memory import Claim, Consent
from vcrecon.errors import HostError, Permanent, Transient, Unreachable
from vcrecon.host.netboot import netboot_script
from vcrecon.shell.install import BareMetal
from vcrecon.shell.ledger import Ledger
from vcrecon.shell.metrics import Metrics
from vcrecon.shell.pins import Pins
from vcrecon.shell.record import Record
from vcrecon.shell.transport import Reply
from vcrecon.spec.model import Artifact, Container, Provisioning, Site, Spec, Ssh, System

MAC = "52:54:00:00:00:01"
NOW_S = 1_800_000_000.0
ACTION = Install("c01", "a test", "debian-kvm", MAC)


def a_spec(**container: Any) -> Spec:
    provisioning = Provisioning("10.64.0.0/24", "external", address="10.64.0.1")
    site = Site("lab", "running", Ssh("root", Path("/key"), Path("/known_hosts")), provisioning=provisioning)
    values = {
        "name": "c01", "address": "10.64.0.11", "port": 22, "hypervisor": "kvm", "memory_bytes": 1, "cores": 1,
        "disk_bytes": 1, "trunk": "eno1", "volume_group": "vg", "pool": "p", "generation": "1", "mac": MAC,
        "system": "debian-kvm",
    }  # fmt: skip
    system = System("debian-kvm", Artifact("http://10.64.0.1/x", "e" * 64), "kvm")
    found = Container(**{**values, **container})
    return Spec(site, {}, {"c01": found}, {}, {}, {}, {"c01": ()}, frozenset(), "one", {"debian-kvm": system})


class Host:
    """An SSH connection that answers `reply`, or raises it; `ran` has the scripts."""

    def __init__(self, reply: Reply | HostError) -> None:
        self.reply, self.ran = reply, []

    ran: list[str]

    async def run(self, script: str, *, stdin: bytes | None = None, deadline_s: float) -> Reply:
        self.ran.append(script)
        if isinstance(self.reply, HostError):
            raise self.reply
        return self.reply


class Switch:
    """A power control that shows `shows`; `pressed` has what was asked for."""

    def __init__(self, shows: str) -> None:
        self.shows, self.pressed = shows, []

    pressed: list[str]

    async def state(self) -> Any:
        return self.shows

    async def on(self) -> None:
        self.pressed.append("on")

    async def off(self) -> None:
        self.pressed.append("off")

    async def cycle(self) -> None:
        self.pressed.append("cycle")

    async def netboot_once(self) -> None:
        self.pressed.append("netboot-once")


class WatchedDesk(Desk):
    """Tells when a ticket was opened."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.was_opened = asyncio.Event()

    def open(self, ticket: Ticket) -> None:
        super().open(ticket)
        self.was_opened.set()


class Bench:
    """A `BareMetal` on a record of its own and a real desk."""

    def __init__(self, record: Record, directory: Path) -> None:
        self.now_s = NOW_S
        self.switch: Switch | None = None
        self.record = record
        ledger = Ledger(record, Metrics(), clock=self.clock, rng=random.Random(1), stable_s=60.0)
        self.metal = BareMetal(ledger, Pins(directory / "known_hosts"), self._desk, self._switch, clock=self.clock)
        self.metal.start(a_spec())

    desk: WatchedDesk

    def clock(self) -> float:
        return self.now_s

    def _desk(self, claim: Any, on_change: Any) -> Desk:
        self.desk = WatchedDesk(clock=self.clock, claim=claim, on_change=on_change)
        return self.desk

    def _switch(self, container: Container, uefi: bool) -> Any:
        return self.switch

    @property
    def ticket(self) -> Ticket | None:
        return self.record.memory.tickets.get("c01")

    def begin(self, action: Install = ACTION, host: Any = None) -> asyncio.Task[None]:
        return asyncio.create_task(self.metal.install(action, host or Host(Reply(b"", b"", 0))))

    async def opened(self) -> Ticket:
        async with asyncio.timeout(10):
            await self.desk.was_opened.wait()
        return self.desk.tickets["c01"]

    def end(self, error: str = "") -> None:
        self.desk.end(Ended("c01", self.desk.tickets["c01"].nonce, self.now_s, error, "so it says" if error else ""))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    with Record.open(tmp_path / "state", clock=lambda: NOW_S) as record:
        yield Bench(record, tmp_path / "state")


async def test_the_ticket_is_durable_before_the_desk_opens_it(bench: Bench) -> None:
    task = bench.begin()
    ticket = await bench.opened()
    assert bench.ticket == ticket
    assert (ticket.mac, ticket.wipe, ticket.expires_at_s) == (MAC, False, NOW_S + 1800)
    bench.end()
    await task


async def test_the_end_forgets_what_lived_there_in_one_transaction(bench: Bench) -> None:
    with bench.record.batch() as batch:
        batch.put_claim(Claim("gone", "c01", 3, touched=True))
        batch.put_claim(Claim("elsewhere", "c02", 1, touched=True))
        for subject in ("c01", "c01/gone"):
            batch.put_consent(Consent("reinstall", subject, 3, NOW_S))
    task = bench.begin()
    await bench.opened()
    bench.now_s += 80
    bench.end()
    await task
    memory = bench.record.memory
    assert (bench.ticket.state, bench.ticket.expires_at_s) == ("installed", NOW_S + 380)  # type: ignore[union-attr]
    assert (set(memory.claims), memory.consents, memory.seen) == ({"elsewhere"}, {}, {"c01": NOW_S + 80})
    assert bench.metal.durations_s == [80.0]
    assert "c01" not in bench.desk.tickets


async def test_a_failure_says_why_and_what_to_do_and_ends_the_ticket(bench: Bench) -> None:
    task = bench.begin()
    ticket = await bench.opened()
    assert bench.desk.claim(ticket, "10.64.0.11") == "ok"
    assert "vcrecon/c01/" in bench.metal.pins.over(a_spec().containers["c01"], "")
    bench.end("disk-not-blank")
    with pytest.raises(Transient, match=r"so it says; .*`vcrecon reinstall c01`") as caught:
        await task
    assert caught.value.kind == "disk-not-blank"
    assert bench.ticket is None
    assert bench.metal.pins.over(a_spec().containers["c01"], "spec") == "spec"


async def test_a_code_that_is_none_is_a_failed_step(bench: Bench) -> None:
    task = bench.begin()
    await bench.opened()
    bench.end("rm -rf")
    with pytest.raises(Transient) as caught:
        await task
    assert caught.value.kind == "step-failed"


async def test_a_controller_that_ends_leaves_the_ticket_open(bench: Bench) -> None:
    task = bench.begin()
    ticket = await bench.opened()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert bench.ticket == ticket


async def test_a_restarted_one_opens_it_again_with_the_key_that_was_promised(bench: Bench, tmp_path: Path) -> None:
    task = bench.begin()
    ticket = await bench.opened()
    bench.desk.claim(ticket, "10.64.0.11")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    pinned = bench.metal.pins.over(a_spec().containers["c01"], "")
    bench.metal.pins.path.unlink()
    again = Bench(bench.record, tmp_path / "state")
    assert again.desk.tickets["c01"].state == "claimed"
    assert again.metal.pins.over(a_spec().containers["c01"], "") == pinned


@pytest.mark.parametrize(
    ("action", "shows", "pressed"),
    [
        (Install("c01", "", "debian-kvm", MAC, rouse="switch-on"), "off", ["netboot-once", "on"]),
        (Install("c01", "", "debian-kvm", MAC, rouse="switch-on", resumed=True), "on", []),
        (Install("c01", "", "debian-kvm", MAC, wipe=True, rouse="power-cycle"), "on", ["netboot-once", "cycle"]),
        (Install("c01", "", "debian-kvm", MAC), "off", []),
    ],
)
async def test_a_switch_is_pressed_as_the_rule_says(
    bench: Bench, action: Install, shows: str, pressed: list[str]
) -> None:
    bench.switch = Switch(shows)
    task = bench.begin(action)
    await bench.opened()
    bench.end()
    await task
    assert bench.switch.pressed == pressed


async def test_a_machine_that_is_on_by_now_is_left_as_it_is(bench: Bench) -> None:
    bench.switch = Switch("on")
    with pytest.raises(Transient, match="says on by now"):
        await bench.begin(Install("c01", "", "debian-kvm", MAC, rouse="switch-on"))
    assert (bench.switch.pressed, bench.ticket) == ([], None)


REBOOTED = Install("c01", "", "debian-kvm", MAC, wipe=True, rouse="reboot")


@pytest.mark.parametrize("reply", [Reply(b"", b"", 0), Unreachable("the connection was lost")])
async def test_a_container_without_a_switch_reboots(bench: Bench, reply: Reply | HostError) -> None:
    host = Host(reply)
    task = bench.begin(REBOOTED, host)
    await bench.opened()
    bench.end()
    await task
    assert host.ran == [netboot_script(MAC)]


@pytest.mark.parametrize("reply", [Reply(b"", b"no bus", 1), Permanent("refused", kind="permission-denied")])
async def test_one_that_cannot_reboot_fails_and_its_ticket_ends(bench: Bench, reply: Reply | HostError) -> None:
    with pytest.raises(HostError):
        await bench.begin(REBOOTED, Host(reply))
    assert bench.ticket is None
    assert bench.desk.tickets == {}


@pytest.mark.parametrize(
    ("quiet", "pressed"), [(None, ["netboot-once", "cycle"]), (Quiet("other-master", "held by m2"), [])]
)
async def test_a_stuck_machine_is_cycled_once_but_not_while_another_master_holds_the_site(
    quiet: Quiet | None, pressed: list[str], bench: Bench
) -> None:
    bench.switch = Switch("on")
    task = bench.begin()
    assert bench.desk.claim(await bench.opened(), "10.64.0.11") == "ok"
    bench.metal.be_quiet(quiet)
    bench.desk.was_opened.clear()
    bench.end("deadline")
    if pressed:
        await bench.opened()  # its second ticket
        bench.end("deadline")
    with pytest.raises(HostError):
        await task
    assert bench.switch.pressed == pressed


async def test_a_machine_that_is_no_container_any_more_ends_its_install(bench: Bench) -> None:
    task = bench.begin()
    await bench.opened()
    bench.metal.adopt(a_spec(mac="52:54:00:00:00:99"))
    with pytest.raises(Transient):
        await task
    assert bench.ticket is None
