"""A leak of each kind is seen, and what is no leak is let pass."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.soak.judge import MIB, judge, slope
from tests.soak.lives import Lives
from tests.soak.service import Sample

CONTAINERS = 200
FLAT = Sample(
    at_s=0.0, rss_bytes=180 * MIB, descriptors=220, threads=8, tasks=420, connections=CONTAINERS, zombies=0, rows=3500,
    claims=1000, events=5000, record_bytes=4 * MIB, wal_bytes=4 * MIB, pass_ms=200.0, passes=20.0, loop_lag_ms=15.0,
    cpu_share=0.3, scrape_ms=60.0,
)  # fmt: skip
REST = [FLAT] * 5


def half_an_hour(rise: Callable[[float], dict[str, float]] = lambda hours: {}) -> list[Sample]:
    """A sample each five seconds, as noisy as real ones; `rise` gives what grows, by the hours that have passed."""
    rng = random.Random(1)
    samples = []
    for number in range(360):
        hours = number * 5 / 3600
        down = rng.choice([0, 0, 1, 2, 5, 10])
        noisy = replace(
            FLAT,
            at_s=1000.0 + number * 5,
            rss_bytes=FLAT.rss_bytes + rng.randrange(MIB),
            descriptors=FLAT.descriptors - down + rng.randrange(6),
            tasks=FLAT.tasks - 4 * down + rng.randrange(40),
            connections=CONTAINERS - down,
            rows=FLAT.rows + rng.randrange(60),
            events=FLAT.events + int(20_000 * hours),
            record_bytes=FLAT.record_bytes + int(20_000 * hours) * 200,
            loop_lag_ms=rng.choice([8.0, 12.0, 20.0, 300.0]),
        )
        samples.append(
            replace(noisy, **{k: getattr(noisy, k) + type(getattr(noisy, k))(v) for k, v in rise(hours).items()})
        )
    return samples


def test_a_noisy_half_hour_without_a_leak_is_flat() -> None:
    assert judge(half_an_hour(), REST, REST, containers=CONTAINERS) == []


@pytest.mark.parametrize(
    ("name", "per_hour", "words"),
    [
        ("rss_bytes", 36 * MIB, "resident memory"),
        ("descriptors", 80, "descriptors"),
        ("threads", 10, "threads"),
        ("tasks", 300, "asyncio tasks"),
        ("rows", 300, "rows of the record"),
        ("wal_bytes", 40 * MIB, "write-ahead log"),
        ("loop_lag_ms", 400.0, "mean lag"),
    ],
)
def test_a_series_that_rises_all_the_time_is_seen(name: str, per_hour: float, words: str) -> None:
    (found,) = judge(half_an_hour(lambda hours: {name: per_hour * hours}), REST, REST, containers=CONTAINERS)
    assert words in found


def test_rows_of_guests_whose_disks_are_kept_are_no_leak() -> None:
    kept = half_an_hour(lambda hours: {"rows": 300 * hours, "claims": 100 * hours})
    assert judge(kept, REST, REST, containers=CONTAINERS) == []


def test_connections_that_pile_up_are_seen_twice() -> None:
    found = judge(half_an_hour(lambda hours: {"connections": 60 * hours}), REST, REST, containers=CONTAINERS)
    assert [words.split()[0] for words in found] == ["SSH", str(max(int(words.split()[0]) for words in found[1:]))]


def test_memory_that_rises_only_while_the_service_warms_up_is_no_leak() -> None:
    assert (
        judge(half_an_hour(lambda hours: {"rss_bytes": min(hours, 0.2) * 200 * MIB}), REST, REST, containers=200) == []
    )


def test_a_peak_of_a_few_minutes_does_not_bend_the_slope() -> None:
    peak = half_an_hour(lambda hours: {"rss_bytes": 300 * MIB * (hours > 0.45)})
    assert judge(peak, REST, REST, containers=CONTAINERS) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"descriptors": 223}, "descriptors: 223 at rest, 220 before"),
        ({"tasks": 433}, "asyncio tasks: 433 at rest, 420 before"),
        ({"connections": 201}, "SSH connections: 201 at rest, 200 before"),
        ({"rss_bytes": 250 * MIB}, "resident MiB: 250 at rest, 180 before"),
        ({"zombies": 1}, "1 children of the service have ended and were not waited for"),
        ({"rows": 3511}, "the record has 11 rows more at rest than the guests of the spec account for"),
        ({"record_bytes": 6 * MIB}, "the record grew by 2097152 bytes with 0 entries of history"),
    ],
)
def test_what_is_not_back_at_its_level_at_rest_is_seen(change: dict[str, int], words: str) -> None:
    assert words in judge(half_an_hour(), REST, [replace(FLAT, **change)] * 5, containers=CONTAINERS)


def test_one_watcher_that_ends_at_that_very_moment_is_no_leak() -> None:
    after = [replace(FLAT, descriptors=240, tasks=440, zombies=1), *REST]
    assert judge(half_an_hour(), REST, after, containers=CONTAINERS) == []


def test_rows_of_guests_that_came_into_the_spec_are_no_leak() -> None:
    after = [replace(FLAT, rows=FLAT.rows + 15)] * 5
    assert judge(half_an_hour(), REST, after, containers=CONTAINERS, more_guests=5) == []


def test_the_slope_is_the_median_of_all_pairs() -> None:
    points = [(float(x), 2.0 * x) for x in range(100)]
    points[7::5] = [(x, 1e9) for x, _ in points[7::5]]
    assert slope(points) == pytest.approx(2.0)
    assert slope(points[:1]) == 0.0


class TestLives:
    def test_two_copies_at_once_on_hosts_of_two_processes_are_seen(self) -> None:
        lives = Lives([])
        for line in [(1.0, "start", "c1", "g"), (5.0, "start", "c2", "g"), (5.5, "end", "c1", "g")]:
            lives.take(*line)
        assert lives.twice() == ["g began on c2 0.500 s before it ended on c1"]

    def test_one_that_runs_on_while_another_begins_is_seen(self) -> None:
        lives = Lives([])
        for line in [(1.0, "start", "c1", "g"), (5.0, "start", "c2", "g")]:
            lives.take(*line)
        assert lives.twice() == ["g began on c2 inf s before it ended on c1"]

    def test_a_move_is_none(self) -> None:
        lives = Lives([])
        for line in [(1.0, "start", "c1", "g"), (5.0, "end", "c1", "g"), (5.1, "start", "c2", "g")]:
            lives.take(*line)
        assert lives.twice() == []
        assert lives.hosts("g") == ["c2"]
        assert lives.starts == {"g": 2}
