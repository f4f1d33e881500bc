"""The screen of `status --watch`: it fits, it says what is wrong first, and nothing in it can move the cursor."""

from __future__ import annotations

from typing import Any

import pytest
from fake_site import NOW_S, a_container, a_guest, a_status, blocked

from vcrecon.cli.watch_view import Screen, frame
from vcrecon.core.overview import overview


def a_class(clusters: int = 26, containers: int = 64) -> dict[str, Any]:
    guests = [
        a_guest(f"k{k}-n{n}", f"c{(5 * k + n) % containers}", cluster=f"k{k}")
        for k in range(clusters)
        for n in range(5)
    ]
    return a_status([a_container(f"c{n}") for n in range(containers)], guests)


def shown(status: dict[str, Any], width: int = 80, height: int = 24, age_s: float = 0.2, **options: Any) -> list[str]:
    trouble = options.pop("trouble", "")
    found = frame(overview(status), Screen(width, height, **options), age_s=age_s, trouble=trouble)
    assert len(found.lines) == height
    assert max(line.cell_len for line in found.lines) <= width
    return [line.plain.rstrip() for line in found.lines]


def test_a_class_that_is_well_fits_an_old_terminal_with_a_tile_for_each_cluster() -> None:
    lines = shown(a_class())
    assert lines[0].startswith(" ✓ Everything is as wanted")
    assert sum(line.count("5/5") for line in lines) == 26
    assert " ✓ 64 containers vlan-ready and well" in lines
    assert "scroll" not in lines[-1]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (20, 5), (1, 1), (300, 100)])
def test_a_large_site_fits_any_screen(width: int, height: int) -> None:
    site = a_class(200, 1000)
    site["guests"][7].update(state="stopped", decision="do", message="start-guest: it should run")
    site["containers"][500].update(reachable=False, blocked=blocked("timeout", "no answer"))
    lines = shown(site, width, height)
    if width >= 80:
        text = "\n".join(lines)
        assert "! k1 4/5 1 stopped" in text
        assert "✕ unreachable" in text
        assert "999 containers vlan-ready and well" in text


def test_everything_can_be_reached_by_scrolling() -> None:
    site = a_class(40, 200)
    seen, top = set[str](), 0
    while True:
        lines = shown(site, scroll=top, every=True)
        seen |= {line.split()[0] for line in lines if line.startswith(" c")}
        if "more below" not in lines[-1]:
            break
        top += 20
    assert {f"c{n}" for n in range(200)} <= seen


def test_scrolling_too_far_shows_the_end() -> None:
    assert shown(a_class(200, 1000), scroll=10**6, every=True)[-2].split()[0] == "c999"


def test_site_wide_trouble_stands_at_the_top_before_all_else() -> None:
    status = a_status(frozen="5 of 64 are silent", spec={"valid": False, "problems": ["a.yaml:1:2: error: x"]})
    lines = shown(status)
    assert lines[2] == " ✕ Frozen: nothing is moved or reinstalled"
    assert lines[3].strip() == "5 of 64 are silent"
    assert lines[4] == " ✕ The spec has errors: generation 3 stays in force"
    assert lines[5].strip() == "a.yaml:1:2: error: x"


def test_old_data_is_called_old() -> None:
    assert "No answer" not in "\n".join(shown(a_status(), age_s=2.0))
    assert shown(a_status(), age_s=2.0)[0].endswith("seen 2 s ago")
    lines = shown(a_status(), age_s=65.0, trouble="no running service answers at /run/x")
    assert lines[0] == " ✕ No answer for 1 min 5 s: what is below is old. Asking again …"
    assert lines[1].strip() == "no running service answers at /run/x"


def test_an_install_has_a_bar() -> None:
    install = {"step": "extract", "percent": 43.0, "eta_s": 120, "since_s": NOW_S - 61}
    text = "\n".join(shown(a_status([a_container("c01", state="installing", install=install)], []), width=100))
    assert "[####......] extract 43 %, about 2 min left" in text


def test_what_a_host_printed_cannot_move_the_cursor() -> None:
    evil = a_guest("a-head", state="pending", blocked=blocked("corrupt", "\x1b[2J\x1b]0;mine\x07\r\n\x9b1A ünï ‮"))
    text = "".join(shown(a_status(guests=[evil])))
    assert all(character.isprintable() for character in text)
    assert "ünï" in text


def test_a_terminal_without_unicode_gets_plain_letters() -> None:
    lines = shown(a_class(), ascii_only=True)
    assert all(line.isascii() for line in lines)
    assert lines[0].startswith(" + Everything is as wanted")
