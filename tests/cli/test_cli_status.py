"""`status`: the sums first, then what needs a person and what to type, then tables; filters; JSON."""

from __future__ import annotations

import json
from pathlib import Path

from fake_site import NOW_S, FakeControls, Type, a_container, a_guest, a_status, an_orphan, blocked

from vcrecon.cli.status_view import Filter, render, select, summary


def text(status: dict[str, object], **options: object) -> str:
    return "\n".join(line.plain for line in render(status, **options))  # type: ignore[arg-type]


class TestSummary:
    def test_a_site_as_wanted_is_one_calm_line(self) -> None:
        assert summary(a_status()).plain == "lab: converged, 2 of 2 guests running on 2 containers"

    def test_everything_that_is_wrong_is_counted(self) -> None:
        status = a_status(
            [a_container("c01", reachable=False, blocked=blocked("timeout", "no answer"))],
            [a_guest("a-head", state="stopped", blocked=blocked("disk-lost", "gone"))],
            converged=False,
            frozen="too many are silent",
            spec={"valid": False, "held_back": "would stop 9"},
        )
        assert summary(status).plain == (
            "lab: not converged, 0 of 1 guest running on 1 container, 1 unreachable, 2 blocked, frozen, "
            "spec has errors, a change waits for your word"
        )

    def test_containers_not_asked_yet_are_not_called_unreachable(self) -> None:
        status = a_status([a_container("c01", reachable=False, last_seen_s=None)], [], converged=False)
        assert summary(status).plain.endswith("on 1 container, 1 not looked at yet")

    def test_it_is_the_first_line_of_status(self) -> None:
        assert text(a_status()).splitlines()[0] == summary(a_status()).plain


class TestTrouble:
    def test_a_bad_spec_shows_its_findings_and_what_stays_in_force(self) -> None:
        shown = text(a_status(spec={"valid": False, "problems": ["site.yaml:3:1: error: unknown key"]}))
        assert "The spec has errors; generation 3 stays in force:" in shown
        assert "  site.yaml:3:1: error: unknown key" in shown

    def test_a_held_back_change_says_what_to_type(self) -> None:
        shown = text(a_status(spec={"held_back": "this spec would stop 60 guests"}))
        assert "Waits for your word: this spec would stop 60 guests\n      next: vcrecon confirm" in shown

    def test_a_block_says_why(self) -> None:
        message = "its disk is gone: type `vcrecon rebuild a-n3`"
        shown = text(a_status(guests=[a_guest("a-n3", state="pending", blocked=blocked("disk-lost", message))]))
        assert f"Blocked (1):\n  guest/a-n3  disk-lost  {message}" in shown
        assert "next:" not in shown, "the message says it already"

    def test_a_silent_container_says_what_to_type(self) -> None:
        silent = a_container("c07", reachable=False, blocked=blocked("timeout", "c07 does not answer"))
        shown = text(a_status([silent], []))
        assert "`vcrecon evacuate c07`" in shown
        assert "`vcrecon fence c07 --confirmed`" in shown

    def test_a_changed_host_key_is_not_taken_for_a_host_that_is_off(self) -> None:
        changed = a_container("c07", reachable=False, blocked=blocked("host-key-changed", "find out which"))
        assert "fence" not in text(a_status([changed], []))

    def test_a_full_pool_names_its_own_container(self) -> None:
        full = a_guest("a-n1", "c02", state="pending", blocked=blocked("pool-full", "no room"))
        assert "`vcrecon evacuate c02` empties the container" in text(a_status(guests=[full]))

    def test_many_blocks_are_cut_and_counted(self) -> None:
        guests = [a_guest(f"a-n{n}", blocked=blocked("silent", "no answer")) for n in range(25)]
        shown = text(a_status(guests=guests))
        assert shown.count("no answer") == 20
        assert "… and 5 more: vcrecon status --all" in shown
        assert text(a_status(guests=guests), every=True).count("no answer") == 25

    def test_disks_kept_aside_are_listed(self) -> None:
        shown = text(a_status(orphans=[an_orphan("old-n1", "c02")]))
        assert "  old-n1  c02        1 disk kept" in shown


class TestTables:
    def test_containers_and_guests_have_a_row_each(self) -> None:
        lines = text(a_status()).splitlines()
        assert "CONTAINER  STATE       SINCE      GUESTS  POOL  KIND  ADDRESS" in lines
        assert "c01        vlan-ready  2 h 5 min  2       12 %  kvm   10.64.0.11" in lines
        assert "a-head  running  41 s   c01" in lines

    def test_no_line_ends_with_blanks(self) -> None:
        assert [line for line in text(a_status()).splitlines() if line != line.rstrip()] == []

    def test_notes_tell_what_is_special(self) -> None:
        container = a_container(
            "c01",
            reachable=False,
            cordoned=True,
            fenced=True,
            last_seen_s=NOW_S - 65,
            blocked=blocked("timeout", "silent"),
        )
        guest = a_guest("a-head", seen_on=["c01", "c02"], paused=True)
        shown = text(a_status([container], [guest]))
        assert "unreachable, last seen 1 min 5 s ago, cordoned, fenced" in shown
        assert "paused, also on c02" in shown

    def test_a_guest_on_its_way_is_still_where_it_was(self) -> None:
        guest = a_guest("a-head", "c02", seen_on=["c01"], state="stopped")
        assert "still on c01" in text(a_status(guests=[guest]))

    def test_many_containers_that_are_well_are_one_line(self) -> None:
        containers = [a_container(f"c{n:02}") for n in range(1, 31)]
        containers[4]["cordoned"] = True
        containers[6]["pool_data_percent"] = 91.0
        containers[8]["state"] = "installed"
        shown = text(a_status(containers, []))
        assert [line[:3] for line in shown.splitlines() if line.startswith("c")] == ["c05", "c07", "c09"]
        assert "27 more containers are vlan-ready and well: vcrecon status --all lists each" in shown
        assert "c30" in text(a_status(containers, []), every=True)

    def test_a_guest_that_does_not_run_says_why(self) -> None:
        guest = a_guest("a-head", state="imaged", message="waits for its container")
        assert "waits for its container" in text(a_status(guests=[guest]))

    def test_what_state_and_decision_both_say_is_said_once(self) -> None:
        guest = a_guest("a-head", state="contextualized", detail="booting", message="booting")
        assert text(a_status(guests=[guest])).count("booting") == 1

    def test_many_guests_are_summed_by_cluster(self) -> None:
        guests = [a_guest(f"{c}-n{n}") for c in "abcdefghi" for n in range(5)]
        guests[7]["state"] = "stopped"
        shown = text(a_status(guests=guests))
        assert "a-n0" not in shown
        rows = [line.split() for line in shown.splitlines()]
        assert ["a", "5/5", "c01"] in rows
        assert ["b", "4/5", "1", "stopped", "c01"] in rows

    def test_all_lists_them_nevertheless(self) -> None:
        guests = [a_guest(f"a-n{n}") for n in range(50)]
        assert "a-n49" in text(a_status(guests=guests), every=True)


class TestFilters:
    def test_a_cluster_brings_its_guests_and_their_containers(self) -> None:
        guests = [a_guest("a-head"), a_guest("b-head", "c02")]
        found = select(a_status(guests=guests), Filter(cluster="b"))
        assert [guest["name"] for guest in found["guests"]] == ["b-head"]
        assert [container["name"] for container in found["containers"]] == ["c02"]

    def test_a_container_brings_what_is_seen_there_too(self) -> None:
        guests = [a_guest("a-head", "c01", seen_on=["c02"]), a_guest("b-head", "c01")]
        found = select(a_status(guests=guests), Filter(container="c02"))
        assert [guest["name"] for guest in found["guests"]] == ["a-head"]

    def test_a_state_applies_to_guests_and_containers(self) -> None:
        guests = [a_guest("a-head"), a_guest("a-n1", state="stopped")]
        found = select(a_status(guests=guests), Filter(state="stopped"))
        assert [guest["name"] for guest in found["guests"]] == ["a-n1"]
        assert found["containers"] == []

    def test_blocked_is_a_state_too(self) -> None:
        guests = [a_guest("a-head"), a_guest("a-n1", blocked=blocked("silent", "no answer"))]
        found = select(a_status(guests=guests), Filter(state="blocked"))
        assert [guest["name"] for guest in found["guests"]] == ["a-n1"]

    def test_the_first_line_still_counts_the_whole_site(self) -> None:
        first = text(a_status(), wanted=Filter(cluster="a", container="c02")).splitlines()[0]
        assert first == summary(a_status()).plain


class TestCommand:
    def test_it_asks_the_service_of_the_state_directory(self, vcrecon: Type, state: Path) -> None:
        typed = vcrecon("status", "--state", state)
        assert (typed.code, typed.err) == (0, "")
        assert typed.out.startswith("lab: converged, 2 of 2 guests running on 2 containers\n")

    def test_a_pipe_gets_no_colours(self, vcrecon: Type, state: Path) -> None:
        assert "\x1b" not in vcrecon("status", "--state", state).out

    def test_json_is_the_document_of_the_service(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        assert json.loads(vcrecon("status", "--json", "--state", state).out) == controls.site

    def test_json_obeys_the_filters(self, vcrecon: Type, state: Path) -> None:
        found = json.loads(vcrecon("status", "--json", "-n", "c02", "--state", state).out)
        assert [guest["name"] for guest in found["guests"]] == ["a-n1"]

    def test_a_mistyped_filter_is_an_error(self, vcrecon: Type, state: Path) -> None:
        typed = vcrecon("status", "--container", "c011", "--state", state)
        assert (typed.code, typed.out) == (1, "")
        assert "error: the site has no object 'container/c011'; did you mean 'container/c01'?" in typed.err

    def test_without_a_service_it_says_how_to_start_one(self, vcrecon: Type, tmp_path: Path) -> None:
        typed = vcrecon("status", "--state", tmp_path)
        assert (typed.code, typed.out) == (1, "")
        assert typed.err == (
            f"error: no running service found ({tmp_path}/control.sock); start one with `vcrecon run SPECS`\n"
        )

    def test_watching_is_not_for_scripts(self, vcrecon: Type, state: Path) -> None:
        assert vcrecon("status", "--watch", "--json", "--state", state).code == 2
