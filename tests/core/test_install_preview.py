"""What `vcrecon plan` says of an install, and of what follows from it."""

from __future__ import annotations

from worlds import ASite, a_spec, an_installable, seen, silent, students_disk

from vcrecon.preview import preview


def test_a_reinstall_is_shown_with_all_that_comes_after_it() -> None:
    site = ASite(an_installable(a_spec({"c1": ["alice"]})), seen("c1", [students_disk("alice", 2)]))
    site.reinstall("c1", {"alice": 2})
    report = preview(site.wanted, site.world, site.memory)
    assert [step.action for step in report.steps] == [
        "install", "set-up-network", "fetch-image", "create-volume", "contextualize", "start-guest",
    ]  # fmt: skip
    assert report.at_risk == ("alice",)
    first = report.steps[0]
    assert first.commands == (
        "systemctl reboot; boot 52:54:00:00:00:01 from the network; make its disks anew; install debian-kvm",
    )


def test_a_machine_that_was_never_seen_is_shown_as_what_it_waits_for() -> None:
    site = ASite(an_installable(a_spec({"c1": ["alice"]})), silent("c1"))
    report = preview(site.wanted, site.world, site.memory)
    assert (report.steps, [block["reason"] for block in report.blocked]) == ((), ["never-booted"])
