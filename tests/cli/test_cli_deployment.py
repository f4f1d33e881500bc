"""`cordon`, `uncordon`, `evacuate`, `place`: the difference first, then the question, then the file."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from fake_site import FakeControls, Type, a_status

from vcrecon.spec.load import load


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    """A state directory without a service."""
    directory = tmp_path / "nowhere"
    directory.mkdir()
    return directory


def deployment(specs: Path) -> str:
    return (specs / "deployment.yaml").read_text()


class TestCordon:
    def test_it_shows_the_difference_and_writes_it(self, vcrecon: Type, specs: Path) -> None:
        result = vcrecon("cordon", "c02", "--yes", "--specs", specs)
        assert result.code == 0
        assert "+cordoned: [c02]" in result.out.splitlines()
        assert f"Written: {specs}/deployment.yaml." in result.out
        assert "cordoned: [c02]" in deployment(specs)

    def test_without_a_terminal_it_wants_yes(self, vcrecon: Type, specs: Path) -> None:
        before = deployment(specs)
        result = vcrecon("cordon", "c02", "--specs", specs)
        assert result.code == 1
        assert "+cordoned: [c02]" in result.out
        assert "needs your word, and standard input is not a terminal; add --yes" in result.err
        assert deployment(specs) == before

    def test_a_dry_run_writes_nothing(self, vcrecon: Type, specs: Path) -> None:
        before = deployment(specs)
        result = vcrecon("cordon", "c02", "--dry-run", "--specs", specs)
        assert (result.code, deployment(specs)) == (0, before)
        assert result.out.endswith("Not written (--dry-run).\n")

    def test_twice_is_nothing_to_write(self, vcrecon: Type, specs: Path) -> None:
        vcrecon("cordon", "c02", "--yes", "--specs", specs)
        result = vcrecon("cordon", "c02", "--specs", specs)
        assert (result.code, result.out) == (0, "Nothing to write: c02 is cordoned.\n")

    def test_uncordon_undoes_it(self, vcrecon: Type, specs: Path) -> None:
        vcrecon("cordon", "c02", "--yes", "--specs", specs)
        assert vcrecon("uncordon", "c02", "--yes", "--specs", specs).code == 0
        assert load(specs).spec.cordoned == frozenset()

    def test_an_unknown_container_is_refused(self, vcrecon: Type, specs: Path) -> None:
        result = vcrecon("cordon", "c99", "--yes", "--specs", specs)
        assert (result.code, result.out) == (1, "")
        assert "'c99'" in result.err


class TestEvacuate:
    def test_it_says_where_each_guest_goes(self, vcrecon: Type, specs: Path) -> None:
        result = vcrecon("evacuate", "c03", "--yes", "--specs", specs)
        assert result.code == 0
        assert "2 guests to move:\n  a-n1: c03 → " in result.out

    def test_it_says_of_each_guest_that_stays_why(self, vcrecon: Type, specs: Path) -> None:
        for container in ("c01", "c02"):
            vcrecon("cordon", container, "--yes", "--specs", specs)
        before = deployment(specs)
        result = vcrecon("evacuate", "c03", "--dry-run", "--specs", specs)
        assert (result.code, deployment(specs)) == (1, before)
        assert "2 guests cannot move:\n  a-n1: " in result.out


class TestPlace:
    def test_guests_without_a_place_get_one(self, vcrecon: Type, specs: Path, nowhere: Path) -> None:
        (specs / "deployment.yaml").write_text("# mine\n")
        assert vcrecon("check", specs).code == 1
        assert vcrecon("place", specs, "--yes").code == 0
        assert vcrecon("check", specs).code == 0
        assert deployment(specs).startswith("# mine\n")


class TestWhichDirectory:
    def test_the_running_service_knows_it(
        self, vcrecon: Type, state: Path, controls: FakeControls, specs: Path
    ) -> None:
        controls.site = a_status(spec={"directory": str(specs)})
        assert vcrecon("cordon", "c02", "--yes", "--state", state).code == 0
        assert "cordoned: [c02]" in deployment(specs)

    def test_a_service_that_was_named_must_run(self, vcrecon: Type, nowhere: Path) -> None:
        result = vcrecon("cordon", "c02", "--yes", "--state", nowhere)
        assert result.code == 1
        assert "no running service found" in result.err


class TestAtATerminal:
    @staticmethod
    def type_at_prompt(word: bytes, *arguments: str) -> int:
        """Run a command whose standard input is a terminal, and type `word` when it asks."""
        ours, theirs = pty.openpty()
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "vcrecon", *arguments],
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            os.write(ours, word)
            return process.wait(30)
        finally:
            os.close(ours)
            os.close(theirs)

    def test_yes_writes(self, specs: Path) -> None:
        assert self.type_at_prompt(b"y\n", "cordon", "c02", "--specs", str(specs)) == 0
        assert "cordoned: [c02]" in deployment(specs)

    def test_enter_alone_does_not(self, specs: Path) -> None:
        before = deployment(specs)
        assert self.type_at_prompt(b"\n", "cordon", "c02", "--specs", str(specs)) == 1
        assert deployment(specs) == before
