"""Anonymous sets of addresses, numbers and ranges as nft prints them: adjacent ones merged. Used by `sim.nftables`."""

from __future__ import annotations

import ipaddress


def merged(items: list[str]) -> list[str]:
    """The items of a set in order; in a set with prefixes or ranges, what touches becomes one.

    A set of single values keeps them, and so does one of anything else than IPv4 addresses and numbers.
    """
    if not any("/" in item or "-" in item for item in items):
        return items
    try:
        ranges = sorted(_bounds(item) for item in items)
    except ValueError:
        return items
    kept = [ranges[0]]
    for first, last, dotted in ranges[1:]:
        if first <= kept[-1][1] + 1:
            kept[-1] = (kept[-1][0], max(last, kept[-1][1]), dotted)
        else:
            kept.append((first, last, dotted))
    return [_text(*each) for each in kept]


def _bounds(item: str) -> tuple[int, int, bool]:
    """First and last value, and whether they are addresses. Raises ValueError for anything else."""
    if "/" in item:
        network = ipaddress.IPv4Network(item, strict=False)
        return int(network[0]), int(network[-1]), True
    first, _, last = item.partition("-")
    if "." in first:
        return int(ipaddress.IPv4Address(first)), int(ipaddress.IPv4Address(last or first)), True
    return int(first), int(last or first), False


def _text(first: int, last: int, dotted: bool) -> str:
    if not dotted:
        return str(first) if first == last else f"{first}-{last}"
    low, high = ipaddress.IPv4Address(first), ipaddress.IPv4Address(last)
    networks = list(ipaddress.summarize_address_range(low, high))
    if len(networks) > 1:
        return f"{low}-{high}"
    return str(low) if first == last else str(networks[0])
