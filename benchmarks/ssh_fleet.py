"""Benchmark (a): a warm look at 200 SSH hosts, beside pdsh and Ansible in the same run.

    python benchmarks/ssh_fleet.py [--hosts 200] [--rounds 7] [--json FILE] [--quick]

One real OpenSSH server on loopback plays every host, each under an address 127.0.x.y of its own, with one
key exchange pinned for all and a clean HOME. The contenders alternate within each round; the medians of the
rounds count. Two probes: a trivial one shows what the orchestration itself costs, a real one what a look
costs when its tools run on the same cores. The last part makes a tenth of the hosts black holes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tests")]

# ruff: noqa: E402, I001 - run as a script, so the path above comes first
from report import Report, Series, show
from support import sshd
from vcrecon.errors import Unreachable
from vcrecon.shell.transport import Endpoint, SshHost

KEX = "curve25519-sha256"
TRIVIAL = "echo up"
# Stands in for the real observation: half a dozen processes and about 20 KB of text.
OBSERVATION = (
    "uname -a; cat /proc/meminfo /proc/mounts; ls -l /proc/self/ns; df -P /; "
    "head -c 15000 /dev/zero | tr '\\0' x"
)
BLACK_HOLE_FRACTION = 0.1
LOGINS_AT_ONCE = 32


@dataclass
class Fleet:
    """The server, the addresses it answers at, and the directory that holds everything made here."""

    server: sshd.Sshd
    addresses: list[str]
    home: Path

    def hosts(self, *, port_of: Callable[[int], int] | None = None) -> list[SshHost]:
        """A host for each address; `port_of(index)` may send some of them elsewhere."""
        limiter = asyncio.Semaphore(LOGINS_AT_ONCE)
        key = self.server.host_key.with_suffix(".pub").read_text()
        pins = "".join(f"h{index} {key}" for index in range(len(self.addresses)))
        return [
            SshHost(
                Endpoint(f"h{n}", address, port_of(n) if port_of else self.server.port, self.server.user),
                client_key=self.server.client_key,
                pinned_keys=pins,
                limiter=limiter,
                connect_deadline_s=30.0,
                keepalive_interval_s=30.0,
            )
            for n, address in enumerate(self.addresses)
        ]

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


def own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def ask_all(hosts: Sequence[SshHost], script: str) -> None:
    replies = await asyncio.gather(*(host.ask(script, deadline_s=120) for host in hosts))
    assert all(reply.status == 0 and reply.stdout for reply in replies)


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
        "ANSIBLE_SSH_ARGS": " ".join(
            [*fleet.ssh_options, "-o", "ControlMaster=auto", "-o", "ControlPersist=600"]
        ),
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


async def benchmark(count: int, rounds: int, observation_script: str, ansible: str | None) -> Report:
    with fleet(count) as ours:
        cold, trivial = (
            Series("vcrecon cold: connect and first answer"),
            Series("vcrecon warm, trivial probe"),
        )
        real = Series("vcrecon warm, real observation")
        others = peers(ours, ansible)
        hosts = ours.hosts()
        await timed(cold, lambda: ask_all(hosts, TRIVIAL))
        await ask_all(hosts, observation_script)
        size = len((await hosts[0].ask(observation_script, deadline_s=60)).stdout)
        for _, run in others[1:]:
            if run is not None:
                run()  # opens the persistent connections
        for series, _ in others:
            series.wall_s.clear()
        for _ in range(rounds):
            await timed(trivial, lambda: ask_all(hosts, TRIVIAL))
            for _, run in others:
                if run is not None:
                    run()
            await timed(real, lambda: ask_all(hosts, observation_script))
        await asyncio.gather(*(host.close() for host in hosts))
        names = (
            "cold, healthy alone",
            "cold, beside black holes",
            "warm, healthy alone",
            "warm, beside black holes",
        )
        holes = [Series(f"vcrecon {name}") for name in names]
        await measure_black_holes(ours, rounds, 5, *holes)
    series = [trivial, *(each for each, _ in others), real, cold, *holes]
    parameters = {
        "hosts": count,
        "rounds": rounds,
        "black holes": round(count * BLACK_HOLE_FRACTION),
        "observation bytes": size,
    }
    return Report(
        "ssh fleet", parameters, series, figures(count, trivial, real, [s for s, _ in others], holes)
    )


def figures(
    count: int, trivial: Series, real: Series, others: Sequence[Series], holes: Sequence[Series]
) -> dict[str, object]:
    def ratio(above: Series, below: Series) -> float | None:
        return above.median_s / below.median_s if above.median_s and below.median_s else None

    found: dict[str, object] = {
        f"times faster than {other.name.split(',')[0]} (goal {goal})": ratio(other, trivial)
        for other, goal in zip(others, (40, 15, 100), strict=True)
    }
    assert trivial.median_cpu_s is not None
    assert real.median_cpu_s is not None
    found["own CPU per host, trivial probe, ms"] = trivial.median_cpu_s / count * 1000
    found["own CPU per host, real observation, ms (goal 1)"] = real.median_cpu_s / count * 1000
    for name, alone, beside in (("cold", *holes[:2]), ("warm", *holes[2:])):
        slower = ratio(beside, alone)
        found[f"black holes slow the healthy, {name}, % (goal 5)"] = (slower - 1) * 100 if slower else None
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there as well")
    parser.add_argument("--quick", action="store_true", help="40 hosts, 3 rounds: does it run at all")
    parser.add_argument(
        "--ansible", default=shutil.which("ansible"), metavar="PATH", help="the ansible command"
    )
    options = parser.parse_args()
    if sshd.SSHD is None:
        print(f"ssh fleet: skipped: {sshd.SKIP_REASON}", file=sys.stderr)
        return 0
    # A run that is stopped early ends its server as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.quick:
        options.hosts, options.rounds = 40, 3
    report = asyncio.run(benchmark(options.hosts, options.rounds, OBSERVATION, options.ansible))
    show(report, json_file=options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
