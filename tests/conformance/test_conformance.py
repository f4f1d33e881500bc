"""The simulation answers what real containers answered (`captured/`), to every command in every situation.

A capture is made by `python -m tests.lab.conformance --real … --capture FILE`; see tests/lab/conformance.
"""

from __future__ import annotations

import asyncio
import functools
import json
from pathlib import Path

import pytest
from tests.lab.conformance import runner
from tests.lab.conformance.case import Answer
from tests.lab.conformance.cases import all_cases
from tests.lab.conformance.place import Place
from tests.lab.conformance.runner import Row, compare, run_all
from tests.lab.conformance.serving import Offer, Server, the_files
from tests.lab.conformance.simulated import simulated

from vcrecon.spec.model import HypervisorName

CAPTURES = sorted(Path(__file__).parent.glob("captured/*.json"))
EACH = [(path.stem, name) for path in CAPTURES for name in json.loads(path.read_text(encoding="utf-8"))["answers"]]


@functools.cache
def replayed(capture: str) -> tuple[dict[str, Row], list[str]]:
    """Every captured case beside what the simulation answers now, by name; and the simulation's own faults."""
    return asyncio.run(_replay(Path(__file__).parent / f"captured/{capture}.json"))


async def _replay(path: Path) -> tuple[dict[str, Row], list[str]]:
    async with Server() as files:
        real = runner.load(path, files)
        cases = [case for case in all_cases(real.place) if case.name in real.answers]
        async with simulated(real.place) as (host, site):
            answered = await run_all(cases, host, real.place)
            crashes = [*site.hosts["here"].programs.crashes]
    return {row.case.name: row for row in compare(cases, real, answered)}, crashes


@pytest.mark.parametrize(("capture", "name"), EACH, ids=[f"{capture}-{name}" for capture, name in EACH])
def test_the_simulation_answers_as_the_real_host_did(capture: str, name: str) -> None:
    rows, _ = replayed(capture)
    assert name in rows, "the case was renamed or removed: capture again, or take it out of the file"
    assert not rows[name].wrong, rows[name].wrong


@pytest.mark.parametrize("capture", [path.stem for path in CAPTURES])
def test_no_case_crashes_the_simulation(capture: str) -> None:
    _, crashes = replayed(capture)
    assert crashes == []


@pytest.mark.parametrize("hypervisor", ["kvm", "xen"])
def test_every_situation_can_be_made_on_a_simulated_host(hypervisor: HypervisorName) -> None:
    async def run() -> dict[str, Answer]:
        async with Server() as files:
            place = Place(hypervisor, "vg0", "vcpool", "eth0", files)
            async with simulated(place) as (host, site):
                answers = (await run_all(all_cases(place), host, place)).answers
                assert [*site.hosts["here"].programs.crashes] == []
                assert [v.name for v in site.hosts["here"].machine.all_volumes()] == ["vcpool"], "left behind"
                return answers

    answers = asyncio.run(run())
    assert {name: answer.broken for name, answer in answers.items() if answer.broken} == {}


@pytest.mark.parametrize("hypervisor", ["kvm", "xen"])
def test_every_case_has_a_name_of_its_own(hypervisor: HypervisorName) -> None:
    files = Offer("http://files.example", the_files())
    cases = all_cases(Place(hypervisor, "vg", "pool", "eth0", files))
    assert len({case.name for case in cases}) == len(cases) > 0
