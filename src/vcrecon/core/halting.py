"""How a guest is stopped: asked first, and after the grace time its plug is pulled. Pure.

Called by the rules in `guest_rules` and `rescue_rules`.
"""

from __future__ import annotations

from vcrecon.core.actions import StopGuest
from vcrecon.core.case import Case
from vcrecon.core.decisions import Decision, Do, Wait

STOP_POLL_S = 2.0


def stop(case: Case, reason: str, *, urgent: bool = False) -> Decision:
    """Ask first; pull the plug when it has not stopped within the grace time. `urgent`: not behind the moves."""
    ask = Do(StopGuest(case.container, reason, case.name, urgent=urgent))
    intent = case.memory.intents.get(case.subject)
    if intent is None or intent.action != StopGuest.kind:
        return ask
    waited_s = case.view.now_s - intent.since_s
    if waited_s < 0:  # the clock was set back: ask again, which sets the time anew
        return ask
    if waited_s < case.view.spec.site.stop_grace_s:
        return Wait(case.subject, f"asked to power off {waited_s:.0f} s ago: {reason}", STOP_POLL_S)
    return Do(StopGuest(case.container, f"did not stop within {waited_s:.0f} s: {reason}", case.name, force=True))
