"""The queue of installs: slots, places, and estimates from what was measured."""

from __future__ import annotations

import pytest
from worlds import ASite, a_spec, an_installable, mac_of, seen

from vcrecon.core.actions import Install
from vcrecon.core.admission import Admission
from vcrecon.core.install_queue import begins_in_s, eta_s, place_words, progress_words
from vcrecon.core.installs import Progress
from vcrecon.core.memory import Attempts, Memory
from vcrecon.spec.model import Limits

FOUR = ("c1", "c2", "c3", "c4")


def an_install(container: str) -> Install:
    return Install(container, "it booted from the network", "debian-kvm", mac_of(container))


def ask_all(admission: Admission, memory: Memory, names: tuple[str, ...] = FOUR) -> list[str]:
    """The containers that got a slot."""
    return [name for name in names if admission.ask(an_install(name), memory) is None]


class TestSlots:
    def test_only_so_many_install_at_once(self) -> None:
        admission = Admission(Limits(installs=2))
        assert ask_all(admission, Memory()) == ["c1", "c2"]
        assert admission.lengths()["installs"] == 2

    def test_first_come_first_served(self) -> None:
        admission, memory = Admission(Limits(installs=2)), Memory()
        ask_all(admission, memory)
        assert [admission.place(an_install(name), "installs") for name in FOUR] == [None, None, (1, 2), (2, 2)]
        admission.done(an_install("c1"))
        assert ask_all(admission, memory, ("c4", "c3")) == ["c3"]
        assert admission.place(an_install("c4"), "installs") == (1, 1)

    def test_a_slot_lasts_from_the_ticket_to_its_end_also_across_a_restart(self) -> None:
        site = ASite(an_installable(a_spec({name: [] for name in FOUR}, limits=Limits(installs=2))))
        site.ticket("c3", "claimed")
        site.ticket("c4", "open")
        assert ask_all(Admission(site.spec.site.limits), site.memory) == ["c3", "c4"]

    def test_a_machine_that_only_starts_its_new_system_holds_no_slot(self) -> None:
        site = ASite(an_installable(a_spec({name: [] for name in FOUR}, limits=Limits(installs=2))))
        site.ticket("c3", "installed")
        assert ask_all(Admission(site.spec.site.limits), site.memory, ("c1", "c2")) == ["c1", "c2"]

    def test_installs_that_are_tried_again_do_not_keep_others_from_their_retries(self) -> None:
        admission, memory = Admission(Limits(installs=40)), Memory()
        for number in range(30):
            memory.attempts[f"container/x{number}"] = Attempts(1, 0.0, "corrupt", "")
            assert admission.ask(an_install(f"x{number}"), memory) is None

    def test_one_that_no_longer_wants_to_leaves_the_queue(self) -> None:
        admission = Admission(Limits(installs=2))
        ask_all(admission, Memory())
        admission.retain("c3", ())
        assert admission.place(an_install("c4"), "installs") == (1, 1)

    def test_after_a_power_cut_of_all_containers_none_is_installed(self) -> None:
        site = ASite(an_installable(a_spec({name: [] for name in FOUR})), *(seen(name) for name in FOUR))
        for name in FOUR:
            site.netboot(name)
        assert [site.kinds(name) for name in FOUR] == [[]] * 4


class TestEstimates:
    def test_there_is_none_before_the_first_has_ended(self) -> None:
        assert begins_in_s(1, 2, [30.0, 60.0], []) is None

    @pytest.mark.parametrize(("place", "seconds"), [(1, 40.0), (2, 70.0), (3, 140.0), (4, 170.0), (5, 240.0)])
    def test_those_that_wait_begin_as_those_before_them_end(self, place: int, seconds: float) -> None:
        assert begins_in_s(place, 2, [60.0, 30.0], [90.0, 100.0, 110.0]) == seconds

    def test_a_free_slot_is_free_at_once(self) -> None:
        assert begins_in_s(1, 3, [60.0], [100.0]) == 0.0

    def test_one_that_takes_longer_than_the_others_may_end_any_moment(self) -> None:
        assert begins_in_s(1, 1, [500.0], [100.0]) == 0.0

    def test_a_lowered_limit_waits_for_more_to_end(self) -> None:
        assert begins_in_s(1, 1, [60.0, 30.0], [100.0]) == 70.0

    def test_only_the_last_sixteen_count(self) -> None:
        assert begins_in_s(1, 1, [0.0], [1000.0] * 50 + [100.0] * 16) == 100.0

    def test_an_install_ends_as_its_percentage_says(self) -> None:
        assert eta_s(Progress("c1", "download", 100.0, 40.0, 25.0), 100.0) == 180.0

    def test_one_that_has_said_little_ends_as_others_did(self) -> None:
        assert eta_s(Progress("c1", "disks", 100.0, 90.0), 100.0, [80.0, 100.0, 120.0]) == 90.0
        assert eta_s(Progress("c1", "disks", 100.0, 90.0), 100.0) is None

    def test_they_read_as_sentences(self) -> None:
        assert place_words(3, 7, 238.0) == "place 3 of 7, about 4 min"
        assert place_words(1, 1, None) == "place 1 of 1"
        assert progress_words(Progress("c1", "download", 0, 0, 43.2), 61.0) == "download 43 %, about 60 s left"
        assert progress_words(Progress("c1", "disks", 0, 0), None) == "disks"
