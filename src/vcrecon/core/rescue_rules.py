"""The rules for a guest whose disk a person works on, or wants to (rescue). Pure; called by `guest_rules`.

That a disk is held is said by a tag on the disk itself, so hands stay off it also when the record is lost. The
record only knows what a person asked for and what was not done yet.
"""

from __future__ import annotations

from vcrecon.core.actions import Hold, Release
from vcrecon.core.case import Case
from vcrecon.core.decisions import Block, Decision, Do, Rest, Wait
from vcrecon.core.halting import STOP_POLL_S, stop
from vcrecon.core.world import Sighting


def give_back(case: Case) -> Decision | None:
    """A held disk is left alone, whatever the spec or a newer copy says, until its person gives it back."""
    volume, rescue = case.volume, case.memory.rescues.get(case.name)
    if volume is None:
        return None
    # Also when no tag is seen: the person may have thought better of it while the guest was being held.
    mine = volume.held or (_newest(case) and _holder(case) is None)
    if rescue is not None and rescue.wish == "release" and mine:
        return Do(Release(case.container, "the person is done", case.name, volume.name))
    if not volume.held or case.here.active or (rescue is not None and not rescue.done):
        return None
    return Rest(case.subject, _why_it_rests(case))


def hold(case: Case) -> Decision | None:
    """Stop the guest and hold its disk where it lives; elsewhere wait until that disk is given back."""
    volume, rescue = case.volume, case.memory.rescues.get(case.name)
    asked = rescue is not None and rescue.wish == "hold" and not rescue.done
    if volume is None:
        return _held_elsewhere(case, asked=asked)
    if not asked:
        return _runs_though_held(case) if volume.held else None
    if not volume.boots or not _newest(case):
        return None
    if case.here.active:
        return stop(case, "a person asked for its disk (rescue)", urgent=True)
    return Do(Hold(case.container, "a person asked for its disk (rescue)", case.name, volume.name, volume.boots + 1))


def _newest(case: Case) -> bool:
    """Whether no other container that answers shows a newer disk of the guest."""
    return all(other.epoch < case.here.epoch for other in case.others)


def _holder(case: Case) -> Sighting | None:
    """Another container that answers and shows a held disk of the guest."""
    return next((other for other in case.others if other.volume is not None and other.volume.held), None)


def _why_it_rests(case: Case) -> str:
    rescue, target = case.memory.rescues.get(case.name), case.view.spec.placement.get(case.name)
    by = f" by {rescue.by}" if rescue is not None else ""
    later = ""
    if target is None:
        later = "; it left the spec and is put aside after that"
    elif target != case.container:
        later = f"; the spec places it on {target}, where it goes after that"
    return f"held for rescue{by}: vcrecon keeps its hands off until `vcrecon release {case.name}`{later}"


def _held_elsewhere(case: Case, *, asked: bool) -> Decision | None:
    if case.here.active:
        return None
    holder = _holder(case)
    if holder is not None:
        message = f"held for rescue on {holder.container}: it comes here after `vcrecon release {case.name}`"
        return Rest(case.subject, message)
    if asked and case.others:
        where = case.others[0].container
        return Wait(case.subject, f"a person asked for its disk on {where} (rescue)", STOP_POLL_S)
    return None


def _runs_though_held(case: Case) -> Decision | None:
    """Somebody started it by hand: two would write to one disk, and to stop it might lose the guest's work."""
    if not case.here.active:
        return None
    return Block(
        case.subject,
        "held-and-running",
        f"{case.name} runs on {case.container} though its disk is held for rescue: somebody started it by hand. "
        f"Shut it down there; then `vcrecon release {case.name}`",
    )
