"""`rescue`, `release`, `fix` and `console`: what they refuse, and what they say, before anything reaches a host."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_site import FakeControls, Type, a_found_guest

HELD = {"container": "c01", "mounted_at": "/run/vcrecon/rescue/a-head", "since_s": 1.0, "by": "ann"}


class TestRescue:
    def test_a_step_that_fails_is_told_with_what_to_type(
        self, vcrecon: Type, state: Path, controls: FakeControls
    ) -> None:
        controls.after_asking = {"trouble": "hold of guest/a-head on c01: mount: Structure needs cleaning"}
        result = vcrecon("rescue", "a-head", "--state", state)
        assert result.code == 1
        assert "Structure needs cleaning" in result.err
        assert "`vcrecon release a-head` takes it back" in result.err

    def test_a_guest_that_somebody_released_meanwhile_is_told(
        self, vcrecon: Type, state: Path, controls: FakeControls
    ) -> None:
        controls.after_asking = {"pending": None}
        result = vcrecon("rescue", "a-head", "--state", state)
        assert result.code == 1
        assert "somebody else asked for something else meanwhile: a-head is running" in result.err

    def test_a_container_that_left_the_spec_cannot_be_reached_and_the_guest_stays_held(
        self, vcrecon: Type, state: Path, controls: FakeControls
    ) -> None:
        controls.after_asking = {"pending": None, "held": HELD}
        result = vcrecon("rescue", "a-head", "--run", "true", "--state", state)
        assert result.code == 1
        assert "c01 is not in the spec" in result.err
        assert "a-head is still held: `vcrecon release a-head` boots it again" in result.err

    @pytest.mark.parametrize(
        ("name", "what"), [("c01", "a container"), ("cluster/a", "a cluster"), ("site", "the whole")]
    )
    def test_only_a_guest_can_be_rescued(self, vcrecon: Type, state: Path, name: str, what: str) -> None:
        result = vcrecon("rescue", name, "--state", state)
        assert result.code == 1
        assert f"is {what}" in result.err

    def test_without_a_service_there_is_nobody_to_ask(self, vcrecon: Type, tmp_path: Path) -> None:
        result = vcrecon("rescue", "a-head", "--state", tmp_path)
        assert result.code == 1
        assert "vcrecon run" in result.err


class TestRelease:
    def test_says_that_the_guest_boots_again(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        controls.found = a_found_guest(held=HELD, state="held", active=False)
        result = vcrecon("release", "a-head", "--state", state)
        assert (result.code, result.out) == (0, "a-head is released: it boots again where the spec wants it\n")
        assert controls.asked[0][:2] == ("release", "a-head")

    def test_as_json(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        result = vcrecon("release", "a-head", "--json", "--state", state)
        assert json.loads(result.out) == {"guest": "a-head", "container": "c01", "released": True}

    def test_a_container_that_does_not_answer_is_no_success(
        self, vcrecon: Type, state: Path, controls: FakeControls
    ) -> None:
        controls.found = a_found_guest(held=HELD, reachable=False)
        assert vcrecon("release", "a-head", "--state", state).code == 1


class TestFix:
    @pytest.fixture
    def site(self, controls: FakeControls, tmp_path: Path) -> FakeControls:
        (tmp_path / "root.hash").write_text("$y$hash\n")
        controls.found = a_found_guest(root_password=str(tmp_path / "root.hash"), specs=str(tmp_path))
        return controls

    def test_the_recipes_are_listed_without_a_service(self, vcrecon: Type, tmp_path: Path) -> None:
        result = vcrecon("fix", "--list", "--specs", tmp_path)
        assert result.code == 0
        assert result.out.splitlines()[1].startswith("restore-shadow  built in  Make /etc/shadow anew")

    def test_a_misspelt_recipe_halts_nothing(self, vcrecon: Type, state: Path, site: FakeControls) -> None:
        result = vcrecon("fix", "a-head", "restore-shadwo", "--state", state)
        assert result.err == "error: there is no recipe 'restore-shadwo'; did you mean 'restore-shadow'?\n"
        assert site.asked == []

    def test_a_password_file_that_is_gone_halts_nothing(
        self, vcrecon: Type, state: Path, controls: FakeControls
    ) -> None:
        result = vcrecon("fix", "a-head", "restore-shadow", "--state", state)
        assert "cannot read the root password hash of a-head in root.hash" in result.err
        assert controls.asked == []

    def test_a_guest_that_left_the_spec_is_refused(self, vcrecon: Type, state: Path, site: FakeControls) -> None:
        site.found["facts"] = None
        assert "a-head is not in the spec any more" in vcrecon("fix", "a-head", "restore-shadow", "--state", state).err
        assert site.asked == []

    def test_a_recipe_that_could_not_be_run_leaves_the_guest_held(
        self, vcrecon: Type, state: Path, site: FakeControls
    ) -> None:
        site.after_asking = {"pending": None, "held": HELD}
        result = vcrecon("fix", "a-head", "restore-shadow", "--state", state)
        assert result.code == 1
        assert "a-head stays held. Look at it with `vcrecon rescue a-head`" in result.err
        assert [asked[0] for asked in site.asked] == ["rescue"]

    def test_a_guest_without_a_recipe_is_wrong_usage(self, vcrecon: Type, state: Path) -> None:
        assert vcrecon("fix", "a-head", "--state", state).code == 2


class TestConsole:
    def test_a_guest_that_does_not_run_has_none(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        controls.found = a_found_guest(active=False, state="stopped", message="waiting for the network of c01")
        result = vcrecon("console", "a-head", "--state", state)
        message = "a-head does not run (stopped: waiting for the network of c01), so it has no console now"
        assert (result.code, result.err) == (1, f"error: {message}\n")

    def test_nor_one_whose_container_does_not_answer(self, vcrecon: Type, state: Path, controls: FakeControls) -> None:
        controls.found = a_found_guest(reachable=False)
        assert "c01 does not answer" in vcrecon("console", "a-head", "--state", state).err
