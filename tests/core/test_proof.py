"""A copy of a guest begins only with a proof for every place where another may live (S1); evidence alone makes one."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import MISSING, fields, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_random_worlds import CONTAINERS, MANY, sites
from worlds import NOW_S, ASite, a_spec, arriving, kept_disk, running, seen, silent, students_disk, told

import vcrecon
from vcrecon.core import proof
from vcrecon.core.actions import ACTIONS, ActivateCopy, BeginsCopy, CreateVolume, Restore, StartGuest
from vcrecon.core.decisions import Wait
from vcrecon.core.memory import Fence
from vcrecon.core.observation import UNKNOWN, Lease, Seen
from vcrecon.core.plan import View
from vcrecon.core.proof import (
    Attested,
    Doubt,
    NotElsewhere,
    PoweredOff,
    SeenStopped,
    SeenWithout,
    StoppedElsewhere,
    Wiped,
)

SOURCE = Path(vcrecon.__file__).parent
PROOFS = {
    node.name
    for node in ast.parse((SOURCE / "core/proof.py").read_text(encoding="utf-8")).body
    if isinstance(node, ast.ClassDef) and any(isinstance(b, ast.Name) and b.id == "_Sealed" for b in node.bases)
}
THERE = {"c1": [], "c2": ["alice"], "c3": []}


def view(site: ASite) -> View:
    return View(site.wanted, site.world, site.memory, site.now_s, site.busy, site.boot)


def begins(site: ASite, container: str = "c2") -> BeginsCopy:
    action = site.action(container, "alice")
    assert isinstance(action, BeginsCopy)
    return action


# --- another master -------------------------------------------------------------------------------------------------

ANOTHER = Lease("def", 3, 7, "m2:/state", ours=False)


def test_no_disk_is_made_while_another_master_looks_after_a_container() -> None:
    """It may just be making one there, for a spec of its own."""
    site = ASite(a_spec(THERE), seen("c1", lease=ANOTHER), seen("c2"), seen("c3"))
    assert proof.stopped_elsewhere(view(site), "alice", "c2") == Doubt("c1", "other-master")
    assert site.block("c2", "alice").reason == "other-master"
    site.observe(silent("c1"))
    assert site.block("c2", "alice").reason == "may-live-elsewhere"
    site.fence("c1")
    assert isinstance(begins(site), CreateVolume)


def test_it_is_made_once_that_one_is_gone() -> None:
    site = ASite(a_spec(THERE), seen("c1", lease=ANOTHER), seen("c2"), seen("c3"))
    site.observe(seen("c1", lease=replace(ANOTHER, ours=True)))
    assert isinstance(begins(site), CreateVolume)


def test_a_guest_of_ours_is_started_again_beside_another_master() -> None:
    """Who sees its disk here makes none elsewhere."""
    site = ASite(a_spec(THERE), seen("c1", lease=ANOTHER), seen("c2", [students_disk("alice")]), seen("c3"))
    assert isinstance(begins(site), StartGuest)


def test_what_another_master_s_container_showed_is_not_believed_of_a_guest_that_may_live_there() -> None:
    site = ASite(a_spec(THERE), seen("c1", lease=ANOTHER), seen("c2", [students_disk("alice")]), seen("c3"))
    site.claim("alice", "c1", 2)
    assert proof.not_elsewhere(view(site), "alice", "c2") == Doubt("c1", "other-master")


# --- only evidence makes a proof ----------------------------------------------------------------------------------


def test_the_proofs_are_these() -> None:
    kinds = {SeenWithout, SeenStopped, PoweredOff, Attested, Wiped, StoppedElsewhere, NotElsewhere}
    assert {kind.__name__ for kind in kinds} == PROOFS


def uses(tree: ast.AST) -> Iterator[str]:
    """Ways to come by a proof that is not from evidence."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            made = (
                {getattr(part, "id", getattr(part, "attr", "")) for part in node.args} if name == "__new__" else {name}
            )
            yield from (f"line {node.lineno}: makes {kind}" for kind in made & PROOFS)
        if isinstance(node, ast.ClassDef):
            found = {getattr(base, "id", getattr(base, "attr", "")) for base in node.bases}
            yield from (f"line {node.lineno}: a class of {name}" for name in found & (PROOFS | {"_Sealed"}))
        words = {getattr(node, "id", ""), getattr(node, "attr", ""), getattr(node, "name", "")}
        if words & {"_SEAL", "_Sealed", "__setattr__"}:
            yield f"line {getattr(node, 'lineno', 0)}: reaches for {words}"


def test_nothing_outside_the_module_makes_a_proof() -> None:
    found = {
        str(path.relative_to(SOURCE)): made
        for path in SOURCE.rglob("*.py")
        if path != SOURCE / "core/proof.py" and (made := list(uses(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert found == {}


@pytest.mark.parametrize(
    "text",
    [
        "NotElsewhere(object(), 'alice', 'c2', ())",
        "proof.Attested(None, 'c1', 1.0, 'me')",
        "from vcrecon.core.proof import _SEAL",
        "proof._SEAL",
        "object.__new__(NotElsewhere)",
        "class Mine(NotElsewhere): pass",
        "object.__setattr__(found, 'places', ())",
    ],
)
def test_that_test_would_see_it(text: str) -> None:
    assert list(uses(ast.parse(text)))


def test_nobody_else_can_make_one_at_run_time() -> None:
    with pytest.raises(TypeError, match="made from evidence"):
        NotElsewhere(object(), "alice", "c2", ())
    with pytest.raises(TypeError, match="made from evidence"):
        Attested(None, "c1", NOW_S, "me")
    made = begins(ASite(a_spec(THERE), seen("c1"), seen("c2"), seen("c3"))).elsewhere
    with pytest.raises((TypeError, ValueError)):
        replace(made, guest="bob")


@pytest.mark.parametrize("kind", [CreateVolume, ActivateCopy, Restore, StartGuest])
def test_an_action_that_begins_a_copy_cannot_be_made_without_a_proof(kind: type[BeginsCopy]) -> None:
    assert issubclass(kind, BeginsCopy)
    with pytest.raises(TypeError, match="elsewhere"):
        kind("c2", "why", "alice")  # type: ignore[call-arg]
    (field,) = [f for f in fields(kind) if f.name == "elsewhere"]
    assert (field.default, field.default_factory) == (MISSING, MISSING)


def test_every_action_after_which_the_record_claims_a_copy_begins_one() -> None:
    """The ledger writes a claim for exactly these; see `shell.ledger.begins`."""
    ledger = ast.parse((SOURCE / "shell/ledger.py").read_text(encoding="utf-8"))
    method = next(n for n in ast.walk(ledger) if isinstance(n, ast.FunctionDef) and n.name == "begins")
    named = {n.id for n in ast.walk(method) if isinstance(n, ast.Name)} & {a.__name__ for a in ACTIONS}
    assert named == {a.__name__ for a in ACTIONS if issubclass(a, BeginsCopy)}


def test_a_start_takes_nothing_less_than_a_copy_nowhere_else() -> None:
    kinds = {f.name: f.type for f in fields(StartGuest)}
    assert kinds["elsewhere"] == "NotElsewhere"


def test_a_proof_serves_one_guest_on_one_container() -> None:
    made = begins(ASite(a_spec(THERE), seen("c1"), seen("c2"), seen("c3"))).elsewhere
    for container, guest in (("c1", "alice"), ("c2", "bob")):
        with pytest.raises(ValueError, match="the proof is of"):
            CreateVolume(container, "why", guest, 1, elsewhere=made)


def test_a_proof_does_not_make_two_equal_actions_differ() -> None:
    site = ASite(a_spec(THERE), seen("c1"), seen("c2"), seen("c3"))
    site.claim("alice", "c1", touched=False)
    before = begins(site)
    site.observe(replace(site.world.current["c1"], at_s=NOW_S + 60))
    after = begins(site)
    assert (before, hash(before)) == (after, hash(after))
    assert before.elsewhere != after.elsewhere
    assert copy.deepcopy(after).elsewhere == after.elsewhere
    assert f"at_s={NOW_S + 60}" in repr(after)


# --- what evidence there is ---------------------------------------------------------------------------------------


def test_a_guest_known_nowhere_else_needs_no_place_proved() -> None:
    assert begins(ASite(a_spec(THERE), seen("c1"), seen("c2"), seen("c3"))).elsewhere.places == ()


def test_where_the_record_says_it_was_it_is_seen_to_be_gone() -> None:
    site = ASite(a_spec(THERE), seen("c1"), seen("c2"), seen("c3"))
    site.claim("alice", "c1", touched=False)
    (place,) = begins(site).elsewhere.places
    assert isinstance(place, SeenWithout)
    assert (place.container, place.at_s, place.boot_id[-1]) == ("c1", NOW_S, "1")


def test_a_copy_comes_into_use_while_its_original_is_seen_stopped() -> None:
    site = ASite(
        a_spec(THERE), seen("c1", [students_disk("alice", 3)]), seen("c2", [arriving("alice", (3, 1))]), seen("c3")
    )
    action = begins(site)
    assert isinstance(action, ActivateCopy)
    (place,) = action.elsewhere.places
    assert isinstance(place, SeenStopped)
    assert (place.container, place.epoch) == ("c1", 3)
    assert proof.not_elsewhere(view(site), "alice", "c2") == Doubt("c1", "holds")


@pytest.mark.parametrize(("how", "kind"), [("word", Attested), ("power", PoweredOff)])
def test_a_fence_says_whose_word_it_is(how: str, kind: type) -> None:
    site = ASite(a_spec(THERE), seen("c1", [students_disk("alice")]), silent("c1"), seen("c2"), seen("c3"))
    site.memory.fences["c1"] = Fence("c1", NOW_S + 1, "the night watch", how)  # type: ignore[arg-type]
    (place,) = begins(site).elsewhere.places
    assert isinstance(place, kind)
    assert (place.container, place.by) == ("c1", "the night watch")  # type: ignore[attr-defined]


def test_a_disk_that_is_being_made_anew_holds_none() -> None:
    site = ASite(a_spec(THERE), silent("c1"), seen("c2"), seen("c3"))
    site.memory.claims_complete = False
    site.ticket("c1", "claimed")
    site.says("c1", "raid")
    (place,) = begins(site).elsewhere.places
    assert isinstance(place, Wiped)


def test_silence_is_no_evidence() -> None:
    site = ASite(a_spec(THERE), seen("c1", [students_disk("alice")], [running("alice")]), silent("c1"), seen("c2"))
    for prove in (proof.stopped_elsewhere, proof.not_elsewhere):
        assert prove(view(site), "alice", "c2") == Doubt("c1", "silent")


# --- holes that the type found ------------------------------------------------------------------------------------


def test_no_disk_is_made_while_the_guest_runs_elsewhere_without_a_disk_that_we_know() -> None:
    """Its claim would be here: once that container went silent, and vcrecon began anew, the guest would run twice."""
    site = ASite(a_spec(THERE), seen("c1", [], [running("alice")]), seen("c2"), seen("c3"))
    site.claim("alice", "c1", touched=False)
    decision = site.decision("c2", "alice")
    assert isinstance(decision, Wait)
    assert decision.message == "waiting for it to stop on c1"
    begun_anew = ASite(a_spec(THERE), silent("c1"), seen("c2"), seen("c3"), memory=site.memory)
    assert begun_anew.block("c2", "alice").reason == "may-live-elsewhere"


def test_a_disk_put_aside_is_not_taken_back_while_the_guest_runs_elsewhere() -> None:
    site = ASite(a_spec(THERE), seen("c1", [], [running("alice")]), seen("c2", [kept_disk("alice")]), seen("c3"))
    assert isinstance(site.decision("c2", "alice"), Wait)


def test_a_fence_ends_when_its_container_is_seen_though_the_record_could_not_be_written() -> None:
    site = ASite(a_spec(THERE), seen("c1", [students_disk("alice")]), silent("c1"), seen("c2"), seen("c3"))
    fence, seen_s = Fence("c1", NOW_S + 1, "operator"), site.memory.seen["c1"]
    site.observe(seen("c1", [students_disk("alice")], [running("alice")], at_s=NOW_S + 5))
    site.memory.fences["c1"], site.memory.seen["c1"] = fence, seen_s  # the disk was full
    site.observe(silent("c1"))
    assert site.block("c2", "alice").reason == "may-live-elsewhere"


def test_a_fence_does_not_speak_for_a_container_that_answers_and_shows_nothing() -> None:
    site = ASite(a_spec(THERE), seen("c1"), silent("c1"), seen("c2"), seen("c3"))
    site.claim("alice", "c1", touched=False)
    site.observe(seen("c1", storage=UNKNOWN, domains=UNKNOWN))
    site.memory.fences["c1"] = Fence("c1", NOW_S + 1, "operator")  # the record could not be written
    assert site.block("c2", "alice").reason == "may-live-elsewhere"


def test_on_a_new_record_a_container_that_answered_and_showed_nothing_may_hold_any_guest() -> None:
    site = ASite(a_spec(THERE), seen("c1", storage=UNKNOWN, domains=UNKNOWN), seen("c2"), seen("c3"))
    site.memory.claims_complete = False
    block = site.block("c2", "alice")
    assert (block.reason, "does not show its guests" in block.message) == ("may-live-elsewhere", True)
    site.observe(silent("c1"))
    assert site.block("c2", "alice").reason == "may-live-elsewhere"
    site.observe(seen("c1"))
    assert isinstance(site.action("c2", "alice"), CreateVolume)


def test_a_container_that_left_the_spec_before_a_new_record_saw_it_may_hold_any_guest() -> None:
    site = ASite(a_spec({"c1": [], "c2": ["alice"]}), seen("c1"), seen("c2"))
    site.memory.claims_complete, site.memory.unshown["c3"] = False, NOW_S - 60
    block = site.block("c2", "alice")
    assert (block.reason, "may live on c3, which is not in the spec" in block.message) == ("may-live-elsewhere", True)
    site.memory.fences["c3"] = Fence("c3", NOW_S, "operator")
    action = site.action("c2", "alice")
    assert isinstance(action, CreateVolume)
    assert action.epoch == int(NOW_S), "above the number of any disk that c3 may come back with"


def test_what_a_container_showed_to_the_master_before_says_nothing_of_it_now() -> None:
    """The first master moved alice to c3 after the export, where she runs; c3 is silent, and the spec names c2."""
    site = ASite(a_spec(THERE), seen("c1"), seen("c2"), silent("c3"))
    site.claim("alice", "c1", touched=False)
    site.memory.claims_complete, site.memory.seen["c3"] = False, NOW_S - 86400
    assert site.block("c2", "alice").reason == "may-live-elsewhere"


# --- any world ----------------------------------------------------------------------------------------------------


def may_live(site: ASite, guest: str, container: str) -> set[str]:
    """Said again, apart from `core.proof`: every place that held the guest when last seen, or may hold it unseen."""
    found = set()
    for place in CONTAINERS:
        known = site.world.known(place)
        trace = site.world.on(place).get(guest)
        disk = trace.volume if trace is not None else None
        if trace is not None and (trace.active or (disk is not None and disk.live)):
            found.add(place)
        if not site.memory.claims_complete and known is None:
            found.add(place)
    claim = site.memory.claims.get(guest)
    return (found | ({claim.container} if claim is not None else set())) - {container}


def judge(site: ASite, action: BeginsCopy) -> None:
    proved = {place.container: place for place in action.elsewhere.places}
    missing = may_live(site, action.guest, action.container) - proved.keys()
    assert not missing, f"S1: {told(action)} without a proof for {missing}"
    for name, place in proved.items():
        shown, trace = site.world.current.get(name), site.world.on(name).get(action.guest)
        if isinstance(place, SeenWithout | SeenStopped):
            assert isinstance(shown, Seen)
            assert UNKNOWN not in (shown.storage, shown.domains)
            assert (place.at_s, place.boot_id) == (shown.at_s, shown.boot_id)
            assert trace is None or not trace.active
            assert isinstance(place, SeenStopped) or trace is None or not trace.live
        elif isinstance(place, PoweredOff | Attested):
            fence = site.memory.fences[name]
            assert not isinstance(shown, Seen)
            assert (place.at_s, place.by) == (fence.at_s, fence.by)
        else:
            assert site.memory.tickets[name].state == "claimed"
        assert not (isinstance(action, StartGuest) and isinstance(place, SeenStopped))


@settings(max_examples=MANY, derandomize=MANY == 200, deadline=None, suppress_health_check=list(HealthCheck))
@given(site=sites(), goes_silent=st.lists(st.sampled_from(CONTAINERS), max_size=2), rounds=st.integers(1, 12))
def test_in_any_world_a_copy_begins_only_with_a_proof_for_every_place_that_may_hold_one(
    site: ASite, goes_silent: list[str], rounds: int
) -> None:
    for number in range(rounds):
        if number == rounds // 2:
            for container in goes_silent:
                site.observe(silent(container))
        for container in CONTAINERS:
            for action in site.plan(container).actions:
                if isinstance(action, BeginsCopy):
                    judge(site, action)
                site.do(action)
        site.now_s += 100.0
