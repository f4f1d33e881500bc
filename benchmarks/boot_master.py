"""The master of the boot benchmark: controller, boot services and record as the product has them, and nothing beside.

    ip netns exec … python -m benchmarks.boot_master SPECS STATE PUBLIC

Started by `boot`. SSH is real too: nothing listens on the machines' port 22, which is what a machine without a system
looks like. Says one JSON object when it is ready for machines, and one for each line of its input; ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from vcrecon.boot.desk import Desk
from vcrecon.boot.services import BootServices
from vcrecon.controller import Controller
from vcrecon.core.installs import Ticket
from vcrecon.core.states import ContainerState, GuestState
from vcrecon.host.scripts import Secrets
from vcrecon.settings import Settings
from vcrecon.shell.connector import Connector, password_hash
from vcrecon.shell.install import BareMetal
from vcrecon.shell.ledger import Ledger
from vcrecon.shell.log import configure
from vcrecon.shell.metrics import Metrics
from vcrecon.shell.pins import NAME, Pins
from vcrecon.shell.record import Record
from vcrecon.spec.load import load


class CountingDesk(Desk):
    """A desk that remembers how many tickets were open at once at most."""

    most = 0

    def open(self, ticket: Ticket) -> None:
        super().open(ticket)
        self.most = max(self.most, len(self.tickets))


class Master:
    """Everything wired as for a real site; there are no power switches."""

    def __init__(self, specs: Path, state: Path, public: Path, record: Record) -> None:
        spec, settings, rng = load(specs).spec, Settings.from_environment(), random.Random()
        self._changed = asyncio.Event()
        metrics = Metrics(container_states=list(ContainerState), guest_states=list(GuestState))
        ledger = Ledger(record, metrics, clock=time.time, rng=rng, stable_s=settings.stable_s)
        pins = Pins(state / NAME)
        bare_metal = BareMetal(ledger, pins, self._make_desk, lambda container, efi: None, clock=time.time)
        self._controller = Controller(
            spec,
            ledger,
            Secrets(record.secret(), password_hash),
            Connector(settings, pins),
            settings,
            rng=rng,
            on_change=self._changed.set,
            bare_metal=bare_metal,
        )
        self._services = BootServices(spec, state, self._desk, record.secret(), record.event, public=public)

    def _make_desk(self, claim: Callable[[Ticket], None], on_change: Callable[[str], None]) -> CountingDesk:
        self._desk = CountingDesk(clock=time.time, claim=claim, on_change=on_change)
        return self._desk

    async def run(self) -> None:
        """Until standard input ends."""
        self._controller.start()
        await self._services.start()
        await self._services.settled()
        while not self._looked_everywhere() and self._services.problem is None:
            self._changed.clear()
            await self._changed.wait()
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        try:
            self._say()
            while await reader.readline():
                self._say()
        finally:
            await self._services.stop()
            await self._controller.stop()

    def _looked_everywhere(self) -> bool:
        """Before that a new record lets nothing begin (S1)."""
        memory = self._controller.memory
        return len(self._controller.world.current) == len(self._controller.spec.containers) and not memory.intents

    def _say(self) -> None:
        queued = self._controller.admission.lengths()["installs"]
        told = {"problem": self._services.problem, "most": self._desk.most, "queued": queued}
        states = [ticket.state for ticket in self._controller.memory.tickets.values()]
        print(json.dumps({**told, "installed": states.count("installed")}), flush=True)


async def main() -> None:
    specs, state, public = map(Path, sys.argv[1:])
    with Record.open(state, clock=time.time) as record:
        await Master(specs, state, public, record).run()


if __name__ == "__main__":
    configure(level="warning", log_format="console")
    asyncio.run(main())
