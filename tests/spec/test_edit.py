"""Placement is deterministic, careful and idempotent; edits keep everything else in the file as it was."""

from __future__ import annotations

import pytest

from vcrecon.errors import Refused
from vcrecon.spec.edit import cordon, evacuate, place_directory, uncordon
from vcrecon.spec.load import load
from vcrecon.spec.place import place

BLOCK = """\
# our site
deployment:
    c01:   # rack 1
    - a-head   # keep an eye on this one

    # the next one is noisy
    - b-n2
    c02: [ b-head,  a-n2 ]   # rack 2
    # the xen machine
    c03:
      - a-n1
      - b-n1
# the end
"""


def test_place_fills_an_empty_deployment_and_then_has_nothing_to_do(small) -> None:
    (small.path / "deployment.yaml").unlink()
    edit = place_directory(small.path)
    edit.write()
    assert len(edit.moved) == 6
    assert small.findings() == []
    again = place_directory(small.path)
    assert (again.diff(), again.moved) == ("", ())


def test_place_separates_the_guests_of_a_cluster(small) -> None:
    spec = load(small.path).spec
    for guests in place(spec, {}, ()).deployment.values():
        assert len({spec.guests[name].cluster for name in guests}) == len(guests)


def test_place_gives_the_same_answer_every_time(small) -> None:
    spec = load(small.path).spec
    assert place(spec, {}, ()) == place(spec, {}, ())


def test_place_leaves_what_is_placed_well_and_settles_the_rest(small) -> None:
    small.replace("deployment.yaml", ", b-n1]", "]")
    edit = place_directory(small.path)
    assert edit.moved == (("b-n1", None, "c03"),)
    assert edit.new_text == edit.old_text.replace("[a-n1]", "[a-n1, b-n1]")


def test_place_respects_pins_and_cordons(small) -> None:
    small.replace("clusters.yaml", "      template: head", "      template: head\n      pinned: c03")
    spec = load(small.path, require_placement=False).spec
    placement = place(spec, spec.deployment, {"c01"})
    assert {m.guest: m.target for m in placement.moves} == {"a-head": "c03", "b-head": "c03"}
    fresh = place(spec, {}, {"c01"})
    assert fresh.deployment["c01"] == ()


def test_place_says_why_a_guest_fits_nowhere(small) -> None:
    small.replace("clusters.yaml", "node: {memory: 512MiB", "node: {memory: 64GiB")
    edit = place_directory(small.path)
    assert [guest for guest, _ in edit.stuck] == ["a-n1", "a-n2", "b-n1", "b-n2"]
    assert "needs 64GiB of memory" in edit.stuck[0][1]
    assert "short of memory" in edit.stuck[0][1]


def test_rebalance_spreads_guests_that_sit_together(small) -> None:
    small.write("deployment.yaml", "deployment:\n  c01: [a-head, a-n1, a-n2, b-head, b-n1, b-n2]\n")
    assert place_directory(small.path).moved == ()
    edit = place_directory(small.path, rebalance=True)
    edit.write()
    assert small.findings() == []
    assert place_directory(small.path, rebalance=True).moved == ()


def test_edits_keep_comments_spacing_and_blank_lines(small) -> None:
    small.write("deployment.yaml", BLOCK)
    edit = evacuate(small.path, "c03")
    assert {(guest, source) for guest, source, _ in edit.moved} == {("a-n1", "c03"), ("b-n1", "c03")}
    assert not edit.stuck
    removed = [line[1:] for line in edit.diff().splitlines() if line.startswith("-") and line[1:2] != "-"]
    assert removed == ["    c02: [ b-head,  a-n2 ]   # rack 2", "    c03:", "      - a-n1", "      - b-n1"]
    for comment in ("# our site", "# rack 1", "# keep an eye", "# the next one", "# rack 2", "# the end"):
        assert comment in edit.new_text
    edit.write()
    spec = load(small.path).spec
    assert spec.deployment["c03"] == ()
    assert spec.cordoned == {"c03"}


def test_a_flow_list_over_several_lines_keeps_its_file_s_comments(small) -> None:
    text = "# top\ndeployment:\n  c01: [a-head, # one\n    b-n2]\n  c02: [b-head, a-n2]\n  c03: [a-n1, b-n1]\n"
    small.write("deployment.yaml", text)
    edit = evacuate(small.path, "c01")
    edit.write()
    assert "# top" in edit.new_text
    assert load(small.path).spec.deployment["c01"] == ()


def test_cordon_and_uncordon_undo_each_other(small) -> None:
    before = load(small.path).spec
    cordon(small.path, "c02").write()
    assert load(small.path).spec.cordoned == {"c02"}
    assert cordon(small.path, "c02").diff() == ""
    uncordon(small.path, "c02").write()
    assert load(small.path).spec == before


def test_evacuate_says_which_guests_are_stuck(small) -> None:
    small.replace("clusters.yaml", "      template: head", "      template: head\n      pinned: c[01-02]")
    edit = evacuate(small.path, "c01")
    assert edit.stuck == (("a-head", "it is pinned to 'c01'; remove the pin in clusters.yaml"),)
    assert [guest for guest, _, _ in edit.moved] == ["b-n2"]


def test_an_unknown_container_is_refused_with_a_suggestion(small) -> None:
    with pytest.raises(Refused, match="no container 'c033' in the spec; did you mean 'c03'"):
        cordon(small.path, "c033")


def test_a_file_changed_in_the_meantime_is_not_overwritten(small) -> None:
    edit = cordon(small.path, "c02")
    small.append("deployment.yaml", "# somebody was here\n")
    with pytest.raises(Refused, match="changed in the meantime"):
        edit.write()
    assert "somebody" in small.read("deployment.yaml")


def test_write_keeps_the_mode_and_leaves_no_other_file(small) -> None:
    (small.path / "deployment.yaml").chmod(0o640)
    before = {entry.name for entry in small.path.iterdir()}
    cordon(small.path, "c02").write()
    assert (small.path / "deployment.yaml").stat().st_mode & 0o777 == 0o640
    assert {entry.name for entry in small.path.iterdir()} == before
