"""Any history of accidents: S1 and S2 hold at every step on the hosts themselves, and it ends in order."""

from __future__ import annotations

import os

from histories import CONTAINERS, History
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vcrecon.core.decisions import Block, Rest

GUESTS = ("alice", "bob", "carol", "dave")
MANY = int(os.environ.get("VCRECON_TEST_HISTORIES", "150"))

containers = st.sampled_from(CONTAINERS)
guests = st.sampled_from(GUESTS[:2])
events = st.one_of(
    st.tuples(st.just("pass"), containers, st.sampled_from(["ok", "ok", "ok", "fails", "cut-before-look"])),
    st.tuples(st.just("round"), st.permutations(CONTAINERS)),
    st.tuples(st.just("place"), guests, st.one_of(containers, st.none())),
    st.tuples(st.just("kill"), containers, guests, st.sampled_from(["crashed", "shutdown"])),
    st.tuples(st.just("cut"), containers),
    st.tuples(st.just("answer"), containers),
    st.tuples(st.just("vague"), containers, st.sampled_from(["storage", "domains"])),
    st.tuples(st.just("fence"), containers),
    st.tuples(st.just("power-off"), containers),
    st.tuples(st.just("lose-disk"), containers, guests),
    st.tuples(st.just("consent"), st.sampled_from(["rebuild", "prune"]), guests),
    st.tuples(st.just("rescue"), guests, st.sampled_from(["hold", "hold", "release"]), st.integers(0, 2)),
    st.just(("confirm",)),
    st.just(("session",)),
    st.tuples(st.just("later"), st.sampled_from([3.0, 70.0, -100.0])),
)


def live_through(history: History, event: tuple) -> None:  # type: ignore[type-arg]
    site = history.site
    match event:
        case ("pass", container, outcome):
            history.run_pass(container, outcome)
        case ("round", order):
            for container in order:
                history.run_pass(container)
        case ("place", guest, container):
            history.place(guest, container)
        case ("kill", container, guest, reason):
            history.kill(container, guest, reason)
        case ("cut", container):
            history.cut.add(container)
        case ("answer", container):
            history.cut.discard(container)
            history.vague.pop(container, None)
        case ("vague", container, part):
            history.vague[container] = part
        case ("fence", container):
            history.cut.add(container)
            history.look(container)
            history.fence(container)
        case ("power-off", container):
            history.power_off(container)
        case ("lose-disk", container, guest):
            history.lose_disk(container, guest)
        case ("consent", kind, guest):
            history.consent(kind, guest)
        case ("rescue", guest, wish, rounds):
            history.rescue(guest, wish)
            for container in CONTAINERS * rounds:
                history.run_pass(container)
        case ("confirm",):
            history.confirm()
        case ("session",):
            history.begin_session()
        case ("later", seconds):
            site.now_s += seconds


def assert_in_order(history: History) -> None:
    """Every guest of the spec runs where it belongs, on one live disk, or its container says what blocks it."""
    for guest, container in history.placement.items():
        runs = [c for c in CONTAINERS if history.active(c, guest)]
        if container is None:
            assert not runs, f"{guest} left the spec and still runs on {runs}"
            continue
        decision = history.site.decision(container, guest)
        if isinstance(decision, Block):
            assert decision.reason in {"disk-lost", "two-disks", "only-copy"}, decision
            continue
        assert isinstance(decision, Rest), f"{guest}: {decision}\n  " + "\n  ".join(history.log[-25:])
        assert runs == [container], f"{guest} runs on {runs}: {decision}"


@settings(max_examples=MANY, derandomize=MANY == 150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    placement=st.fixed_dictionaries(dict.fromkeys(GUESTS[:2], containers)),
    session=st.sampled_from(["running", "preparing"]),
    settled_first=st.booleans(),
    history_events=st.lists(events, max_size=25),
)
def test_no_history_breaks_a_safety_rule_and_each_ends_in_order(
    placement: dict[str, str | None],
    session: str,
    settled_first: bool,
    history_events: list[tuple],  # type: ignore[type-arg]
) -> None:
    history = History(placement, session)
    if settled_first:
        history.recover()
    for event in history_events:
        live_through(history, event)
    history.recover()
    assert_in_order(history)
