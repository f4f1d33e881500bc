"""Benchmark (a): a warm look at 200 SSH hosts, beside pdsh and Ansible in the same run.

    python -m benchmarks ssh [--json FILE] [--quick] [--ansible PATH]

One real OpenSSH server on loopback plays every host, each under an address 127.0.x.y of its own, with one
key exchange pinned for all and a clean HOME. The contenders alternate within each round; the medians of the
rounds count. Two probes: a trivial one shows what the orchestration itself costs; the real look is the
controller's own (`shell.observe`, parsing included), whose tools run on the same cores as everything else.
Since these tools have little to tell on this machine, the output of a busy container is replayed as well.
The last part makes a tenth of the hosts black holes.

virsh is asked about libvirt's built-in test driver, which needs no daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import sshd

from benchmarks.busy_host import look_text
from benchmarks.report import Report, Series
from vcrecon.controller import CHEAP_PARTS
from vcrecon.core.observation import ALL_PARTS, Part, Seen, Storage
from vcrecon.errors import Unreachable
from vcrecon.host import look
from vcrecon.hypervisor import HYPERVISORS
from vcrecon.shell.observe import observe
from vcrecon.shell.transport import Endpoint, SshHost
from vcrecon.spec.model import Container

KEX = "curve25519-sha256"
TRIVIAL = "echo up"
BLACK_HOLE_FRACTION = 0.1
LOGINS_AT_ONCE = 32
LOOK_DEADLINE_S = 120.0
BUSY_GUESTS = 10
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class LoopbackHost(SshHost):
    """A host whose virsh talks to libvirt's test driver: there is no libvirtd behind this server."""

    async def ask_tool(self, command: str, lines: Sequence[str], *, deadline_s: float) -> list[str]:
        return await super().ask_tool(f"{command} -c test:///default", lines, deadline_s=deadline_s)


@dataclass
class Fleet:
    """The server, the addresses it answers at, and the directory that holds everything made here."""

    server: sshd.Sshd
    addresses: list[str]
    home: Path

    def hosts(self, *, port_of: Callable[[int], int] | None = None) -> list[LoopbackHost]:
        """A host for each address; `port_of(index)` may send some of them elsewhere."""
        limiter = asyncio.Semaphore(LOGINS_AT_ONCE)
        key = self.server.host_key.with_suffix(".pub").read_text()
        pins = "".join(f"h{index} {key}" for index in range(len(self.addresses)))
        return [
            LoopbackHost(
                Endpoint(f"h{n}", address, port_of(n) if port_of else self.server.port, self.server.user),
                client_key=self.server.client_key,
                pinned_keys=pins,
                limiter=limiter,
                connect_deadline_s=30.0,
                keepalive_interval_s=30.0,
            )
            for n, address in enumerate(self.addresses)
        ]

    def hosts_cpu_s(self) -> float:
        """What the hosts' side has used so far: SSH servers, shells and the tools that they ran."""
        return sum(_process_cpu_s(pid) for pid in self.server.sessions())

    @property
    def environment(self) -> dict[str, str]:
        return {"HOME": str(self.home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}

    @property
    def ssh_options(self) -> list[str]:
        options = {
            "KexAlgorithms": KEX,
            "IdentityFile": str(self.server.client_key),
            "IdentitiesOnly": "yes",
            "Port": str(self.server.port),
            "UserKnownHostsFile": str(self.home / "known_hosts"),
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
        }
        return [word for key, value in options.items() for word in ("-o", f"{key}={value}")]

    @property
    def multiplex_options(self) -> list[str]:
        return ["-o", "ControlMaster=auto", "-o", f"ControlPath={self.home}/m-%h", "-o", "ControlPersist=600"]


@contextlib.contextmanager
def fleet(count: int) -> Iterator[Fleet]:
    addresses = [f"127.0.{1 + n // 250}.{1 + n % 250}" for n in range(count)]
    with tempfile.TemporaryDirectory(prefix="vcb") as directory:
        home = Path(directory)
        server = sshd.start(home / "sshd", listen="0.0.0.0", kex=KEX)
        try:
            (home / "known_hosts").write_text(server.known_hosts(*addresses))
            yield Fleet(server, addresses, home)
        finally:
            for master in home.glob("m-*"):
                command = ["ssh", "-o", f"ControlPath={master}", "-O", "exit", "any"]
                subprocess.run(command, capture_output=True, check=False)
            server.stop()


def _process_cpu_s(pid: int) -> float:
    """CPU seconds of a process and the children it has waited for; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(ticks) for ticks in fields[11:15]) / TICKS_PER_S


def own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def ask_all(hosts: Sequence[SshHost], script: str) -> None:
    replies = await asyncio.gather(*(host.ask(script, deadline_s=120) for host in hosts))
    assert all(reply.status == 0 and reply.stdout for reply in replies)


def container(host: SshHost) -> Container:
    """What the spec would say of the host."""
    address, port = host.endpoint.address, host.endpoint.port
    return Container(host.name, address, port, "kvm", 1, 1, 1, "eth0", "vg0", "pool", "1")


async def look_at_all(hosts: Sequence[SshHost], parts: Collection[Part], before: dict[str, Seen]) -> dict[str, Seen]:
    """One look at each, as the controller looks."""
    looks = (
        observe(
            host,
            container(host),
            site="bench",
            parts=parts,
            probes=(),
            before=before.get(host.name),
            clock=time.time,
            deadline_s=LOOK_DEADLINE_S,
        )
        for host in hosts
    )
    found = {}
    for observation in await asyncio.gather(*looks):
        assert isinstance(observation, Seen), observation
        found[observation.container] = observation
    return found


async def replay_at_all(hosts: Sequence[SshHost], file: Path) -> None:
    """Fetch and parse a busy container's full look; the host's part is one `cat`."""

    async def one(host: SshHost) -> None:
        reply = await host.ask(f"cat {file}", deadline_s=LOOK_DEADLINE_S)
        seen = look.parse(
            reply.stdout.decode(),
            ["", ""],
            container=container(host),
            site="bench",
            parts=ALL_PARTS,
            hypervisor=HYPERVISORS["kvm"],
            before=None,
            at_s=time.time(),
        )
        assert isinstance(seen.storage, Storage), seen.trouble
        assert len(seen.storage.volumes) == BUSY_GUESTS

    await asyncio.gather(*(one(host) for host in hosts))


async def timed(series: Series, work: Callable[[], Awaitable[object]]) -> None:
    started, cpu_s = time.perf_counter(), own_cpu_s()
    await work()
    series.wall_s.append(time.perf_counter() - started)
    series.cpu_s.append(own_cpu_s() - cpu_s)


def run_tool(series: Series, fleet: Fleet, command: list[str], extra: dict[str, str]) -> None:
    """Run a peer once and count its answers; a peer that loses hosts is not measured but skipped."""
    started = time.perf_counter()
    done = subprocess.run(
        command, env=fleet.environment | extra, cwd=fleet.home, capture_output=True, text=True, check=False
    )
    wall_s = time.perf_counter() - started
    answered = sum(1 for line in done.stdout.splitlines() if line.rstrip().endswith("up"))
    if answered < len(fleet.addresses):
        lost = len(fleet.addresses) - answered
        series.skipped = f"{lost} hosts did not answer: {(done.stderr or done.stdout).strip()[-200:]}"
    else:
        series.wall_s.append(wall_s)


Peer = Callable[[], None]


def peers(fleet: Fleet, ansible: str | None) -> list[tuple[Series, Peer | None]]:
    """The other tools, each with what runs it once, or None when it is missing here."""
    count = len(fleet.addresses)
    found: list[tuple[Series, Peer | None]] = []
    pdsh = shutil.which("pdsh")
    for name, options in (
        ("pdsh cold", fleet.ssh_options),
        ("pdsh + ControlPersist", fleet.ssh_options + fleet.multiplex_options),
    ):
        series = Series(f"{name}, trivial probe", skipped="" if pdsh else "pdsh is not installed")
        command = [str(pdsh), "-R", "ssh", "-f", str(count), "-w", ",".join(fleet.addresses), TRIVIAL]
        extra = {"PDSH_SSH_ARGS_APPEND": " ".join(options)}
        found.append((series, _peer(series, fleet, command, extra) if pdsh else None))
    series = Series("ansible -m raw, trivial probe", skipped="" if ansible else "ansible is not installed")
    (fleet.home / "inventory").write_text("\n".join(fleet.addresses) + "\n")
    command = [
        str(ansible),
        "all",
        "-i",
        str(fleet.home / "inventory"),
        "-f",
        "50",
        "-m",
        "raw",
        "-a",
        TRIVIAL,
    ]
    extra = {
        "ANSIBLE_SSH_ARGS": " ".join([*fleet.ssh_options, "-o", "ControlMaster=auto", "-o", "ControlPersist=600"]),
        "ANSIBLE_SSH_CONTROL_PATH": f"{fleet.home}/m-a%%h",
        "ANSIBLE_REMOTE_USER": fleet.server.user,
        "ANSIBLE_NOCOLOR": "1",
    }
    found.append((series, _peer(series, fleet, command, extra) if ansible else None))
    return found


def _peer(series: Series, fleet: Fleet, command: list[str], extra: dict[str, str]) -> Peer:
    return lambda: run_tool(series, fleet, command, extra)


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port whose queue is full: a connect gets no answer, as from a host that is off."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("0.0.0.0", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield port


async def measure_black_holes(
    fleet: Fleet, rounds: int, probes: int, cold: Series, cold_holes: Series, warm: Series, warm_holes: Series
) -> None:
    """The healthy hosts' time alone, and beside hosts that never answer; first connects and warm asks."""

    async def never(host: SshHost) -> None:
        with contextlib.suppress(Unreachable):
            await host.ask(TRIVIAL, deadline_s=60)

    count = round(len(fleet.addresses) * BLACK_HOLE_FRACTION)
    for _ in range(rounds):
        for with_holes in (False, True):
            with black_hole() as port:
                hosts = fleet.hosts(port_of=lambda n: port if n < count else fleet.server.port)
                holes, healthy = hosts[:count], hosts[count:]
                stuck = [asyncio.create_task(never(host)) for host in holes] if with_holes else []
                await timed(cold_holes if with_holes else cold, lambda: ask_all(healthy, TRIVIAL))  # noqa: B023
                for _ in range(probes):
                    await timed(warm_holes if with_holes else warm, lambda: ask_all(healthy, TRIVIAL))  # noqa: B023
                for task in stuck:
                    task.cancel()
                await asyncio.gather(*stuck, *(host.close() for host in hosts), return_exceptions=True)


@dataclass
class Looks:
    """The controller's looks: their times, and what the hosts' side used meanwhile, in CPU seconds."""

    series: Series
    parts: Collection[Part]
    hosts_cpu_s: float = 0.0

    async def round(self, fleet: Fleet, hosts: Sequence[SshHost], before: dict[str, Seen]) -> None:
        used_s = fleet.hosts_cpu_s()
        await timed(self.series, lambda: look_at_all(hosts, self.parts, before))
        self.hosts_cpu_s += fleet.hosts_cpu_s() - used_s

    def figures(self, count: int) -> dict[str, object]:
        rounds = len(self.series.wall_s)
        own_s = sum(self.series.cpu_s)
        goal = " (goal 1)"
        return {
            f"{self.series.name}: controller's CPU per host, ms{goal}": own_s / rounds / count * 1000,
            f"{self.series.name}: hosts' own CPU per host, ms": self.hosts_cpu_s / rounds / count * 1000,
            f"{self.series.name}: hosts' share of all CPU, %": (100 * self.hosts_cpu_s / (self.hosts_cpu_s + own_s)),
        }


async def benchmark(count: int, rounds: int, ansible: str | None) -> Report:
    """Measure all contenders, alternating within each of `rounds`, on `count` hosts."""
    cold, trivial = Series("vcrecon cold: connect and first answer"), Series("vcrecon warm, trivial probe")
    full = Looks(Series("vcrecon warm, full look"), ALL_PARTS)
    cheap = Looks(Series("vcrecon warm, cheap look (guests only)"), CHEAP_PARTS)
    busy = Series(f"vcrecon warm, full look of a host with {BUSY_GUESTS} guests, replayed")
    names = ("cold, healthy alone", "cold, beside black holes", "warm, healthy alone", "warm, beside black holes")
    holes = [Series(f"vcrecon {name}") for name in names]
    with fleet(count) as ours:
        others = peers(ours, ansible)
        replay = ours.home / "busy"
        replay_bytes = replay.write_text(look_text(BUSY_GUESTS, "bench"))
        hosts = ours.hosts()
        await timed(cold, lambda: ask_all(hosts, TRIVIAL))
        seen = await look_at_all(hosts, ALL_PARTS, {})
        for series, run in others[1:]:
            if run is not None:
                run()  # opens the persistent connections
            series.wall_s.clear()
        for _ in range(rounds):
            await timed(trivial, lambda: ask_all(hosts, TRIVIAL))
            for _, run in others:
                if run is not None:
                    run()
            await full.round(ours, hosts, seen)
            await cheap.round(ours, hosts, seen)
            await timed(busy, lambda: replay_at_all(hosts, replay))
        await asyncio.gather(*(host.close() for host in hosts))
        await measure_black_holes(ours, rounds, 5, *holes)
    peer_series = [each for each, _ in others]
    parameters = {"hosts": count, "rounds": rounds, "black holes": round(count * BLACK_HOLE_FRACTION)}
    return Report(
        "ssh fleet",
        parameters,
        [trivial, *peer_series, full.series, cheap.series, busy, cold, *holes],
        figures(count, trivial, peer_series, holes)
        | full.figures(count)
        | cheap.figures(count)
        | _busy_figures(busy, count, replay_bytes)
        | _unanswered(seen[hosts[0].name]),
    )


def _busy_figures(busy: Series, count: int, size_bytes: int) -> dict[str, object]:
    assert busy.median_cpu_s is not None
    return {
        f"{busy.name}: controller's CPU per host, ms": busy.median_cpu_s / count * 1000,
        f"{busy.name}: KiB a host": size_bytes / 1024,
    }


def _unanswered(seen: Seen) -> dict[str, object]:
    """Which parts of the look this machine has no answer to, so that its figures are read rightly."""
    return {f"no answer here to {part}": reason for part, reason in (seen.trouble or {}).items()}


def figures(count: int, trivial: Series, others: Sequence[Series], holes: Sequence[Series]) -> dict[str, object]:
    """What the medians of the trivial probe say."""

    def ratio(above: Series, below: Series) -> float | None:
        return above.median_s / below.median_s if above.median_s and below.median_s else None

    found: dict[str, object] = {
        f"times faster than {other.name.split(',')[0]} (goal {goal})": ratio(other, trivial) or other.skipped
        for other, goal in zip(others, (40, 15, 100), strict=True)
    }
    assert trivial.median_cpu_s is not None
    found["own CPU per host, trivial probe, ms"] = trivial.median_cpu_s / count * 1000
    for name, (alone, beside) in (("cold", holes[:2]), ("warm", holes[2:])):
        slower = ratio(beside, alone)
        found[f"black holes slow the healthy, {name}, % (goal 5)"] = (slower - 1) * 100 if slower else None
    return found


def run(*, quick: bool, ansible: str | None) -> Report:
    """Called by `python -m benchmarks`. `quick` is 40 hosts and 3 rounds: does it run at all."""
    if sshd.SSHD is None:
        return Report("ssh fleet", {}, [Series("all of it", skipped=sshd.SKIP_REASON)])
    count, rounds = (40, 3) if quick else (200, 7)
    return asyncio.run(benchmark(count, rounds, ansible))
