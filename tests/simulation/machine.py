"""One container as a machine that boots from the network and can be installed, and its power controller.

Its installer does what vcrecon's does as far as the desk can tell; the scripts themselves are proved on real machines.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from tests.simulation.specs import SYSTEM_SHA256

from vcrecon.core.installs import Ended, LocalBoot, Netboot, Progress, RunInstaller, Ticket
from vcrecon.errors import Transient
from vcrecon.host.context import host_key

if TYPE_CHECKING:
    from tests.simulation.classroom import Classroom
    from tests.simulation.process import Process

STEPS = ("disks", "partition", "raid", "lvm", "filesystems", "download", "unpack", "boot-loader", "context", "done")
ASK_AGAIN_S = 5.0


class Machine:
    """`fails` makes its installer end with an error, `stops_at` makes it say no more after a step."""

    def __init__(self, room: Classroom, name: str) -> None:
        self.room, self.name = room, name
        self.fails = False
        self.stops_at = ""
        self.blank = False
        """An installer has taken its disks, and did not end."""
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
            await asyncio.sleep(ASK_AGAIN_S)
            service = self._service
            if service is None:
                continue
            container = self.room.good.containers.get(self.name)
            if container is None or not container.mac:
                answer: object = LocalBoot("")
            else:
                asks = Netboot(container.mac, service.clock(), "127.0.0.1", "pcbios", f"uuid-{self.name}")
                answer = service.run(service.desk.answer, asks)
            if isinstance(answer, RunInstaller):
                await self._install(service, answer.ticket)
                return
            if isinstance(answer, LocalBoot):
                await self.room.site.power_on(self.name)
                return

    async def _install(self, service: Process, ticket: Ticket) -> None:
        if service.run(service.desk.claim, ticket, "127.0.0.1") != "ok":
            return
        for number, step in enumerate(STEPS):
            await asyncio.sleep(2.0)
            current = self._service
            if current is None:
                continue  # it tries again while nobody answers, and works on meanwhile
            now_s = current.clock()
            current.run(current.desk.report, Progress(self.name, step, now_s, now_s, 10.0 * number))
            if self.stops_at == step:
                return
            if self.fails and step == "disks":
                self._say(ticket, "disk-failed", "the installer says so")
                return
            if step == "partition":
                self._wipe(ticket)
        self._write(service, ticket)
        self._say(ticket, "", "")
        await self.room.site.power_on(self.name)

    def _say(self, ticket: Ticket, error: str, message: str) -> None:
        service = self._service
        if service is not None:
            service.run(service.desk.end, Ended(self.name, ticket.nonce, service.clock(), error, message))

    def _wipe(self, ticket: Ticket) -> None:
        machine = self.room.site.hosts[self.name].machine
        self.blank = True
        for volume in machine.all_volumes():
            if f"vc.site={self.room.good.site.name}" in volume.tags:
                machine.remove_volume(volume.name)

    def _write(self, service: Process, ticket: Ticket) -> None:
        host = self.room.site.hosts[self.name]
        _, public = host_key(service.site_secret, f"container/{self.name}/{ticket.nonce}")
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
