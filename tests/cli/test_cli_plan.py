"""`plan` and `check`: what is shown, and what the exit code says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_site import Type

from vcrecon.cli.plan_view import as_json, exit_code, render
from vcrecon.preview import PlanReport, PlanStep


def a_step(action: str, guest: str = "a-head", container: str = "c01", **changes: object) -> PlanStep:
    values: dict[str, object] = {
        "subject": f"guest/{guest}",
        "container": container,
        "action": action,
        "reason": "has no disk yet",
        "from_state": "pending",
        "to_state": "imaged",
        "commands": (f"do-{action}",),
        "touches_work": False,
        **changes,
    }
    return PlanStep(**values)  # type: ignore[arg-type]


def a_report(*steps: PlanStep, **changes: object) -> PlanReport:
    values: dict[str, object] = {"blocked": (), "at_risk": (), "unreachable": (), **changes}
    return PlanReport(steps=steps, **values)  # type: ignore[arg-type]


def text(report: PlanReport, *, verbose: bool = False) -> str:
    return "\n".join(line.plain for line in render(report, verbose=verbose))


A_BLOCK = {"subject": "guest/a-n1", "container": "c02", "reason": "disk-lost", "message": "its disk is gone"}


class TestObjects:
    def test_one_object_is_one_line_from_first_to_last_state(self) -> None:
        report = a_report(
            a_step("create-volume"),
            a_step("contextualize", from_state="imaged", to_state="contextualized"),
            a_step("start-guest", from_state="contextualized", to_state="running"),
        )
        assert text(report).splitlines()[:4] == [
            "  + guest/a-head on c01  pending → running  (has no disk yet)",
            "      create-volume $ do-create-volume",
            "      contextualize $ do-contextualize",
            "      start-guest $ do-start-guest",
        ]

    @pytest.mark.parametrize(
        ("action", "sign"),
        [
            ("create-volume", "+"),
            ("start-guest", "^"),
            ("copy-disk", "→"),
            ("quarantine", "-"),
            ("stop-guest", "!"),
            ("contextualize", "~"),
        ],
    )
    def test_the_sign_tells_the_kind(self, action: str, sign: str) -> None:
        assert text(a_report(a_step(action))).startswith(f"  {sign} guest/a-head")

    def test_a_move_names_both_containers(self) -> None:
        report = a_report(a_step("stop-guest", container="c01"), a_step("copy-disk", container="c02"))
        assert "→ guest/a-head on c01 → c02" in text(report)

    def test_an_image_is_named_with_its_container(self) -> None:
        report = a_report(a_step("fetch-image", subject="image/c01/debian-12"))
        assert text(report).startswith("  < image debian-12 on c01  absent → present")

    def test_a_disturbed_guest_is_marked(self) -> None:
        assert "disturbs student work" in text(a_report(a_step("stop-guest", touches_work=True)))


class TestCommands:
    WRAPPED = "flock -n /run/lock/x sh -c 'set -eu\n  lvcreate -n vcg-a\n  lvs'"

    def test_a_script_is_shortened_to_what_it_does(self) -> None:
        assert "      create-volume $ lvcreate -n vcg-a; lvs\n" in text(
            a_report(a_step("create-volume", commands=(self.WRAPPED,)))
        )

    def test_verbose_shows_it_as_it_is(self) -> None:
        shown = text(a_report(a_step("create-volume", commands=(self.WRAPPED,))), verbose=True)
        assert "      create-volume $ flock -n /run/lock/x sh -c 'set -eu\n          lvcreate -n vcg-a\n" in shown

    def test_many_commands_are_counted(self) -> None:
        report = a_report(a_step("create-volume", commands=("a", "b", "c", "d", "e")))
        assert "… 2 more commands (-v shows all)" in text(report)

    def test_an_unbalanced_quote_is_no_trouble(self) -> None:
        assert "$ echo 'half" in text(a_report(a_step("create-volume", commands=("echo 'half",))))


class TestSums:
    def test_nothing_to_do_is_said_in_full(self) -> None:
        assert text(a_report()) == ("Student work at risk: none\nNothing to do: everything is as the spec wants.")

    def test_objects_are_counted_once_each(self) -> None:
        report = a_report(
            a_step("create-volume", "a-n1"),
            a_step("start-guest", "a-n1"),
            a_step("start-guest", "a-n2"),
            a_step("stop-guest", "a-n3"),
            a_step("copy-disk", "a-n3", "c02"),
            a_step("start-guest", "a-n3", "c02"),
            a_step("set-up-network", subject="container/c01"),
        )
        assert text(report).splitlines()[-1] == "Plan: 1 to create, 1 to start, 1 to move, 0 to remove, 1 to change"

    def test_student_work_at_risk_is_named(self) -> None:
        report = a_report(a_step("stop-guest", touches_work=True), at_risk=("a-head",))
        assert "Student work at risk: a-head\n" in text(report)

    def test_blocked_objects_are_told_with_their_reason(self) -> None:
        shown = text(a_report(blocked=(A_BLOCK,)))
        assert "Blocked (1):\n  guest/a-n1  disk-lost\n      its disk is gone\n" in shown
        assert shown.endswith("Nothing that vcrecon can do by itself: 1 object blocked.")

    def test_silence_is_not_taken_for_nothing_to_do(self) -> None:
        shown = text(a_report(unreachable=("c01", "c02")))
        assert "Not reachable, so nothing is planned there: c01, c02" in shown
        assert shown.endswith("Nothing that vcrecon can do by itself: 2 containers unreachable.")


class TestExitCode:
    @pytest.mark.parametrize(
        ("report", "code"),
        [
            (a_report(), 0),
            (a_report(a_step("start-guest")), 2),
            (a_report(blocked=(A_BLOCK,)), 2),
            (a_report(unreachable=("c01",)), 2),
        ],
    )
    def test_zero_means_all_is_as_wanted(self, report: PlanReport, code: int) -> None:
        assert exit_code(report) == code

    def test_one_means_an_error(self, vcrecon: Type, tmp_path: Path) -> None:
        typed = vcrecon("plan", tmp_path)
        assert (typed.code, typed.out) == (1, "")
        assert "no spec files here" in typed.err

    def test_json_has_every_command_and_the_sums(self) -> None:
        document = json.loads(json.dumps(as_json(a_report(a_step("create-volume", commands=("x\ny",) * 9)))))
        assert document["steps"][0]["commands"] == ["x\ny"] * 9
        assert document["summary"]["create"] == 1
        assert document["pending"] is True


class TestCheck:
    def test_a_valid_spec_is_summed_up(self, vcrecon: Type, specs: Path) -> None:
        typed = vcrecon("check", specs)
        assert (typed.code, typed.out) == (
            0,
            "small: the spec is valid: 3 containers, 2 clusters, 6 guests\n",
        )

    def test_findings_come_with_their_place_and_exit_code_1(self, vcrecon: Type, specs: Path) -> None:
        (specs / "deployment.yaml").write_text("deployment:\n  c011: []\n")
        typed = vcrecon("check", specs)
        assert (typed.code, typed.out) == (1, "")
        assert "deployment.yaml:2:3: error: unknown container 'c011'; did you mean 'c01'?" in typed.err
        assert typed.err.splitlines()[-1].startswith("error: the spec is not usable: ")

    def test_json_is_one_document_also_when_invalid(self, vcrecon: Type, specs: Path) -> None:
        (specs / "images.yaml").write_text("")
        typed = vcrecon("check", specs, "--json")
        found = json.loads(typed.out)
        assert (typed.code, typed.err, found["valid"]) == (1, "", False)
        assert {"file", "line", "column", "severity", "message"} == found["problems"][0].keys()

    def test_json_of_a_valid_spec_says_so(self, vcrecon: Type, specs: Path) -> None:
        typed = vcrecon("check", specs, "--json")
        assert (typed.code, json.loads(typed.out)) == (0, {"valid": True, "problems": []})

    def test_a_missing_directory_is_an_error_not_a_traceback(self, vcrecon: Type, tmp_path: Path) -> None:
        typed = vcrecon("check", tmp_path / "none")
        assert typed.code == 1
        assert "not a spec directory" in typed.err
