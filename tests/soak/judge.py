"""Whether a soak was flat: slopes over its second half, levels at rest before and after, and what must never be.

Pure. The slope is Theil and Sen's (the median of the slopes of all pairs of points): a few peaks, as of a spec that is
read or hosts that are silent at once, do not bend it, and up to 29 % of the points may be anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

from tests.soak.service import Sample

MIB = 1024 * 1024
POINTS_MAX = 400
"""Of a longer series every n-th point is taken: all pairs of 400 are 80,000 slopes."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How fast a series may rise, and why so.

    A rise below `rise_min` over the whole half is taken for noise: what comes and goes with the containers that are in
    trouble at the moment. With `half_s_min` the series is judged in longer soaks only: it needs time to warm up.
    """

    name: str
    of: Callable[[Sample], float]
    per_hour: float
    rise_min: float
    unit: str
    reason: str
    half_s_min: float = 0.0


ROWS_A_GUEST = 3
"""Its claim, its state, and which of its runs answered."""
WARM_S = 300.0
LIMITS = (
    Limit(
        "resident memory", lambda s: s.rss_bytes / MIB, 24.0, 3.0, "MiB",
        "a week of a class would add 4 GiB at this rate; a task, a connection or a parsed look that is kept for each "
        "act of the churn (several KiB, thousands of acts an hour) is above",
        WARM_S,
    ),
    Limit(
        "descriptors", lambda s: s.descriptors, 40.0, 6.0, "",
        "1,024 are allowed by default, one for each container is in use; one that leaks with each of the hundreds of "
        "log-ins of an hour is far above",
    ),
    Limit("threads", lambda s: s.threads, 4.0, 2.0, "", "the pool is full after minutes, and nothing else has threads"),
    Limit(
        "asyncio tasks", lambda s: s.tasks, 120.0, 24.0, "",
        "two for each container, and two more while it is looked at; one that leaks with each act is far above",
    ),
    Limit("SSH connections", lambda s: s.connections, 40.0, 6.0, "", "one for each container that answers, never two"),
    Limit(
        "rows of the record beyond its history and the guests that have a disk",
        lambda s: s.rows - ROWS_A_GUEST * s.claims, 120.0, 40.0, "",
        "the spec's objects and what failed of late; a row for each guest that ever left, or for each act, is far "
        "above",
    ),
    Limit("write-ahead log", lambda s: s.wal_bytes / MIB, 4.0, 5.0, "MiB", "SQLite begins it anew at 1,000 pages"),
    Limit(
        "mean lag of the event loop", lambda s: s.loop_lag_ms, 200.0, 50.0, "ms",
        "a list that each pass walks and nothing shortens makes the loop later and later",
        WARM_S,
    ),
)  # fmt: skip

EVENT_BYTES_MAX = 1024
"""An entry of the history with its indexes; what the record grows by beyond that is not history."""
WARM_UP_BYTES_MAX = 64 * MIB
"""What memory at rest may be above that of a site which has just come up, however short the soak: whatever is loaded
or pooled when it is first needed."""
AT_REST: tuple[tuple[str, Callable[[Sample], float], Callable[[int], float]], ...] = (
    ("descriptors", lambda s: s.descriptors, lambda containers: 2),
    ("asyncio tasks", lambda s: s.tasks, lambda containers: 2 + containers // 20),
    ("SSH connections", lambda s: s.connections, lambda containers: 0),
    ("resident MiB", lambda s: s.rss_bytes // MIB, lambda containers: WARM_UP_BYTES_MAX // MIB),
)
"""What must be back at its level when nothing happens any more, and by how much it may be above: a connection of a
watcher that ends at that very moment; the looks that are under way even in the quietest of several samples."""


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Theil and Sen's slope, per unit of x; 0 for fewer than two points."""
    points = points[:: -(-len(points) // POINTS_MAX)]
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2) if x2 > x1]
    return median(slopes) if slopes else 0.0


def second_half(samples: Sequence[Sample]) -> list[Sample]:
    """By time, not by number."""
    if not samples:
        return []
    middle_s = (samples[0].at_s + samples[-1].at_s) / 2
    return [sample for sample in samples if sample.at_s >= middle_s]


def slopes(samples: Sequence[Sample]) -> dict[str, float]:
    """Of each series with a limit, over the second half, per hour."""
    half = second_half(samples)
    return {limit.name: slope([(s.at_s / 3600, limit.of(s)) for s in half]) for limit in LIMITS}


def rising(samples: Sequence[Sample]) -> list[str]:
    """The series that rise faster than they may."""
    half = second_half(samples)
    hours = (half[-1].at_s - half[0].at_s) / 3600 if half else 0.0
    found = slopes(samples)
    return [
        f"{limit.name}: up by {found[limit.name]:.1f} {limit.unit} an hour, {limit.per_hour:g} may be: {limit.reason}"
        for limit in LIMITS
        if hours * 3600 >= limit.half_s_min
        and found[limit.name] > limit.per_hour
        and found[limit.name] * hours > limit.rise_min
    ]


def not_back(before: Sequence[Sample], after: Sequence[Sample], containers: int) -> list[str]:
    """What is above its level at rest; of several samples the lowest counts."""
    found = []
    for name, of, allowed in AT_REST:
        was, now = min(map(of, before)), min(map(of, after))
        if now > was + allowed(containers):
            found.append(f"{name}: {now:g} at rest, {was:g} before")
    return found


def never(samples: Sequence[Sample], at_rest: Sequence[Sample], containers: int) -> list[str]:
    """What must not last. A child that ended a moment ago may not be waited for yet, and a connection that is lost may
    not be closed before there is another: at rest, and in three samples in a row, all of that is over.
    """
    found = []
    if at_rest and all(sample.zombies for sample in at_rest):
        found.append(f"{at_rest[-1].zombies} children of the service have ended and were not waited for")
    most = max((min(map(_connections, row)) for row in zip(samples, samples[1:], samples[2:], strict=False)), default=0)
    if most > containers:
        found.append(f"{most} SSH connections at once to {containers} containers")
    return found


ROWS_TO_COME = 10
"""Of guests that were given up last: they are forgotten with the next edit of the spec."""


def _connections(sample: Sample) -> int:
    return sample.connections


def record_growth(first: Sample, last: Sample, more_guests: int) -> list[str]:
    """Whether the record grew by more than its history and the guests that came into the spec."""
    rows = last.rows - first.rows - ROWS_A_GUEST * more_guests
    if rows > ROWS_TO_COME:
        return [f"the record has {rows} rows more at rest than the guests of the spec account for"]
    grown, events = last.record_bytes - first.record_bytes, last.events - first.events
    if grown > events * EVENT_BYTES_MAX + MIB:
        return [f"the record grew by {grown} bytes with {events} entries of history"]
    return []


def judge(
    churned: Sequence[Sample],
    before: Sequence[Sample],
    after: Sequence[Sample],
    *,
    containers: int,
    more_guests: int = 0,
) -> list[str]:
    """Everything that is not flat. `before` and `after` were taken at rest, `churned` between them.

    `more_guests` is by how many the spec has more (or fewer) of them than before.
    """
    return [
        *rising(churned),
        *not_back(before, after, containers),
        *never([*before, *churned, *after], after, containers),
        *record_growth(before[-1], after[-1], more_guests),
    ]
