"""Builders that read as sentences: a small spec made in code, what containers showed, and a plan of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vcrecon.core.actions import Action, CopyDisk, FetchImage
from vcrecon.core.decisions import Block, Decision, Plan
from vcrecon.core.foresee import foresee
from vcrecon.core.install_rules import given_up
from vcrecon.core.installs import BootFacts, Netboot, PowerState, Progress, Ticket
from vcrecon.core.memory import Claim, Consent, Fence, Intent, Memory
from vcrecon.core.observation import (
    UNKNOWN,
    Bridge,
    Domain,
    NetworkFacts,
    Observation,
    Seen,
    Storage,
    Unknown,
    Unseen,
    Volume,
)
from vcrecon.core.plan import View, plan_container
from vcrecon.core.proof import NotElsewhere, not_elsewhere
from vcrecon.core.wanted import Wanted
from vcrecon.core.world import World
from vcrecon.spec.model import (
    AllowRule,
    Artifact,
    Cluster,
    Container,
    Guest,
    Image,
    Interface,
    Limits,
    Network,
    Power,
    Provisioning,
    Service,
    Site,
    Spec,
    Ssh,
    System,
)

MIB = 1024**2
GIB = 1024**3
NOW_S = 1_800_000_000.0
BOOT_ID = "00000000-0000-4000-8000-00000000000{}"
KERNEL = Artifact("http://images.example/vmlinuz", "a" * 64)
INITRD = Artifact("http://images.example/initrd", "b" * 64)
IMAGE = Image("debian", Artifact("http://images.example/debian.tar.zst", "c" * 64), 2 * GIB, KERNEL, INITRD)
NEWER_IMAGE = Image("newer", Artifact("http://images.example/newer.tar.zst", "d" * 64), 2 * GIB, KERNEL, INITRD)
SERVICE = Service("mirror", "192.0.2.1", 80, "10.0.0.1:8080")
PRIVATE = Network("a-private", 101, "10.1.1.0/24", cluster="a")
OUTSIDE = Network("outside", 200, "10.200.0.0/16", gateway="10.200.0.1", allow=(AllowRule("0.0.0.0/0", tcp=(80, 443)),))


def a_guest(name: str, index: int = 1, **changes: Any) -> Guest:
    """A node of cluster `a` with 1 GiB of memory; `index` makes its MAC and address."""
    port = Interface(f"52:54:00:00:01:{index:02x}", 101, "a-private", f"10.1.1.{10 + index}/24")
    guest = Guest(
        name, "node", "a", "debian", GIB, 1, 4 * GIB, Path(f"/secrets/{name}.hash"), (port,), ("ssh-ed25519 KEY",)
    )
    return replace(guest, **changes)


def a_container(name: str, **changes: Any) -> Container:
    container = Container(name, f"{name}.example", 22, "kvm", 32 * GIB, 8, 500 * GIB, "eno1", "vg", "pool", "1")
    return replace(container, **changes)


def a_spec(
    deployment: Mapping[str, Iterable[str]],
    *,
    session: str = "running",
    guests: Mapping[str, Guest] | None = None,
    containers: Mapping[str, Container] | None = None,
    limits: Limits | None = None,
    digest: str = "one",
) -> Spec:
    """A site of one cluster: `deployment` maps containers to names of guests; `guests` changes some of them."""
    names = sorted({name for placed in deployment.values() for name in placed})
    made = {name: a_guest(name, number) for number, name in enumerate(names, 1)} | dict(guests or {})
    site = Site(
        "lab",
        session,
        Ssh("root", Path("/key"), Path("/known_hosts")),
        (SERVICE,),
        limits or Limits(),  # type: ignore[arg-type]
    )
    return Spec(
        site,
        {"debian": IMAGE, "newer": NEWER_IMAGE},
        {name: a_container(name) for name in deployment} | dict(containers or {}),
        {"a-private": PRIVATE, "outside": OUTSIDE},
        {"a": Cluster("a", "a-private", tuple(n for n in names if made[n].cluster == "a"))},
        {name: made[name] for name in names},
        {container: tuple(placed) for container, placed in deployment.items()},
        frozenset(),
        digest,
    )


SYSTEM = System("debian-kvm", Artifact("http://10.64.0.1:8067/images/debian-kvm.tar.zst", "e" * 64), "kvm")
REDFISH = Power("redfish", "https://10.65.0.11", Path("/secrets/bmc"))


def mac_of(container: str) -> str:
    return f"52:54:00:00:00:0{container[-1]}"


def an_installable(spec: Spec, **changes: Any) -> Spec:
    """The same site with a boot server: every container has a MAC and a system. `changes` are the containers'."""
    containers = {
        name: replace(container, **{"mac": mac_of(name), "system": SYSTEM.name, **changes})
        for name, container in spec.containers.items()
    }
    site = replace(spec.site, provisioning=Provisioning("10.64.0.0/24", "managed", "eno2", "10.64.0.1"))
    return replace(spec, site=site, containers=containers, systems={SYSTEM.name: SYSTEM})


def disk(guest: str, epoch: int = 1, *, boots: int = 0, touched: bool = False, **changes: Any) -> Volume:
    """A live, complete disk of the first image; `boots` > 0 says it was used."""
    volume = Volume(f"vcg-{guest}", guest, epoch, 4 * GIB, 100 * MIB, IMAGE.root.sha256, boots=boots, touched=touched)
    return replace(volume, **changes)


def students_disk(guest: str, epoch: int = 1, *, boots: int = 1, **changes: Any) -> Volume:
    return disk(guest, epoch, boots=boots, touched=True, **changes)


def kept_disk(guest: str, epoch: int = 1, why: str = "removed", *, boots: int = 1, **changes: Any) -> Volume:
    """A disk put aside."""
    changes = {"touched": True, "name": f"vcq-{guest}-{epoch}", "quarantined": why} | changes
    return disk(guest, epoch, boots=boots, **changes)


def arriving(guest: str, copy_of: tuple[int, int] | None = None) -> Volume:
    """An incoming copy; proved equal to disk (epoch, boots) when `copy_of` is given."""
    return disk(guest, 0, boots=copy_of[1] if copy_of else 0, incoming=True, copy_of=copy_of, touched=False)


def running(guest: str, serial: str = "s1") -> Domain:
    return Domain(guest, "running", serial)


def off(guest: str, reason: str = "crashed") -> Domain:
    return Domain(guest, "off", reason=reason)


def storage(volumes: Iterable[Volume] = (), **changes: Any) -> Storage:
    full = {"goldens": frozenset({IMAGE.root.sha256, NEWER_IMAGE.root.sha256})} | changes
    return replace(Storage(True, 400 * GIB, 400 * GIB, 10.0, 5.0), volumes=tuple(volumes), **full)


def seen(
    container: str,
    volumes: Iterable[Volume] = (),
    domains: Iterable[Domain] | Unknown = (),
    **changes: Any,
) -> Seen:
    """An installed container with both images; its network is set up by `a_site` unless given."""
    observation = Seen(
        container,
        NOW_S,
        BOOT_ID.format(container[-1]),
        {"hypervisor": "kvm"},
        32 * GIB,
        frozenset({KERNEL.sha256, INITRD.sha256}),
        storage(volumes),
        UNKNOWN,
        domains if isinstance(domains, Unknown) else tuple(domains),
    )
    return replace(observation, **changes)


def silent(container: str) -> Unseen:
    return Unseen(container, NOW_S, "unreachable", "no answer to keep-alives")


BARE_NETWORK = NetworkFacts({}, "")


class ASite:
    """A spec, a world and a memory, with the sentences that tests are made of."""

    def __init__(self, spec: Spec, *observations: Observation, memory: Memory | None = None) -> None:
        self.world = World()
        self.memory = memory or Memory()
        self.now_s = NOW_S
        self.busy: frozenset[str] = frozenset()
        self.boot = BootFacts()
        self.wanted = Wanted(spec)
        for observation in observations:
            self.observe(observation)

    @property
    def spec(self) -> Spec:
        return self.wanted.spec

    def adopt(self, spec: Spec) -> None:
        self.wanted = Wanted(spec)

    def observe(self, observation: Observation) -> None:
        """A container shows this; with all that its guests' network needs, unless it says otherwise."""
        if isinstance(observation, Seen):
            observation = self._dressed(observation)
            self.memory.seen[observation.container] = observation.at_s
            self.memory.fences.pop(observation.container, None)
        self.world.observe(observation)
        if self.world.clear(observation.container):
            self.memory.shown.setdefault(observation.container, observation.at_s)
        for name, sighting in self.world.on(observation.container).items():
            volume, claim = sighting.volume, self.memory.claims.get(name)
            if volume is not None and volume.live and isinstance(observation, Seen):
                best = max((s.epoch for s in self.world.elsewhere(name, observation.container)), default=0)
                mine = claim is not None and claim.container == observation.container
                if (claim is None and volume.epoch >= best) or (mine and volume.epoch >= claim.epoch):
                    self.memory.claims[name] = Claim(name, observation.container, volume.epoch, volume.touched)
            if sighting.active and sighting.domain is not None:
                self.memory.answered[name] = sighting.domain.serial

    def _dressed(self, observation: Seen) -> Seen:
        """Fill in the context of each disk ("wanted") and the network, as the spec wants them."""
        if isinstance(observation.storage, Storage):
            volumes = tuple(
                replace(v, context=self.wanted.context(self.spec.guests[v.guest]))
                if not v.context and v.boots and v.guest in self.spec.guests
                else v
                for v in observation.storage.volumes
            )
            observation = replace(observation, storage=replace(observation.storage, volumes=volumes))
        if observation.network is UNKNOWN and not (observation.trouble or {}).get("network"):
            live = {v.guest for v in volumes if v.live} if isinstance(observation.storage, Storage) else set()
            names = set(self.spec.deployment.get(observation.container, ())) | (live & self.spec.guests.keys())
            guests = [self.spec.guests[name] for name in sorted(names)]
            bridges = {
                vlan: Bridge(vlan, True, True, b.addresses, b.routes) for vlan, b in self.wanted.bridges(guests).items()
            }
            digest = self.wanted.firewall(observation.container, guests).digest
            observation = replace(observation, network=NetworkFacts(bridges, digest))
        return observation

    def claim(self, guest: str, container: str, epoch: int = 1, *, touched: bool = True) -> None:
        self.memory.claims[guest] = Claim(guest, container, epoch, touched)

    def consent(self, kind: str, guest: str, epoch: int = 1) -> None:
        self.memory.consents[kind, guest] = Consent(kind, guest, epoch, NOW_S)  # type: ignore[arg-type]

    def fence(self, container: str) -> None:
        self.memory.fences[container] = Fence(container, NOW_S + 1, "operator")

    def intend(self, guest: str, action: str, since_s: float = NOW_S) -> None:
        self.memory.intents[f"guest/{guest}"] = Intent(f"guest/{guest}", action, since_s)

    def reinstall(self, container: str, give_up: Mapping[str, int] | None = None) -> None:
        """A person consented, and named these guests' disks by epoch."""
        self.memory.consents["reinstall", container] = Consent("reinstall", container, 0, NOW_S)
        for guest, epoch in (give_up or {}).items():
            subject = given_up(container, guest)
            self.memory.consents["reinstall", subject] = Consent("reinstall", subject, epoch, NOW_S)

    def netboot(self, container: str, ago_s: float = 1.0) -> None:
        """Its machine asked what to boot."""
        mac = mac_of(container)
        asked = Netboot(mac, self.now_s - ago_s, "10.64.0.200", "pcbios")
        self.boot = replace(self.boot, netboots={**self.boot.netboots, mac: asked})

    def switch(self, container: str, state: PowerState) -> None:
        self.boot = replace(self.boot, power={**self.boot.power, container: state})

    def says(self, container: str, step: str, percent: float = 0.0, *, began_ago_s: float = 40.0) -> None:
        """Its installer reports."""
        said = Progress(container, step, self.now_s, self.now_s - began_ago_s, percent)
        self.boot = replace(self.boot, progress={**self.boot.progress, container: said})

    def ticket(self, container: str, state: str = "open", *, wipe: bool = False, ago_s: float = 60.0) -> Ticket:
        opened_s = self.now_s - ago_s
        ticket = Ticket(
            container, mac_of(container), SYSTEM.name, wipe, "nonce", opened_s, opened_s + 1800, state  # type: ignore[arg-type]
        )  # fmt: skip
        self.memory.tickets[container] = ticket
        return ticket

    def plan(self, container: str) -> Plan:
        view = View(self.wanted, self.world, self.memory, self.now_s, self.busy, self.boot)
        return plan_container(view, container)

    def decision(self, container: str, subject: str) -> Decision:
        """The decision on "guest/alice" (or just "alice") in the plan of a container."""
        full = subject if "/" in subject else f"guest/{subject}"
        return next(d for d in self.plan(container).decisions if d.subject == full)

    def action(self, container: str, guest: str) -> Action:
        decision = self.decision(container, guest)
        assert hasattr(decision, "action"), f"expected an action, got {decision}"
        return decision.action

    def block(self, container: str, subject: str) -> Block:
        decision = self.decision(container, subject)
        assert isinstance(decision, Block), f"expected a block, got {decision}"
        return decision

    def kinds(self, container: str) -> list[str]:
        return [action.kind for action in self.plan(container).actions]

    def do(self, action: Action) -> None:
        """Take the action as done, as the record and the next look would show it."""
        self.memory.intents[action.subject] = Intent(action.subject, action.kind, self.now_s)
        foresee(action, self.wanted, self.world, self.memory)
        if action.kind not in ("start-guest", "stop-guest"):
            self.memory.intents.pop(action.subject, None)

    def settle(self, rounds_max: int = 60) -> list[Action]:
        """Plan and act, container after container, until there is nothing left to do; what was done."""
        done: list[Action] = []
        for _ in range(rounds_max):
            before = len(done)
            for container in self.spec.containers:
                for action in self.plan(container).actions:
                    self.do(action)
                    done.append(action)
            if len(done) == before:
                return done
        raise AssertionError(f"no fixpoint after {rounds_max} rounds; last: {[told(a) for a in done[-12:]]}")

    def live(self, guest: str) -> dict[str, int]:
        """Container to epoch of each live disk."""
        return {c: s.epoch for c, s in self.world.sightings.get(guest, {}).items() if s.volume and s.volume.live}

    def runs_on(self, guest: str) -> list[str]:
        return [c for c, s in self.world.sightings.get(guest, {}).items() if s.active]


def nowhere_else(guest: str, container: str) -> NotElsewhere:
    """The proof that an action needs which begins a copy: from a world that never held the guest."""
    view = View(Wanted(a_spec({container: [guest]})), World(), Memory(), NOW_S)
    found = not_elsewhere(view, guest, container)
    assert isinstance(found, NotElsewhere)
    return found


def told(action: Action) -> str:
    """An action in a few words: `copy-disk alice c2`."""
    what = action.image if isinstance(action, FetchImage) else getattr(action, "guest", "")
    more = f"<{action.source}" if isinstance(action, CopyDisk) else ""
    return " ".join(word for word in (action.kind, what, action.container + more) if word)
