"""`events`: from the service, followed, and from the record when no service runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fake_site import FakeControls, Type, an_event

from vcrecon.shell.record import Record


@pytest.fixture(autouse=True)
def _history(controls: FakeControls) -> None:
    controls.history = [an_event(1), an_event(2, "container/c01", "network set up"), an_event(3)]


class TestFromTheService:
    def test_an_event_is_a_line(self, vcrecon: Type, state: Path) -> None:
        result = vcrecon("events", "c01", "--state", state)
        assert result.code == 0
        assert result.out.split() == [*("1970-01-12", "13:46:42", "container/c01", "step", "network", "set", "up")]

    def test_the_newest_come_last(self, vcrecon: Type, state: Path) -> None:
        lines = vcrecon("events", "-n", "2", "--state", state).out.splitlines()
        assert [line.split()[2] for line in lines] == ["container/c01", "guest/a-head"]

    def test_json_is_one_document(self, vcrecon: Type, state: Path) -> None:
        found = json.loads(vcrecon("events", "a-head", "--json", "--state", state).out)
        assert [event["id"] for event in found["events"]] == [1, 3]

    def test_a_mistyped_object_is_an_error(self, vcrecon: Type, state: Path) -> None:
        assert "did you mean 'a-head'?" in vcrecon("events", "a-haed", "--state", state).err

    def test_following_shows_what_happens_next(self, state: Path, controls: FakeControls) -> None:
        command = [sys.executable, "-m", "vcrecon", "events", "-f", "--json", "--state", str(state)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                assert [json.loads(process.stdout.readline())["id"] for _ in range(3)] == [1, 2, 3]
                controls.history.append(an_event(4))
                assert json.loads(process.stdout.readline())["id"] == 4
            finally:
                process.kill()


class TestFromTheRecord:
    @pytest.fixture
    def left(self, tmp_path: Path) -> Path:
        """The state directory of a service that ended."""
        directory = tmp_path / "left"
        with Record.open(directory, clock=lambda: 1_000_000.0) as record:
            record.event("guest/a-head", "step", "first boot", password="hunter2")
            record.event("site", "stopped", "done")
        return directory

    def test_history_survives_the_service(self, vcrecon: Type, left: Path) -> None:
        found = json.loads(vcrecon("events", "--json", "--state", left).out)
        assert [event["subject"] for event in found["events"]] == ["guest/a-head", "site"]

    def test_a_short_name_is_found(self, vcrecon: Type, left: Path) -> None:
        assert "first boot" in vcrecon("events", "a-head", "--state", left).out

    def test_an_object_without_history_is_told(self, vcrecon: Type, left: Path) -> None:
        result = vcrecon("events", "b-head", "--state", left)
        assert (result.code, result.out) == (1, "")
        assert "no events about 'b-head' in the record" in result.err

    def test_following_needs_a_service(self, vcrecon: Type, left: Path) -> None:
        result = vcrecon("events", "-f", "--state", left)
        assert result.code == 1
        assert "no running service found" in result.err
