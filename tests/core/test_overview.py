"""What a person who watches is shown: levels, words and reasons from the status document, for terminal and page."""

from __future__ import annotations

from tests.cli.fake_site import NOW_S, a_container, a_guest, a_status, an_orphan, blocked

from vcrecon.core.overview import NO_CLUSTER, Level, Overview, overview

SILENT = {"reachable": False, "last_seen_s": NOW_S - 75, "blocked": blocked("timeout", "c02 does not answer")}


def tile(site: Overview, name: str) -> tuple[Level, str, int]:
    found = next(cluster for cluster in site.clusters if cluster.name == name)
    return found.level, found.word, found.running


def sums(site: Overview) -> dict[str, str]:
    return dict(site.sums)


class TestClusters:
    def test_a_cluster_whose_guests_run_is_well(self) -> None:
        assert tile(overview(a_status()), "a") == (Level.OK, "running", 2)

    def test_a_guest_that_died_shows_in_its_tile_with_the_reason(self) -> None:
        dead = a_guest("a-n1", state="stopped", seen_on=[], decision="do", message="start-guest: it should run")
        site = overview(a_status(guests=[a_guest("a-head"), dead], converged=False))
        assert tile(site, "a") == (Level.WARN, "1 stopped", 1)
        assert site.clusters[0].guests[1].note == "start-guest: it should run"
        assert site.headline == "Not as it should be"

    def test_a_guest_that_a_person_switched_off_is_as_wanted(self) -> None:
        off = a_guest("a-n1", state="stopped", decision="rest", message="switched off from inside")
        assert tile(overview(a_status(guests=[off])), "a") == (Level.OK, "1 stopped", 0)

    def test_guests_on_a_silent_container_are_not_called_running(self) -> None:
        site = overview(a_status([a_container("c01"), a_container("c02", **SILENT)], converged=False))
        assert tile(site, "a") == (Level.WARN, "1 unseen", 1)
        assert site.clusters[0].guests[1].note == "c02 is unreachable; it was running there"
        assert sums(site)["guests running"] == "1 of 2"

    def test_the_worst_guest_decides_and_is_named_first(self) -> None:
        guests = [
            a_guest("a-head", state="pending", decision="wait", message="waits for its image"),
            a_guest("a-n1", state="pending", blocked=blocked("disk-lost", "its disk is gone")),
        ]
        assert tile(overview(a_status(guests=guests)), "a") == (Level.BAD, "1 blocked, 1 pending", 0)

    def test_guests_without_a_cluster_have_a_tile_that_is_not_counted(self) -> None:
        site = overview(a_status(guests=[a_guest("a-head"), a_guest("instructor")]))
        assert tile(site, NO_CLUSTER) == (Level.OK, "running", 1)
        assert sums(site)["clusters well"] == "1 of 1"


class TestContainers:
    def test_a_silent_one_says_since_when_and_why(self) -> None:
        row = overview(a_status([a_container("c02", **SILENT)], [])).containers[0]
        assert (row.level, row.word) == (Level.BAD, "unreachable")
        assert row.note == "last seen 1 min ago; timeout: c02 does not answer"
        assert row.since_s == NOW_S - 75

    def test_one_that_was_not_looked_at_yet_is_no_trouble(self) -> None:
        row = overview(a_status([a_container("c01", reachable=False, last_seen_s=None)], [])).containers[0]
        assert (row.level, row.word) == (Level.WORK, "not looked at yet")

    def test_an_install_shows_how_far_it_is(self) -> None:
        install = {"step": "extract", "percent": 43.0, "eta_s": 120, "since_s": NOW_S - 61}
        site = overview(a_status([a_container("c01", state="installing", install=install)], []))
        assert site.containers[0].percent == 43.0
        assert site.containers[0].note == "extract 43 %, about 2 min left, for 1 min 1 s"
        assert (site.doing[0].what, site.doing[0].names) == ("install", ("c01",))

    def test_a_full_pool_is_a_warning(self) -> None:
        row = overview(a_status([a_container("c01", pool_metadata_percent=93.0)], [])).containers[0]
        assert (row.level, row.note) == (Level.WARN, "pool metadata 93 % full")


class TestSite:
    def test_a_site_without_guests_is_as_wanted(self) -> None:
        site = overview(a_status([a_container("c01")], []))
        assert (site.level, site.headline, site.clusters) == (Level.OK, "Everything is as wanted", ())

    def test_a_site_without_anything_is_too(self) -> None:
        assert overview(a_status([], [])).level is Level.OK

    def test_what_concerns_the_whole_site_is_a_banner(self) -> None:
        status = a_status(
            spec={"valid": False, "problems": ["site.yaml:3:1: error"], "held_back": "would stop 9"},
            frozen="too many are silent",
            trouble="the record cannot be written",
        )
        titles = [banner.title for banner in overview(status).banners]
        assert titles == [
            "Frozen: nothing is moved or reinstalled",
            "The spec has errors: generation 3 stays in force",
            "A change waits for your word",
            "Trouble with the record",
        ]
        assert overview(status).level is Level.BAD

    def test_a_site_that_is_paused_says_so(self) -> None:
        site = overview(a_status([a_container("c01", paused=True)], []))
        assert site.banners[0].title == "Paused: vcrecon looks, and does nothing"

    def test_a_block_says_what_to_type(self) -> None:
        item = overview(a_status([a_container("c02", **SILENT)], [])).attention[0]
        assert (item.subject, item.reason) == ("c02", "timeout")
        assert "`vcrecon fence c02 --confirmed`" in item.hint

    def test_what_happens_to_many_is_told_once(self) -> None:
        guests = [
            a_guest(f"a-n{n}", state="stopped", decision="do", message="start-guest: it should run") for n in range(9)
        ]
        guests += [
            a_guest(f"b-n{n}", state="pending", decision="wait", message=f"fetch under way for {n} s") for n in range(2)
        ]
        doing = overview(a_status(guests=guests, converged=False, queues={"starts": 4, "moves": 0})).doing
        assert [(d.what, d.why, len(d.names)) for d in doing] == [
            ("start-guest", "it should run", 9),
            ("waits", "fetch under way for", 2),
            ("waits", "for a free slot: starts 4", 0),
        ]

    def test_disks_kept_aside_and_strangers_are_noted(self) -> None:
        stranger = {"mac": "52:54:00:00:00:99"}
        notes = overview(a_status(orphans=[an_orphan("old-n1", "c02")], strangers=[stranger])).notes
        assert "old-n1" in notes[0]
        assert "`vcrecon adopt 52:54:00:00:00:99`" in notes[1]
