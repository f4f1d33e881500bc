"""How long installs take, and so when those that wait may begin. Pure; used by the rules, `controls` and `controller`.

The rate is measured, not assumed: an estimate comes from installs that ended, and before the first has ended there
is none.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from vcrecon.core.installs import Progress

SAMPLES = 16
"""How many of the last installs count: the network of an hour ago is not today's."""


def begins_in_s(place: int, slots: int, elapsed_s: Sequence[float], durations_s: Sequence[float]) -> float | None:
    """Seconds until the install at `place` in the queue (the first is 1) begins; None before one has ended.

    `elapsed_s` says for each install under way how long ago it began; `durations_s` how long those took that ended.
    """
    if not durations_s or slots < 1:
        return None
    typical_s = statistics.median(durations_s[-SAMPLES:])
    free = [min(typical_s, max(0.0, typical_s - elapsed)) for elapsed in elapsed_s]
    free += [0.0] * (slots - len(free))
    # Where the limit was lowered, the first to end make no room.
    free = sorted(free)[-slots:]
    # All take equally long, so slots become free in the same order again and again.
    rounds, slot = divmod(place - 1, slots)
    return free[slot] + rounds * typical_s


def eta_s(progress: Progress, now_s: float, durations_s: Sequence[float] = ()) -> float | None:
    """Seconds until an install ends: by its own percentage, else as long as others took; None when unknown."""
    elapsed_s = max(0.0, now_s - progress.began_at_s)
    if progress.percent >= 5.0:
        by_itself = elapsed_s * (100.0 - progress.percent) / progress.percent
        return min(by_itself, 86400.0)
    if durations_s:
        return max(0.0, statistics.median(durations_s[-SAMPLES:]) - elapsed_s)
    return None


def progress_words(progress: Progress, left_s: float | None) -> str:
    """`download 43 %, about 2 min left`."""
    percent = f" {progress.percent:.0f} %" if progress.percent else ""
    return f"{progress.step}{percent}" + (f", about {about(left_s)} left" if left_s is not None else "")


def place_words(place: int, total: int, seconds: float | None) -> str:
    """`place 3 of 7, about 4 min`: what a machine that waits shows on its console."""
    return f"place {place} of {total}" + (f", about {about(seconds)}" if seconds is not None else "")


def about(seconds: float) -> str:
    """A duration no finer than an estimate deserves."""
    return f"{max(5, 5 * round(seconds / 5)):.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
