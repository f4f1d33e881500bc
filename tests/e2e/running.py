"""The whole service on a simulated site, as `vcrecon run` wires it; used by test_input, test_service, test_faults.

`site_of` serves hosts and writes specs that lead to them; `serving` runs `service.serve` beside them in this
process, and hands out a client of its control socket. Everything waits for conditions, never for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from vcrecon.errors import Refused
from vcrecon.service import serve
from vcrecon.settings import Settings
from vcrecon.shell.control import ControlClient
from vcrecon.sim.site import Site
from vcrecon.sim.timing import Timing
from vcrecon.spec.load import load

SMALL = Path(__file__).parents[2] / "specs" / "small"
GUESTS = ("a-head", "a-n1", "a-n2", "b-head", "b-n1", "b-n2")

QUICK = Settings(
    relist_s=1.0,
    poll_s=0.5,
    retry_unreachable_s=0.3,
    look_deadline_s=3.0,
    connect_deadline_s=2.0,
    keepalive_s=1.0,
    keepalive_count=2,
    spec_debounce_s=0.05,
    settle_s=0.01,
    stable_s=5.0,
    shutdown_s=5.0,
    apply_deadline_s=60.0,
)

Status = dict[str, Any]


@dataclass(slots=True)
class Place:
    """A site that runs, the specs that lead to it, and an empty state directory."""

    site: Site
    specs: Path
    state: Path


@dataclass(slots=True)
class Service:
    """A service that runs; `task` is its `serve`."""

    control: ControlClient
    task: asyncio.Task[int]

    async def status(self) -> Status:
        return await self.control.status()

    async def until(self, what: str, true: Callable[[Status], Any], deadline_s: float = 30.0) -> Status:
        """The first status that `true` holds for."""
        end_s = time.monotonic() + deadline_s
        while True:
            status = await self.status()
            if true(status):
                return status
            if time.monotonic() > end_s:
                busy = [
                    f"{p['subject']}: {p['message']}" for p in await self.control.plans() if p["decision"] != "rest"
                ]
                raise AssertionError(
                    f"{what}: not within {deadline_s:g} s; {brief(status)}; {busy}; {status['queues']}"
                )
            await asyncio.sleep(0.02)

    async def converged(self, deadline_s: float = 60.0) -> Status:
        """Everything is as the spec wants it."""
        return await self.until("converged", lambda s: s["converged"], deadline_s)


def brief(status: Status) -> str:
    """What is not as it should be, for the message of a test that fails."""
    odd = [f"{c['name']}: {c['state']} {c['blocked']}" for c in status["containers"] if c["blocked"]]
    odd += [f"{g['name']}: {g['state']} {g['message']}" for g in status["guests"] if g["state"] != "running"]
    return "; ".join([*odd, *status["spec"]["problems"], str(status["trouble"] or "")]) or "all is well"


async def until(what: str, true: Callable[[], Any], deadline_s: float = 30.0) -> None:
    """Wait until `true()`, which may be async, holds."""
    end_s = time.monotonic() + deadline_s
    while True:
        found = true()
        if await found if inspect.isawaitable(found) else found:
            return
        assert time.monotonic() < end_s, f"{what}: not true within {deadline_s:g} s"
        await asyncio.sleep(0.02)


def speed(scale: float) -> Timing:
    """The demo's durations, scaled: at 0.02 a guest answers 60 ms after its start."""
    timing = Timing.demo()
    timing.scale = scale
    return timing


@contextlib.asynccontextmanager
async def site_of(
    tmp_path: Path,
    *,
    source: Path = SMALL,
    change: Callable[[Path], None] = lambda specs: None,
    scale: float = 0.02,
) -> AsyncIterator[Place]:
    """A site of `source`, with `change` made to its copy first; checked at the end for what must never be."""
    drawn, specs, state = tmp_path / "drawn", tmp_path / "specs", tmp_path / "state"
    shutil.copytree(source, drawn)
    change(drawn)
    async with Site(load(drawn, require_placement=False).spec, timing=speed(scale)) as site:
        site.materialize(drawn, specs)
        yield Place(site, specs, state)
        await unharmed(site)


async def unharmed(site: Site) -> None:
    """No rule was ever broken on the site, nothing simulated crashed, nothing is left mounted."""
    audit = await site.audit()
    assert audit["violations"] == []
    for name, host in site.hosts.items():
        assert (await site.commands(name))["crashes"] == [], name
        assert [v.full_name for v in host.machine.all_volumes() if v.mounted_at] == [], name


@contextlib.asynccontextmanager
async def serving(
    place: Place, *, settings: Settings = QUICK, listen: tuple[str, int] | None = None, confirm: bool = False
) -> AsyncIterator[Service]:
    """`vcrecon run` in this process, asked to stop at the end as a cancelled task."""
    task = asyncio.create_task(
        serve(place.specs, place.state, listen=listen, once=False, confirm=confirm, settings=settings, on_status=None)
    )
    try:
        async with ControlClient(place.state / "control.sock") as control:
            await until("the service answers", lambda: _answers(control, task))
            yield Service(control, task)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _answers(control: ControlClient, task: asyncio.Task[int]) -> bool:
    if task.done():
        task.result()
        raise AssertionError("the service ended by itself")
    with contextlib.suppress(Refused):
        await control.status()
        return True
    return False


# --- reading a status ------------------------------------------------------------------------------------------


def container(status: Status, name: str) -> dict[str, Any]:
    return next(c for c in status["containers"] if c["name"] == name)


def guest(status: Status, name: str) -> dict[str, Any]:
    return next(g for g in status["guests"] if g["name"] == name)


def blocked(status: Status, name: str) -> list[str]:
    """The reasons that block a container or guest."""
    known = [*status["containers"], *status["guests"]]
    return [b["reason"] for o in known if o["name"] == name for b in o["blocked"]]


def words(status: Status, name: str) -> str:
    """What is said about a container or guest that is blocked."""
    known = [*status["containers"], *status["guests"]]
    return " ".join(b["message"] for o in known if o["name"] == name for b in o["blocked"])


def running(status: Status, names: tuple[str, ...]) -> bool:
    """Whether these guests run and have answered."""
    return all(guest(status, name)["state"] == "running" for name in names)


# --- editing specs ---------------------------------------------------------------------------------------------


def rewrite(path: Path, change: Callable[[Any], None]) -> None:
    """Edit a YAML file in place, by a rename as editors do."""
    yaml = YAML()
    content = yaml.load(path)
    change(content)
    new = path.with_name(f".{path.name}.new")
    with new.open("w") as stream:
        yaml.dump(content, stream)
    new.replace(path)


def move(specs: Path, name: str, target: str) -> None:
    """Put a guest's name into another container's line of deployment.yaml."""

    def change(content: Any) -> None:
        for guests in content["deployment"].values():
            if name in guests:
                guests.remove(name)
        content["deployment"][target].append(name)

    rewrite(specs / "deployment.yaml", change)


def settings(**changes: Any) -> Settings:
    """QUICK with some values changed."""
    return replace(QUICK, **changes)


async def boots(site: Site) -> dict[str, int]:
    """How often each guest was started so far."""
    world = await site.world()
    return {name: int(guest["boots"]) for name, guest in world["guests"].items()}


async def stopped(task: Awaitable[int], deadline_s: float = 20.0) -> int:
    """The exit status of a service that ends."""
    return await asyncio.wait_for(task, deadline_s)
