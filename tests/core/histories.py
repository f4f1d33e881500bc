"""A site that lives through accidents: what is true on its hosts, apart from what vcrecon last saw of it.

Used by `test_histories`. Each start, copy and disk carries a number for the work a student has done on it,
so that S1 and S2 are judged on the hosts themselves and not on what the planner believes.
"""

from __future__ import annotations

from dataclasses import replace

from worlds import ASite, a_spec, seen, silent, told

from vcrecon.core.actions import (
    Action,
    ActivateCopy,
    Contextualize,
    CopyDisk,
    CreateVolume,
    Discard,
    GuestAction,
    Hold,
    MarkTouched,
    Prune,
    Quarantine,
    Release,
    Restore,
    StartGuest,
    StopGuest,
)
from vcrecon.core.decisions import Rest
from vcrecon.core.foresee import foresee
from vcrecon.core.memory import Claim, Consent, Fence, Intent, Memory, Rescue
from vcrecon.core.observation import UNKNOWN, Domain, NetworkFacts, Seen, Storage, Volume
from vcrecon.core.world import World

CONTAINERS = ("c1", "c2", "c3")


class Violation(AssertionError):
    """A safety rule was broken."""


class History:
    """Containers c1 to c3 and guests, with a truth of their own. Every event is a method."""

    def __init__(self, placement: dict[str, str | None], session: str) -> None:
        self.placement, self.session, self.generation = dict(placement), session, 0
        self.site = ASite(self._spec())
        self.truth = World()
        self.cut: set[str] = set()
        self.vague: dict[str, str] = {}
        self.work: dict[tuple[str, str], int] = {}
        self.clock = 0
        self.given_up: set[int] = set()
        self.log: list[str] = []
        for name in CONTAINERS:
            self.truth.observe(seen(name, network=NetworkFacts({}, "")))
            self.look(name)

    def _spec(self):  # type: ignore[no-untyped-def]
        self.generation += 1
        deployment = {c: [g for g, p in self.placement.items() if p == c] for c in CONTAINERS}
        return a_spec(deployment, session=self.session, digest=str(self.generation))

    # --- the truth ---------------------------------------------------------------------------------------

    def host(self, container: str) -> Seen:
        observation = self.truth.current[container]
        assert isinstance(observation, Seen)
        return observation

    def volumes(self, container: str) -> tuple[Volume, ...]:
        storage = self.host(container).storage
        assert isinstance(storage, Storage)
        return storage.volumes

    def volume(self, container: str, name: str) -> Volume | None:
        return next((v for v in self.volumes(container) if v.name == name), None)

    def domains(self, container: str) -> tuple[Domain, ...]:
        found = self.host(container).domains
        assert isinstance(found, tuple)
        return found

    def active(self, container: str, guest: str) -> bool:
        return any(d.guest == guest and d.active for d in self.domains(container))

    def newest_work(self, guest: str, apart_from: tuple[str, str] | None = None) -> int:
        """The number of the last work that a person did not give up and that some disk still holds."""
        kept = [
            self.work.get((c, v.name), 0)
            for c in CONTAINERS
            for v in self.volumes(c)
            if v.guest == guest and v.quarantined != "rebuilt" and (c, v.name) != apart_from
        ]
        return max((number for number in kept if number not in self.given_up), default=0)

    # --- what happens to the site ---------------------------------------------------------------------------

    def kill(self, container: str, guest: str, reason: str = "crashed") -> None:
        domains = tuple(
            Domain(guest, "off", reason=reason) if d.guest == guest and d.active else d for d in self.domains(container)
        )
        self.truth.observe(replace(self.host(container), domains=domains))

    def power_off(self, container: str) -> None:
        for domain in self.domains(container):
            self.kill(container, domain.guest)

    def lose_disk(self, container: str, guest: str) -> None:
        """A live disk vanishes, and its guest with it."""
        self.kill(container, guest)
        gone = self.volume(container, f"vcg-{guest}")
        if gone is not None:
            host = self.host(container)
            assert isinstance(host.storage, Storage)
            left = tuple(v for v in host.storage.volumes if v is not gone)
            self.truth.observe(replace(host, storage=replace(host.storage, volumes=left)))
            self.work.pop((container, gone.name), None)

    def fence(self, container: str) -> None:
        """Somebody powered off a container that does not answer, and vouches for it."""
        if container not in self.cut or self.site.world.reachable(container):
            return
        self.power_off(container)
        self.given_up |= {self.work.get((container, v.name), 0) for v in self.volumes(container)}
        self.site.memory.fences[container] = Fence(container, self.site.now_s + 1, "operator")

    def place(self, guest: str, container: str | None) -> None:
        self.placement[guest] = container
        self.site.adopt(self._spec())

    def begin_session(self) -> None:
        self.session = "running"
        self.site.adopt(self._spec())

    def consent(self, kind: str, guest: str) -> None:
        places = self.site.world.sightings.get(guest, {}).values()
        claim = self.site.memory.claims.get(guest)
        live = [s.epoch for s in places] + ([claim.epoch] if claim else [])
        kept = [v.epoch for s in places for v in s.quarantined]
        epochs = live if kind == "rebuild" else kept
        if epochs:
            consent = Consent(kind, guest, max(epochs), self.site.now_s)  # type: ignore[arg-type]
            self.site.memory.consents[kind, guest] = consent
            if kind == "rebuild":
                self.given_up |= {
                    self.work.get((c, v.name), 0) for c in CONTAINERS for v in self.volumes(c) if v.guest == guest
                }

    def rescue(self, guest: str, wish: str) -> None:
        """A person asks for a guest's disk, or gives it back; on a disk that is held they write."""
        self.site.memory.rescues[guest] = Rescue(guest, wish, self.site.now_s, "a person")  # type: ignore[arg-type]
        for container in CONTAINERS:
            volume = self.volume(container, f"vcg-{guest}")
            if volume is not None and volume.held:
                self.clock += 1
                self.work[container, volume.name] = self.clock

    def confirm(self) -> None:
        self.site.memory.confirmed_digest = self.site.spec.digest

    def forget_record(self) -> None:
        self.site.memory = Memory(claims_complete=False)

    # --- what vcrecon does ------------------------------------------------------------------------------------

    def look(self, container: str) -> None:
        if container in self.cut:
            self.site.observe(silent(container))
            return
        host = self.host(container)
        unclear = self.vague.get(container)
        if unclear == "storage":
            host = replace(host, storage=UNKNOWN)
        elif unclear == "domains":
            host = replace(host, domains=UNKNOWN)
        self.site.observe(replace(host, at_s=self.site.now_s))

    def run_pass(self, container: str, outcome: str = "ok") -> int:
        """Look, plan, act; returns how many actions were tried. `outcome` is of each action: "ok", "fails" (nothing
        happens), "cut-before-look" (done, and the host is cut off at once)."""
        self.site.now_s += 1.0
        self.look(container)
        plan = self.site.plan(container)
        for decision in plan.decisions:
            name = decision.subject.partition("/")[2]
            if isinstance(decision, Rest) and self.placement.get(name) in (None, container):
                self.site.memory.intents.pop(decision.subject, None)
        for action in plan.actions:
            self._begin(action)
            if outcome != "fails" and self._host_allows(action):
                self._judge(action)
                self._happen(action)
                self._wish_done(action)
                self.log.append(told(action))
            if not isinstance(action, StartGuest | StopGuest):
                self.site.memory.intents.pop(action.subject, None)
        if plan.actions:
            if outcome == "cut-before-look":
                self.cut.add(container)
            for place in {container} | {a.source for a in plan.actions if isinstance(a, CopyDisk)}:
                self.look(place)
        return len(plan.actions)

    def _wish_done(self, action: Action) -> None:
        """As the ledger notes it."""
        rescues = self.site.memory.rescues
        if isinstance(action, Hold | Release) and action.guest in rescues:
            rescue = rescues[action.guest]
            if rescue.wish == action.kind == "hold":
                rescues[action.guest] = replace(rescue, done=True)
            elif rescue.wish == action.kind:
                del rescues[action.guest]

    def _begin(self, action: Action) -> None:
        """As the ledger does before the first command."""
        memory = self.site.memory
        since = memory.intents.get(action.subject)
        if not (isinstance(action, StopGuest) and since and since.action == action.kind):
            memory.intents[action.subject] = Intent(action.subject, action.kind, self.site.now_s)
        if isinstance(action, CreateVolume):
            memory.claims[action.guest] = Claim(action.guest, action.container, action.epoch, touched=False)
        elif isinstance(action, ActivateCopy | StartGuest | Restore):
            memory.claims[action.guest] = Claim(action.guest, action.container, action.epoch, action.touched)

    def _host_allows(self, action: Action) -> bool:
        """The guards in the scripts themselves: the host has the last word."""
        if not isinstance(action, GuestAction):
            return action.container not in self.cut
        if {action.container, getattr(action, "source", action.container)} & self.cut:
            return False
        found = self.volume(action.container, getattr(action, "volume", f"vcg-{action.guest}"))
        match action:
            case CreateVolume():
                return found is None or found.incoming
            case CopyDisk():
                there = self.volume(action.source, action.source_volume)
                whole = there is not None and (there.epoch, there.boots) == (action.epoch, action.boots)
                return whole and not self.active(action.source, action.guest) and (found is None or found.incoming)
            case Contextualize() | Quarantine() | Discard() | Hold():
                return found is not None and not self.active(action.container, action.guest)
            case ActivateCopy():
                return found is not None and found.incoming and found.copy_of is not None
            case StartGuest() | MarkTouched() | Restore() | Prune() | Release():
                return found is not None
        return True

    def _judge(self, action: Action) -> None:
        """S1 and S2 on the hosts themselves, before the action happens."""
        if not isinstance(action, GuestAction):
            return
        name = action.guest
        where = (action.container, getattr(action, "volume", f"vcg-{name}"))
        volume, mine = self.volume(*where), self.work.get(where, 0)
        if isinstance(action, CopyDisk):
            volume = self.volume(action.source, action.source_volume)
        hands_off = volume is not None and volume.held and not isinstance(action, Hold | Release)
        # A copy that runs although its disk is held must stop; nothing else may be done.
        self._demand(not hands_off or isinstance(action, StopGuest), f"rescue: {told(action)} of a held disk")
        match action:
            case StartGuest():
                twins = [c for c in CONTAINERS if c != action.container and self.active(c, name)]
                self._demand(not twins, f"S1: {told(action)} while it runs on {twins}")
                self._demand(mine >= self.newest_work(name), f"S1: {told(action)} boots a stale disk")
            case Discard() if volume is not None:
                self._demand(not volume.touched, f"S2: {told(action)} destroys a touched disk")
                left = self.newest_work(name, apart_from=where)
                self._demand(left >= mine or mine in self.given_up, f"S2: {told(action)} destroys the last copy")
            case Prune():
                consent = self.site.memory.consents.get(("prune", name))
                self._demand(consent is not None and consent.epoch >= action.epoch, f"S2: {told(action)}")
            case Contextualize() if volume is not None:
                self._demand(not volume.touched, f"S2: {told(action)} rewrites a touched disk")

    def _demand(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise Violation(otherwise + "\n  " + "\n  ".join(self.log[-25:]))

    def _happen(self, action: Action) -> None:
        foresee(action, self.site.wanted, self.truth, Memory())
        if isinstance(action, CopyDisk):
            number = self.work.get((action.source, action.source_volume), 0)
            self.work[action.container, f"vcg-{action.guest}"] = number
        elif isinstance(action, StartGuest | MarkTouched) and (isinstance(action, MarkTouched) or action.touched):
            self.clock += 1
            self.work[action.container, action.volume] = self.clock
        elif isinstance(action, Quarantine | Restore):
            number = self.work.pop((action.container, action.volume), 0)
            aside = isinstance(action, Quarantine)
            name = f"vcq-{action.guest}-{action.epoch}" if aside else f"vcg-{action.guest}"
            self.work[action.container, name] = number
        elif isinstance(action, Discard | Prune):
            self.work.pop((action.container, action.volume), None)
        elif isinstance(action, CreateVolume):
            self.work[action.container, f"vcg-{action.guest}"] = 0

    def recover(self, rounds_max: int = 60) -> None:
        """Everything answers again and the spec is confirmed: passes until nothing is left to do."""
        self.cut.clear()
        self.vague.clear()
        self.confirm()
        for container in CONTAINERS:
            self.look(container)
        for _ in range(rounds_max):
            self.site.now_s += 400.0  # beyond every backoff and grace time
            for guest in {v.guest for c in CONTAINERS for v in self.volumes(c) if v.held} | {*self.site.memory.rescues}:
                self.rescue(guest, "release")
            if not sum(self.run_pass(container) for container in CONTAINERS):
                return
        raise AssertionError(f"no fixpoint after {rounds_max} rounds: " + "\n  ".join(self.log[-25:]))
