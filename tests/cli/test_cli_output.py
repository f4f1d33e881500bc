"""The helpers of the output, and the progress display."""

from __future__ import annotations

import io
import os

import pytest
from fake_site import a_container, a_guest, a_status, blocked
from rich.console import Console

from vcrecon.cli.output import columns, count, duration, listed, size
from vcrecon.cli.progress import Progress, SteadyConsole
from vcrecon.cli.serve import parse_listen


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (185, "3 min 5 s"),
        (7500, "2 h 5 min"),
        (7259, "2 h"),
        (273_600, "3 d 4 h"),
    ],
)
def test_durations_have_at_most_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (1023, "1023 B"), (2 << 30, "2.0 GiB"), (512 << 20, "512 MiB"), (5000 << 40, "5000 TiB")],
)
def test_sizes_are_binary(number: int, text: str) -> None:
    assert size(number) == text


def test_counts_and_lists_read_as_english() -> None:
    assert (count(1, "guest"), count(0, "guest")) == ("1 guest", "0 guests")
    assert listed(["a", "b", "c"], 2) == "a, b and 1 more"


class TestColumns:
    def test_they_are_aligned_and_end_without_blanks(self) -> None:
        lines = [line.plain for line in columns(("A", "B"), [("long one", "x"), ("é", "")])]
        assert lines == ["A         B", "long one  x", "é"]

    def test_an_empty_column_is_left_out(self) -> None:
        assert [line.plain for line in columns(("A", "B", "C"), [("1", "", "3")])] == ["A  C", "1  3"]

    def test_no_rows_are_no_lines(self) -> None:
        assert columns(("A",), []) == []


class TestListen:
    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("none", None),
            ("127.0.0.1:0", ("127.0.0.1", 0)),
            ("[::1]:9620", ("::1", 9620)),
            (":9620", ("0.0.0.0", 9620)),
            ("localhost:9620", ("localhost", 9620)),
        ],
    )
    def test_addresses_are_read(self, text: str, address: tuple[str, int] | None) -> None:
        assert parse_listen(text) == address


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class TestProgress:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def screen(self) -> io.StringIO:
        return io.StringIO()

    @pytest.fixture
    def progress(self, clock: Clock, screen: io.StringIO) -> Progress:
        return Progress(Console(file=screen, soft_wrap=True), live=False, line_every_s=1.0, clock=clock)

    def test_a_change_is_a_line(self, progress: Progress, clock: Clock, screen: io.StringIO) -> None:
        clock.now_s += 65
        progress.update(a_status(guests=[a_guest("a", state="imaged"), a_guest("b", state="imaged")]))
        assert screen.getvalue() == ("1 min 5 s  lab: converged, 0 of 2 guests running on 2 containers; 2 imaged\n")

    def test_no_change_is_no_line(self, progress: Progress, clock: Clock, screen: io.StringIO) -> None:
        for _ in range(3):
            progress.update(a_status())
            clock.now_s += 5
        assert screen.getvalue().count("\n") == 1

    def test_quick_changes_wait_and_the_last_is_shown_at_the_end(self, progress: Progress, screen: io.StringIO) -> None:
        with progress:
            for state in ("pending", "imaged", "contextualized"):
                progress.update(a_status(guests=[a_guest("a", state=state)]))
        shown = screen.getvalue()
        assert "pending" in shown
        assert "imaged" not in shown
        assert "1 contextualized" in shown

    def test_queues_are_shown_while_something_waits(self, progress: Progress, screen: io.StringIO) -> None:
        progress.update(a_status(queues={"installs": 0, "image-transfers": 7}))
        assert "; waiting: image-transfers 7" in screen.getvalue()

    def test_a_terminal_sees_trouble_at_once(self, clock: Clock, screen: io.StringIO) -> None:
        console = Console(file=screen, force_terminal=True, width=120, color_system=None)
        stuck = a_container("c01", blocked=blocked("no-volume-group", "make vg0 on c01"))
        with Progress(console, live=True, clock=clock) as progress:
            progress.update(a_status([stuck], []))
        assert "c01: make vg0 on c01" in screen.getvalue()
        assert progress.last is not None

    def test_the_work_goes_on_when_nobody_reads_any_more(self, clock: Clock) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w") as pipe:
            progress = Progress(SteadyConsole(file=pipe), live=False, clock=clock)
            for state in ("pending", "imaged"):
                progress.update(a_status(guests=[a_guest("a", state=state)]))
                clock.now_s += 5
            assert progress.last is not None
            assert progress.last["guests"][0]["state"] == "imaged"
