"""The service ends and begins again: asked to, killed, without its record, beside a broken spec (S4, S7)."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from processes import ServiceProcess, progress, site_and_service, vcrecon
from running import GUESTS, move, until

from vcrecon.sim.control import SiteClient

SEED = 7
WORK = "three weeks of work\n"


async def boots(site: SiteClient) -> Counter[str]:
    return Counter({name: guest["boots"] for name, guest in (await site.world())["guests"].items()})


async def test_sigterm_in_the_middle_of_work_ends_in_time_and_the_work_goes_on_afterwards(tmp_path: Path) -> None:
    notices = _NotifySocket(tmp_path / "notify")
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
    async with site_and_service(tmp_path, speed=0.5, environment=environment) as (site, service):
        idle = await progress(site)
        await service.start()
        await until("steps are in flight", _grown(site, idle + 6))
        began_s = time.monotonic()
        assert await service.signal(signal.SIGTERM) == 0
        took_s = time.monotonic() - began_s
        print(f"SIGTERM in the middle of work: ended after {took_s:.2f} s")
        assert took_s < 5 + 5, "the grace for steps in flight, and a busy machine"
        assert not (service.state / "control.sock").exists()
        told = notices.read()
        assert told[0].startswith("READY=1")
        assert "STATUS=3 containers" in told[0]
        assert told[-1].startswith("STOPPING=1")
        await service.start()
        await service.converged()
        assert await boots(site) == dict.fromkeys(GUESTS, 1)
        notices.read()
        await until("the watchdog is fed", lambda: "WATCHDOG=1" in notices.read())
        assert await service.signal(signal.SIGTERM) == 0


class _NotifySocket:
    """What systemd would hear."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))

    def read(self) -> list[str]:
        told = []
        while True:
            try:
                told.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return told


async def test_a_step_that_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async with site_and_service(tmp_path, speed=0, environment={"VCRECON_SHUTDOWN_S": "0.5"}) as (site, service):
        await site.hang_command("c01", "^tar", 1)
        await service.start()

        async def hung() -> bool:
            return bool((await site.commands("c01"))["counts"].get("tar"))

        await until("a step hangs", hung)
        began_s = time.monotonic()
        assert await service.signal(signal.SIGTERM) == 0
        assert time.monotonic() - began_s < 0.5 + 5
        await site.reboot("c01")
        await service.start()
        await service.converged()


async def test_a_new_start_on_the_same_record_and_on_none_restarts_no_guest(tmp_path: Path) -> None:
    async with site_and_service(tmp_path, speed=0.02) as (site, service):
        await service.start()
        await service.converged()
        await service.kill()
        await service.start()
        await service.converged()
        assert await service.signal(signal.SIGTERM) == 0
        shutil.rmtree(service.state)
        await service.start()
        await service.converged()
        assert await boots(site) == dict.fromkeys(GUESTS, 1)
        assert (await site.audit())["removals"] == []


async def test_a_start_beside_a_broken_spec_keeps_the_last_good_one_in_force(tmp_path: Path) -> None:
    async with site_and_service(tmp_path, speed=0.02) as (site, service):
        await service.start()
        await service.converged()
        await service.kill()
        deployment = service.specs / "deployment.yaml"
        content = deployment.read_text()
        deployment.write_text(content[: len(content) - 8])
        await site.kill_guest("a-head")
        await service.start()
        await service.until(
            "it says so", lambda s: not s["spec"]["valid"] and "deployment.yaml:" in s["spec"]["problems"][0]
        )

        async def healed() -> bool:
            return (await boots(site))["a-head"] == 2

        await until("a-head is healed by the last good spec", healed)
        deployment.write_text(content)
        await service.until("mended", lambda s: s["spec"]["valid"] and s["converged"])
        assert await boots(site) == {name: 1 + (name == "a-head") for name in GUESTS}


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_ten_sigkills_end_in_the_same_state_with_no_guest_restarted_needlessly(tmp_path: Path) -> None:
    """During convergence, healing and a move; each moment is one of the work's progress, picked by a seed."""
    chance = random.Random(SEED)
    async with site_and_service(tmp_path, speed=0.3) as (site, service):
        expected: Counter[str] = Counter(dict.fromkeys(GUESTS, 1))
        await service.start()
        for _ in range(4):
            more = chance.randint(1, 6)
            grown = _grown(site, await progress(site) + more)
            await _killed_at(site, service, f"it made {more} more things", grown)
        await service.converged()
        for guest in chance.sample(GUESTS, 3):
            await site.kill_guest(guest)
            expected[guest] += 1
            late = chance.choice((True, False))
            await _killed_at(
                site,
                service,
                f"{guest} died, {'late' if late else 'at once'}",
                _restarted(site, guest, expected[guest], late),
            )
        await service.converged()
        await site.write_guest_file("b-n2", "root/thesis.txt", WORK)
        move(service.specs, "b-n2", "c02")
        expected["b-n2"] += 1
        for what, moment in (
            ("b-n2 was stopped", _stopped(site, "b-n2")),
            ("its disk is under way", _volumes(site, "b-n2", 2)),
            ("it starts on c02", _restarted(site, "b-n2", expected["b-n2"], True)),
        ):
            await _killed_at(site, service, what, moment)
        await service.converged()
        assert await boots(site) == expected
        world = await site.world()
        assert world["guests"]["b-n2"]["hosts"] == ["c02"]
        assert await site.read_guest_file("b-n2", "root/thesis.txt") == WORK
        assert await service.signal(signal.SIGTERM) == 0
        status, printed = await vcrecon("plan", str(service.specs), "--state", str(service.state))
        assert status == 0, printed


async def _killed_at(site: SiteClient, service: ServiceProcess, what: str, moment: Any) -> None:
    await until(what, moment, 60)
    await service.kill()
    print(f"SIGKILL: {what}; {(await site.world())['running']} guests run, {await progress(site)} things are there")
    await service.start()


def _grown(site: SiteClient, least: int) -> Any:
    """The moment at which so much is there, or all there is to be."""

    async def true() -> bool:
        return await progress(site) >= least or (await site.world())["running"] == len(GUESTS)

    return true


def _restarted(site: SiteClient, guest: str, count: int, wanted: bool) -> Any:
    """The moment at which the guest was started again; with `wanted` false, at once."""

    async def true() -> bool:
        return not wanted or (await boots(site))[guest] >= count

    return true


def _stopped(site: SiteClient, guest: str) -> Any:
    async def true() -> bool:
        return not (await site.world())["guests"][guest]["hosts"]

    return true


def _volumes(site: SiteClient, guest: str, least: int) -> Any:
    async def true() -> bool:
        return len((await site.world())["guests"][guest]["disks"]) >= least

    return true
