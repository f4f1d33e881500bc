"""Simulated machines that boot from the network: they ask the desk, install as its installer would, and come up.

What is behind HTTP (tokens, jobs, neighbours) is proved in tests/boot; here a machine talks to the desk itself.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import asyncssh
from harness import Playground

from vcrecon.core.installs import Ended, LocalBoot, Netboot, Progress, RunInstaller, Ticket, WaitInLine
from vcrecon.errors import Transient
from vcrecon.host.context import host_key
from vcrecon.sim.audit import guest_of
from vcrecon.spec.model import Container

SYSTEM_SHA256 = "e" * 64
STEPS = ("disks", "partition", "raid", "lvm", "filesystems", "download", "unpack", "boot-loader", "context", "done")
ASK_AGAIN_S = 0.05


def mac_of(container: str) -> str:
    return f"52:54:00:00:00:{container[-2:]}"


async def installable(play: Playground, **provisioning: Any) -> None:
    """The spec of a site that can install: for `playground(bind=…)`. Every container has a MAC and a system."""
    with play.files.editing("site") as site:
        site["provisioning"].update({"mode": "external", "address": "127.0.0.1", **provisioning})
    with play.files.editing("images") as images:
        url = "http://127.0.0.1:8067/images/{}.tar.zst"
        images["systems"] = {
            name: {"root": {"url": url.format(name), "sha256": SYSTEM_SHA256}, "hypervisor": name}
            for name in ("kvm", "xen")
        }
    with play.files.editing("containers") as containers:
        for entry in containers["containers"]:
            entry["mac"] = mac_of(entry["name"])
            entry["system"] = entry.get("hypervisor", "kvm")


async def installable_by_power(play: Playground) -> None:
    """The same, and c01 has a power control."""
    await installable(play)
    give_power(play, "c01")


def give_power(play: Playground, container: str) -> None:
    with play.files.editing("containers") as containers:
        entry = next(e for e in containers["containers"] if e["name"] == container)
        entry["power"] = {"kind": "redfish", "address": "https://127.0.0.1:1", "credentials": "secrets/bmc"}


class Machine:
    """One container of the site as a machine. `log` has what it was told, one word each."""

    def __init__(self, play: Playground, name: str) -> None:
        self.play, self.name, self.log = play, name, []
        self.error = ""
        """With it the installer ends with this code."""
        self.stops_at = ""
        """The installer says no more after this step."""
        self.loses_its_last_word = False
        self.go_on = asyncio.Event()
        """The installer waits for it before its step `download`."""
        self.go_on.set()
        self._task: asyncio.Task[None] | None = None

    log: list[str]

    @property
    def container(self) -> Container:
        return self.play.controller.spec.containers[self.name]

    async def blank(self) -> None:
        """As it came from the shop: off, nothing on its disks, and nobody knows its key."""
        await self.play.site.power_off(self.name)
        known_hosts = self.play.files.directory / "known_hosts"
        port = f":{self.play.site.hosts[self.name].server.port} "
        kept = [line for line in known_hosts.read_text().splitlines() if port not in line]
        known_hosts.write_text("".join(f"{line}\n" for line in kept))

    def boot(self) -> None:
        """Switch it on: it boots from the network, until its answer is to boot its disk."""
        self.stop()
        self._task = asyncio.create_task(self._boot(), name=f"machine {self.name}")

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _boot(self) -> None:
        await self.play.site.power_off(self.name)
        while True:
            desk = self.play.desk
            assert desk is not None
            answer = desk.answer(
                Netboot(mac_of(self.name), self.play.clock(), "127.0.0.1", "pcbios", f"uuid-{self.name}")
            )
            self.log.append(type(answer).__name__)
            if isinstance(answer, RunInstaller):
                await self._install(answer.ticket)
                return
            if isinstance(answer, LocalBoot):
                await self.play.site.power_on(self.name)
                return
            assert isinstance(answer, WaitInLine)
            self.log.append(answer.message)
            await asyncio.sleep(ASK_AGAIN_S)

    async def _install(self, ticket: Ticket) -> None:
        desk = self.play.desk
        assert desk is not None
        if self.stops_at == "boot":
            return
        assert desk.claim(ticket, "127.0.0.1") == "ok"
        for number, step in enumerate(STEPS):
            if step == "download":
                await self.go_on.wait()
            now_s = self.play.clock()
            assert self.play.desk is not None
            self.play.desk.report(Progress(self.name, step, now_s, now_s, 10.0 * number))
            if self.stops_at == step:
                return
            if self.error and step == "partition":
                self._say(ticket, self.error, "the installer says so")
                return
            await asyncio.sleep(0.01)
        self._write(ticket)
        if not self.loses_its_last_word:
            self._say(ticket, "", "")
        await self.play.site.power_on(self.name)

    def _say(self, ticket: Ticket, error: str, message: str) -> None:
        assert self.play.desk is not None
        self.play.desk.end(Ended(self.name, ticket.nonce, self.play.clock(), error, message))

    def _write(self, ticket: Ticket) -> None:
        """What an installer leaves: an empty thin pool, its release file, and the host key that was made for it."""
        host = self.play.site.hosts[self.name]
        for volume in host.machine.all_volumes():
            if volume.name.startswith(("vcg-", "vcq-", "vcimg-")) or guest_of(volume.tags):
                host.machine.remove_volume(volume.name)
        private, _ = host_key(self.play.record.secret(), f"container/{self.name}/{ticket.nonce}")
        host.server.host_key = asyncssh.import_private_key(private)
        release = (
            f"generation=1\nhypervisor={host.container.hypervisor}\nsystem={SYSTEM_SHA256}\ninstall={ticket.nonce}\n"
        )
        host.machine.files.write("/etc/vcrecon/release", release.encode())


class Switch:
    """The power controller of a machine. `pressed` has what it was asked for; `dead` makes it fail."""

    def __init__(self, machine: Machine, *, wakes: bool = True) -> None:
        self.machine, self.wakes, self.pressed, self.dead = machine, wakes, [], False
        machine.play.switches[machine.name] = self

    pressed: list[str]

    async def state(self) -> Literal["on", "off", "unknown"]:
        self._check()
        return "on" if self.machine.play.site.hosts[self.machine.name].machine.up else "off"

    async def netboot_once(self) -> None:
        self._check()
        self.pressed.append("netboot-once")

    async def on(self) -> None:
        self._check()
        self.pressed.append("on")
        if self.wakes:
            self.machine.boot()

    async def off(self) -> None:
        self._check()
        self.pressed.append("off")
        self.machine.stop()
        await self.machine.play.site.power_off(self.machine.name)

    async def cycle(self) -> None:
        self._check()
        self.pressed.append("cycle")
        if self.wakes:
            self.machine.boot()

    def _check(self) -> None:
        if self.dead:
            raise Transient(f"{self.machine.name}: its power controller does not answer", kind="power-timeout")
