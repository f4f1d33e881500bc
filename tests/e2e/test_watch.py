"""`vcrecon status --watch` on a terminal of its own: what the screen shows, keys, sizes, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from running import until
from terminals import Typist, at_a_terminal
from tests.cli.fake_site import FakeControls, a_container, a_guest, a_status, blocked, served

LEAVES = "\x1b[?25h\x1b[?1049l"
"""What gives the cursor and the screen back (xterm's control sequences, DECTCEM and 1049)."""


@pytest.fixture
def controls() -> FakeControls:
    return FakeControls()


@pytest.fixture
def state(tmp_path: Path, controls: FakeControls) -> Iterator[Path]:
    with served(controls, tmp_path / "control.sock"):
        yield tmp_path


@contextlib.asynccontextmanager
async def watching(state: Path, *arguments: str) -> AsyncIterator[Typist]:
    async with at_a_terminal("status", "--watch", "--state", str(state), *arguments) as typist:
        await typist.until(lambda lines: "lab" in lines[0])
        yield typist


def shows(text: str, line: int | None = None) -> object:
    return lambda lines: any(text in found for found in (lines if line is None else [lines[line]]))


async def gives_back(typist: Typist, modes: list[object]) -> None:
    await typist.sees(LEAVES)
    assert typist.modes() == modes
    assert not typist.screen.cursor.hidden


async def test_what_breaks_and_mends_is_shown_as_it_happens(state: Path, controls: FakeControls) -> None:
    async with watching(state) as typist:
        await typist.until(lambda lines: "Everything is as wanted" in lines[0] and " ✓ a 2/2" in "\n".join(lines))
        silent = a_container("c02", reachable=False, blocked=blocked("timeout", "c02 does not answer"))
        dead = a_guest("b-n1", state="stopped", seen_on=[], decision="do", message="start-guest: it should run")
        well, controls.site = (
            controls.site,
            a_status(
                [a_container("c01"), silent],
                [a_guest("a-n1", "c02"), dead],
                converged=False,
                frozen="too many are silent",
            ),
        )
        words = ("! a 0/1 1 unseen", "! b 0/1 1 stopped", "c02  timeout", "start-guest b-n1: it should run")
        await typist.until(
            lambda lines: (
                "Needs attention" in lines[0]
                and "Frozen" in lines[2]
                and all(each in "\n".join(lines) for each in words)
            )
        )
        controls.site = well
        await typist.until(lambda lines: "Everything" in lines[0] and "stopped" not in "\n".join(lines))


@pytest.mark.parametrize("key", ["q", "\x03"], ids=["q", "Ctrl-C"])
async def test_it_ends_and_gives_the_terminal_back(state: Path, key: str) -> None:
    async with at_a_terminal("status", "--watch", "--state", str(state)) as typist:
        modes = typist.modes()
        await typist.sees("\x1b[?1049h")
        await typist.until(shows("Everything is as wanted", 0))
        assert typist.modes() != modes, "keys count as they are typed"
        # A terminal that is not the controlling one turns Ctrl-C into no signal.
        typist.type(key) if key == "q" else typist.process.send_signal(signal.SIGINT)
        await gives_back(typist, modes)
        assert await typist.ends() == (0 if key == "q" else 130)


async def test_a_signal_ends_it_as_politely(state: Path) -> None:
    async with at_a_terminal("status", "--watch", "--state", str(state)) as typist:
        modes = typist.modes()
        await typist.until(shows("Everything is as wanted", 0))
        typist.process.send_signal(signal.SIGTERM)
        await gives_back(typist, modes)


async def test_suspended_it_gives_the_terminal_back_and_takes_it_again(state: Path) -> None:
    async with at_a_terminal("status", "--watch", "--state", str(state)) as typist:
        modes = typist.modes()
        await typist.until(shows("Everything is as wanted", 0))
        typist.process.send_signal(signal.SIGTSTP)
        await gives_back(typist, modes)
        await until("it is stopped", lambda: _process_state(typist.process.pid) == "T")
        typist.process.send_signal(signal.SIGCONT)
        await typist.sees("\x1b[?1049h")
        await typist.until(shows("Everything is as wanted", 0))
        typist.type("q")
        assert await typist.ends() == 0


def _process_state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def test_it_takes_each_size_and_scrolls_through_what_does_not_fit(state: Path, controls: FakeControls) -> None:
    guests = [a_guest(f"k{k}-n{n}", f"c{k}", cluster=f"k{k}") for k in range(200) for n in range(5)]
    controls.site = a_status([a_container(f"c{n}") for n in range(1000)], guests)
    async with watching(state) as typist:
        await typist.until(shows("✓ 1000 containers vlan-ready and well"))
        typist.resize(80, 24)
        await typist.until(
            lambda lines: len(lines) == 24 and "q ends" in lines[23] and "200 clusters well" in "".join(lines)
        )
        typist.type("a")
        await typist.until(shows("more below", 23))
        typist.type("G")
        await typist.until(lambda lines: lines[22].startswith(" c999"))
        typist.type("\x1b[5~")
        await typist.until(lambda lines: "more below" in lines[23] and "c999" not in "".join(lines))
        typist.type("ga")
        await typist.until(shows("200 clusters well"))
        typist.resize(30, 8)
        await typist.until(lambda lines: len(lines) == 8 and "q ends" in lines[7])


async def test_a_calm_site_is_not_drawn_again(state: Path, controls: FakeControls) -> None:
    """No flicker: only lines that changed are written, and those by their place."""
    async with watching(state) as typist:
        await typist.until(shows("seen 0 s ago", 0))
        typist.shown = ""
        controls.site = a_status(converged=False)
        await typist.until(shows("Working on it", 0))
        assert "\x1b[2J" not in typist.shown
        assert "5/5" not in typist.shown
        assert "c01" not in typist.shown, "its line is as it was"


async def test_a_service_that_goes_is_missed_and_found_again(tmp_path: Path, controls: FakeControls) -> None:
    socket = tmp_path / "control.sock"
    with served(controls, socket):
        typing = watching(tmp_path)
        typist = await typing.__aenter__()
    try:
        await typist.until(lambda lines: "No answer for" in lines[0] and "no running service answers" in _flat(lines))
        assert "Everything is as wanted" in "".join(typist.screen.display), "what was seen last is still there"
        with served(controls, socket):
            await typist.until(shows("Everything is as wanted", 0))
            typist.type("q")
            assert await typist.ends() == 0
    finally:
        await typing.__aexit__(None, None, None)


def _flat(lines: Sequence[str]) -> str:
    return " ".join(" ".join(lines).split())


async def test_a_service_that_hangs_is_said_not_to_answer(state: Path, controls: FakeControls) -> None:
    async with watching(state) as typist:
        controls.answers.clear()
        try:
            # The path of the socket decides where the reason is broken into lines.
            await typist.until(lambda lines: "No answer for" in lines[0] and "did not answer" in _flat(lines[1:4]))
        finally:
            controls.answers.set()
        await typist.until(shows("Everything is as wanted", 0))


async def test_filters_count_and_a_wrong_one_is_an_error(state: Path) -> None:
    async with watching(state, "--container", "c02") as typist:
        await typist.until(lambda lines: "a 1/1" in "".join(lines) and "c01" not in "".join(lines))
    async with at_a_terminal("status", "--watch", "--state", str(state), "--cluster", "aa") as typist:
        await typist.sees("the site has no object 'cluster/aa'")
        assert await typist.ends() == 1


async def test_without_a_service_it_says_so_and_leaves_the_screen_alone(tmp_path: Path) -> None:
    async with at_a_terminal("status", "--watch", "--state", str(tmp_path)) as typist:
        await typist.sees("start one with `vcrecon run SPECS`")
        assert await typist.ends() == 1
        assert "\x1b[?1049h" not in typist.shown


async def test_without_a_terminal_it_prints_a_line_when_something_changes(state: Path, controls: FakeControls) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "vcrecon", "status", "--watch", "--state", str(state),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            assert await process.stdout.readline() == b"lab: converged, 2 of 2 guests running on 2 containers\n"
            controls.site = a_status(guests=[a_guest("a-head", state="stopped")], converged=False)
            assert await process.stdout.readline() == b"lab: not converged, 0 of 1 guest running on 2 containers\n"
    finally:
        process.kill()
        await process.wait()
