"""The commands that carry a person's word: what they say first, when they ask, what reaches the service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_site import NOW_S, FakeControls, Type, a_guest, a_status, an_orphan


class TestPauseAndResume:
    @pytest.mark.parametrize(
        ("typed", "meant"),
        [
            ((), "site"),
            (("a-head",), "guest/a-head"),
            (("c01",), "container/c01"),
            (("a",), "cluster/a"),
            (("guest/a-head",), "guest/a-head"),
            (("cluster/a",), "cluster/a"),
        ],
    )
    def test_an_object_may_be_written_short(
        self, vcrecon: Type, state: Path, controls: FakeControls, typed: tuple[str, ...], meant: str
    ) -> None:
        result = vcrecon("pause", *typed, "--state", state)
        assert (result.code, result.out) == (0, f"{meant} is paused\n")
        assert controls.asked == [("pause", meant)]

    def test_a_mistyped_object_gets_a_suggestion(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        result = vcrecon("pause", "a-haed", "--state", state)
        assert (result.code, result.out) == (1, "")
        assert result.err == "error: the site has no object 'a-haed'; did you mean 'a-head'?\n"
        assert controls.asked == []

    def test_a_name_of_two_things_must_be_written_out(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        controls.site = a_status(guests=[a_guest("c01")])
        result = vcrecon("pause", "c01", "--state", state)
        assert result.err == "error: 'c01' means container/c01 or guest/c01; write the one you mean\n"

    def test_a_kind_that_is_none_is_told(self, vcrecon: Type, state: Path) -> None:
        result = vcrecon("pause", "host/c01", "--state", state)
        assert "objects are written container/NAME, guest/NAME or cluster/NAME" in result.err

    def test_a_refusal_of_the_service_is_the_error(self, vcrecon: Type, state: Path) -> None:
        result = vcrecon("resume", "--state", state)
        assert (result.code, result.err) == (1, "error: site is not paused\n")


class TestRebuild:
    def test_it_names_what_is_lost_and_asks_first(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        result = vcrecon("rebuild", "a", "--state", state)
        assert result.code == 1
        assert "New disks from the image for 2 guests:" in result.out
        assert "  a-head  a        c01        running" in result.out
        assert "what students saved on them is gone from these guests" in result.out
        assert result.err == (
            "error: rebuild needs your word, and standard input is not a terminal; add --yes to give it\n"
        )
        assert controls.asked == []

    def test_a_cluster_stands_for_its_guests(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        result = vcrecon("rebuild", "cluster/a", "--yes", "--state", state)
        assert result.code == 0
        assert result.out.endswith("a-head: rebuild\na-n1: rebuild\n")
        assert controls.asked == [("rebuild", "a-head", "a-n1")]

    def test_a_container_cannot_be_rebuilt(self, vcrecon: Type, state: Path) -> None:
        result = vcrecon("rebuild", "c01", "--yes", "--state", state)
        assert result.err == "error: 'c01' is a container; rebuild takes a guest or a cluster\n"

    def test_a_guest_that_left_the_spec_cannot(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        controls.site = a_status(orphans=[an_orphan("old", "c01")])
        result = vcrecon("rebuild", "old", "--yes", "--state", state)
        assert result.err == "error: old is not in the spec any more; add it again first, or `vcrecon prune old`\n"


class TestPrune:
    @pytest.fixture(autouse=True)
    def _kept(self, controls: FakeControls) -> None:
        kept = an_orphan("old", "c02", disk_bytes=2 << 30, since_s=NOW_S - 86400 * 3)
        running = an_orphan("stray", "c01", message="still there", disks=0)
        controls.site = a_status(orphans=[kept, running])

    def test_without_names_it_lists_sizes_and_ages(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        result = vcrecon("prune", "--state", state)
        assert result.code == 0
        assert "old    c02        2.0 GiB  3 d       1 disk kept" in result.out
        assert "stray" not in result.out, "there is no disk to remove"
        assert controls.asked == []

    def test_the_list_can_be_json(self, vcrecon: Type, state: Path) -> None:
        found = json.loads(vcrecon("prune", "--json", "--state", state).out)
        assert [entry["name"] for entry in found["orphans"]] == ["old"]

    def test_it_removes_only_what_is_named(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        result = vcrecon("prune", "old", "--yes", "--state", state)
        assert (result.code, controls.asked) == (0, [("prune", "old")])
        assert result.out.startswith("These disks are removed for ever:\n")

    def test_it_does_not_remove_unasked(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        assert vcrecon("prune", "old", "--state", state).code == 1
        assert controls.asked == []

    def test_a_guest_without_kept_disks_is_refused(self, vcrecon: Type, state: Path) -> None:
        result = vcrecon("prune", "a-head", "--yes", "--state", state)
        assert result.err == ("error: nothing is kept of a-head; `vcrecon prune` lists what can be removed\n")

    def test_nothing_kept_is_said(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        controls.site = a_status()
        assert vcrecon("prune", "--state", state).out == "Nothing is kept: there is nothing to prune.\n"


class TestFence:
    def test_without_the_word_it_only_explains(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        result = vcrecon("fence", "c01", "--state", state)
        assert (result.code, result.out) == (1, "")
        assert "Guests that may still run there: a-head" in result.err
        assert result.err.endswith("If it is off, type: vcrecon fence c01 --confirmed\n")
        assert controls.asked == []

    def test_with_the_word_it_reaches_the_service_and_says_whose(
        self, vcrecon: Type, state: Path, controls: FakeControls, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SUDO_USER", "ann")
        result = vcrecon("fence", "c01", "--confirmed", "--state", state)
        assert (result.code, result.out) == (0, "c01 counts as off\n")
        assert controls.asked == [("fence", "c01", "ann")]

    def test_the_answer_can_be_json(self, vcrecon: Type, state: Path) -> None:
        result = vcrecon("fence", "c01", "--confirmed", "--json", "--state", state)
        assert json.loads(result.out)["guests"] == ["a-head"]

    def test_a_guest_cannot_be_fenced(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        result = vcrecon("fence", "a-head", "--confirmed", "--state", state)
        assert result.code == 1
        assert "the site has no object 'container/a-head'" in result.err
        assert controls.asked == []

    def test_a_container_that_left_the_spec_can(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        controls.site = a_status(guests=[a_guest("a-head", "c01", seen_on=["c09"])])
        assert vcrecon("fence", "c09", "--confirmed", "--state", state).code == 0


def test_confirm_repeats_what_it_confirms(vcrecon: Type, state: Path, controls: FakeControls) -> None:
    controls.site = a_status(spec={"held_back": "this spec would stop 60 guests"})
    result = vcrecon("confirm", "--state", state)
    assert result.out == "Confirmed: this spec would stop 60 guests\ngeneration 3 is confirmed\n"
