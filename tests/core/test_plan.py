"""What is planned for a container itself: network, images, storage, and silence."""

from __future__ import annotations

from dataclasses import replace

import pytest
from worlds import (
    BARE_NETWORK,
    NOW_S,
    ASite,
    a_container,
    a_guest,
    a_spec,
    off,
    running,
    seen,
    silent,
    storage,
    students_disk,
)

from vcrecon.core.actions import SetUpNetwork
from vcrecon.core.decisions import Block, Do, Rest, Wait
from vcrecon.core.memory import Attempts, Intent
from vcrecon.core.observation import UNKNOWN, Bridge, NetworkFacts, Seen
from vcrecon.core.plan import View, plan_container
from vcrecon.core.states import ContainerState, GuestState
from vcrecon.core.wanted import tap
from vcrecon.core.world import World

HERE = {"c1": ["alice"]}


def with_network(site: ASite, **changes: object) -> NetworkFacts:
    """What `site` shows of c1's network, with the one bridge changed."""
    facts = site.world.current["c1"].network  # type: ignore[union-attr]
    return replace(facts, bridges={101: replace(facts.bridges[101], **changes)})


@pytest.fixture
def site() -> ASite:
    return ASite(a_spec(HERE), seen("c1", [students_disk("alice")], [running("alice")]))


class TestNetwork:
    def test_complete_means_vlan_ready(self, site: ASite) -> None:
        assert site.plan("c1").statuses[0].state is ContainerState.VLAN_READY

    @pytest.mark.parametrize(
        "broken",
        [{"up": False}, {"trunked": False}, {"addresses": frozenset()}, {"routes": frozenset()}],
    )
    def test_whatever_someone_changed_on_a_bridge_is_put_back(self, site: ASite, broken: dict) -> None:  # type: ignore[type-arg]
        site.observe(seen("c1", [students_disk("alice")], [running("alice")], network=with_network(site, **broken)))
        action = site.action("c1", "container/c1")
        assert isinstance(action, SetUpNetwork)
        assert action.vlans == (101,)
        assert site.plan("c1").statuses[0].state is ContainerState.INSTALLED

    def test_changed_firewall_rules_are_put_back(self, site: ASite) -> None:
        facts = replace(with_network(site), firewall="")
        site.observe(seen("c1", [students_disk("alice")], [running("alice")], network=facts))
        assert "firewall" in site.action("c1", "container/c1").reason

    def test_a_port_that_lost_its_bridge_is_put_back(self, site: ASite) -> None:
        facts = replace(with_network(site), loose=frozenset({tap("alice", 101)}))
        site.observe(seen("c1", [students_disk("alice")], [running("alice")], network=facts))
        assert isinstance(site.action("c1", "container/c1"), SetUpNetwork)

    def test_a_vlan_that_no_guest_uses_is_taken_away(self, site: ASite) -> None:
        facts = with_network(site)
        facts = replace(facts, bridges={**facts.bridges, 200: Bridge(200, True, True)})
        site.observe(seen("c1", [students_disk("alice")], [running("alice")], network=facts))
        action = site.action("c1", "container/c1")
        assert isinstance(action, SetUpNetwork)
        assert (action.vlans, action.leftovers) == ((), (200,))

    def test_a_bridge_of_a_removed_guest_stays_while_the_guest_runs(self, site: ASite) -> None:
        site.adopt(a_spec({"c1": []}))
        assert "set-up-network" not in site.kinds("c1")
        site.observe(seen("c1", [students_disk("alice")], [off("alice")], network=with_network(site)))
        action = site.action("c1", "container/c1")
        assert isinstance(action, SetUpNetwork)
        assert action.leftovers == (101,)

    def test_a_failed_set_up_waits_until_its_time(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", network=BARE_NETWORK))
        site.memory.attempts["container/c1"] = Attempts(2, NOW_S + 10, "command-failed", "ip: no such device")
        assert site.block("c1", "container/c1").reason == "command-failed"


class TestContainer:
    def test_not_looked_at_yet(self) -> None:
        site = ASite(a_spec(HERE))
        assert isinstance(site.plan("c1").decisions[0], Wait)

    def test_silence_says_since_when(self, site: ASite) -> None:
        site.now_s += 42
        site.observe(silent("c1"))
        assert "last seen 42 s ago" in site.block("c1", "container/c1").message
        assert {s.subject: s.state for s in site.plan("c1").statuses} == {"container/c1": None, "guest/alice": None}

    def test_paused(self, site: ASite) -> None:
        site.memory.paused["container/c1"] = NOW_S
        site.observe(seen("c1", network=BARE_NETWORK))
        assert isinstance(site.decision("c1", "container/c1"), Rest)
        assert site.plan("c1").actions == ()

    def test_another_hypervisor_than_the_spec_says(self) -> None:
        spec = a_spec(HERE, containers={"c1": a_container("c1", hypervisor="xen")})
        site = ASite(spec, seen("c1"))
        assert site.block("c1", "container/c1").reason == "wrong-hypervisor"

    def test_no_volume_group(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", storage=storage(group_present=False)))
        assert site.block("c1", "container/c1").reason == "no-volume-group"

    def test_storage_does_not_matter_where_no_guest_belongs(self) -> None:
        site = ASite(a_spec({"c1": []}), seen("c1", storage=storage(group_present=False)))
        assert site.plan("c1").settled

    def test_an_image_in_flight_is_not_fetched_twice(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", storage=storage(goldens=frozenset())))
        site.busy = frozenset({"image/c1/debian"})
        assert isinstance(site.decision("c1", "image/c1/debian"), Wait)
        assert site.plan("c1").actions == ()

    def test_a_fetch_that_ended_without_its_controller_is_over(self) -> None:
        site = ASite(a_spec({"c1": []}), seen("c1"))
        site.memory.intents["image/c1/debian"] = Intent("image/c1/debian", "fetch-image", NOW_S)
        assert isinstance(site.decision("c1", "image/c1/debian"), Rest)

    def test_a_fetch_that_a_guest_still_waits_for_is_begun_again(self) -> None:
        site = ASite(a_spec(HERE), seen("c1", storage=storage(goldens=frozenset())))
        site.memory.intents["image/c1/debian"] = Intent("image/c1/debian", "fetch-image", NOW_S)
        assert isinstance(site.decision("c1", "image/c1/debian"), Do)

    def test_looks_again_when_the_first_decision_wants_it(self, site: ASite) -> None:
        assert site.plan("c1").look_again_s(10.0) == 10.0
        site.memory.answered.clear()
        assert site.plan("c1").look_again_s(10.0) == 1.0


class TestStatuses:
    def test_a_guest_on_its_way_is_told_by_the_container_where_it_lives(self) -> None:
        site = ASite(
            a_spec({"c1": [], "c2": ["alice"]}), seen("c1", [students_disk("alice")], [running("alice")]), seen("c2")
        )
        assert [s.state for s in site.plan("c1").statuses if s.subject == "guest/alice"] == [GuestState.RUNNING]
        assert [s for s in site.plan("c2").statuses if s.subject == "guest/alice"] == []

    def test_unknown_facts_give_no_state(self, site: ASite) -> None:
        site.observe(seen("c1", domains=UNKNOWN))
        assert [s.state for s in site.plan("c1").statuses if s.subject == "guest/alice"] == [None]


class TestWorld:
    def test_what_a_host_does_not_show_now_keeps_its_last_sighting(self) -> None:
        world = World()
        world.observe(seen("c1", [students_disk("alice")], [running("alice")]))
        for _ in range(2):
            changed = world.observe(seen("c1", storage=UNKNOWN, domains=UNKNOWN))
            assert changed == frozenset()
        assert world.on("c1")["alice"].active
        assert world.reachable("c1")
        assert not world.clear("c1")
        world.observe(seen("c1"))
        assert world.on("c1") == {}

    def test_silence_keeps_what_was_seen(self) -> None:
        world = World()
        world.observe(seen("c1", [students_disk("alice")]))
        world.observe(silent("c1"))
        assert [s.container for s in world.elsewhere("alice", "c2")] == ["c1"]

    def test_a_live_disk_outranks_an_incoming_one(self) -> None:
        world = World()
        live = students_disk("alice")
        world.observe(seen("c1", [replace(live, name="x", epoch=0, incoming=True), live]))
        assert world.on("c1")["alice"].volume == live

    def test_a_forgotten_container_leaves_nothing(self) -> None:
        world = World()
        world.observe(seen("c1", [students_disk("alice")]))
        world.forget("c1")
        assert list(world.elsewhere("alice", "c2")) == []


def test_a_view_plans_the_same_whatever_the_order_of_containers() -> None:
    spec = a_spec({"c1": ["alice"], "c2": ["bob"]}, guests={"bob": a_guest("bob", 2)})
    site = ASite(spec, seen("c1"), seen("c2"))
    one = [plan_container(View(site.wanted, site.world, site.memory, NOW_S), c) for c in ("c1", "c2")]
    two = [plan_container(View(site.wanted, site.world, site.memory, NOW_S), c) for c in ("c2", "c1")]
    assert one == two[::-1]
    assert all(isinstance(d, Block | Wait | Rest) or d.subject for plan in one for d in plan.decisions)
    assert isinstance(site.world.current["c1"], Seen)
