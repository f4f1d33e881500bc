"""How much one hung host costs the others (S8): the same classroom twice, once with a host that hangs.

All guests of the healthy hosts are killed in the moment in which the host begins to hang, and the service is restarted.
`python -m tests.simulation.hung_host` prints, for each way to hang, the virtual seconds until they answer again. (A
record that begins anew is another matter: it looks at every host once before it acts, S1.)
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable

from tests.simulation.entropy import require_fixed_hashes
from tests.simulation.schedule import Play, run

from vcrecon.sim.faults import Fault

SEED = 8
"""Five containers, and guests on more than one of them."""


async def no_answer(play: Play, host: str) -> None:
    await play.room.site.cut(host)


async def commands_hang(play: Play, host: str) -> None:
    play.room.site.hosts[host].faults.waiting.append(Fault(re.compile(""), None, hangs=True))


async def slow(play: Play, host: str) -> None:
    await play.room.site.slow(host, 20.0)


async def nothing(play: Play, host: str) -> None:
    """The host is well."""


WAYS: dict[str, Callable[[Play, str], Awaitable[None]]] = {
    "nothing": nothing,
    "no answer": no_answer,
    "commands hang": commands_hang,
    "slow": slow,
}


def seconds_until_the_others_run(way: str) -> float:
    """Virtual seconds until every guest of the other hosts answers again."""
    found: list[float] = []

    async def story(play: Play) -> None:
        room = play.room
        hung = sorted(room.site.hosts)[0]
        others = sorted(guest for guest, place in room.home.items() if place != hung)
        room.main.start()
        await play.come_to_rest()
        room.main.kill()
        await WAYS[way](play, hung)
        for guest in others:
            await room.site.kill_guest(guest)
        room.main.start()
        began_s = room.loop.time()
        while not all(_answers(play, guest) for guest in others):  # noqa: ASYNC110 - hosts have no event for it
            await asyncio.sleep(0.01)
        found.append(room.loop.time() - began_s)

    result = run(SEED, story)
    assert not result.violations, result.violations
    return found[0]


def _answers(play: Play, guest: str) -> bool:
    room = play.room
    machine = room.site.hosts[room.home[guest]].machine
    domain = machine.domains.by_name.get(guest)
    return domain is not None and domain.live and domain.answers_at <= machine.timing.now()


if __name__ == "__main__":
    require_fixed_hashes()
    print(json.dumps({way: round(seconds_until_the_others_run(way), 3) for way in WAYS}))
    sys.exit(0)
