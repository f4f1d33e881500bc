"""Benchmark (b): planner time for 1,000 containers and 10,000 guests, and for one edited guest among them.

    python -m benchmarks planner [--json FILE] [--quick]

No host, no network, no disk: the spec and what the hosts would show are built in code, and the pure planner is
called as the controller calls it, one new `View` a container. What counts is CPU time of this process. Before
a figure is taken, the plans themselves are checked: a settled site rests, a fresh one has work everywhere.

An edit is a whole new generation in which no object is shared with the old one, as after a reload of the
files. Its cost is all that the controller does until the plans are there: find the containers concerned,
make the new look-ups, plan those containers. Reading the YAML files is not part of it.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import pstats
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.report import Report, Series
from vcrecon.core.actions import FetchImage, SetUpNetwork
from vcrecon.core.concern import concerned
from vcrecon.core.decisions import Plan
from vcrecon.core.memory import Claim, Memory
from vcrecon.core.observation import Bridge, Domain, NetworkFacts, Seen, Storage, Volume
from vcrecon.core.plan import View, plan_container
from vcrecon.core.wanted import Wanted
from vcrecon.core.world import World
from vcrecon.spec.model import (
    Artifact,
    Cluster,
    Container,
    Guest,
    Image,
    Interface,
    Network,
    Service,
    Site,
    Spec,
    Ssh,
)

GUESTS_PER_CLUSTER = 5
NOW_S = 1_700_000_000.0
BOOT_ID = "6f0b7a4e-6d0f-4f0e-9a53-6f1f3cf7c0de"
GIB = 1024**3
FULL_GOAL_S = 1.0
EDIT_GOAL = 50


# --- the site ------------------------------------------------------------------------------------------------


_T = TypeVar("_T")


def build_spec(containers: int, clusters: int) -> Spec:
    """A spec of its own: equal arguments give equal specs that share no object.

    Each cluster has a private VLAN and a head on a VLAN that reaches out; its nodes are on as many containers.
    """
    image = Image(
        "debian", Artifact("http://images/root.tar.zst", "a" * 64), 2 * GIB, Artifact("http://images/k", "b" * 64)
    )
    networks = {"out": Network("out", 4094, "172.16.0.0/16", gateway="172.16.0.1")}
    password = Path("password")  # one for all, as the loader makes it
    groups: dict[str, Cluster] = {}
    guests: dict[str, Guest] = {}
    deployment: dict[str, list[str]] = {f"c{n:04}": [] for n in range(containers)}
    hosts = list(deployment)
    for number in range(clusters):
        name = f"k{number:04}"
        subnet = f"10.{number // 250}.{number % 250}"
        networks[name] = Network(name, number + 1, f"{subnet}.0/24", cluster=name)
        members = [_guest(name, number, node, subnet, password) for node in range(GUESTS_PER_CLUSTER)]
        groups[name] = Cluster(name, name, tuple(guest.name for guest in members))
        for node, guest in enumerate(members):
            guests[guest.name] = guest
            deployment[hosts[(number * GUESTS_PER_CLUSTER + node) % containers]].append(guest.name)
    return Spec(
        Site(
            "bench",
            "running",
            Ssh("root", Path("key"), Path("known_hosts")),
            (Service("http", "172.31.0.1", 80, "192.0.2.1:80"),),
        ),
        {"debian": image},
        {name: _container(name, n) for n, name in enumerate(hosts)},
        networks,
        groups,
        guests,
        {name: tuple(names) for name, names in deployment.items()},
        frozenset(),
        digest=f"{containers}/{clusters}",
    )


def _container(name: str, number: int) -> Container:
    address = f"10.250.{number // 250}.{1 + number % 250}"
    return Container(name, address, 22, "kvm", 64 * GIB, 16, 500 * GIB, "eth0", "vg0", "pool", "1")


def _guest(cluster: str, number: int, node: int, subnet: str, password: Path) -> Guest:
    name = f"{cluster}-{'head' if node == 0 else f'n{node}'}"
    mac = f"52:54:{number >> 8:02x}:{number & 255:02x}:{node:02x}"
    interfaces = [Interface(f"{mac}:00", number + 1, cluster, f"{subnet}.{10 + node}/24")]
    if node == 0:
        outside = f"172.16.{number // 250}.{1 + number % 250}/16"
        interfaces.append(Interface(f"{mac}:01", 4094, "out", outside, "172.16.0.1"))
    return Guest(
        name,
        "node" if node else "head",
        cluster,
        "debian",
        GIB,
        1,
        10 * GIB,
        password,
        tuple(interfaces),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBENCHBENCHBENCHBENCHBENCHBENCHBENCHBENCH class",),
    )


@dataclass(frozen=True)
class Situation:
    """What the controller knows when it plans."""

    spec: Spec
    world: World
    memory: Memory


def fresh(spec: Spec) -> Situation:
    """Every container is installed and empty."""
    world, memory = World(), Memory()
    for name in spec.containers:
        memory.seen[name] = NOW_S
        world.observe(_seen(name, network=NetworkFacts({}, ""), storage=_storage(), domains=()))
    return Situation(spec, world, memory)


def settled(spec: Spec) -> Situation:
    """Every guest runs, has answered, and is as the spec wants it."""
    wanted, world, memory = Wanted(spec), World(), Memory()
    for name in spec.containers:
        memory.seen[name] = NOW_S
        guests = spec.guests_on(name)
        bridges = {
            vlan: Bridge(vlan, True, True, bridge.addresses, bridge.routes)
            for vlan, bridge in wanted.bridges(guests).items()
        }
        domains = tuple(
            Domain(guest.name, "running", f"{BOOT_ID}/{n}", definition=wanted.definition(guest))
            for n, guest in enumerate(guests)
        )
        for domain in domains:
            memory.answered[domain.guest] = domain.serial
            memory.claims[domain.guest] = Claim(domain.guest, name, 1, touched=True)
        volumes = tuple(_volume(guest, wanted) for guest in guests)
        facts = NetworkFacts(bridges, wanted.firewall(name, guests).digest)
        image = frozenset({"a" * 64, "b" * 64})
        world.observe(_seen(name, network=facts, storage=_storage(volumes), domains=domains, images=image))
    return Situation(spec, world, memory)


def _seen(container: str, **facts: Any) -> Seen:
    return Seen(container, NOW_S, BOOT_ID, {"hypervisor": "kvm"}, 64 * GIB, **facts)


def _storage(volumes: tuple[Volume, ...] = ()) -> Storage:
    goldens = frozenset({"a" * 64}) if volumes else frozenset[str]()
    return Storage(True, 50 * GIB, 450 * GIB, 20.0, 5.0, goldens, volumes)


def _volume(guest: Guest, wanted: Wanted) -> Volume:
    return Volume(
        f"vcg-{guest.name}",
        guest.name,
        1,
        guest.disk_bytes,
        GIB,
        image="a" * 64,
        context=wanted.context(guest),
        boots=1,
        touched=True,
    )


def with_more_memory(spec: Spec, guest: str) -> Spec:
    """`spec` with more memory for one guest; shares all other objects with it."""
    changed = replace(spec.guests[guest], memory_bytes=2 * GIB)
    return replace(spec, guests={**spec.guests, guest: changed}, digest=f"{spec.digest} memory")


def with_guest_on(spec: Spec, guest: str, container: str) -> Spec:
    """`spec` with one guest on another container; shares its objects."""
    deployment = {
        name: tuple(g for g in guests if g != guest) + ((guest,) if name == container else ())
        for name, guests in spec.deployment.items()
    }
    return replace(spec, deployment=deployment, digest=f"{spec.digest} moved")


# --- what is measured ------------------------------------------------------------------------------------------


def plan(wanted: Wanted, situation: Situation, containers: Iterable[str]) -> list[Plan]:
    """The plans of these containers, each from a view of its own, as the controller's passes make them."""
    world, memory = situation.world, situation.memory
    return [plan_container(View(wanted, world, memory, NOW_S), name) for name in containers]


def plan_edit(situation: Situation, new: Spec) -> list[Plan]:
    """What the controller does with a new generation until the plans are there."""
    return plan(Wanted(new), situation, list(concerned(situation.spec, new, situation.world)))


def timed(series: Series, work: Callable[[], _T]) -> _T:
    gc.collect()
    started_s, cpu_s = time.perf_counter(), time.process_time()
    plans = work()
    series.cpu_s.append(time.process_time() - cpu_s)
    series.wall_s.append(time.perf_counter() - started_s)
    return plans


def check_settled(plans: Collection[Plan]) -> None:
    assert all(each.settled for each in plans), next(each for each in plans if not each.settled)


def check_fresh(plans: Collection[Plan]) -> None:
    for each in plans:
        assert {type(action) for action in each.actions} == {SetUpNetwork, FetchImage}, each


def benchmark(containers: int, clusters: int, rounds: int) -> Report:
    """Build the site, measure each case `rounds` times, alternating."""
    spec = build_spec(containers, clusters)
    running, empty = settled(spec), fresh(spec)
    guest = f"k{clusters // 2:04}-n1"
    home = spec.placement[guest]
    target = next(name for name in spec.containers if name != home)
    names = (
        "full plan, all running",
        "full plan, nothing there yet",
        "one guest edited",
        "one guest moved",
        "sharing with the old spec",
    )
    full, first, edited, moved, shared = (Series(name) for name in names)
    touched: dict[str, list[str]] = {}
    for _ in range(rounds):
        check_settled(timed(full, lambda: plan(Wanted(_again(spec)), running, spec.containers)))
        check_fresh(timed(first, lambda: plan(Wanted(_again(spec)), empty, spec.containers)))
        # A generation is always read anew, so nothing in it is the very object of the one before.
        again = build_spec(containers, clusters)  # equal, but other objects, as a reload makes them
        for series, new in (
            (edited, with_more_memory(again, guest)),
            (moved, with_guest_on(again, guest, target)),
        ):
            # As `service` does it, in the thread that loads the files: the controller's loop does not wait for it.
            same = timed(shared, lambda new=new: new.sharing(spec))  # type: ignore[misc]
            plans = timed(series, lambda same=same: plan_edit(running, same))  # type: ignore[misc]
            touched[series.name] = [each.container for each in plans]
    assert touched[edited.name] == [home], touched
    assert set(touched[moved.name]) == {home, target}, touched
    parameters = {"containers": containers, "guests": len(spec.guests), "rounds": rounds}
    figures = _figures(full, first, edited, moved) | {
        "containers planned after the edit": len(touched[edited.name]),
        "containers planned after the move": len(touched[moved.name]),
    }
    return Report("planner", parameters, [full, first, edited, moved, shared], figures)


def _again(spec: Spec) -> Spec:
    """The same spec without what it has already worked out for itself."""
    return replace(spec)


def _figures(full: Series, first: Series, edited: Series, moved: Series) -> dict[str, object]:
    figures: dict[str, object] = {}
    for name, series in (("all running", full), ("nothing there yet", first)):
        figures[f"full plan, {name}, CPU s (goal {FULL_GOAL_S:g})"] = series.median_cpu_s
    for name, series in (("edit", edited), ("move", moved)):
        if full.median_cpu_s and series.median_cpu_s:
            figures[f"{name}, CPU ms"] = series.median_cpu_s * 1000
            figures[f"{name}: times cheaper than a full plan (goal {EDIT_GOAL})"] = (
                full.median_cpu_s / series.median_cpu_s
            )
    return figures


def run(*, quick: bool) -> Report:
    """Called by `python -m benchmarks`. `quick` is a tenth of the size: does it run at all."""
    return benchmark(100, 200, 3) if quick else benchmark(1000, 2000, 7)


def profile(lines: int) -> None:
    """Print where the time of a full plan and of an edit goes."""
    spec = build_spec(1000, 2000)
    running, empty = settled(spec), fresh(spec)
    new = with_more_memory(build_spec(1000, 2000), "k1000-n1").sharing(spec)
    cases: Sequence[tuple[str, Callable[[], object]]] = (
        ("full plan, all running", lambda: plan(Wanted(_again(spec)), running, spec.containers)),
        ("full plan, nothing there yet", lambda: plan(Wanted(_again(spec)), empty, spec.containers)),
        ("one guest edited", lambda: plan_edit(running, new)),
    )
    for title, work in cases:
        print(f"== {title}")
        profiler = cProfile.Profile()
        profiler.runcall(work)
        pstats.Stats(profiler).sort_stats("tottime").print_stats(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planner", description="Profile the planner.")
    parser.add_argument("--lines", type=int, default=20, help="how many functions to list for each case")
    profile(parser.parse_args().lines)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
