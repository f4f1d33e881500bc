"""The rules for one guest on one container, in the order they apply; the first that speaks decides.

Called by `plan` for every guest that is wanted on, or has left traces on, the container. A guest that is
wanted elsewhere is led away by the rules of the container where it lives (stop, quarantine) and brought in
by those of the container where it should live (copy, activate, start): each acts only on its own host, on
what the others last showed.
"""

from __future__ import annotations

from collections.abc import Callable

from vcrecon.core.actions import (
    Action,
    Contextualize,
    Discard,
    MarkTouched,
    Prune,
    Quarantine,
    StartGuest,
    StopGuest,
)
from vcrecon.core.backoff import CRASH_LOOP
from vcrecon.core.case import Case
from vcrecon.core.classify import answered
from vcrecon.core.decisions import NEEDS_CONFIRMATION, Block, Decision, Do, Rest, Wait, backing_off
from vcrecon.core.disk_rules import (
    METADATA_FULL_PERCENT,
    SMALL_DISK_BYTES,
    boot_files,
    bring_in,
    create,
    free_bytes,
    lost_disk,
    unfinished,
    wait_for_image,
)
from vcrecon.core.halting import STOP_POLL_S
from vcrecon.core.halting import stop as _stop
from vcrecon.core.observation import UNKNOWN, NetworkFacts, Seen, Storage, Volume
from vcrecon.core.proof import Doubt
from vcrecon.core.rescue_rules import give_back, hold
from vcrecon.core.strangers import name_taken, taken_on
from vcrecon.core.wanted import HOOKED
from vcrecon.core.world import not_looked_at

BOOT_POLL_S = 1.0
_NAMED_MAX = 6


Rule = Callable[[Case], Decision | None]


def decide(case: Case) -> Decision:
    """The one decision for this guest on this container."""
    for rule in COMMON + (WANTED if case.wanted_here else UNWANTED):
        decision = rule(case)
        if decision is not None:
            return decision if not isinstance(decision, Do) else _not_yet(case, decision.action) or decision
    return Rest(case.subject, "nothing to do here")


def _not_yet(case: Case, action: Action) -> Block | None:
    """What failed waits, also while the guest runs (S8); a crash loop holds back only its next start."""
    attempts = case.memory.attempts.get(case.subject)
    if attempts is not None and attempts.error == CRASH_LOOP and not isinstance(action, StartGuest):
        return None
    return backing_off(case.memory, case.subject, case.view.now_s)


# --- rules for every guest -----------------------------------------------------------------------------------


def _paused(case: Case) -> Decision | None:
    paused = case.memory.paused
    cluster = f"cluster/{case.guest.cluster}" if case.guest and case.guest.cluster else None
    if {case.subject, cluster, f"container/{case.container}", "site"} & paused.keys():
        return Rest(case.subject, "paused: vcrecon keeps its hands off until `vcrecon resume`", ours=case.last_word)
    return None


def _in_flight(case: Case) -> Decision | None:
    if case.subject not in case.view.busy:
        return None
    intent = case.memory.intents.get(case.subject)
    if intent is None:
        return Wait(case.subject, "a step is under way")
    return Wait(case.subject, f"{intent.action} under way for {max(0.0, case.view.now_s - intent.since_s):.0f} s")


def _unknown(case: Case) -> Decision | None:
    if case.observation.domains is UNKNOWN or case.storage is None:
        trouble = "; ".join((case.observation.trouble or {}).values()) or "no answer"
        if not case.wanted_here and not case.here.live:
            what = f"no more than an old disk is kept on {case.container}, which shows none now"
            return Rest(case.subject, what, ours=case.last_word)
        return Block(
            case.subject,
            "host-unclear",
            f"{case.container} answers, but does not show its guests and disks: {trouble}",
            look_again_s=10.0,
        )
    if case.observation.release in (None, UNKNOWN):
        return Wait(case.subject, f"{case.container} is not installed")
    return None


def _stale(case: Case) -> Decision | None:
    """A newer copy lives elsewhere, or was made elsewhere while this host was lost: stop this one first (S1)."""
    if not case.here.live:
        return None
    mine = case.here.epoch
    newer = next((s for s in case.others if s.epoch > mine), None)
    claim = case.claim
    if newer is None and not _overtaken(case, mine):
        return None
    where = newer.container if newer else claim.container if claim else "?"
    if case.here.active:
        return Do(StopGuest(case.container, f"stale copy: the live one is on {where}", case.name, force=True))
    if newer is None and claim is not None and not _copied(case, claim.container):
        # The claim was written, the other disk is not there yet: this one may still be the only good one.
        return Wait(case.subject, f"waiting for its new disk on {where}")
    if case.volume is None:
        return None
    return Do(
        Quarantine(case.container, f"the live copy is on {where}", case.name, case.volume.name, mine, why="moved")
    )


def _overtaken(case: Case, mine: int) -> bool:
    """Whether the record says that a newer disk lives elsewhere, and that container does not disprove it.

    A claim is written before the act: when the act never happened, this disk is still the one.
    """
    claim = case.claim
    if claim is None or claim.container == case.container or claim.epoch <= mine:
        return False
    if not case.view.world.clear(claim.container) or _copied(case, claim.container):
        return True
    there = case.view.world.sightings.get(case.name, {}).get(claim.container)
    return there is not None and there.volume is not None and not case.here.active


def _copied(case: Case, container: str) -> bool:
    """Whether `container` was last seen with a newer disk of the guest, live or put aside after it was used."""
    sighting = case.view.world.sightings.get(case.name, {}).get(container)
    if sighting is None:
        return False
    return sighting.live or any(v.boots and v.epoch > case.here.epoch for v in sighting.quarantined)


def _backoff(case: Case) -> Decision | None:
    attempts = case.memory.attempts.get(case.subject)
    if case.here.active or (attempts is not None and attempts.error == CRASH_LOOP):
        return None  # `_not_yet` speaks when there is something to do
    return backing_off(case.memory, case.subject, case.view.now_s)


# --- rules for a guest that belongs on this container ----------------------------------------------------------


def _twin(case: Case) -> Decision | None:
    if case.volume is None:
        return None
    for other in case.others:
        if other.epoch == case.here.epoch and not case.here.active:
            return Block(
                case.subject,
                "two-disks",
                f"{case.container} and {other.container} both hold disk {other.epoch} of {case.name}: "
                f"vcrecon starts neither; `vcrecon rebuild {case.name}` or remove the wrong one by hand",
            )
    return None


def _may_live_elsewhere(case: Case) -> Decision | None:
    if case.here.active or not case.silent:
        return None
    where = _named(case.silent)
    left = next((name for name in case.silent if name not in case.view.spec.containers), None)
    if left is not None and left in case.memory.unshown:
        return Block(
            case.subject,
            "may-live-elsewhere",
            f"{case.name} may live on {left}, which is not in the spec any more and never showed this record what it "
            f"holds: put it back into containers.yaml, or, if it is off, say `vcrecon fence {left} --confirmed`",
        )
    if all(name not in case.memory.seen for name in case.silent) and case.claim is None:
        return Block(
            case.subject,
            "may-live-elsewhere",
            f"this record is new, and {where} never answered it: as far as it knows {case.name} may live there. Switch "
            "them on (blank ones are installed when they boot from the network); of one that is off, or was never "
            f"installed, say `vcrecon fence {case.silent[0]} --confirmed`",
        )
    if any(case.view.world.reachable(name) for name in case.silent):
        return Block(
            case.subject,
            "may-live-elsewhere",
            f"{case.name} may still run on {where}, which does not show its guests and disks: repair it first",
        )
    return Block(
        case.subject,
        "may-live-elsewhere",
        f"{case.name} may still run on {where}, which does not answer: power it off and say "
        f"`vcrecon fence {case.silent[0]} --confirmed`, or bring it back",
    )


def _named(containers: tuple[str, ...]) -> str:
    first, more = containers[:_NAMED_MAX], len(containers) - _NAMED_MAX
    return ", ".join(first) + (f" and {more} more" if more > 0 else "")


def _rebuild(case: Case) -> Decision | None:
    """A person gave this disk up: stop, put aside, and `create` makes the next."""
    volume = case.volume
    if volume is None or not case.consents("rebuild", volume.epoch):
        return None
    if case.here.active:
        return _stop(case, "a person asked to rebuild it")
    reason = "a person asked to rebuild it"
    return Do(Quarantine(case.container, reason, case.name, volume.name, volume.epoch, why="rebuilt"))


def _outdated(case: Case) -> Decision | None:
    """A disk without student work is made again, or its context written again, when the spec changed."""
    volume, guest = case.volume, case.guest
    if volume is None or guest is None:
        return None
    image_differs = volume.image != case.view.spec.images[guest.image].root.sha256
    context_differs = volume.context != case.view.wanted.context(guest)
    if not (image_differs or context_differs) or case.holds_work(volume):
        return None
    if case.here.active:
        return _stop(case, "the spec changed and the class has not begun")
    if image_differs:
        return Do(Discard(case.container, "made from another image", case.name, volume.name))
    if _was_used(volume) and (guest.hooks or volume.context.startswith(HOOKED)):
        # Hooks see only what the image holds: no link that somebody's root planted, and nothing of earlier hooks.
        return Do(Discard(case.container, "its hooks start from a fresh disk", case.name, volume.name))
    return Do(Contextualize(case.container, "its context is missing or outdated", case.name, volume.name))


def _was_used(volume: Volume) -> bool:
    return bool(volume.boots or volume.context)


def _running(case: Case) -> Decision | None:
    volume = case.volume
    if not case.here.active or volume is None or case.guest is None:
        return None
    if case.holds_work(volume) and not volume.touched:
        return Do(MarkTouched(case.container, "the class has begun", case.name, volume.name))
    if answered(case.memory, case.here):
        return Rest(case.subject, "running" + _drift(case, volume))
    since = case.memory.intents.get(case.subject)
    started_s = since.since_s if since and since.action == "start-guest" else case.observation.at_s
    if case.view.now_s - started_s > case.view.spec.site.boot_deadline_s:
        return Block(
            case.subject,
            "silent",
            f"{case.name} runs on {case.container} but has not answered on its network for "
            f"{case.view.now_s - started_s:.0f} s: look at `vcrecon console {case.name}`{_older(case, volume)}",
        )
    return Wait(case.subject, "booting", BOOT_POLL_S)


def _older(case: Case, volume: Volume) -> str:
    """Why a guest may well be up and yet not answer where the spec has it."""
    if case.guest is None or volume.context == case.view.wanted.context(case.guest):
        return ""
    return (
        "; its disk was made for an older spec and may have another address: change it inside, or give the disk up "
        f"with `vcrecon rebuild {case.name}`"
    )


def _drift(case: Case, volume: Volume) -> str:
    """What differs from the spec on a disk that must not be rewritten."""
    assert case.guest is not None
    parts = []
    if volume.image != case.view.spec.images[case.guest.image].root.sha256:
        parts.append("image")
    if volume.context != case.view.wanted.context(case.guest):
        parts.append("context")
    definition = case.here.domain.definition if case.here.domain else ""
    if definition and definition != case.view.wanted.definition(case.guest):
        parts.append("definition (taken at its next start)")
    return f"; differs from the spec in {', '.join(parts)}" if parts else ""


def _start(case: Case) -> Decision | None:
    volume, domain = case.volume, case.here.domain
    if volume is None:
        return None
    elsewhere = case.not_elsewhere()
    if isinstance(elsewhere, Doubt):
        return Wait(case.subject, f"waiting until its old disk on {elsewhere.container} is put aside", STOP_POLL_S)
    guest = case.guest
    if (
        guest is not None
        and guest.on_poweroff == "honour"
        and volume.boots
        and domain is not None
        and domain.reason == "shutdown"
        and case.memory.intents.get(case.subject) is None
    ):
        return Rest(case.subject, "powered off from inside, and the spec honours that")
    if not case.ready:
        return Wait(case.subject, f"waiting for the network of {case.container}", STOP_POLL_S)
    image = case.view.spec.images[guest.image] if guest is not None else None
    if image is not None and not boot_files(image) <= case.observation.images:
        # It brought its disk along, or somebody tidied up: the hypervisor still needs the files it boots from.
        message = f"waiting for the kernel of image {image.name} on {case.container}"
        return wait_for_image(case, image, message, boot_only=True)
    reason = "restart: it should be running" if volume.boots else "first boot"
    touched = case.view.spec.site.session == "running" or volume.touched
    boots = volume.boots + 1
    return Do(
        StartGuest(case.container, reason, case.name, volume.name, volume.epoch, boots, touched, elsewhere=elsewhere)
    )


# --- rules for a guest that does not belong on this container -------------------------------------------------


def _prune(case: Case) -> Decision | None:
    """A person named the kept disks of this guest, wherever the guest itself is now."""
    for volume in case.here.quarantined:
        if case.consents("prune", volume.epoch):
            return Do(Prune(case.container, "a person named it", case.name, volume.name, volume.epoch))
    return None


def _put_aside(case: Case) -> Decision | None:
    if case.here.live:
        return None
    if case.incoming is not None:
        return unfinished(case)
    if case.here.quarantined:
        return Rest(
            case.subject,
            f"{len(case.here.quarantined)} old disk(s) kept; `vcrecon prune {case.name}` frees them",
            ours=case.last_word,
        )
    return Rest(case.subject, "gone from here", ours=case.last_word)


def _stay_for_now(case: Case) -> Decision | None:
    """Reasons why a guest that should leave does not leave yet. It keeps running here meanwhile."""
    target = case.view.spec.placement.get(case.name)
    unknown = not_looked_at(case.view.spec, case.view.world)
    if unknown is not None:
        # In the middle of a move, starting it here again would also disturb the move for nothing.
        return Wait(case.subject, f"{unknown} was not looked at yet", STOP_POLL_S)
    why: tuple[str, str] | None = None
    if case.view.frozen:
        why = ("site-frozen", case.view.frozen)
    elif case.here.active and case.view.held_back:
        why = (NEEDS_CONFIRMATION, case.view.held_back)
    elif target is not None:
        missing = _not_ready(case, target)
        why = ("destination-not-ready", missing) if missing else None
    if why is None:
        return None
    known = case.guest is not None and case.volume is not None and not case.volume.incoming
    if known and not case.here.active and not case.silent and case.volume and case.volume.boots and target is not None:
        started = _start(case)
        if isinstance(started, Do | Rest):
            return started
    return Block(case.subject, why[0], why[1], look_again_s=5.0)


def _not_ready(case: Case, target: str) -> str | None:
    """Why the destination cannot take the guest now, or None."""
    world = case.view.world
    there = world.current.get(target)
    if not isinstance(there, Seen):
        return f"{case.name} stays on {case.container}: {target} does not answer"
    if not isinstance(there.storage, Storage) or there.domains is UNKNOWN:
        return f"{case.name} stays on {case.container}: {target} does not show its disks and guests"
    if there.release in (None, UNKNOWN):
        return f"{case.name} stays on {case.container}: {target} is not installed"
    if target in case.memory.tickets or ("reinstall", target) in case.memory.consents:
        return f"{case.name} stays on {case.container}: {target} is installed anew"
    taken = taken_on(case, target, there)
    if taken is not None:
        return f"{case.name} stays on {case.container}: {taken[1]}"
    full = _no_room_there(case, target, there.storage)
    if full is not None:
        return full
    facts = there.network
    vlans = {interface.vlan for interface in case.guest.interfaces} if case.guest else set()
    if not isinstance(facts, NetworkFacts) or not vlans <= facts.bridges.keys():
        return f"{case.name} stays on {case.container}: {target} is still preparing its network"
    if f"container/{target}" in case.memory.paused:
        return f"{case.name} stays on {case.container}: {target} is paused"
    return None


def _no_room_there(case: Case, target: str, storage: Storage) -> str | None:
    """The same test that the destination makes before it copies; a copy already there has its room."""
    held = case.view.world.on(target).get(case.name)
    if held is not None and held.volume is not None:
        return None
    stays = f"{case.name} stays on {case.container}: {target} has"
    if not storage.group_present or not storage.pool_bytes:
        return f"{stays} no volume group or thin pool"
    volume, thick = case.volume, case.guest is not None and case.guest.storage == "thick"
    need = (volume.used_bytes or volume.size_bytes) if volume and volume.boots else SMALL_DISK_BYTES
    free = free_bytes(storage, thick=thick)
    if free < need:
        room = f"{free // 1024**2} MiB free, {need // 1024**2} MiB are needed"
        return f"{stays} {room}: prune what is kept aside there, extend it, or place {case.name} elsewhere"
    if storage.pool_metadata_percent >= METADATA_FULL_PERCENT:
        return f"{stays} {storage.pool_metadata_percent:.0f} % of its thin metadata used: extend it"
    return None


def _leave(case: Case) -> Decision | None:
    volume = case.volume
    target = case.view.spec.placement.get(case.name)
    reason = f"moves to {target}" if target else "left the spec"
    if case.here.active:
        return _stop(case, reason)
    if volume is None:
        return None
    if target is None:
        return Do(Quarantine(case.container, reason, case.name, volume.name, volume.epoch, why="removed"))
    if case.consents("rebuild", volume.epoch):
        reason = "a person asked to rebuild it"
        return Do(Quarantine(case.container, reason, case.name, volume.name, volume.epoch, why="rebuilt"))
    if not case.holds_work(volume):
        return Do(Discard(case.container, f"{reason}; it holds no work", case.name, volume.name))
    if any(other.container == target and other.active and other.epoch == volume.epoch for other in case.others):
        # Made anew there by a record that knew nothing of this disk: the one that is in use is the guest's.
        reason = f"the live copy is on {target}"
        return Do(Quarantine(case.container, reason, case.name, volume.name, volume.epoch, why="moved"))
    return Wait(case.subject, f"waiting for {target} to take its disk", STOP_POLL_S)


COMMON: tuple[Rule, ...] = (_in_flight, _paused, _unknown, give_back, name_taken, _stale, hold)
WANTED: tuple[Rule, ...] = (
    _backoff,
    _prune,
    _twin,
    _may_live_elsewhere,
    bring_in,
    lost_disk,
    create,
    _rebuild,
    _outdated,
    _running,
    _start,
)
UNWANTED: tuple[Rule, ...] = (_prune, _put_aside, _backoff, _stay_for_now, _leave)
