"""All cases for a place, in the order in which they run."""

from __future__ import annotations

from tests.lab.conformance import context_cases, disk_cases, guest_cases, network_cases, rescue_cases, system_cases
from tests.lab.conformance.case import Case
from tests.lab.conformance.place import Place

FAMILIES = (
    system_cases.cases,
    network_cases.cases,
    disk_cases.cases,
    context_cases.cases,
    rescue_cases.cases,
    guest_cases.cases,
)


def all_cases(place: Place) -> tuple[Case, ...]:
    """Every case; names are unique."""
    found = tuple(case for family in FAMILIES for case in family(place))
    names = [case.name for case in found]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice, f"two cases have one name: {sorted(twice)}"
    return found
