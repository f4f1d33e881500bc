"""Writes down what happened: states, claims, intents, attempts, events; then counts it. Called by `controller`.

The order is part of the contract: an intent and a claim are durable before the first command is sent (S7), and
a metric moves only after the fact is recorded.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from vcrecon.core import lifecycle
from vcrecon.core.actions import (
    Action,
    ActivateCopy,
    CreateVolume,
    Discard,
    Hold,
    Prune,
    Quarantine,
    Release,
    Restore,
    StartGuest,
    StopGuest,
)
from vcrecon.core.backoff import CRASH_LOOP, after_failure
from vcrecon.core.decisions import Block, Plan, Rest, Status
from vcrecon.core.install_rules import forgotten, spent
from vcrecon.core.installs import Ticket
from vcrecon.core.memory import Claim, Intent, LastState
from vcrecon.core.observation import Observation, Seen, Storage
from vcrecon.core.states import ContainerState, GuestState, State
from vcrecon.core.world import Sighting, World
from vcrecon.errors import HostError, Transient
from vcrecon.shell.gauges import ContainerFacts
from vcrecon.shell.metrics import Metrics
from vcrecon.shell.record import Record, RecordWriter
from vcrecon.spec.model import Spec

_log = structlog.get_logger("vcrecon")

SEEN_EVERY_S = 30.0
_NO_CONTAINER = ""
"""In the place of a container's name: what is blocked for the whole site."""


class Ledger:
    """One for each controller. Every method raises Transient when the record cannot be written."""

    def __init__(
        self,
        record: Record,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
        rng: random.Random,
        stable_s: float,
    ) -> None:
        self.record = record
        self.metrics = metrics
        self._clock = clock
        self._rng = rng
        self._stable_s = stable_s
        self._blocks: dict[str, dict[str, Block]] = {}
        """What each container's last pass found blocked, by subject."""
        self._blocked: dict[str, dict[str, Block]] = {}
        """The same by subject, then by container: `block` is asked for every object of the site."""
        self._healing_since_s: dict[str, float] = {}
        self._silent: dict[str, str] = {}
        self._failed: dict[str, str] = {}
        """The kind of action that failed last, by subject."""
        self._stopped: dict[str, Intent] = {}
        """The intent to stop each guest whose disk is worked on since: it went down for us."""
        self._moving: set[str] = set()
        """Guests that an action under way gives to another container."""
        self.details: dict[str, str] = {}

    # --- what was seen ---------------------------------------------------------------------------------------

    def saw(self, observation: Observation, world: World, spec: Spec) -> None:
        """Remember when the container answered, which guests answered, and who holds which disk."""
        name, memory = observation.container, self.record.memory
        if not isinstance(observation, Seen):
            self._silent.setdefault(name, observation.kind)
            self.metrics.set_reachable(name, False)
            self.metrics.set_last_error(name, observation.kind, observation.at_s)
            self.metrics.set_facts(name, container_facts(name, world, spec, memory.seen.get(name, 0.0)))
            return
        with self.record.batch() as batch:
            if name in memory.fences:
                batch.remove_fence(name)
                batch.event(f"container/{name}", "fence-void", f"{name} answers again: its fence is void")
            elif name in self._silent:
                batch.event(f"container/{name}", "answers-again", f"{name} answers; it was {self._silent[name]}")
            if name in memory.fences or observation.at_s - memory.seen.get(name, 0.0) > SEEN_EVERY_S:
                batch.put_seen(name, observation.at_s)
            if name not in memory.shown and world.clear(name):
                batch.put_shown(name, observation.at_s)
            self._spend_prunes(batch, world, spec)
            ticket = memory.tickets.get(name)
            if ticket is not None and ticket.state == "installed":
                batch.remove_ticket(name)
                batch.event(f"container/{name}", "finish-install", f"{name} answers with the key of its install")
            for sighting in world.on(name).values():
                self._saw_guest(batch, sighting, observation, world, spec)
        self._silent.pop(name, None)
        self.metrics.set_reachable(name, True)
        self.metrics.set_facts(name, container_facts(name, world, spec, observation.at_s))

    def _spend_prunes(self, batch: RecordWriter, world: World, spec: Spec) -> None:
        """A consent to prune ends with the disks it named: one that turns up later was not meant (S2).

        That they are gone is known once every container was looked at; a controller that has just begun knows nothing.
        """
        memory = self.record.memory
        prunes = [(guest, consent) for (kind, guest), consent in memory.consents.items() if kind == "prune"]
        if not all(place in world.current and _shows_disks(world, place) for place in spec.containers):
            return
        for guest, consent in prunes:
            places = world.sightings.get(guest, {}).values()
            claim = memory.claims.get(guest)
            named = claim if claim is not None and claim.epoch <= consent.epoch else None
            if any(v.epoch <= consent.epoch for s in places for v in s.quarantined):
                continue
            if named is not None and world.known(named.container) is None and named.container in spec.containers:
                continue  # the disk may be there
            batch.remove_consent("prune", guest)
            # A controller or a connection that died after the act, and before it was written that it was done.
            subject = f"guest/{guest}"
            intent = memory.intents.get(subject)
            pruned = intent is not None and intent.action == Prune.kind
            gone = guest not in spec.guests and all(s.volume is None for s in places)
            if pruned:
                batch.remove_intent(subject)
            if gone and subject in memory.attempts:
                batch.remove_attempts(subject)
            if (pruned or gone) and named is not None and world.clear(named.container):
                batch.remove_claim(guest)

    def _saw_guest(self, batch: RecordWriter, sighting: Sighting, observation: Seen, world: World, spec: Spec) -> None:
        memory, guest = self.record.memory, spec.guests.get(sighting.guest)
        domain = sighting.domain
        if domain is not None and domain.active and guest is not None:
            addresses = {i.address.partition("/")[0] for i in guest.interfaces if i.address}
            if addresses & observation.answers or not addresses:
                batch.put_answered(guest.name, domain.serial)
        volume, claim = sighting.volume, memory.claims.get(sighting.guest)
        if volume is None or not volume.live:
            return
        best = max((s.epoch for s in world.elsewhere(sighting.guest, sighting.container) if s.live), default=0)
        if claim is None:
            truer = volume.epoch >= best
        elif claim.container == sighting.container:
            truer = volume.epoch >= claim.epoch
        else:
            truer = volume.epoch > claim.epoch  # newer than the record knows of, as after the record was lost
        if truer:
            # A disk that may hold work does so for good: a view that is older than the record takes nothing back (S2).
            was = claim is not None and claim.touched and claim.epoch == volume.epoch
            batch.put_claim(Claim(sighting.guest, sighting.container, volume.epoch, volume.touched or was))

    # --- what is done ----------------------------------------------------------------------------------------

    def begins(self, action: Action) -> None:
        """The intent, and the claim that the action makes true. Call before its first command is sent."""
        now_s = self._clock()
        if isinstance(action, CreateVolume | ActivateCopy | StartGuest):
            claim = self.record.memory.claims.get(action.guest)
            if claim is not None and claim.container != action.container:
                self._moving.add(action.guest)
        self._keep_stop(action)
        with self.record.batch() as batch:
            batch.put_intent(Intent(action.subject, action.kind, now_s))
            if isinstance(action, CreateVolume):
                batch.put_claim(Claim(action.guest, action.container, action.epoch, touched=False))
            elif isinstance(action, ActivateCopy | StartGuest | Restore):
                batch.put_claim(Claim(action.guest, action.container, action.epoch, action.touched))
        if action.subject in self.record.memory.attempts:
            self.metrics.retried(action.kind)
        _log.debug("begins", action=action.kind, subject=action.subject, container=action.container)

    def _keep_stop(self, action: Action) -> None:
        """What is done to the disk of a guest that was stopped for it takes the place of the intent to stop."""
        before = self.record.memory.intents.get(action.subject)
        if before is not None and before.action == StopGuest.kind and not isinstance(action, StartGuest | StopGuest):
            self._stopped[action.subject] = before

    def done(self, action: Action, seconds: float, spec: Spec) -> None:
        """The action's commands all succeeded; the next look proves the rest."""
        memory, subject = self.record.memory, action.subject
        self._stopped.pop(subject, None)
        with self.record.batch() as batch:
            batch.event(subject, action.kind, action.reason, container=action.container, seconds=round(seconds, 3))
            if isinstance(action, StartGuest) and action.boots > 1:
                # The first restart is at once; a guest that dies again and again is restarted ever more slowly.
                before = memory.attempts.get(subject)
                count = before.count if before else 0
                batch.put_attempts(
                    subject,
                    after_failure(
                        before,
                        error=CRASH_LOOP,
                        message=f"was restarted {count + 1} time(s) in a row and went down again",
                        now_s=self._clock(),
                        jitter=self._rng.random(),
                    ),
                )
            elif subject in memory.attempts and not self._clears_away(action):
                batch.remove_attempts(subject)
            if not isinstance(action, StartGuest | StopGuest):
                batch.remove_intent(subject)
            if isinstance(action, Hold | Release):
                self._rescue_done(batch, action)
            if isinstance(action, Prune):
                claim = memory.claims.get(action.guest)
                if claim and claim.container == action.container and claim.epoch <= action.epoch:
                    batch.remove_claim(action.guest)
        self.metrics.action_done(action.kind, seconds)
        self._count_guest(action, spec)
        _log.info(action.kind, subject=subject, container=action.container, reason=action.reason, s=round(seconds, 3))

    def _clears_away(self, action: Action) -> bool:
        """To throw a failed copy away, or put an old disk aside, is no success of what failed (S8)."""
        if isinstance(action, Quarantine):
            return self._failed.get(action.subject, action.kind) != action.kind
        return isinstance(action, Discard)

    def _count_guest(self, action: Action, spec: Spec) -> None:
        guest = spec.guests.get(action.subject.removeprefix("guest/"))
        if guest is None:
            return
        if isinstance(action, StartGuest) and action.boots > 1:
            self.metrics.restarted(guest.name, guest.cluster or "")
        if isinstance(action, CreateVolume | ActivateCopy | StartGuest) and guest.name in self._moving:
            self._moving.discard(guest.name)
            self.metrics.moved(guest.name, guest.cluster or "")

    def installed(self, ticket: Ticket, spec: Spec, seconds: float, steps: Mapping[str, float]) -> None:
        """An installer said that it is done. In one transaction with that, what lived on the old disks is forgotten.

        `steps` says how many seconds each took. The ticket stays until SSH proves the install.
        """
        name, memory = ticket.container, self.record.memory
        kept = {claim.guest: claim for claim in forgotten(memory, name, spec)}
        gone = [claim.guest for claim in memory.claims.values() if claim.container == name]
        with self.record.batch() as batch:
            batch.put_ticket(ticket)
            batch.put_seen(name, self._clock())
            batch.put_shown(name, self._clock())  # nothing is on its new disks
            batch.remove_fence(name)
            for subject in spent(memory, name):
                batch.remove_consent("reinstall", subject)
            for guest in gone:
                if guest in kept:
                    batch.put_claim(kept[guest])
                else:
                    batch.remove_claim(guest)
                for forget in (batch.remove_state, batch.remove_intent, batch.remove_attempts):
                    forget(f"guest/{guest}")
                batch.remove_answered(guest)
                batch.remove_rescue(guest)
            message = f"the installer is done after {seconds:.0f} s; {name} starts {ticket.system}"
            facts = {"seconds": round(seconds, 1), "steps": dict(steps), "guests": gone}
            batch.event(f"container/{name}", "installed", message, **facts)
        for step, step_s in steps.items():
            self.metrics.observe_install_step(step, step_s)

    def _rescue_done(self, batch: RecordWriter, action: Hold | Release) -> None:
        """A wish is done, unless the person asked for the opposite meanwhile."""
        rescue = self.record.memory.rescues.get(action.guest)
        if rescue is None or rescue.wish != action.kind:
            return
        if isinstance(action, Hold):
            batch.put_rescue(replace(rescue, done=True))
        else:
            batch.remove_rescue(action.guest)

    def failed(self, action: Action, error: HostError, seconds: float) -> None:
        """Count the failure and set the time of the next try (S8)."""
        subject = action.subject
        self._failed[subject] = action.kind
        attempts = after_failure(
            self.record.memory.attempts.get(subject),
            error=error.kind,
            message=str(error),
            now_s=self._clock(),
            jitter=self._rng.random(),
            least_s=error.delay_s if isinstance(error, Transient) else 0.0,
        )
        with self.record.batch() as batch:
            batch.put_attempts(subject, attempts)
            if subject in self._stopped:
                batch.put_intent(self._stopped.pop(subject))
            elif not isinstance(action, StartGuest | StopGuest):
                batch.remove_intent(subject)
            batch.event(subject, "failed", str(error), action=action.kind, error=error.kind, tries=attempts.count)
        self.metrics.action_failed(action.kind, error.kind, seconds)
        self.metrics.set_last_error(action.container, error.kind, self._clock())
        _log.warning("failed", action=action.kind, subject=subject, error=str(error), tries=attempts.count)

    # --- what was found and planned -------------------------------------------------------------------------

    def planned(self, plan: Plan, spec: Spec) -> None:
        """Adopt the states that a pass found, and remember what is blocked and why."""
        with self.record.batch() as batch:
            changes = [c for status in plan.statuses if (c := self._adopt(batch, status, plan.container, spec))]
            self._clear_intents(batch, plan, spec)
            blocks = {block.subject: block for block in plan.blocked}
            before = self._blocks.get(plan.container, {})
            if plan.held_back and self.record.memory.held_digest != spec.digest:
                batch.set_held_digest(spec.digest)
            for subject, block in blocks.items():
                if subject not in before or before[subject].reason != block.reason:
                    batch.event(subject, block.reason, block.message, container=plan.container)
        self._set_blocks(plan.container, blocks)
        for count in changes:
            count()
        for subject in before.keys() | blocks.keys():
            self._gauge_block(subject)

    def _adopt(self, batch: RecordWriter, status: Status, container: str, spec: Spec) -> Callable[[], None] | None:
        """Compare with the last pass; returns what to count once the change is on disk."""
        if status.detail:
            self.details[status.subject] = status.detail
        else:
            self.details.pop(status.subject, None)
        if status.state is None:
            return lambda: self._gauge_state(status.subject, container, spec)
        memory, now_s = self.record.memory, self._clock()
        last = memory.states.get(status.subject)
        after = status.state
        if last is not None and last.state == after.value:
            self._forgive(batch, status.subject, last, now_s)
            return lambda: self._gauge_state(status.subject, container, spec)
        batch.put_state(LastState(status.subject, after.value, now_s))
        kind, _, name = status.subject.partition("/")
        if last is None:
            return lambda: self._gauge_state(status.subject, container, spec)
        before = (ContainerState if kind == "container" else GuestState)(last.state)
        change = lifecycle.judge(before, after)
        intent = memory.intents.get(status.subject)
        # The table has an edge for it, but nobody asked for it: the guest went down by itself.
        died = before is GuestState.RUNNING and after is GuestState.STOPPED
        died = died and (intent is None or intent.action == StartGuest.kind)
        jumped = died or isinstance(change, lifecycle.Jump)
        if died:
            reason = f"it went down by itself, or {container} did"
        elif isinstance(change, lifecycle.Step):
            reason = change.reason
        else:
            reason = "it changed by itself, or faster than we looked"
        message = f"{before.value} → {after.value}: {reason}"
        batch.event(
            status.subject, "jump" if jumped else "step", message, before=before.value, after=after.value,
            container=container,
        )  # fmt: skip
        healed = self._heal_time(batch, name, before, after, now_s)

        def count() -> None:
            self.metrics.transition(kind, before.value, after.value)
            if jumped:
                self.metrics.jump()
            if healed is not None:
                self.metrics.observe_heal(healed)
            self._gauge_state(status.subject, container, spec)

        return count

    def _forgive(self, batch: RecordWriter, subject: str, last: LastState, now_s: float) -> None:
        attempts = self.record.memory.attempts.get(subject)
        running = last.state == GuestState.RUNNING.value
        if attempts and attempts.error == CRASH_LOOP and running and now_s - last.since_s > self._stable_s:
            batch.remove_attempts(subject)

    def _heal_time(self, batch: RecordWriter, guest: str, before: State, after: State, now_s: float) -> float | None:
        """Seconds from the look that found the guest down to the one that found it running again."""
        intent = self.record.memory.intents.get(f"guest/{guest}")
        if after is GuestState.HELD:
            self._healing_since_s.pop(guest, None)  # from here on it is down because a person wants it so
        if before is GuestState.RUNNING and (intent is None or intent.action != StopGuest.kind):
            self._healing_since_s[guest] = now_s
        if after is GuestState.RUNNING and guest in self._healing_since_s:
            seconds = max(0.0, now_s - self._healing_since_s.pop(guest))
            batch.event(f"guest/{guest}", "healed", f"running again after {seconds:.1f} s", seconds=seconds)
            return seconds
        return None

    def _clear_intents(self, batch: RecordWriter, plan: Plan, spec: Spec) -> None:
        """An intent ends when its object is as wanted, seen from where it is wanted; so do failures of what made it so.

        Not while another container has trouble with the object, such as an old disk that cannot be put aside (S8).
        """
        memory = self.record.memory
        for subject in [d.subject for d in plan.decisions if isinstance(d, Rest) and d.ours]:
            if spec.placement.get(subject.partition("/")[2], plan.container) != plan.container:
                continue
            if subject in memory.intents:
                batch.remove_intent(subject)
            attempts = memory.attempts.get(subject)
            in_trouble = self._blocked.get(subject, {}).keys() - {plan.container}
            if attempts is not None and attempts.error != CRASH_LOOP and not in_trouble:
                batch.remove_attempts(subject)

    def _gauge_state(self, subject: str, container: str, spec: Spec) -> None:
        kind, _, name = subject.partition("/")
        last = self.record.memory.states.get(subject)
        if last is None:
            return
        if kind == "container":
            self.metrics.set_container(name, last.state, last.since_s)
        elif (guest := spec.guests.get(name)) is not None:
            self.metrics.set_guest(name, guest.cluster or "", container, last.state, last.since_s)

    def _gauge_block(self, subject: str) -> None:
        block = self.block(subject)
        if block is None:
            self.metrics.clear_blocked(subject)
        else:
            self.metrics.set_blocked(subject, block.reason)

    def boots_held(self, block: Block | None) -> None:
        """Why the site's machines are not booted by this master, or None; see `core.mastery.quiet`."""
        before = self.block("site")
        if block == before:
            return
        reason, message = (block.reason, block.message) if block else ("only-master", "no other master holds this site")
        self.record.event("site", reason, message)
        self._set_blocks(_NO_CONTAINER, {"site": block} if block else {})
        self._gauge_block("site")
        _log.warning("boots", reason=reason, message=message)

    def block(self, subject: str) -> Block | None:
        """What blocks an object now, on whichever container."""
        return next(iter(self._blocked.get(subject, {}).values()), None)

    def _set_blocks(self, container: str, blocks: dict[str, Block]) -> None:
        before = self._blocks.pop(container, {})
        for subject in before.keys() - blocks.keys():
            del self._blocked[subject][container]
            if not self._blocked[subject]:
                del self._blocked[subject]
        for subject, block in blocks.items():
            self._blocked.setdefault(subject, {})[container] = block
        if blocks:
            self._blocks[container] = blocks

    def forget_gone_guests(self, world: World, spec: Spec) -> None:
        """Forget what is remembered of guests that are not in the spec and left no trace: their names may never return.

        Only what a name would learn anew at its next start is forgotten; a claim keeps all of it, also while the
        container that holds the disk is silent.
        """
        memory = self.record.memory
        if any(name not in world.current for name in spec.containers):
            return
        subjects = memory.states.keys() | memory.attempts.keys()
        names = {subject.removeprefix("guest/") for subject in subjects if subject.startswith("guest/")}
        kept = spec.guests.keys() | memory.claims.keys() | world.sightings.keys()
        with self.record.batch() as batch:
            for guest in (names | memory.answered.keys()) - kept:
                batch.remove_state(f"guest/{guest}")
                batch.remove_attempts(f"guest/{guest}")
                batch.remove_answered(guest)
                self.details.pop(f"guest/{guest}", None)
                self._failed.pop(f"guest/{guest}", None)
                self._healing_since_s.pop(guest, None)

    def forget_container(self, container: str) -> None:
        """A container left the spec."""
        blocks = self._blocks.get(container, {})
        self._set_blocks(container, {})
        self._silent.pop(container, None)
        for subject in blocks:
            self._gauge_block(subject)
        self.record.remove_state(f"container/{container}")
        self.metrics.remove_container(container)


def container_facts(name: str, world: World, spec: Spec, last_seen_s: float) -> ContainerFacts:
    """What is known of a container by its last look, for the metrics."""
    known, entry = world.known(name), spec.containers.get(name)
    storage = known.storage if known is not None else None
    pool = storage if isinstance(storage, Storage) and storage.pool_bytes else None
    active = [sighting.guest for sighting in world.on(name).values() if sighting.active]
    return ContainerFacts(
        last_seen_s=last_seen_s,
        guests=len(active),
        memory_bytes=entry.memory_bytes if entry is not None else 0,
        memory_used_bytes=sum(spec.guests[guest].memory_bytes for guest in active if guest in spec.guests),
        pool_data=pool.pool_data_percent / 100 if pool is not None else None,
        pool_metadata=pool.pool_metadata_percent / 100 if pool is not None else None,
    )


def _shows_disks(world: World, container: str) -> bool:
    """Whether what is on its disks is known as well as it can be now: it shows them, or it does not answer."""
    return world.clear(container) or not world.reachable(container)
