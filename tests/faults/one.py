"""`python -m tests.faults.one SEED DIRECTORY`: one run, in the namespaces that `campaign` made for it.

Prints one line of JSON. Fair weather first, for a measure; then the faults that the seed draws; then everything must
work again, be as it was said to be, and be gone when it is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from tests.faults import weather
from tests.faults.box import PREFIX, Box, can_slow_a_disk, commands_with, load, many, run
from tests.faults.images import Images
from tests.faults.judge import canaries, judge_call, judge_journal
from tests.faults.pace import Pace
from tests.faults.weather import Spell, Weather, forecast
from tests.faults.work import CANARY, JOURNAL, LOCKS, Site

from vcrecon.core.observation import Lease, NetworkFacts
from vcrecon.host import firewall
from vcrecon.host.network import LIST_RULES
from vcrecon.shell.transport import Endpoint, SshHost

CALM_S = 1.0
STORM_S = 7.0
RECOVERY_S = 15.0
"""From the end of the last fault until everything works again, locks of lost steps included."""
RECOVERY_S_MAX = 120.0
"""On a machine that does not keep pace."""
KEEPALIVE_S, KEEPALIVES, CONNECT_S = 0.5, 3, 2.0
SLACK_S, SLACK_FACTOR = 1.0, 10.0
"""A pulse of a box that no fault meets may take so much longer than the slowest of fair weather."""


async def live(seed: int, scratch: Path) -> dict[str, Any]:
    """A whole run; what came of it."""
    rng = random.Random(seed)
    count = rng.choice((2, 2, 3))
    slow = {number for number in range(1, count + 1) if rng.random() < 0.4} if can_slow_a_disk() else set()
    # Half of the runs spare one box, to see that it does not suffer from the others.
    struck = set(range(1, count + 1)) - ({rng.randint(1, count)} if rng.random() < 0.5 else set())
    spells = forecast(rng, struck, slow, STORM_S)
    before = Leftovers()
    result: dict[str, Any] = {"seed": seed, "spells": [str(spell) for spell in spells]}
    with many(count, scratch, block_devices=slow) as boxes:
        for box in boxes:
            (box.root / JOURNAL.lstrip("/")).touch()
        async with Images(random.Random(rng.random())) as images:
            hosts = [host_of(box) for box in boxes]
            site = Site(boxes, hosts, images, rng)
            pace = Pace()
            watches = [asyncio.create_task(_watch_commands(site)), asyncio.create_task(pace.watch())]
            sky = Weather(boxes)
            calm_s = await _storm(site, sky, spells, rng)
            result["recovery_s"], result["last_to_recover"] = await _recover(site, pace)
            await asyncio.gather(*(host.close() for host in hosts))
            await _empty(site)
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
            result |= _judge(site, sky, pace, calm_s)
    site.violations += await _left(before)
    result["violations"], result["unjudged"] = site.violations, site.unjudged
    result["faults"] = dict(Counter(spell.kind for spell in spells))
    return result


def host_of(box: Box, connect_s: float = CONNECT_S) -> SshHost:
    """A connection to the box, less patient than that of the service."""
    return SshHost(
        Endpoint(box.name, box.address, weather.PORT, "root"),
        client_key=box.client_key,
        pinned_keys=box.known_hosts(),
        limiter=asyncio.Semaphore(8),
        connect_deadline_s=connect_s,
        keepalive_interval_s=KEEPALIVE_S,
        keepalive_count=KEEPALIVES,
    )


async def _storm(site: Site, sky: Weather, spells: list[Spell], rng: random.Random) -> float:
    """Work through fair weather and foul; returns when the fair weather ended."""
    # The first login and the first start of each tool are no measure.
    await asyncio.gather(*(site.look(box) for box in site.boxes))
    workers = [asyncio.create_task(work()) for work in site.workers()]
    await asyncio.sleep(CALM_S)
    calm_s = time.monotonic()
    await sky.pass_over(spells, rng)
    await asyncio.sleep(0.5)
    site.over = True
    done, pending = await asyncio.wait(workers, timeout=30.0)
    for task in pending:
        site.wrong(f"hung: a worker did not end: {task.get_stack()}")
        task.cancel()
    for task in done:
        task.result()
    return calm_s


async def _recover(site: Site, pace: Pace) -> tuple[float, str]:
    """Each kind of work must succeed on each box; how many seconds the slowest took, and which it was."""
    began_s, lost_s = time.monotonic(), pace.slow_s
    digest, last = min(site.rules), ""
    tasks: list[tuple[str, Callable[[], Awaitable[object]]]] = []
    for box, other in zip(site.boxes, [*site.boxes[1:], site.boxes[0]], strict=True):
        tasks += [
            (f"{lock} step on {box.name}", lambda box=box, lock=lock: site.step(box, lock, [], b"", 3.0))
            for lock in LOCKS
        ]
        tasks += [
            (f"look at {box.name}", lambda box=box: site.look(box)),
            (f"firewall on {box.name}", lambda box=box: site.load_rules(box, digest)),
            *(
                (f"image {name} on {box.name}", lambda box=box, name=name: site.fetch(box, name, 6.0))
                for name in site.images.sha256
            ),
            (f"copy from {box.name}", lambda box=box, other=other: site.copy(box, other, os.urandom(200_000), 6.0)),
        ]

    async def until_done(what: str, work: Callable[[], Awaitable[object]]) -> None:
        nonlocal last
        while not await work():
            passed_s, slow_s = time.monotonic() - began_s, pace.slow_s - lost_s
            if passed_s > min(RECOVERY_S + slow_s, RECOVERY_S_MAX):
                # A login that never gets the processor within its deadline says nothing about the fault.
                found = site.wrong if slow_s < passed_s / 4 else site.unjudged.append
                found(f"no recovery: {what} still fails ({site.calls[-1].outcome}) after {passed_s:.0f} s")
                return
            await asyncio.sleep(0.2)
        last = what

    await asyncio.gather(*(until_done(what, work) for what, work in tasks))
    took_s = time.monotonic() - began_s
    for box in [] if site.unjudged else site.boxes:
        seen = await site.look(box, 60.0)
        network = seen.network if seen else None
        if seen is None or not isinstance(seen.lease, Lease) or not seen.lease.ours:
            site.wrong(f"no recovery: {box.name} is not leased")
        elif not isinstance(network, NetworkFacts) or network.firewall not in site.rules:
            site.wrong(f"no recovery: {box.name} shows no firewall")
        else:
            _judge_rules(site, box, network.firewall)
    return round(took_s, 2), last


def _judge_rules(site: Site, box: Box, digest: str) -> None:
    """The rules that the box calls complete are those that a kernel makes of the whole text (S12)."""
    reference = f"{PREFIX}reference"
    run("ip", "netns", "add", reference)
    try:
        shown = []
        for namespace in (reference, box.namespace):
            into = ["nsenter", f"--net=/run/netns/{namespace}"]
            if namespace == reference:
                load(firewall.render(site.rules[digest]), into)
            shown.append(run(*into, "sh", "-c", LIST_RULES))
        if shown[0] != shown[1]:
            site.wrong(f"S12: {box.name} calls rules {digest} complete, and has others")
    finally:
        run("ip", "netns", "del", reference)


async def _empty(site: Site, deadline_s: float = 60.0) -> None:
    """Once the connections are closed nothing of ours may run on any box."""
    ends_s = time.monotonic() + deadline_s
    while left := [f"left on {box.name}: {words[:200]}" for box in site.boxes for words in box.commands()]:
        if time.monotonic() > ends_s:
            site.violations += left
            return
        await asyncio.sleep(0.1)


async def _watch_commands(site: Site) -> None:
    """Look again and again for a secret among the arguments of all processes (S10)."""
    while True:
        for words in commands_with(CANARY.encode()):
            site.wrong(f"S10: a secret shows in the arguments {words[:60]!r}")
        await asyncio.sleep(0.1)


def _judge(site: Site, sky: Weather, pace: Pace, calm_s: float) -> dict[str, Any]:
    late = 0
    for call in site.calls:
        met = any(sky.met(box, call.began_s, call.ended_s) for box in call.boxes)
        met = met or pace.lost(call.began_s - 2 * KEEPALIVE_S * KEEPALIVES, call.ended_s)
        strange = any(sky.strange(box, call.began_s, call.ended_s) for box in call.boxes)
        site.violations += judge_call(
            call, fair=not met, strange=strange, lost_s=pace.late_s(call.began_s, call.ended_s)
        )
    for box in site.boxes:
        site.judge_images(box)
        found, begun_late = judge_journal((box.root / JOURNAL.lstrip("/")).read_text(), site.told[box.name])
        late += begun_late
        site.violations += [f"{words} (on {box.name})" for words in found]
        log = (box.directory / "home/sshd.log").read_text(errors="replace")
        site.violations += canaries(CANARY, {f"the log of {box.name}'s sshd": log})
        if box.impostor_ran.exists():
            site.wrong(f"S9: a host with another key was given {box.impostor_ran.read_text()[:200]!r}")
    site.violations += canaries(CANARY, {"an error": "\n".join(site.words), "the log": LOG.getvalue()})
    slowest_s, spared_s = _pulses(site, sky, pace, calm_s)
    if spared_s > slowest_s * SLACK_FACTOR + SLACK_S:
        site.wrong(
            f"starved: a spared box answered after {spared_s:.2f} s, before the faults {slowest_s:.2f} s at most"
        )
    outcomes = Counter(call.outcome for call in site.calls)
    return {
        "calls": len(site.calls),
        "outcomes": dict(outcomes),
        "steps": sum(len(told) for told in site.told.values()),
        "begun_late": late,
        "slow_machine_s": round(pace.slow_s, 1),
        "pulse_s": [round(slowest_s, 3), round(spared_s, 3)],
    }


def _pulses(site: Site, sky: Weather, pace: Pace, calm_s: float) -> tuple[float, float]:
    """The slowest pulse before the faults, and the slowest of boxes without one while others had theirs."""
    calm, spared = [0.0], [0.0]
    for call in site.calls:
        met = sky.met(call.boxes[0], call.began_s, call.ended_s) or pace.lost(call.began_s, call.ended_s)
        if call.what == "pulse" and not met:
            (calm if call.ended_s <= calm_s else spared).append(call.ended_s - call.began_s)
    return max(calm), max(spared)


class Leftovers:
    """What this process and its namespaces hold."""

    def __init__(self) -> None:
        self.held = {
            "file descriptors": len(os.listdir("/proc/self/fd")),
            "tasks": len(asyncio.all_tasks()),
            "processes": len([name for name in os.listdir("/proc") if name.isdigit()]),
            "namespaces": len(run("ip", "netns", "list").splitlines()),
            "links": len(run("ip", "-o", "link").splitlines()),
            "mounts": len(Path("/proc/self/mounts").read_text().splitlines()),
            "tables": len([line for line in run("nft", "list", "tables").splitlines() if "forgotten" not in line]),
        }


async def _left(before: Leftovers, deadline_s: float = 60.0) -> list[str]:
    """What there is now and was not before, once what ends by itself has ended."""
    ends_s = time.monotonic() + deadline_s
    while True:
        now = Leftovers()
        more = {name: count for name, count in now.held.items() if count > before.held[name]}
        if not more or time.monotonic() > ends_s:
            break
        await asyncio.sleep(0.1)
    return [f"leak: {before.held[name]} {name} before, {count} after" for name, count in more.items()]


@contextlib.contextmanager
def _logging() -> Iterator[None]:
    handler = logging.StreamHandler(LOG)
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


LOG = io.StringIO()


def main() -> None:
    seed, scratch = int(sys.argv[1]), Path(sys.argv[2])
    run("mount", "-t", "tmpfs", "names", "/run/netns")
    run("ip", "link", "set", "lo", "up")
    began_s = time.monotonic()
    with _logging():
        result = asyncio.run(live(seed, scratch))
    if "never retrieved" in LOG.getvalue():
        result["violations"].append(f"leak: an exception that nobody saw: {LOG.getvalue()[-2000:]}")
    print(json.dumps(result | {"seconds": round(time.monotonic() - began_s, 1)}))


if __name__ == "__main__":
    main()
