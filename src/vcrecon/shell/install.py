"""Installs as the controller carries them out: a ticket in the record, a machine roused, its installer's end awaited.

Owned by `controller`; what a machine boots and says goes through a desk (`boot.desk`), its power through a switch
(`power`). Decides nothing: whom to install and how is in the action. The order is part of the contract (S7): the
ticket is durable before the desk opens it, the claim before the job is handed out, the end before the ticket closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

import structlog

from vcrecon.core.actions import Install
from vcrecon.core.admission import Admission
from vcrecon.core.decisions import Plan
from vcrecon.core.install_queue import SAMPLES, begins_in_s, place_words
from vcrecon.core.install_rules import ADVICE, first_word, installable, known
from vcrecon.core.installs import BootFacts, Ended, Netboot, PowerState, Progress, Ticket
from vcrecon.core.mastery import Quiet
from vcrecon.core.observation import Seen
from vcrecon.errors import HostError, Permanent, Transient, Unreachable
from vcrecon.host.context import host_key
from vcrecon.host.netboot import REBOOT, netboot_script
from vcrecon.shell.ledger import Ledger
from vcrecon.shell.pins import Pins
from vcrecon.shell.transport import Host
from vcrecon.spec.model import Container, Spec

_log = structlog.get_logger("vcrecon")

REBOOT_S = 30.0
ASK_SWITCH_EVERY_S = 30.0
STUCK = "install-stuck"


class Desk(Protocol):
    """What the controller needs of `boot.desk.Desk`."""

    netboots: dict[str, Netboot]
    progress: dict[str, Progress]
    tickets: dict[str, Ticket]
    quiet: Quiet | None

    def adopt(self, spec: Spec) -> None: ...

    def hold(self, waiting: Callable[[str], str | None]) -> None: ...

    def open(self, ticket: Ticket) -> None: ...

    def close(self, container: str) -> None: ...

    async def ended(self, container: str) -> Ended: ...


class Switch(Protocol):
    """What an install needs of a container's power controller; see `power.switch.PowerSwitch`."""

    async def state(self) -> PowerState: ...

    async def on(self) -> None: ...

    async def off(self) -> None: ...

    async def cycle(self) -> None: ...

    async def netboot_once(self) -> None: ...


MakeDesk = Callable[[Callable[[Ticket], None], Callable[[str], None]], Desk]
"""(claim, on_change) to a desk."""
Switches = Callable[[Container, bool], Switch | None]
"""(container, whether it boots by UEFI) to its switch; None when it is switched by hand."""


class BareMetal:
    """One for each controller, which sets `on_change` and `on_installed`."""

    def __init__(
        self,
        ledger: Ledger,
        pins: Pins,
        make_desk: MakeDesk,
        switches: Switches,
        *,
        clock: Callable[[], float],
    ) -> None:
        self.pins = pins
        self.on_change: Callable[[str], None] = lambda container: None
        """Something new is known of a container: its pass should run."""
        self.on_keys: Callable[[str], None] = lambda container: None
        """Another host key counts from now on."""
        self.on_installed: Callable[[str], None] = lambda container: None
        """Its disks are new: what was sighted there is gone."""
        self.on_quiet: Callable[[Quiet | None], None] = lambda quiet: None
        """Boots are served no more, or again."""
        self.durations_s: list[float] = []
        """How long the last installs took, from the ticket to the installer's end."""
        self.power: dict[str, PowerState] = {}
        self._ledger, self._record = ledger, ledger.record
        self._switches, self._clock = switches, clock
        self._spec: Spec | None = None
        self._proofs: dict[str, asyncio.Event] = {}
        self._steps: dict[str, dict[str, float]] = {}
        self._asked_s: dict[str, float] = {}
        self._first_s: dict[str, float] = {}
        self.desk = make_desk(self._claimed, self._heard)

    @property
    def spec(self) -> Spec:
        if self._spec is None:
            raise RuntimeError("no spec was adopted yet")
        return self._spec

    def facts(self) -> BootFacts:
        """For the planner."""
        return BootFacts(self.desk.netboots, self.desk.progress, self.power)

    def first_seen_s(self, netboot: Netboot) -> float:
        """When this machine was first heard of, as far as anybody asked: the desk keeps its last call only."""
        self._first_s = {mac: at_s for mac, at_s in self._first_s.items() if mac in self.desk.netboots}
        return self._first_s.setdefault(netboot.mac, netboot.at_s)

    def be_quiet(self, quiet: Quiet | None) -> None:
        """Serve no boots for this reason, or serve them (None)."""
        if quiet != self.desk.quiet:
            self.desk.quiet = quiet
            self.on_quiet(quiet)

    # --- generations ---------------------------------------------------------------------------------------

    def start(self, spec: Spec) -> None:
        """Open what was open when the last controller ended, before any machine is answered."""
        self._spec = spec
        for ticket in self._record.memory.tickets.values():
            if ticket.state != "open":
                with contextlib.suppress(Transient):
                    self._pin(ticket)
            if ticket.state != "installed":
                self.desk.open(ticket)
        self.desk.adopt(spec)

    def adopt(self, spec: Spec) -> None:
        """A new generation. The install of a machine that is no longer a container of the spec ends."""
        self._spec = spec
        for name, ticket in list(self._record.memory.tickets.items()):
            entry = spec.containers.get(name)
            if entry is None and ticket.state == "installed":
                self._record.remove_ticket(name)
            elif entry is None or entry.mac != ticket.mac:
                self.desk.close(name)
        self.desk.adopt(spec)

    # --- one install ---------------------------------------------------------------------------------------

    async def install(self, action: Install, host: Host) -> None:
        """From the ticket to the installer's end. Raises HostError, whose kind is the installer's code.

        When it is cancelled the ticket stays open, and the next controller goes on with it (S7).
        """
        name = action.container
        ticket = self._open(action)
        try:
            await self._rouse(action, host)
            ended = await self._end_of(ticket)
            if ended.error == "deadline" and self._may_cycle(name):
                ticket = self._open_again(name)
                await self._cycle(name)
                ended = await self._end_of(ticket)
            if ended.error:
                raise _failure(name, ended)
            self._installed(name)
        except HostError:
            self._give_up(name)
            raise

    def _open(self, action: Install) -> Ticket:
        ticket = self._record.memory.tickets.get(action.container)
        if ticket is None or ticket.state == "installed":
            ticket = self._new_ticket(action.container, action.mac, action.system, wipe=action.wipe)
        self._steps.setdefault(ticket.container, {})
        self.desk.open(ticket)
        return ticket

    def _new_ticket(self, name: str, mac: str, system: str, *, wipe: bool, cycled: bool = False) -> Ticket:
        now_s = self._clock()
        expires_at_s = now_s + self.spec.site.provisioning.install_deadline_s
        nonce = secrets.token_hex(8)
        ticket = Ticket(name, mac, system, wipe, nonce, now_s, expires_at_s, cycled=cycled)
        self._record.put_ticket(ticket)
        return ticket

    def _open_again(self, name: str) -> Ticket:
        """A second ticket for a machine that is about to be cycled: a token is for one try."""
        old = self._record.memory.tickets[name]
        self._unpin(old)
        message = f"{name} did not end its install in time: it is switched off and on, and tried once more"
        self._record.event(f"container/{name}", "power-cycle", message)
        ticket = self._new_ticket(name, old.mac, old.system, wipe=old.wipe, cycled=True)
        self._steps[name] = {}
        self.desk.open(ticket)
        return ticket

    def _may_cycle(self, name: str) -> bool:
        """Once, and only a machine that is the installer's: a person gave it up, or it claimed its job.

        Never while another master holds the site: it may be the other's by now.
        """
        ticket = self._record.memory.tickets.get(name)
        if ticket is None or ticket.cycled or not (ticket.wipe or ticket.state == "claimed"):
            return False
        return self.desk.quiet is None and self._switch(name) is not None

    async def _rouse(self, action: Install, host: Host) -> None:
        match action.rouse:
            case "follow":
                return
            case "switch-on":
                await self._switch_on(action.container, resumed=action.resumed)
            case "power-cycle":
                await self._cycle(action.container)
            case "reboot":
                # The connection dies with the system; whether it came back by the network, its call will tell.
                await self._reboot(action, host)

    async def _reboot(self, action: Install, host: Host) -> None:
        name = action.container
        try:
            reply = await host.run(netboot_script(action.mac), deadline_s=REBOOT_S)
        except Unreachable:
            return
        if reply.status:
            words = reply.stderr.decode(errors="replace").strip()
            raise Transient(f"{name}: `{REBOOT}` failed there: {words or reply.status}", kind="step-failed")

    async def _switch_on(self, name: str, *, resumed: bool) -> None:
        switch = self._must_switch(name)
        state = await switch.state()
        self.power[name] = state
        if state == "off":
            await switch.netboot_once()
            await switch.on()
            self.power[name] = "on"
        elif not resumed:
            raise Transient(f"{name}: its switch says {state} by now, so it is left as it is", kind="never-booted")

    async def _cycle(self, name: str) -> None:
        switch = self._must_switch(name)
        await switch.netboot_once()
        await switch.cycle()

    def switch_of(self, name: str) -> Switch | None:
        """The power switch of a container, if it has one: also for a fence."""
        return self._switch(name)

    def _switch(self, name: str) -> Switch | None:
        entry = self.spec.containers.get(name)
        if entry is None:
            return None
        called = self.desk.netboots.get(entry.mac or "")
        return self._switches(entry, called is not None and "efi" in called.platform.lower())

    def _must_switch(self, name: str) -> Switch:
        switch = self._switch(name)
        if switch is None:
            raise Permanent(f"{name} has no power control any more; see `power` in containers.yaml", kind="switch-on")
        return switch

    async def _end_of(self, ticket: Ticket) -> Ended:
        """The installer's word, or the sight of the system that it installed."""
        name = ticket.container
        proof = self._proofs[name] = asyncio.Event()
        waits = {asyncio.ensure_future(self.desk.ended(name)), asyncio.ensure_future(proof.wait())}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            del self._proofs[name]
        for wait in done:
            ended = wait.result()
            if isinstance(ended, Ended):
                return ended
        return Ended(name, ticket.nonce, self._clock(), "", "its new system answers")

    def _installed(self, name: str) -> None:
        """The end in one transaction; then nothing of the old disks is believed any more."""
        ticket = self._record.memory.tickets[name]
        now_s = self._clock()
        seconds = max(0.0, now_s - ticket.opened_at_s)
        steps = self._seconds_per_step(name, now_s)
        until_s = now_s + self.spec.site.boot_deadline_s
        self._ledger.installed(replace(ticket, state="installed", expires_at_s=until_s), self.spec, seconds, steps)
        self.pins.keep(name)
        self.durations_s = [*self.durations_s, seconds][-SAMPLES:]
        self._steps.pop(name, None)
        self.desk.close(name)
        self.on_installed(name)

    def _give_up(self, name: str) -> None:
        """The ticket ends without an install. What was trusted before is trusted again."""
        ticket = self._record.memory.tickets.get(name)
        self._steps.pop(name, None)
        if ticket is None or ticket.state == "installed":
            return
        self._record.remove_ticket(name)
        self.desk.close(name)
        self._unpin(ticket)
        self.on_change(name)

    def _unpin(self, ticket: Ticket) -> None:
        self.pins.restore(ticket.container, ticket.nonce)
        self.on_keys(ticket.container)

    # --- what machines say ---------------------------------------------------------------------------------

    def _claimed(self, ticket: Ticket) -> None:
        """Durable before the job leaves: the claim, and the key that the new system will show."""
        self._record.put_ticket(ticket)
        self._pin(ticket)

    def _pin(self, ticket: Ticket) -> None:
        entry = self.spec.containers.get(ticket.container)
        if entry is not None:
            public = host_key(self._record.secret(), f"container/{entry.name}/{ticket.nonce}")[1]
            self.pins.pin(entry, public, ticket.nonce)
            self.on_keys(entry.name)

    def _heard(self, container: str) -> None:
        progress = self.desk.progress.get(container)
        if progress is not None:
            steps = self._steps.setdefault(container, {})
            if progress.step not in steps:
                steps[progress.step] = progress.at_s
        self.on_change(container)

    def _seconds_per_step(self, name: str, now_s: float) -> dict[str, float]:
        began = sorted(self._steps.get(name, {}).items(), key=lambda entry: entry[1])
        ends = [*(at_s for _, at_s in began[1:]), now_s]  # nothing was heard when it began before a restart
        return {step: round(max(0.0, end - at_s), 1) for (step, at_s), end in zip(began, ends, strict=False)}

    def saw(self, observation: Seen) -> None:
        """A container answered: is it the system whose installer's word was lost on its way?"""
        ticket = self._record.memory.tickets.get(observation.container)
        release = observation.release
        if ticket is None or ticket.state != "claimed" or not isinstance(release, Mapping):
            return
        if release.get("install") == ticket.nonce and ticket.container in self._proofs:
            self._proofs[ticket.container].set()

    # --- the queue -----------------------------------------------------------------------------------------

    def words(self, name: str, plan: Plan | None, admission: Admission) -> str:
        """What the machine of a container is told that must wait before its install may begin; "" for nothing."""
        place = self.place(plan, admission)
        if place is not None:
            return f"{name}: {place_words(*place)}"
        return plan.hold if plan is not None else first_word(self.spec, self._record.memory, name)

    def place(self, plan: Plan | None, admission: Admission) -> tuple[int, int, float | None] | None:
        """Where a container stands in the queue of installs, how many are in it, and in how many seconds it begins."""
        action = next((a for a in plan.actions if isinstance(a, Install)), None) if plan is not None else None
        found = admission.place(action, "installs") if action is not None else None
        if found is None:
            return None
        now_s = self._clock()
        open_s = [t.opened_at_s for t in self._record.memory.tickets.values() if t.state != "installed"]
        elapsed_s = [now_s - opened_s for opened_s in open_s]
        return (*found, begins_in_s(found[0], admission.limits.installs, elapsed_s, self.durations_s))

    # --- power ---------------------------------------------------------------------------------------------

    async def ask_switch(self, name: str) -> None:
        """Look whether a machine that was never seen is off, at most every half minute. Never raises."""
        memory = self._record.memory
        if name in memory.tickets or known(memory, name) or not installable(self.spec, name):
            self.power.pop(name, None)
            return
        switch, now_s = self._switch(name), self._clock()
        if switch is None or abs(now_s - self._asked_s.get(name, 0.0)) < ASK_SWITCH_EVERY_S:
            return
        self._asked_s[name] = now_s
        before = self.power.get(name)
        try:
            self.power[name] = await switch.state()
        except HostError as error:
            self.power[name] = "unknown"
            _log.warning("power", container=name, error=str(error))
        if self.power[name] != before:
            self.on_change(name)


def _failure(name: str, ended: Ended) -> HostError:
    """The error of an install that ended badly, in the installer's words and with what to do."""
    kind = STUCK if ended.error == "deadline" else ended.error if ended.error in ADVICE else "step-failed"
    words = ended.message.strip() or kind
    return Transient(f"{name}: {words}; {ADVICE[kind].format(name)}", kind=kind, delay_s=5.0)
