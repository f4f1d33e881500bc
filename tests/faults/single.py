"""`python -m tests.faults.single NAME DIRECTORY`: one fault that must have one outcome.

`campaign` makes the namespaces. Prints one line of JSON with the violations.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.faults.box import Box, many, run
from tests.faults.one import host_of

from vcrecon.boot.images import recipe
from vcrecon.errors import HostError
from vcrecon.host.steps import LOCKED, locked

DEADLINE_S = 180.0
"""OpenSSH 9.2 takes up to twice the time that its settings say until it gives a client up."""


def as_installed(box: Box) -> None:
    """Give it the SSH server of the systems that vcrecon installs."""
    box.stop_listening()
    box.listen(more=recipe.container("debian-kvm", "kvm").files["etc/ssh/sshd_config.d/vcrecon.conf"])


async def until(true: Callable[[], Awaitable[bool]]) -> bool:
    """Whether it became true in time."""
    ends_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < ends_s:
        if await true():
            return True
        await asyncio.sleep(0.2)
    return False


async def a_master_that_vanished_holds_no_lock(box: Box) -> list[str]:
    """A step that reads its input must end on a host that vcrecon installed, though nobody tells it (S7)."""
    as_installed(box)
    step = locked("x", ["cat >/dev/null"])
    vanishing = host_of(box, DEADLINE_S)
    pipe = await vanishing.open(step)
    await pipe.write(b"the beginning")
    other = host_of(box, DEADLINE_S)

    async def locked_out() -> bool:
        return (await other.run(step, stdin=b"", deadline_s=30.0)).status == LOCKED

    async def free() -> bool:
        return not await locked_out()

    begun = await until(locked_out)
    await other.close()
    box.forget("vanished")
    await vanishing.close()
    other = host_of(box, DEADLINE_S)
    given_up = await until(free)
    await other.close()
    return [] if begun and given_up else [f"a master that vanished holds its lock for {DEADLINE_S:g} s and more"]


SCENARIOS: dict[str, Callable[[Box], Awaitable[list[str]]]] = {
    scenario.__name__: scenario for scenario in (a_master_that_vanished_holds_no_lock,)
}


def main() -> None:
    scenario, scratch = SCENARIOS[sys.argv[1]], Path(sys.argv[2])
    run("mount", "-t", "tmpfs", "names", "/run/netns")
    run("ip", "link", "set", "lo", "up")
    with many(1, scratch, block_devices=set()) as (box,):
        try:
            violations = asyncio.run(scenario(box))  # type: ignore[arg-type]
        except HostError as error:
            violations = [f"{scenario.__name__}: {error!r}"]
    print(json.dumps({"violations": violations}))


if __name__ == "__main__":
    main()
