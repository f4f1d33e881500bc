"""Counts, lists and durations in words, the same on the terminal and on the web page. Pure; used all over."""

from __future__ import annotations

from collections.abc import Sequence


def count(number: int, noun: str) -> str:
    """`1 guest`, `2 guests`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(names: Sequence[str], most: int = 12) -> str:
    """Names with commas, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def duration(seconds: float, units: int = 2) -> str:
    """`41 s`, `3 min 5 s`, `2 h 5 min`, `3 d 4 h`: two units say enough; one, on what is shown all the time."""
    total_s = max(0, int(seconds))
    if total_s < 60:
        return f"{total_s} s"
    sizes = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    first = next(index for index, (size, _) in enumerate(sizes) if total_s >= size)
    parts = []
    for size, unit in sizes[first : first + units]:
        number, total_s = divmod(total_s, size)
        if number:
            parts.append(f"{number} {unit}")
    return " ".join(parts)
