"""A small run from a fresh seed, and the fuzzer itself: it sees what is taken badly, and says how to see it again."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.fuzz.bases import BASES, ODDITIES, Case, Workshop
from tests.fuzz.inputs import CUT_EVERY, make
from tests.fuzz.oracle import Fault, Oracle
from tests.fuzz.run import Settings, Tally, commands, failing, run
from tests.fuzz.shrink import shrink

from vcrecon.core.actions import Discard, Quarantine, StopGuest
from vcrecon.core.decisions import Do, Plan
from vcrecon.core.plan import View, plan_container
from vcrecon.errors import Problem, SpecError
from vcrecon.spec.load import Loaded, load

INPUTS = int(os.environ.get("VCRECON_TEST_FUZZ", "4000"))
"""About half a minute on one core."""


def told(tally: Tally) -> str:
    """What failed, and the line that replays each."""
    lines = [f"{name}\n{fault.detail}" for name, (_, fault) in tally.distinct().items()]
    return "\n".join([f"seed {tally.seed}", *lines, *commands(tally, failing(tally)[:10])])


@pytest.mark.soak
def test_no_input_of_a_fresh_seed_is_taken_badly() -> None:
    tally = run(Settings(secrets.randbelow(10**9)), range(INPUTS))
    assert not tally.faults, told(tally)
    assert tally.inputs == INPUTS
    assert tally.accepted > INPUTS // 20
    assert tally.refused > INPUTS // 4


# --- the inputs ------------------------------------------------------------------------------------------------------


def test_an_input_is_the_same_every_time() -> None:
    assert [make(7, index) for index in range(200)] == [make(7, index) for index in range(200)]
    assert make(7, 1) != make(8, 1)


def test_each_base_is_sound_and_is_put_back_after_a_case(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    for base in BASES.values():
        with workshop.laid_out(Case(base.name, {})) as directory:
            before = load(directory)
        for oddity in ODDITIES:
            changes = dict.fromkeys(["site.yaml", "secrets/root.hash", "known_hosts"], oddity)
            with workshop.laid_out(Case(base.name, changes)), pytest.raises(SpecError):
                load(directory)
        assert load(directory) == before
        assert not before.warnings


def test_truncations_come_in_turn() -> None:
    cuts = [make(7, index) for index in range(0, 5 * CUT_EVERY, CUT_EVERY)]
    assert all(len(case.changes) == 1 for case in cuts)
    assert len({str(case) for case in cuts}) == 5


# --- the fuzzer sees what is taken badly ------------------------------------------------------------------------------


def kinds(tally: Tally) -> set[str]:
    return {fault.kind for _, fault in tally.faults}


def refusing(message: str, line: int = 1):
    def loader(_directory: Path) -> Loaded:
        raise SpecError([Problem("site.yaml", line, line, message)])

    return loader


def crash(_directory: Path) -> Loaded:
    raise KeyError("x")


def compute(_directory: Path) -> Loaded:
    while True:
        pass


def wait(directory: Path) -> Loaded:
    (directory / "fifo").unlink(missing_ok=True)
    os.mkfifo(directory / "fifo")
    with open(directory / "fifo", "rb"):
        raise AssertionError("nobody writes into it")


def eat_memory(_directory: Path) -> Loaded:
    raise AssertionError(len(b"x" * (2 << 30)))


def end(_directory: Path) -> Loaded:
    os._exit(3)


def swallow(_directory: Path) -> Loaded:
    """What no signal ends: here because it takes every exception for its own."""
    while True:
        try:
            time.sleep(0.01)
            sum(range(100_000))
        except BaseException:
            continue


def leak(directory: Path) -> Loaded:
    os.open(directory / "site.yaml", os.O_RDONLY)
    return load(directory)


BAD_LOADERS = {
    "an exception": (crash, "crash", "KeyError"),
    "endless computing": (compute, "hang", "in test_fuzz.py:compute"),
    "endless waiting": (wait, "hang", "in test_fuzz.py:wait"),
    "too much memory": (eat_memory, "crash", "MemoryError"),
    "the end of the process": (end, "crash", "exit code 3"),
    "a loop that no signal ends": (swallow, "hang", "no signal ended it"),
    "a file left open": (leak, "leak", "1 files are left open"),
    "two lines": (refusing("a\nb"), "message", "one line"),
    "a long message": (refusing("a" * 2000), "message", "2000 characters"),
    "Python in a message": (refusing("NoneType has no key"), "message", "NoneType"),
    "a place that is not there": (refusing("a", 9999), "message", "points at no place"),
    "nothing": (refusing(""), "message", "empty"),
}


@pytest.mark.parametrize("name", BAD_LOADERS)
def test_a_loader_that_fails_is_seen_and_the_next_input_is_judged(name: str) -> None:
    loader, kind, words = BAD_LOADERS[name]

    def sometimes(directory: Path) -> Loaded:
        # The second of three inputs: what comes before and behind it is taken well.
        return loader(directory) if b"bad" in (directory / "site.yaml").read_bytes() else load(directory)

    def inputs(_seed: int, index: int) -> Case:
        return Case("small", {"site.yaml": BASES["small"].files["site.yaml"] + b"# bad\n"} if index == 1 else {})

    tally = run(Settings(1, 1.0, 256 << 20, sometimes, make=inputs), range(3))
    assert [(index, fault.kind) for index, fault in tally.faults] == [(1, kind)], told(tally)
    assert words in tally.faults[0][1].detail
    assert tally.inputs == 3
    assert failing(tally) == [1]
    assert commands(tally, failing(tally)) == ["python -m tests.fuzz --seed 1 --only 1"]


def throw_away(view: View, container: str) -> Plan:
    """The planner, with a bug: what leaves the spec is thrown away instead of kept."""
    plan = plan_container(view, container)
    swapped = [
        Do(Discard(d.action.container, d.action.reason, d.action.guest, d.action.volume))
        if isinstance(d, Do) and isinstance(d.action, Quarantine)
        else d
        for d in plan.decisions
    ]
    return replace(plan, decisions=tuple(swapped))


def stop_all(view: View, container: str) -> Plan:
    """The planner, with a bug: a person's word is not waited for."""
    plan = plan_container(view, container)
    stops = [Do(StopGuest(container, "?", guest)) for guest in view.world.on(container)]
    return replace(plan, decisions=(*plan.decisions, *stops)) if view.memory.confirmed_digest is None else plan


def fewer_guests(_seed: int, _index: int) -> Case:
    files = BASES["small"].files
    return Case(
        "small",
        {
            "clusters.yaml": files["clusters.yaml"].replace(b"count: 2", b"count: 1"),
            "deployment.yaml": files["deployment.yaml"].replace(b", b-n2", b"").replace(b", a-n2", b""),
        },
    )


@pytest.mark.parametrize(("planner", "words"), [(throw_away, "the disk holds work"), (stop_all, "S3: stops 6 of 6")])
def test_a_planner_that_does_harm_is_seen(planner, words: str) -> None:
    assert not run(Settings(1, make=fewer_guests), range(1)).faults
    tally = run(Settings(1, planner=planner, make=fewer_guests), range(1))
    assert kinds(tally) == {"deletion"}
    assert words in told(tally)


def test_several_workers_judge_every_input_once() -> None:
    one, two = run(Settings(5), range(60)), run(Settings(5), range(60), jobs=2)
    assert (one.accepted, one.refused) == (two.accepted, two.refused)
    assert one.inputs == 60


def test_a_failure_is_made_small() -> None:
    def picky(directory: Path) -> Loaded:
        if b"-64]" in (directory / "containers.yaml").read_bytes():
            raise KeyError("64")
        return load(directory)

    files = BASES["tutorial"].files
    case = Case("small", {name: files[name] for name in ("containers.yaml", "clusters.yaml", "site.yaml")})
    settings = Settings(1, loader=picky, make=lambda *_: case)
    ((_, fault),) = run(settings, range(1)).faults
    assert shrink(settings, case, fault).changes == {"containers.yaml": b"-64]"}


def test_a_hang_is_not_the_fault_of_a_busy_machine(tmp_path: Path) -> None:
    """A slow loader that computes a little all the time is left alone; see `oracle.deadline`."""

    def slow(directory: Path) -> Loaded:
        for _ in range(30):
            time.sleep(0.05)
            sum(range(100_000))
        return load(directory)

    oracle = Oracle(Workshop(tmp_path), 0.5, slow)
    assert oracle.judge(Case("small", {})).faults == ()


def test_the_command_replays_one_input_and_ends_with_one_line_of_json(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--seed", "7", "--only", "3", "--json", "--save", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    numbers = json.loads(done.stdout.splitlines()[-1])
    assert str(make(7, 3)) in done.stdout
    assert (numbers["seed"], numbers["inputs"], numbers["failing"]) == (7, 1, [])


def test_two_faults_of_one_bug_are_told_once() -> None:
    tally = Tally(
        1, faults=[(5, Fault("crash", "a", "x")), (3, Fault("crash", "a", "y")), (4, Fault("hang", "a", "z"))]
    )
    assert [(index, fault.detail) for index, fault in tally.distinct().values()] == [(3, "y"), (4, "z")]
