"""One vcrecon service as a process of the simulation: started, stopped, killed, with its state directory.

Wired as `vcrecon.service` wires it, without signals, sockets and the watch on the files. The record is SQLite on real
files; what a crash leaves of them is decided in `kill`.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.simulation.loop import OWNER, VirtualLoop
from tests.simulation.site import Clock, VirtualSite
from tests.simulation.wire import WireHost

from vcrecon.boot.desk import Desk
from vcrecon.controller import Controller
from vcrecon.controls import SiteControls
from vcrecon.core.installs import Ticket
from vcrecon.core.mastery import Master
from vcrecon.generations import Generations, first_spec
from vcrecon.host.scripts import Secrets
from vcrecon.service import site_metrics
from vcrecon.settings import Settings
from vcrecon.shell.connector import password_hash, pinned_keys
from vcrecon.shell.install import BareMetal
from vcrecon.shell.ledger import Ledger
from vcrecon.shell.mastery import read_generation
from vcrecon.shell.metrics import Metrics
from vcrecon.shell.pins import Pins
from vcrecon.shell.record import Record
from vcrecon.shell.transport import Endpoint
from vcrecon.spec.model import Container, Spec


class Killed(BaseException):
    """What a process that is killed inside a call of its own leaves to its caller: nothing."""


class Process:
    """`vcrecon run SPECS --state STATE`, on the machine `name`. Each start is a new life, an owner of its own."""

    def __init__(
        self, name: str, site: VirtualSite, specs: Path, state: Path, settings: Settings, rng: random.Random
    ) -> None:
        self.name, self.site, self.specs, self.state, self.settings = name, site, specs, state, settings
        self.rng = rng
        self.clock = Clock(site.network.loop)
        self.lives = 0
        self.port = site.network.next_port()
        """Tells it from another of the same name."""
        self.alive = False
        self.switches: dict[str, Any] = {}
        """Power switches by container."""
        self.metrics: Metrics
        self.record: Record
        self.site_secret = b""
        self._disk_full = False
        self._synced: Synced
        self.controller: Controller
        self.controls: SiteControls
        self.generations: Generations
        self.desk: Desk
        self.connect: Callable[[Container, Spec], WireHost]

    @property
    def loop(self) -> VirtualLoop:
        loop = self.site.network.loop
        assert isinstance(loop, VirtualLoop)
        return loop

    @property
    def owner(self) -> str:
        return f"{self.name}/{self.port}/{self.lives}"

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call something in the process's own name, as its control socket would."""
        context = contextvars.copy_context()
        context.run(OWNER.set, self.owner)
        return context.run(function, *arguments)

    async def call(self, make: Callable[[], Any]) -> Any:
        """Await something in the process's own name. Raises LookupError when the process is killed meanwhile."""
        task = self.run(lambda: asyncio.create_task(make()))
        await asyncio.wait({task, self._death}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise LookupError(f"{self.name} was killed meanwhile")
        return task.result()

    def start(self) -> None:
        """Raises what `vcrecon run` would end with: SpecError, Refused."""
        self.lives += 1
        self._death: asyncio.Future[None] = self.loop.create_future()
        self.run(self._start)
        self.alive = True

    def _start(self) -> None:
        self.record = Record.open(self.state, clock=self.clock)
        self.site_secret = self.record.secret()
        self._disk_full = False
        self._synced = Synced(self.record, self.state / "record.sqlite-wal")
        try:
            spec, problems = first_spec(self.specs, self.state, once=False)
            self._wire(spec, problems)
        except BaseException:
            self.record.close()
            raise
        self.controller.start()

    def _wire(self, spec: Spec, problems: tuple[str, ...]) -> None:
        rng = random.Random(self.rng.random())
        self.metrics = site_metrics()
        ledger = Ledger(self.record, self.metrics, clock=self.clock, rng=rng, stable_s=self.settings.stable_s)
        pins = Pins(self.state / "known_hosts")
        bare_metal = BareMetal(ledger, pins, self._make_desk, self._switch_of, clock=self.clock)
        limiter = asyncio.Semaphore(self.settings.connects_at_once)

        def connect(container: Container, spec: Spec) -> WireHost:
            keys = pinned_keys(spec.site.ssh.known_hosts)
            return WireHost(
                Endpoint(container.name, container.address, container.port, spec.site.ssh.user),
                servers=self.site.servers,
                client_key=spec.site.ssh.key,
                pinned_keys=pins.over(container, keys),
                limiter=limiter,
                connect_deadline_s=self.settings.connect_deadline_s,
                keepalive_interval_s=self.settings.keepalive_s,
                keepalive_count=self.settings.keepalive_count,
            )

        self.connect = connect
        # Derived from machine and directory in a real service; the directory is another in every run.
        master = Master(f"{self.name:0>16}", read_generation(self.state), self.name, self.settings.lease_s)
        self.controller = Controller(
            spec,
            ledger,
            Secrets(self.record.secret(), password_hash),
            connect,
            self.settings,
            clock=self.clock,
            monotonic=self.loop.time,
            rng=rng,
            master=master,
            bare_metal=bare_metal,
        )
        self.generations = Generations(self.specs, self.state, self.controller, problems, _nothing)
        self.controls = SiteControls(self.controller, self.generations.now)

    def _make_desk(self, claim: Callable[[Ticket], None], on_change: Callable[[str], None]) -> Desk:
        self.desk = Desk(clock=self.clock, claim=claim, on_change=on_change)
        return self.desk

    def _switch_of(self, container: Container, uefi: bool) -> Any:
        return self.switches.get(container.name)

    async def reload(self) -> None:
        """What the watch on the spec files does when they change."""
        await self.call(self.generations.reload)

    async def stop(self) -> None:
        """As SIGTERM."""
        self.alive = False
        await self.call(self.controller.stop)
        self.record.close()

    def kill(self, *, power: bool = False) -> None:
        """As SIGKILL; with `power` as a power cut of the master, which may also take what was not synced."""
        self.alive = False
        self.loop.kill(self.owner)
        self._death.set_result(None)
        for server in self.site.servers.values():
            for link in list(server.links):
                if link.client_owner == self.owner:
                    link.reset()
        self._leave_files(power)

    def _leave_files(self, power: bool) -> None:
        """The dead process keeps its open files, and the next one finds what had reached the disk."""
        buried = Path(tempfile.mkdtemp(prefix=f"{self.state.name}.dead-", dir=self.state.parent))
        self.state.rename(buried)
        shutil.copytree(buried, self.state, ignore=shutil.ignore_patterns("*-shm", "control.sock"))
        self.loop.graves.append(self.record)
        if power:
            self._synced.tear(self.state / "record.sqlite-wal", self.rng)

    def forget_everything(self) -> None:
        """The state directory of a service that does not run is lost."""
        shutil.rmtree(self.state)

    @property
    def disk_full(self) -> bool:
        return self._disk_full

    @disk_full.setter
    def disk_full(self, full: bool) -> None:
        self._disk_full = full
        if self.alive:
            # SQLite's own limit: it never goes below what the file has already.
            self._synced.connection.execute(f"PRAGMA max_page_count = {1 if full else 1 << 20}")

    def on_disk(self, kind: str) -> set[str]:
        """The keys of one kind in the record, as another program finds them on the disk."""
        reader = sqlite3.connect(f"file:{self.state}/record.sqlite?mode=ro", uri=True)
        try:
            return {key for (key,) in reader.execute("SELECT key FROM memory WHERE kind = ?", (kind,))}
        finally:
            reader.close()

    def is_synced(self, guest: str) -> bool:
        """Whether a power cut now would leave the last intent and claim of a guest in the record."""
        return not {f"guest/{guest}", guest} & self._synced.unsafe

    def everything_written(self) -> str:
        """The record's files, the metrics and the status: where no secret may be (S10)."""
        files = [path.read_bytes() for path in sorted(self.state.glob("record.sqlite*"))]
        shown = json.dumps(self.controls.status(), default=str) + self.metrics.render().decode()
        return b"".join(files).decode("latin-1") + shown


class Synced:
    """How much of the record's write-ahead log a power cut must leave."""

    def __init__(self, record: Record, wal: Path) -> None:
        store = record._store
        self.connection = store._connection
        self._wal, self._synced_bytes = wal, 0
        self._grows = True
        self.unsafe: set[str] = set()
        """Keys of intents and claims that were written after the last sync."""
        commit = store.commit

        def committed(*arguments: Any, **named: Any) -> None:
            before = self._size()
            commit(*arguments, **named)
            size = self._size()
            self._grows = self._grows and size > before  # once SQLite begins the log anew, sizes say nothing
            if store._synchronous == "FULL" or not self._grows:
                self._synced_bytes = size
            if store._synchronous == "FULL":
                self.unsafe.clear()
            else:
                self.unsafe |= {put.stored_key for put in arguments[0] if put.kind in ("intents", "claims")}

        store.commit = committed  # type: ignore[method-assign]
        self._synced_bytes = self._size()

    def _size(self) -> int:
        return self._wal.stat().st_size if self._wal.exists() else 0

    def tear(self, wal: Path, rng: random.Random) -> None:
        """Cut the log somewhere between the last sync and its end, as a power cut may."""
        size = wal.stat().st_size if wal.exists() else 0
        if size > self._synced_bytes:
            with wal.open("r+b") as file:
                file.truncate(rng.randint(self._synced_bytes, size))


async def _nothing(spec: Spec) -> None:
    """Nobody else wants to know of a new generation."""
