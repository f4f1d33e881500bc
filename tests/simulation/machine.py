"""One container as a machine that boots from the network and can be installed, and its power controller.

Its installer does what vcrecon's does as far as the desk can tell; the scripts themselves are proved on real machines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from tests.simulation.process import Killed
from tests.simulation.specs import SYSTEM_SHA256

from vcrecon.core.installs import Ended, LocalBoot, Netboot, Progress, RunInstaller, Ticket
from vcrecon.errors import Transient
from vcrecon.host.context import host_key

if TYPE_CHECKING:
    from tests.simulation.classroom import Classroom
    from tests.simulation.process import Process

STEPS = ("disks", "partition", "raid", "lvm", "filesystems", "download", "unpack", "boot-loader", "context", "done")
ASK_AGAIN_S = 5.0
LAST_WORD_TRIES = 120


class Machine:
    """`fails` makes its installer end with an error, `stops_at` makes it say no more after a step."""

    def __init__(self, room: Classroom, name: str) -> None:
        self.room, self.name = room, name
        self.fails = False
        self.stops_at = ""
        self.blank = False
        """An installer has taken its disks, and did not end."""
        self.step = ""
        """The last that its installer did."""
        self.on_call: Callable[[Machine, Callable[[], object]], object] = lambda machine, call: call()
        """Makes each call to the boot server, and says what the machine hears of its answer."""
        self._task: asyncio.Task[None] | None = None

    @property
    def _service(self) -> Process | None:
        return next((service for service in self.room.services if service.alive), None)

    @property
    def busy(self) -> bool:
        """Whether it is on its way from the network to its disk."""
        return self._task is not None and not self._task.done()

    def boot(self) -> None:
        """Switch it on, or reset it: it boots from the network, until its answer is to boot its disk."""
        self.stop()
        self._task = asyncio.create_task(self._boot(), name=f"machine {self.name}")

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _boot(self) -> None:
        await self.room.site.power_off(self.name)
        while True:
            self.step = ""
            await asyncio.sleep(ASK_AGAIN_S)
            container = self.room.good.containers.get(self.name)
            mac = container.mac if container is not None else None
            answer = self._ask(self._netboot(mac)) if mac else LocalBoot("")
            if isinstance(answer, RunInstaller):
                if (service := self._service) is not None:
                    self.room.on_installer(self.name, answer.ticket, service)
                if await self._claim(answer.ticket) and await self._install(answer.ticket):
                    return
            elif isinstance(answer, LocalBoot):
                await self.room.site.power_on(self.name)
                return

    def _netboot(self, mac: str) -> Callable[[Process], object]:
        def ask(service: Process) -> object:
            return service.desk.answer(Netboot(mac, service.clock(), "127.0.0.1", "pcbios", f"uuid-{self.name}"))

        return ask

    def _ask(self, call: Callable[[Process], object]) -> object:
        """Ask the boot server; None when nobody answers, or when it dies before its answer is sent."""
        service = self._service
        if service is None:
            return None
        try:
            return self.on_call(self, lambda: service.run(call, service))
        except Killed:
            return None

    async def _claim(self, ticket: Ticket) -> bool:
        """The job, asked for until there is an answer. Without it a machine boots again, as somebody resets it."""
        while True:
            answer = self._ask(lambda service: service.desk.claim(ticket, "127.0.0.1"))
            if answer is not None:
                return answer == "ok"
            await asyncio.sleep(ASK_AGAIN_S)

    async def _install(self, ticket: Ticket) -> bool:
        """Whether the machine is left as it is then; else it boots again, as one does whose disk was not blank."""
        for number, step in enumerate(STEPS):
            self.step = step
            await asyncio.sleep(2.0)
            done = 10.0 * number
            self._ask(
                lambda service, step=step, done=done: service.desk.report(
                    Progress(self.name, step, service.clock(), service.clock(), done)
                )
            )
            if self.stops_at == step:
                return True
            if step == "disks" and (self.fails or (self._has_data() and not ticket.wipe)):
                error = "disk-failed" if self.fails else "disk-not-blank"
                await self._say(ticket, error, "the installer says so")
                return error == "disk-failed"
            if step == "partition":
                self._wipe(ticket)
        self._write(ticket)
        await self._say(ticket, "", "")
        await self.room.site.power_on(self.name)
        return True

    async def _say(self, ticket: Ticket, error: str, message: str) -> None:
        """The last word, which the master must hear; tried for ten minutes."""
        for _ in range(LAST_WORD_TRIES):
            said = self._ask(
                lambda service: [
                    service.desk.end(Ended(self.name, ticket.nonce, service.clock(), error, message))
                ]
            )  # fmt: skip
            if said is not None:
                return
            await asyncio.sleep(ASK_AGAIN_S)

    def _has_data(self) -> bool:
        """Whether the installer finds anything on the disks; without a person's word it then stops."""
        ours = f"vc.site={self.room.good.site.name}"  # what others have here is a part of the scenery
        return any(ours in volume.tags for volume in self.room.site.hosts[self.name].machine.all_volumes())

    def _wipe(self, ticket: Ticket) -> None:
        machine = self.room.site.hosts[self.name].machine
        self.blank = True
        for volume in machine.all_volumes():
            if f"vc.site={self.room.good.site.name}" in volume.tags:
                machine.remove_volume(volume.name)

    def _write(self, ticket: Ticket) -> None:
        host = self.room.site.hosts[self.name]
        _, public = host_key(self.room.main.site_secret, f"container/{self.name}/{ticket.nonce}")
        host.server.host_key = " ".join(public.decode().split()[:2])  # type: ignore[assignment]
        hypervisor = host.container.hypervisor
        release = f"generation=1\nhypervisor={hypervisor}\nsystem={SYSTEM_SHA256}\ninstall={ticket.nonce}\n"
        host.machine.files.write("/etc/vcrecon/release", release.encode())
        self.blank = False


class Switch:
    """The power controller of a host. `dead` makes it fail; `lies` makes it say off whatever is so."""

    def __init__(self, room: Classroom, name: str) -> None:
        self.room, self.name, self.dead, self.lies = room, name, False, False
        self.pressed: list[str] = []

    async def state(self) -> Literal["on", "off", "unknown"]:
        await self._check("")
        return "on" if self.room.site.hosts[self.name].machine.up else "off"

    async def netboot_once(self) -> None:
        await self._check("netboot-once")

    async def on(self) -> None:
        await self._check("on")
        if not self.lies:
            self._boot()

    async def off(self) -> None:
        await self._check("off")
        if not self.lies:
            if self.name in self.room.machines:
                self.room.machines[self.name].stop()
            await self.room.site.power_off(self.name)

    async def cycle(self) -> None:
        await self._check("cycle")
        if not self.lies:
            self._boot()

    def _boot(self) -> None:
        self.room.machines[self.name].boot()

    async def _check(self, button: str) -> None:
        await asyncio.sleep(0.2)
        if self.dead:
            raise Transient(f"{self.name}: its power controller does not answer", kind="power-timeout")
        if button:
            self.pressed.append(button)
