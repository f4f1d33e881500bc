"""`vcrecon run` and `vcrecon apply`: wires record, metrics, sockets and spec files to one controller.

Called by the command line only. What the controller does is in `controller`; this module owns what surrounds
it: signals, the watch on the spec directory, readiness and the watchdog, the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import structlog
from watchfiles import awatch

from vcrecon.boot.desk import Desk
from vcrecon.boot.services import BootServices
from vcrecon.controller import Controller
from vcrecon.controls import SiteControls
from vcrecon.core.actions import ACTIONS
from vcrecon.core.installs import Ticket
from vcrecon.core.states import ContainerState, GuestState
from vcrecon.core.world import frozen
from vcrecon.errors import Transient
from vcrecon.generations import Generations, first_spec
from vcrecon.host.scripts import Secrets
from vcrecon.power import PowerSwitch, power_switch
from vcrecon.preview import PlanReport, PlanStep, plan_once
from vcrecon.settings import Settings
from vcrecon.shell.connector import Connector, password_hash
from vcrecon.shell.control import ControlServer
from vcrecon.shell.install import BareMetal
from vcrecon.shell.ledger import Ledger
from vcrecon.shell.mastery import this_master
from vcrecon.shell.metrics import Metrics
from vcrecon.shell.metrics_port import TcpServer, metrics_app
from vcrecon.shell.notify import Notifier, watchdog_interval_s
from vcrecon.shell.page import Viewer, page_routes
from vcrecon.shell.pins import Pins
from vcrecon.shell.pulse import feel_pulse
from vcrecon.shell.record import Record
from vcrecon.spec.model import Container, Spec

__all__ = ["PlanReport", "PlanStep", "plan_once", "serve"]

_log = structlog.get_logger("vcrecon")

INTERRUPTED = 130
"""What a shell gives for a command ended by Ctrl-C."""
HOUSEKEEPING_S = 1.0
STATUS_EVERY_S = 0.2
STATUS_SHARE = 0.05
"""Showing progress takes at most this share of a core: with 1,000 guests it is shown a little less often."""
RECHECK_S = 1.0


async def serve(
    specs: Path,
    state: Path,
    *,
    listen: tuple[str, int] | None,
    once: bool,
    confirm: bool,
    on_status: Callable[[dict[str, Any]], None] | None,
    settings: Settings,
) -> int:
    """Run until SIGTERM or SIGINT; with `once`, until converged (0) or stuck (1).

    `state` is the state directory; `confirm` is the person's word for a large change (S3). Raises SpecError
    when the first spec is bad, Refused when the record or an address is taken.
    """
    with Record.open(state, clock=time.time) as record:
        spec, problems = first_spec(specs, state, once=once)
        service = _Service(specs, state, spec, record, settings, on_status, problems)
        if confirm:
            record.set_confirmed_digest(spec.digest)
        return await service.run(listen, once=once)


class _Service:
    def __init__(
        self,
        specs: Path,
        state: Path,
        spec: Spec,
        record: Record,
        settings: Settings,
        on_status: Callable[[dict[str, Any]], None] | None,
        problems: tuple[str, ...],
    ) -> None:
        self._specs, self._state, self._settings, self._on_status = specs, state, settings, on_status
        self._record = record
        self._metrics = site_metrics()
        rng = random.Random()  # noqa: S311 - jitter, not secrecy
        ledger = Ledger(record, self._metrics, clock=time.time, rng=rng, stable_s=settings.stable_s)
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()
        pins = Pins(state / "known_hosts")
        bare_metal, self._boot = _bare_metal(spec, state, ledger, pins)
        self._controller = Controller(
            spec,
            ledger,
            Secrets(record.secret(), password_hash),
            Connector(settings, pins, self._metrics.observe_ssh),
            settings,
            rng=rng,
            on_change=self._changed.set,
            master=this_master(state, lease_s=settings.lease_s),
            bare_metal=bare_metal,
        )
        self._generations = Generations(specs, state, self._controller, problems, self._in_force)
        self._files = _fingerprint(specs)
        self._notifier = Notifier.from_environ()
        self._converging_since_s: float | None = time.monotonic()

    async def run(self, listen: tuple[str, int] | None, *, once: bool) -> int:
        async with contextlib.AsyncExitStack() as stack:
            controls = SiteControls(self._controller, self._generations.now, boot_problem=lambda: self._boot.problem)
            self._metrics.set_spec(valid=self._generations.now.valid, generation=1)  # before the first scrape can come
            if listen:
                pages = page_routes(Viewer(controls.status))
                server = TcpServer(metrics_app(self._metrics.render, self._healthy, self._ready, pages), *listen)
                await server.start()
                stack.push_async_callback(server.close)
                controls.listen_url = server.url
            await stack.enter_async_context(ControlServer(controls, self._state / "control.sock"))
            self._record.event(
                "site", "started", f"generation 1 of {self._specs} is in force", digest=self._controller.spec.digest
            )
            self._controller.start()
            await self._boot.start()
            stack.push_async_callback(self._boot.stop)
            self._notifier.ready(f"{len(self._controller.spec.containers)} containers")
            _log.info("started", specs=str(self._specs), listen=controls.listen_url, state=str(self._state))
            tasks = [
                asyncio.create_task(self._watch_spec(), name="spec"),
                asyncio.create_task(self._keep_house(controls), name="housekeeping"),
                asyncio.create_task(feel_pulse(self._metrics.observe_loop_lag), name="pulse"),
            ]
            with self._signals():
                try:
                    result = await (self._until_converged() if once else self._until_stopped())
                finally:
                    self._notifier.stopping()
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
                    await self._controller.stop()
                    if self._on_status:
                        self._on_status(controls.status())
            self._record.event("site", "stopped", "asked to stop" if self._stop.is_set() else "done")
            _log.info("stopped")
            return result

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _healthy(self) -> tuple[bool, str]:
        trouble = self._controller.record_trouble
        return trouble is None, trouble or "ok"

    def _ready(self) -> tuple[bool, str]:
        controller = self._controller
        waiting = [n for n in controller.spec.containers if n not in controller.world.current]
        if waiting:
            return False, f"{len(waiting)} containers not looked at yet"
        return True, "ok"

    # --- the spec ------------------------------------------------------------------------------------------

    async def _watch_spec(self) -> None:
        """Take each new generation into force; a bad one changes nothing and says why (S4)."""
        debounce_ms = int(self._settings.spec_debounce_s * 1000)
        while True:
            watched = _identity(self._specs)
            try:
                changes = awatch(
                    self._specs,
                    debounce=debounce_ms,
                    step=min(50, debounce_ms),
                    rust_timeout=int(RECHECK_S * 1000),
                    yield_on_timeout=True,
                )
                async for _ in changes:
                    # Also without a notice: some file systems give none, and one may be lost at the start.
                    files = _fingerprint(self._specs)
                    if files != self._files:
                        self._files = files
                        await self._reload()
                    if _identity(self._specs) != watched:
                        break  # another directory took its place: notices would still come from the old one
            except (OSError, RuntimeError) as error:
                _log.warning("spec directory", error=str(error))
                self._files = ()
                await self._reload()
                await asyncio.sleep(RECHECK_S)

    async def _reload(self) -> None:
        await self._generations.reload()
        self._changed.set()

    async def _in_force(self, spec: Spec) -> None:
        self._converging_since_s = time.monotonic()
        await self._boot.adopt(spec)

    # --- housekeeping --------------------------------------------------------------------------------------

    async def _keep_house(self, controls: SiteControls) -> None:
        """What belongs to no container: site-wide metrics, the watchdog, progress for the person who waits."""
        interval_s = min(HOUSEKEEPING_S, watchdog_interval_s() or HOUSEKEEPING_S)
        show_at_s = 0.0
        while True:
            # Not `wait_for`: before Python 3.12 it loses a cancel that comes together with the change, for ever.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await self._changed.wait()
            self._changed.clear()
            self._take_stock()
            self._metrics.set_installs(controls.installs())
            self._notifier.watchdog()
            if self._on_status is not None and time.monotonic() >= show_at_s:
                began_s = time.thread_time()
                self._on_status(controls.status())
                show_at_s = time.monotonic() + (time.thread_time() - began_s) / STATUS_SHARE
            await asyncio.sleep(STATUS_EVERY_S)

    def _take_stock(self) -> None:
        controller = self._controller
        converged = controller.converged
        self._metrics.set_converged(converged)
        self._metrics.set_frozen(frozen(controller.spec, controller.world, controller.memory) is not None)
        self._metrics.set_record_writable(controller.record_trouble is None)
        self._metrics.set_paused(controller.memory.paused.keys())
        self._metrics.set_in_flight(len(controller.admission.in_flight))
        self._metrics.set_tasks(len(asyncio.all_tasks()))
        if converged and self._converging_since_s is not None:
            seconds = time.monotonic() - self._converging_since_s
            self._converging_since_s = None
            self._record.event("site", "converged", f"as the spec wants it, after {seconds:.1f} s", seconds=seconds)
            self._metrics.observe_convergence(seconds)
            _log.info("converged", seconds=round(seconds, 2))

    async def _until_stopped(self) -> int:
        await self._stop.wait()
        return 0

    async def _until_converged(self) -> int:
        """0 when converged, 1 when only people can help with what is left or it took too long."""
        deadline_s = time.monotonic() + self._settings.apply_deadline_s
        stuck_since_s: float | None = None
        while not self._stop.is_set():
            now_s = time.monotonic()
            if self._controller.converged:
                self._take_stock()
                return 0
            stuck_since_s = (stuck_since_s or now_s) if self._stuck() else None
            if now_s > deadline_s or (stuck_since_s is not None and now_s - stuck_since_s > self._settings.stuck_s):
                return 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STATUS_EVERY_S):
                    await self._stop.wait()
        return INTERRUPTED

    def _stuck(self) -> bool:
        """Whether nothing is under way and nothing is about to be: only blocked objects are left."""
        controller = self._controller
        plans = [station.plan for station in controller.stations.values()]
        if controller.admission.in_flight or any(plan is None for plan in plans):
            return False
        return all(plan.stuck(controller.memory) for plan in plans if plan)


def site_metrics() -> Metrics:
    """The metrics of a controller, with a series for every state and action that there is."""
    return Metrics(
        container_states=[s.value for s in ContainerState],
        guest_states=[s.value for s in GuestState],
        actions=[action.kind for action in ACTIONS],
    )


def _bare_metal(spec: Spec, state: Path, ledger: Ledger, pins: Pins) -> tuple[BareMetal, BootServices]:
    """What installs containers, and what their machines talk to; the two meet at one desk."""

    def tell(subject: str, reason: str, message: str) -> None:
        with contextlib.suppress(Transient):  # a record that cannot be written is told of elsewhere
            ledger.record.event(subject, reason, message)

    desks: list[Desk] = []

    def make_desk(claim: Callable[[Ticket], None], on_change: Callable[[str], None]) -> Desk:
        desks.append(Desk(clock=time.time, claim=claim, on_change=on_change))
        return desks[-1]

    def switch_of(container: Container, uefi: bool) -> PowerSwitch | None:
        return power_switch(container.power, container.name, uefi=uefi)

    bare_metal = BareMetal(ledger, pins, make_desk, switch_of, clock=time.time)
    services = BootServices(spec, state, desks[-1], ledger.record.secret(), tell)
    bare_metal.on_quiet = services.be_quiet
    return bare_metal, services


def _identity(specs: Path) -> tuple[int, int] | None:
    """Which directory the path leads to now; None when to none."""
    try:
        found = specs.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _fingerprint(specs: Path) -> tuple[tuple[str, int, int, int, int], ...]:
    """What tells that a spec file, key pin, password file or hook was changed, without reading it."""
    found = []
    with contextlib.suppress(OSError):
        for path in sorted(specs.rglob("*")):
            with contextlib.suppress(OSError):
                stat = path.stat()
                if path.is_file():
                    found.append((str(path), stat.st_ino, stat.st_mode, stat.st_size, stat.st_mtime_ns))
    return tuple(found)
