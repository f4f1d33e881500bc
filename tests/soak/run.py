"""One soak from beginning to end: the site comes up, is churned, heals; what is not flat or not right is told.

Called by `python -m tests.soak` and, small, by test_soak.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tests.soak.churn import Churn, Pace
from tests.soak.judge import judge, second_half, slopes
from tests.soak.service import Sample, Service, running
from tests.soak.site import serving
from tests.soak.watchers import Watchers, watching

CONVERGE_S = 1800.0
SETTLE_S = 15.0
"""More than the time between two looks at a container."""
REST_SAMPLES = 10
REST_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. `speed` is that of the simulated work, 1 as in the demo; `environment` is the service's."""

    containers: int
    guests: int
    minutes: float
    seed: int
    pace: Pace = field(default_factory=Pace)
    speed: float = 1.0
    sample_every_s: float = 5.0
    watchers_stay_s: float = 60.0
    environment: Mapping[str, str] = field(default_factory=dict)
    profile: Path | None = None


async def soak(plan: Plan, work: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """The figures, and in `findings` all that is wrong. `work` is an empty directory with a short path."""
    rng = random.Random(plan.seed)
    findings: list[str] = []
    async with serving(work, plan.containers, plan.guests, plan.speed) as site:
        began_s = time.monotonic()
        async with running(work, site.ports.values(), plan.environment, plan.profile) as service:
            await converged(service, say)
            up_s = time.monotonic() - began_s
            say(f"up after {up_s:.0f} s")
            churn = Churn(site, service, rng, plan.pace)
            await churn.give_everybody_work()
            site.lives.read()
            starts, guests = dict(site.lives.starts), len(site.files.placement)
            before = await at_rest(service)
            watchers = Watchers(service.url, service.state, rng, plan.watchers_stay_s)
            churned: list[Sample] = []
            async with (
                watching(watchers, 2 + plan.containers // 20),
                sampling(service, plan.sample_every_s, churned, say),
            ):
                await churn.run(plan.minutes * 60)
            say("healing")
            await churn.heal()
            healing_s = time.monotonic()
            await converged(service, say)
            healed_s = time.monotonic() - healing_s
            await asyncio.sleep(plan.pace.stable_s + SETTLE_S)  # until the last restart counts as one that held
            after = await at_rest(service)
            more_guests = len(site.files.placement) - guests
            findings += judge(churned, before, after, containers=plan.containers, more_guests=more_guests)
            findings += [*churn.trouble, *watchers.trouble, *await churn.lost(), *churn.unharmed_but_started(starts)]
    findings += [f"{kind}: {entry}" for kind, entries in site.report().items() for entry in entries]
    return {
        "seed": plan.seed,
        "containers": plan.containers,
        "guests": plan.guests,
        "minutes": plan.minutes,
        "up_s": round(up_s, 1),
        "healed_s": round(healed_s, 1),
        "acts": dict(churn.done.most_common()),
        "no_room_for": dict(churn.skipped.most_common()),
        "starts": sum(site.lives.starts.values()),
        "watchers": dict(watchers.seen),
        "slopes_per_hour": {name: round(value, 2) for name, value in slopes(churned).items()},
        "second_half": typical(second_half(churned)),
        "rest_before": before[-1].as_json(),
        "rest_after": after[-1].as_json(),
        "findings": findings,
        "history": list(churn.history) if findings else [],
    }


async def converged(service: Service, say: Callable[[str], None]) -> None:
    """Until everything is as the spec wants it, twice in a row with a look at everything between."""
    end_s, said_s = time.monotonic() + CONVERGE_S, time.monotonic()
    for again in (False, True):
        if again:
            await service.refresh()
        while True:
            status = await service.status()
            if status["converged"] and status["spec"]["valid"]:
                break
            assert time.monotonic() < end_s, f"not converged within {CONVERGE_S:g} s: {brief(status)}"
            if time.monotonic() - said_s > 10:
                said_s = time.monotonic()
                say(brief(status))
            await asyncio.sleep(0.5)


def brief(status: Mapping[str, Any]) -> str:
    """What is not as it should be, the first few of it."""
    containers = [c for c in status["containers"] if c["blocked"] or not c["reachable"]]
    odd = [f"{c['name']}: {c['state']} {c['message']}" for c in containers]
    odd += [f"{g['name']}: {g['state']} {g['message']}" for g in status["guests"] if g["state"] != "running"]
    return f"{len(odd)} not ready; {'; '.join([*status['spec']['problems'], *odd][:4])}"


async def at_rest(service: Service) -> list[Sample]:
    """A few samples while nothing happens, once the first has set the counters."""
    found = []
    for _ in range(REST_SAMPLES + 1):
        found.append(await service.sample())
        await asyncio.sleep(REST_EVERY_S)
    return found[1:]


@contextlib.asynccontextmanager
async def sampling(
    service: Service, every_s: float, samples: list[Sample], say: Callable[[str], None]
) -> AsyncIterator[None]:
    """Take samples until the block ends. One that fails ends with the block, with its error."""

    async def go_on() -> None:
        while True:
            samples.append(await service.sample())
            if len(samples) % max(1, round(60 / every_s)) == 0:
                last = samples[-1]
                say(
                    f"{last.rss_bytes >> 20} MiB, {last.descriptors} descriptors, {last.tasks} tasks, "
                    f"{last.connections} connections, {last.cpu_share:.0%} of a core, lag {last.loop_lag_ms:.0f} ms"
                )
            await asyncio.sleep(every_s)

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def typical(samples: list[Sample]) -> dict[str, float]:
    """The medians of everything."""
    entries = [sample.as_json() for sample in samples]
    return {name: median(entry[name] for entry in entries) for name in entries[0] if name != "at_s"} if entries else {}
