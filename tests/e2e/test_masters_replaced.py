"""The first master is killed and another host takes over, with an export or with the bare key: no guest notices."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from processes import ServiceProcess, site_and_service, vcrecon
from running import GUESTS, until

from vcrecon.sim.control import SiteClient


async def boots(site: SiteClient) -> dict[str, int]:
    return {name: guest["boots"] for name, guest in (await site.world())["guests"].items()}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["an export", "the key alone"])
async def test_another_master_takes_over_and_the_first_one_coming_back_keeps_its_hands_off(
    how: str, tmp_path: Path
) -> None:
    async with site_and_service(tmp_path, speed=0.02) as (site, first):
        await first.start()
        await first.converged()
        archive, specs, state = tmp_path / "export.tar.gz", tmp_path / "specs2", tmp_path / "second"
        if how == "an export":
            await _typed("master", "export", str(archive), "--specs", str(first.specs), "--state", str(first.state))
            await first.kill()
            await _typed("master", "promote", str(archive), "--specs", str(specs), "--state", str(state))
        else:
            await first.kill()
            specs = first.specs
            key = shutil.copy(first.state / "site.key", tmp_path / "site.key")
            await _typed("master", "promote", str(specs), "--key", str(key), "--state", str(state))
        status, printed = await vcrecon("plan", str(specs), "--state", str(state))
        assert status == 0, f"nothing to do, before it runs at all: {printed}"
        second = ServiceProcess(specs, state, tmp_path / "second.log", {})
        try:
            await second.start()
            await second.converged()
            assert await boots(site) == dict.fromkeys(GUESTS, 1)
            await first.start()
            await first.until("the first is outranked", _outranked)
            await site.kill_guest("a-n1")
            await until("the second heals", lambda: _restarted(site, "a-n1"))
            await second.converged()
            assert await boots(site) == dict.fromkeys(GUESTS, 1) | {"a-n1": 2}
            assert (await site.audit())["removals"] == []
            assert await first.signal(signal.SIGTERM) == 0
        finally:
            await second.end()


def _outranked(status: dict) -> bool:  # type: ignore[type-arg]
    return all([b["reason"] for b in c["blocked"]] == ["other-master"] for c in status["containers"])


async def _restarted(site: SiteClient, guest: str) -> bool:
    return (await boots(site))[guest] > 1


async def _typed(*arguments: str) -> None:
    status, printed = await vcrecon(*arguments)
    assert status == 0, printed
