"""What the planner would do with an accepted spec to a site that was as its base wants: never lose a disk (S2, S3).

The site's truth is kept by the hosts' addresses, not by what the spec calls them: a mutated spec may give a host
another name, or name another site or volume group, and then sees of it what a controller would see. Every disk in it
holds work. Called by `oracle`; pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

from vcrecon.core.actions import (
    Action,
    ActivateCopy,
    Contextualize,
    CreateVolume,
    Discard,
    GuestAction,
    Install,
    Prune,
    StartGuest,
    StopGuest,
)
from vcrecon.core.decisions import Plan
from vcrecon.core.foresee import foresee
from vcrecon.core.installs import BootFacts, Netboot
from vcrecon.core.memory import Claim, Memory
from vcrecon.core.observation import (
    Bridge,
    Domain,
    NetworkFacts,
    Observation,
    Seen,
    Storage,
    Unseen,
    Volume,
)
from vcrecon.core.plan import View, plan_container
from vcrecon.core.wanted import Wanted
from vcrecon.core.world import World, allowed
from vcrecon.spec.model import Container, Spec

NOW_S = 1_800_000_000.0
PASS_S = 100.0
ROUNDS_MAX = 12
EPOCH = 3
GIB = 1 << 30

Planner = Callable[[View, str], Plan]


@dataclass(frozen=True)
class Host:
    """A container as it is, whatever a spec may call it."""

    container: Container
    seen: Seen


class Safety:
    """Judges specs against the converged site of one base."""

    def __init__(self, base: Spec, planner: Planner = plan_container) -> None:
        self._base = base
        self._planner = planner
        self._wanted = Wanted(base)
        self._hosts = {(c.address, c.port): Host(c, self._converged(c)) for c in base.containers.values()}

    def faults(self, spec: Spec) -> Iterator[str]:
        """What goes wrong when `spec` takes the place of the base: while all guests run, are off, or nobody answers."""
        yield from self._count_stops(spec)
        for state in ("running", "off"):
            yield from self._settle(spec, state)
        yield from self._nobody_answers(spec)

    def _converged(self, container: Container) -> Seen:
        guests = [self._base.guests[name] for name in self._base.deployment[container.name]]
        volumes = tuple(
            Volume(
                f"vcg-{guest.name}", guest.name, EPOCH, guest.disk_bytes, GIB // 4,
                self._base.images[guest.image].root.sha256, self._wanted.context(guest), boots=2, touched=True,
            )
            for guest in guests
        )  # fmt: skip
        kept = tuple(
            Volume(
                f"vcq-{guest.name}-1", guest.name, 1, guest.disk_bytes, GIB // 4, boots=1, touched=True,
                quarantined="rebuilt",
            )
            for guest in guests[:1]
        )  # fmt: skip
        images = self._base.images.values()
        files = {a.sha256 for image in images for a in (image.root, image.kernel, image.initrd) if a is not None}
        goldens = frozenset(image.root.sha256 for image in images)
        bridges = {
            vlan: Bridge(vlan, True, True, bridge.addresses, bridge.routes)
            for vlan, bridge in self._wanted.bridges(guests).items()
        }
        return Seen(
            container.name,
            NOW_S,
            f"boot-{container.name}",
            {"hypervisor": container.hypervisor},
            container.memory_bytes,
            frozenset(files),
            Storage(True, 400 * GIB, 400 * GIB, 10.0, 5.0, goldens, volumes + kept),
            NetworkFacts(bridges, self._wanted.firewall(container.name, guests).digest),
            tuple(Domain(guest.name, "running", f"{guest.name}/2") for guest in guests),
        )

    def _view(self, spec: Spec, state: str) -> View:
        world, memory = World(), Memory(confirmed_digest=spec.digest)
        for host in self._hosts.values():
            memory.seen[host.container.name] = NOW_S
            for guest in self._base.deployment[host.container.name]:
                memory.claims[guest] = Claim(guest, host.container.name, EPOCH, touched=True)
                memory.answered[guest] = f"{guest}/2"
        for container in spec.containers.values():
            world.observe(self._look(spec, container, state))
        return View(Wanted(spec), world, memory, NOW_S)

    def _look(self, spec: Spec, container: Container, state: str) -> Observation:
        """What a controller with this spec would see at the address of `container`."""
        host = self._hosts.get((container.address, container.port))
        if host is None:
            return Unseen(container.name, NOW_S, "unreachable", "nothing has this address")
        seen = host.seen
        assert isinstance(seen.storage, Storage)
        assert isinstance(seen.domains, tuple)
        volumes, domains, strangers = seen.storage.volumes, seen.domains, frozenset[str]()
        if state == "off":
            domains = tuple(Domain(domain.guest, "off", reason="crashed") for domain in domains)
        if spec.site.name != self._base.site.name:
            strangers = frozenset(domain.guest for domain in domains)
            volumes, domains = (), ()
        names = frozenset(f"vcg-{guest}" for guest in strangers)
        storage = Storage(True, 400 * GIB, 400 * GIB, 10.0, 5.0, seen.storage.goldens, volumes, names)
        if container.volume_group != host.container.volume_group:
            storage = Storage(False)
        elif container.pool != host.container.pool:
            storage = Storage(True, 400 * GIB, 0, 0.0, 0.0, frozenset(), volumes, names)
        return Seen(
            container.name, NOW_S, seen.boot_id, seen.release, seen.memory_bytes, seen.images, storage, seen.network,
            domains, strangers=strangers,
        )  # fmt: skip

    def _count_stops(self, spec: Spec) -> Iterator[str]:
        """Nobody confirmed this spec: it may stop no more than a few guests (S3)."""
        view = self._view(spec, "running")
        view.memory.confirmed_digest = None
        actions = [a for name in spec.containers for a in self._planner(view, name).actions]
        stops = sorted({a.guest for a in actions if isinstance(a, StopGuest)})
        running = sum(any(s.active for s in places.values()) for places in view.world.sightings.values())
        limit = allowed(spec.site.limits, running)
        if len(stops) > limit:
            yield f"S3: stops {len(stops)} of {running} guests without a word (limit {limit}): {', '.join(stops[:6])}"

    def _settle(self, spec: Spec, state: str) -> Iterator[str]:
        """A person confirmed it: plan, act, look, until nothing is left to do; then all disks are still there."""
        view = self._view(spec, state)
        for turn in count():
            view = View(view.wanted, view.world, view.memory, NOW_S + turn * PASS_S)
            acted = False
            for container in spec.containers:
                for action in self._planner(view, container).actions:
                    fault = self._fault(view, action)
                    if fault:
                        yield f"{fault} (guests {state})"
                    if isinstance(action, Install):
                        continue
                    foresee(action, view.wanted, view.world, view.memory)
                    acted = True
            if not acted or turn >= ROUNDS_MAX:
                break
        yield from self._lost(spec, view.world, state)

    def _fault(self, view: View, action: Action) -> str:
        """Why this action must not be planned here, or ""."""
        if isinstance(action, Install):
            return f"S2: wipes {action.container} without a word" if action.wipe else ""
        if not isinstance(action, GuestAction):
            return ""
        what = f"{action.kind} {action.guest} on {action.container}"
        places = view.world.sightings.get(action.guest, {})
        if isinstance(action, Discard | Contextualize | Prune):
            here = places.get(action.container)
            disks = (here.volume, *here.quarantined) if here else ()
            if any(v is not None and v.name == action.volume and v.touched for v in disks):
                return f"S2: {what}: the disk holds work"
        elif isinstance(action, CreateVolume):
            claim = view.memory.claims.get(action.guest)
            if claim is not None and claim.touched:
                return f"S2: {what}: it had a disk with work"
        elif isinstance(action, StartGuest):
            if any(s.active for place, s in places.items() if place != action.container):
                return f"S1: {what}: it runs elsewhere"
        elif isinstance(action, ActivateCopy) and not action.touched:
            return f"S2: {what}: forgets that the disk holds work"
        return ""

    def _lost(self, spec: Spec, world: World, state: str) -> Iterator[str]:
        """Disks that are not on their host any more, live or kept, as they were."""
        names = {(c.address, c.port): c.name for c in spec.containers.values()}
        for place, host in self._hosts.items():
            now = world.current.get(names.get(place, ""))
            before = self._look(spec, spec.containers[now.container], state) if now is not None else None
            if not isinstance(now, Seen) or not isinstance(before, Seen):
                continue
            if not isinstance(now.storage, Storage) or not isinstance(before.storage, Storage):
                continue
            kept = {(v.guest, v.epoch, v.image, v.context, v.touched) for v in now.storage.volumes}
            for v in before.storage.volumes:
                if (v.guest, v.epoch, v.image, v.context, v.touched) not in kept:
                    yield f"S2: disk {v.epoch} of {v.guest} is lost on {host.container.name} (guests {state})"

    def _nobody_answers(self, spec: Spec) -> Iterator[str]:
        """Every machine boots from the network and answers nothing: still none is wiped."""
        view = self._view(spec, "running")
        for name in spec.containers:
            view.world.observe(Unseen(name, NOW_S, "unreachable", "no answer"))
        macs = [c.mac for c in spec.containers.values() if c.mac]
        boot = BootFacts(netboots={mac: Netboot(mac, NOW_S - 1, "10.64.0.200", "pcbios") for mac in macs})
        view = View(view.wanted, view.world, view.memory, NOW_S, boot=boot)
        for container in spec.containers:
            for action in self._planner(view, container).actions:
                if not isinstance(action, Install) or action.wipe:
                    yield f"S2: {action.kind} on {action.container}, which does not answer"
