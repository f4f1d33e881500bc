"""What must hold: of each call, of each host's journal, and of what is left. Pure but for `canaries`; used by `one`.

A journal is a file on a box to which the steps of `work` add lines while they hold their lock:
`begin ID UPTIME`, some `beat ID`, `end ID SHA256`; an ID is `LOCK.NUMBER`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

NOT_STARTED = frozenset(
    {"dns", "refused", "no-route", "timeout", "silent", "protocol", "no-host-key", "host-key-changed"}
    | {"permission-denied", "client-key", "key-exchange", "channel-refused"}
)
"""Nothing reached the host when a call ends with one of these."""
KINDS = NOT_STARTED | {"connection-lost", "deadline", "closed", "output-too-large", "tool-died", "garbage"}
"""Those that `shell.transport` names, and `garbage` of `host.look`."""
LATE_S = 3.0
"""How far behind its deadline a call may end on a busy machine."""

EXCUSED: Mapping[str, frozenset[str]] = {
    "quick step": frozenset({"status 75"}),
    **dict.fromkeys(("long step", "copy", "digest", "prove", "fetch"), frozenset({"status 75", "deadline"})),
}
"""What may come without a fault: two workers want one lock, and some deadlines are too short on purpose."""

_LINE = re.compile(r"(?P<what>begin|beat|end) (?P<id>(?P<lock>[a-z]+)\.[0-9]+)(?: (?P<rest>[0-9a-f.]+))?")


@dataclass(frozen=True, slots=True)
class Call:
    """A call that ended. `outcome` is `ok`, `status N`, or the kind of a HostError. Times as of `time.monotonic`."""

    what: str
    boxes: tuple[str, ...]
    began_s: float
    ended_s: float
    deadline_s: float
    outcome: str


@dataclass(frozen=True, slots=True)
class Told:
    """What the caller of a step knows of it: its outcome, when it had that (uptime), and the digest of its input."""

    outcome: str
    at_s: float
    sha256: str


def judge_call(call: Call, *, fair: bool, strange: bool, lost_s: float = 0.0) -> list[str]:
    """`fair`: no fault was near; `strange`: another machine answered in the place of the box all the while;
    `lost_s`: for how long this machine did not keep pace meanwhile."""
    took_s = call.ended_s - call.began_s
    where = f"{call.what} on {'+'.join(call.boxes)}"
    found = []
    if took_s > call.deadline_s + LATE_S + lost_s:
        found.append(f"late: {where} took {took_s:.1f} s with a deadline of {call.deadline_s:g} s ({call.outcome})")
    known = call.outcome == "ok" or call.outcome.startswith("status ") or call.outcome in KINDS
    if not known:
        found.append(f"strange error: {where}: {call.outcome}")
    if fair and call.outcome != "ok" and call.outcome not in EXCUSED.get(call.what, ()):
        found.append(f"failed without a fault: {where}: {call.outcome} after {took_s:.2f} s")
    if strange and (call.outcome == "ok" or call.outcome.startswith("status ")):
        found.append(f"S9: {where} was answered by a host with another key")
    return found


def judge_journal(text: str, told: Mapping[str, Told]) -> tuple[list[str], int]:
    """What is wrong with a box's journal, and how many steps began after their callers had given up on them."""
    found: list[str] = []
    begun: Counter[str] = Counter()
    ended: dict[str, list[str]] = {}
    holder: dict[str, str] = {}
    late = 0
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            found.append(f"journal: torn line {line!r}")
            continue
        step, lock, rest = match["id"], match["lock"], match["rest"] or ""
        if step not in told:
            found.append(f"journal: nobody asked for {step}")
        elif match["what"] == "begin":
            begun[step] += 1
            holder[lock] = step
            late += float(rest) > told[step].at_s
        elif holder.get(lock) != step:
            found.append(f"overlap: {step} still worked when {holder.get(lock)} held the lock")
        if match["what"] == "end":
            ended.setdefault(step, []).append(rest)
    for step, knowledge in told.items():
        found += _judge_step(step, knowledge, begun[step], ended.get(step, []))
    if text and not text.endswith("\n"):
        found.append("journal: its last line is torn")
    return found, late


def _judge_step(step: str, told: Told, begun: int, ended: list[str]) -> Iterable[str]:
    if begun > 1:
        yield f"repeated: {step} ran {begun} times ({told.outcome})"
    if told.outcome == "ok" and (begun, ended) != (1, [told.sha256]):
        yield f"lost: {step} was said to be done, and began {begun} times and ended with {ended}, not {told.sha256}"
    if (told.outcome in NOT_STARTED or told.outcome == "status 75") and begun:
        yield f"not so: {step} ended with {told.outcome!r}, and ran"


def canaries(canary: str, texts: Mapping[str, str]) -> list[str]:
    """The names of the texts in which a secret shows (S10)."""
    return [f"S10: a secret shows in {name}" for name, text in texts.items() if canary in text]
