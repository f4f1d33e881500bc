"""Any world at all, however broken: no plan raises, no rule undoes another, and S1 and S2 hold (bounded search)."""

from __future__ import annotations

import os
import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worlds import REDFISH, ASite, a_spec, an_installable, seen, silent, told

from vcrecon.core.actions import Action, Contextualize, Discard, GuestAction, Install, Prune, StartGuest
from vcrecon.core.install_rules import given_up
from vcrecon.core.memory import Claim, Consent, Fence, Intent, Memory
from vcrecon.core.observation import UNKNOWN, Domain, NetworkFacts, Observation, Volume
from vcrecon.spec.model import Power

CONTAINERS = ("c1", "c2", "c3")
GUESTS = ("alice", "bob", "carol", "dave")
MANY = int(os.environ.get("VCRECON_TEST_WORLDS", "200"))
ROUNDS_MAX = 60

epochs = st.integers(0, 4)
flags = st.booleans()
containers = st.sampled_from(CONTAINERS)


@st.composite
def volumes_of(draw: st.DrawFn, guest: str) -> list[Volume]:
    """Up to one current disk and one kept disk of a guest, in any condition."""
    found = []
    if draw(flags):
        incoming = draw(st.sampled_from([False, False, True]))
        stamp = draw(st.one_of(st.none(), st.tuples(epochs, st.integers(0, 3)))) if incoming else None
        found.append(
            Volume(
                f"vcg-{guest}", guest, 0 if incoming else draw(epochs), 4 * 1024**3, 0,
                draw(st.sampled_from(["c" * 64, "0" * 64])), draw(st.sampled_from(["", "old"])),
                draw(st.integers(0, 3)), not incoming and draw(flags), incoming, stamp,
            )
        )  # fmt: skip
    if draw(st.sampled_from([False, False, True])):
        epoch, why = draw(epochs), draw(st.sampled_from(["moved", "removed", "rebuilt"]))
        aside = Volume(
            f"vcq-{guest}-{epoch}",
            guest,
            epoch,
            4 * 1024**3,
            boots=draw(st.integers(0, 3)),
            touched=draw(flags),
            quarantined=why,
        )
        found.append(aside)
    return found


@st.composite
def observations(draw: st.DrawFn, container: str) -> list[Observation]:
    """What a container showed: itself, perhaps followed by silence or by an unclear answer."""
    volumes = [v for guest in GUESTS for v in draw(volumes_of(guest))]
    states = st.sampled_from([None, None, "running", "paused", "stopping", "off"])
    domains = [Domain(g, state, "s1") for g in GUESTS if (state := draw(states))]
    network = draw(st.sampled_from([UNKNOWN, NetworkFacts({}, "")]))
    shown: list[Observation] = [seen(container, volumes, domains, network=network)]
    last = draw(st.sampled_from(["clear", "clear", "clear", "silent", "no-disks", "no-domains", "never"]))
    if last == "never":
        return [silent(container)]
    if last == "silent":
        shown.append(silent(container))
    if last == "no-disks":
        shown.append(seen(container, domains=domains, storage=UNKNOWN))
    if last == "no-domains":
        shown.append(seen(container, volumes, UNKNOWN))
    return shown


@st.composite
def sites(draw: st.DrawFn) -> ASite:
    placement = {g: draw(st.one_of(containers, containers, st.none())) for g in GUESTS}
    deployment = {c: [g for g in GUESTS if placement[g] == c] for c in CONTAINERS}
    memory = Memory(claims_complete=draw(flags))
    spec = a_spec(deployment, session=draw(st.sampled_from(["running", "preparing"])))
    site = ASite(an_installable(spec, power=draw(st.sampled_from([Power("manual"), REDFISH]))), memory=memory)
    for container in CONTAINERS:
        for observation in draw(observations(container)):
            site.observe(observation)
    for guest in GUESTS:
        if draw(flags):
            memory.claims[guest] = Claim(guest, draw(containers), draw(epochs), draw(flags))
        for kind in ("rebuild", "prune"):
            if draw(st.sampled_from([False, False, True])):
                memory.consents[kind, guest] = Consent(kind, guest, draw(epochs), 0.0)  # type: ignore[arg-type]
        if draw(st.sampled_from([False, False, True])):
            action = draw(st.sampled_from(["stop-guest", "start-guest", "copy-disk", "activate-copy"]))
            memory.intents[f"guest/{guest}"] = Intent(
                f"guest/{guest}", action, site.now_s - draw(st.sampled_from([1, 100]))
            )
    for container in CONTAINERS:
        if draw(st.sampled_from([False, False, True])):
            memory.fences[container] = Fence(container, site.now_s, "operator")
        if draw(st.sampled_from([False, False, True])):
            site.reinstall(container, {guest: draw(epochs) for guest in GUESTS if draw(flags)})
        if draw(flags):
            site.netboot(container, ago_s=draw(st.sampled_from([1.0, 50.0, 70.0])))
        site.switch(container, draw(st.sampled_from(["on", "off", "unknown"])))
        if draw(st.sampled_from([False, False, False, False, True])):
            site.ticket(container, draw(st.sampled_from(["open", "claimed", "installed"])), wipe=draw(flags))
    memory.confirmed_digest = draw(st.sampled_from([None, "one"]))
    return site


def judge_install(site: ASite, action: Install) -> None:
    """S2, S6: nothing that may hold work is installed without a word that names it. A ticket is such a word."""
    memory, name = site.memory, action.container
    ticket = memory.tickets.get(name)
    if ticket is not None and ticket.state != "installed":
        assert action.wipe == ticket.wipe, f"{told(action)}: another word than the ticket's"
        assert action.resumed
        return
    consented = ("reinstall", name) in memory.consents
    held = {claim.guest for claim in memory.claims.values() if claim.container == name}
    assert action.wipe == consented, f"S2: {told(action)}: wipes without a word"
    assert consented or (name not in memory.seen and not held), f"S2: {told(action)}: something of ours may be there"
    assert consented or action.rouse in ("follow", "switch-on"), f"{told(action)}: cuts off what runs"
    assert site.plan(name).statuses[0].state is not None or action.rouse == "switch-on"
    running = site.spec.site.session == "running"
    for guest, sighting in site.world.on(name).items():
        newest = max((s.epoch for s in site.world.elsewhere(guest, name) if s.live), default=0)
        for volume in (sighting.volume, *sighting.quarantined):
            if volume is None or volume.incoming or not (volume.touched or (volume.boots and running)):
                continue
            word = memory.consents.get(("reinstall", given_up(name, guest)))
            named = word is not None and word.epoch >= volume.epoch
            assert named or newest > volume.epoch or (newest == volume.epoch and not volume.live), (
                f"S2: {told(action)}: {volume.name} was not given up"
            )


def judge(site: ASite, action: Action) -> None:
    """S1 and S2, on all that any container ever showed."""
    if isinstance(action, Install):
        judge_install(site, action)
    if not isinstance(action, GuestAction):
        return
    sighting = site.world.on(action.container).get(action.guest)
    disks = [v for v in (sighting.volume, *sighting.quarantined) if v] if sighting else []
    volume = next((v for v in disks if v.name == getattr(action, "volume", "")), None)
    fenced = {name for name in site.memory.fences if not site.world.reachable(name)}
    if isinstance(action, StartGuest):
        assert volume is not None
        assert volume.live, f"{told(action)}: not a live disk"
        for other in site.world.elsewhere(action.guest, action.container):
            assert not other.active or other.container in fenced, f"S1: {told(action)}, it runs on {other.container}"
            newer = other.volume is not None and other.volume.live and other.epoch >= action.epoch
            assert not newer or other.container in fenced, (
                f"S1: {told(action)}, {other.container} has epoch {other.epoch}"
            )
    elif isinstance(action, Discard):
        assert volume is not None
        assert not volume.touched, f"S2: {told(action)}"
        assert volume.quarantined is None, f"S3: {told(action)}"
    elif isinstance(action, Contextualize):
        assert volume is not None
        assert not volume.touched, f"S2: {told(action)}"
    elif isinstance(action, Prune):
        consent = site.memory.consents.get(("prune", action.guest))
        assert consent is not None, f"S2: {told(action)}"
        assert consent.epoch >= action.epoch, f"S2: {told(action)}"


@settings(max_examples=MANY, derandomize=MANY == 200, deadline=None, suppress_health_check=list(HealthCheck))
@given(site=sites(), seed=st.integers(0, 2**16))
def test_any_world_reaches_a_fixpoint_without_breaking_a_rule(site: ASite, seed: int) -> None:
    order, done = random.Random(seed), []
    for _ in range(ROUNDS_MAX):
        before = len(done)
        for container in order.sample(CONTAINERS, 3):
            actions = list(site.plan(container).actions)
            for action in order.sample(actions, len(actions)):
                judge(site, action)
                site.do(action)
                done.append(told(action))
        site.now_s += 100.0
        if len(done) == before:
            return
    raise AssertionError(f"no fixpoint after {ROUNDS_MAX} rounds:\n  " + "\n  ".join(done[-20:]))
