"""Dashboards and alerts proved on a real Prometheus that scrapes the real service, while its site is broken and mended.

Every query of every panel and every alert of grafana/ is run. What a panel must show is asserted where it is broken;
at the end each query must have shown something somewhere, and a panel without a reason to be empty always.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Playground, playground
from machines import Machine, installable
from running import Place, Service, guest, move, rewrite, serving, settings, site_of
from scraping import Prometheus, Shown, free_port, panels, scraping
from tests.support.sites import metrics_of

from vcrecon.shell.metrics_port import TcpServer, metrics_app

ALL_RESTARTS = "round(sum(increase(vcrecon_guest_restarts_total[30m])))"
PATIENT = settings(look_deadline_s=10.0, connect_deadline_s=3.0)
ONLY_IN_INSTALLS = {("vcrecon-containers", "Installs"), ("vcrecon-containers", "Time of an install, by step")}
PERHAPS_BEFORE_THE_FIRST_SCRAPE = {
    ("vcrecon-controller", "Event lag"),
    ("vcrecon-controller", "Time of an action"),
    ("vcrecon-site", "Time to converge"),
}
EMPTY_WHEN_WELL = {
    ("vcrecon-site", "Blocked, and why"),
    ("vcrecon-site", "Alerts"),
    ("vcrecon-site", "Paused"),
    ("vcrecon-site", "Time to heal"),
    ("vcrecon-site", "Failures by action"),
    ("vcrecon-site", "Failures by error"),
    ("vcrecon-containers", "Blocked containers"),
    ("vcrecon-containers", "Installs"),
    ("vcrecon-containers", "Time of an install, by step"),
    ("vcrecon-clusters", "Restarts"),
    ("vcrecon-clusters", "Moves"),
}


def with_a_guide(specs: Path) -> None:
    """specs/small and a guest without a cluster, on c01."""

    def add(content: Any) -> None:
        interfaces = [{"network": "outside", "address": "10.200.0.50"}]
        content["guests"] = [{"name": "guide", "template": "node", "interfaces": interfaces}]

    rewrite(specs / "clusters.yaml", add)
    rewrite(specs / "deployment.yaml", lambda content: content["deployment"]["c01"].append("guide"))


class Story:
    """The site, its service and Prometheus, and what was shown so far."""

    def __init__(self, place: Place, prometheus: Prometheus) -> None:
        self.place, self.site, self.prometheus = place, place.site, prometheus
        self.seen: dict[str, Shown] = {}

    async def look(self, chapter: str) -> Shown:
        self.seen[chapter] = shown = await self.prometheus.shown()
        print(f"--- {chapter}\n{shown.table()}")
        return shown

    async def healthy(self, service: Service) -> None:
        await service.converged()
        await self.prometheus.value("vcrecon:site_health", 0)
        await self.prometheus.value("count(rate(vcrecon_loop_lag_seconds_count[20s]) > 0)", 1)
        shown = await self.look("healthy")
        assert shown.value("site", "Are we ready?") == 0
        assert (shown.value("site", "Guests running"), shown.value("site", "Guests in the spec")) == (7, 7)
        assert (shown.value("site", "Containers ready"), shown.value("site", "Containers in the spec")) == (3, 3)
        assert shown.value("site", "Converged") == shown.value("site", "Spec") == 1
        assert shown.value("site", "Frozen") == shown.value("site", "Under way") == 0
        assert shown.labels("site", "Site", "site") == ["small"]
        assert shown.labels("site", "Site", "session") == ["running"]
        assert shown.value("clusters", "Clusters ready") == 2
        assert [shown.value("clusters", "Clusters", cluster=name) for name in "ab"] == [0, 0]
        assert shown.labels("clusters", "Guests without a cluster", "guest") == ["guide"]
        assert shown.value("containers", "One row each", 3, container="c01") == 3, "guests"
        memory = shown.value("containers", "One row each", 4, container="c01")
        assert memory is not None
        assert 0 < memory < 1
        empty = {key for key, queries in shown.panels.items() if not queries[0]}
        assert empty - PERHAPS_BEFORE_THE_FIRST_SCRAPE == EMPTY_WHEN_WELL

    async def a_guest_dies_while_paused_and_heals(self, service: Service) -> None:
        await service.control.pause("cluster/a")
        await self.site.kill_guest("a-n1")
        await self.prometheus.value('vcrecon:cluster_health{cluster="a"}', 1, "the tile of a killed guest's cluster")
        shown = await self.look("a-n1 is killed while cluster a is paused")
        assert shown.value("clusters", "Clusters", cluster="b") == 0
        assert shown.value("clusters", "Clusters working") == 1
        assert shown.value("clusters", "Guests of the chosen clusters", 0, guest="a-n1", state="stopped") == 1
        assert shown.value("clusters", "Guests of the chosen clusters", 1, guest="a-n1") == 0
        assert shown.value("clusters", "Guests that run", cluster="a") == 2
        assert shown.value("site", "Guests by state", state="stopped") == 1
        assert shown.value("site", "Guests running") == 6
        assert shown.labels("site", "Paused", "object") == ["cluster/a"]
        assert shown.value("site", "Are we ready?") == 1, "a site with something paused is not ready"
        await service.control.resume("cluster/a")
        await self.prometheus.value('vcrecon:cluster_health{cluster="a"}', 0)
        await self.prometheus.value('round(increase(vcrecon_guest_restarts_total{guest="a-n1"}[30m]))', 1)
        await self.prometheus.until("rate(vcrecon_event_lag_seconds_count[20s]) > 0", bool, "the event was told")
        shown = await self.look("healed")
        assert shown.value("site", "Healed") == 1
        assert shown.value("site", "Moved by itself") == 1
        assert shown.value("clusters", "Restarts", cluster="a") == 1
        assert shown.value("clusters", "Guests of the chosen clusters", 3, guest="a-n1") == 1
        assert shown.value("site", "Time to heal", 1) is not None
        assert shown.value("controller", "Event lag") is not None
        assert shown.labels("site", "Paused", "object") == []

    async def a_guest_crashes_again_and_again(self, service: Service) -> None:
        await self.site.fail_command("c02", r"^lvchange", times=1)
        for _ in range(3):
            boots = self.site.witness.boots["b-head"]
            await self.site.kill_guest("b-head")
            await service.until(
                "b-head runs again",
                lambda s, boots=boots: (
                    self.site.witness.boots["b-head"] > boots and guest(s, "b-head")["state"] == "running"
                ),
                120.0,
            )
        await self.prometheus.fires("VcreconCrashLoop", guest="b-head")
        shown = await self.look("b-head died three times, and a command failed once")
        assert shown.value("clusters", "Restarts", cluster="b") == 3
        assert shown.value("site", "Failures by action", action="start-guest") == 1
        assert shown.labels("site", "Failures by error", "action") == ["start-guest"]
        assert "VcreconCrashLoop" in shown.labels("site", "Alerts", "alertname")
        assert shown.labels("containers", "One row each", "container", 8) == ["c02"], "the last error"
        assert (shown.value("controller", "Retries") or 0) > 0

    async def much_breaks_at_once(self) -> str:
        """Returns the deployment as it should be again."""
        await self.site.cut("c03")
        await self.site.fill_pool("c01", 90.0, 20.0)
        await self.site.remove_package("c02", "nftables")
        await self.prometheus.fires("VcreconContainerDown", container="c03")
        move(self.place.specs, "a-n1", "c02")
        await self.prometheus.value("vcrecon_spec_generation", 2)
        await self.prometheus.until("changes(vcrecon_spec_generation[1m]) > 0", bool, "a mark for the generation")
        await self.prometheus.fires("VcreconGuestBlocked", guest="a-n1")
        deployment = self.place.specs / "deployment.yaml"
        good = deployment.read_text()
        deployment.write_text(good.replace("b-head", "b-haed"))
        await self.prometheus.fires("VcreconSpecInvalid")
        await self.prometheus.fires("VcreconNotConverged")
        await self.prometheus.fires("VcreconContainerBlocked", container="c02")
        await self.prometheus.fires("VcreconPoolNearlyFull", container="c01", part="data")
        await self.prometheus.value("count(vcrecon:cluster_health == 2)", 2)
        await self.prometheus.value("vcrecon:site_health", 2)
        troubled = {"guest/a-n1", "container/c02", "container/c03"}
        while not troubled <= set((shown := await self.look("broken")).labels("site", "Blocked, and why", "object")):
            pass  # what is just being tried again is not blocked for that moment
        assert shown.value("site", "Are we ready?") == 2
        assert (shown.value("site", "Guests running"), shown.value("site", "Guests in the spec")) == (5, 7)
        assert (shown.value("site", "Spec"), shown.value("site", "Generation")) == (0, 2)
        assert shown.value("site", "Converged") == 0
        assert [shown.value("containers", "Containers", container=f"c0{n}") for n in (2, 3)] == [2, 2]
        assert shown.value("containers", "One row each", 1, container="c03") == 0
        assert shown.value("containers", "One row each", 5, container="c01") == pytest.approx(0.9)
        assert shown.value("containers", "Pool metadata", container="c01") == pytest.approx(0.2)
        assert "c03" in shown.labels("containers", "One row each", "container", 8)
        assert set(shown.labels("containers", "Blocked containers", "container")) >= {"c02", "c03"}
        assert [shown.value("clusters", "Clusters", cluster=name) for name in "ab"] == [2, 2]
        assert shown.value("clusters", "Clusters that need help") == 2
        assert "a-n1" in shown.labels("clusters", "Guests of the chosen clusters", "guest", 5)
        assert set(shown.labels("site", "Alerts", "alertname")) >= {"VcreconContainerDown", "VcreconSpecInvalid"}
        return good

    async def all_is_mended(self, service: Service, deployment: str) -> None:
        (self.place.specs / "deployment.yaml").write_text(deployment)
        await self.site.fill_pool("c01", 10.0, 1.0)
        await self.site.install_package("c02", "nftables")
        await self.site.mend("c03")
        await service.converged(300.0)
        for what in ("ContainerDown", "ContainerBlocked", "GuestBlocked", "SpecInvalid", "NotConverged"):
            await self.prometheus.clears(f"Vcrecon{what}")
        await self.prometheus.clears("VcreconPoolNearlyFull")
        await self.prometheus.value("sum(vcrecon:guest_running)", 7)
        await self.prometheus.value("vcrecon:site_health", 0)
        await self.prometheus.value('round(increase(vcrecon_guest_moves_total{guest="a-n1"}[30m]))', 1)
        await self.prometheus.until(
            "sum by (guest, cluster) (increase(vcrecon_guest_moves_total[1m])) > 0", bool, "a mark for the move"
        )
        shown = await self.look("mended, and a-n1 moved to c02")
        assert shown.value("clusters", "Moves", cluster="a") == 1
        assert shown.value("clusters", "Guests of the chosen clusters", 4, guest="a-n1") == 1
        assert shown.labels("clusters", "Guests of the chosen clusters", "container", 0).count("c02") == 3
        assert shown.value("site", "Guests running") == 7
        assert shown.labels("site", "Blocked, and why", "object") == []

    async def every_container_vanishes(self, service: Service) -> None:
        for name in self.site.hosts:
            await self.site.cut(name)
        await self.prometheus.fires("VcreconSiteFrozen")
        await self.prometheus.value("sum(vcrecon:guest_running)", 0)
        await self.prometheus.value("vcrecon:site_health", 2)
        shown = await self.look("every container is cut off")
        assert (shown.value("site", "Frozen"), shown.value("site", "Are we ready?")) == (1, 2)
        assert (shown.value("site", "Guests running"), shown.value("site", "Guests in the spec")) == (0, 7)
        for name in self.site.hosts:
            await self.site.mend(name)
        await self.prometheus.clears("VcreconSiteFrozen")
        await service.converged(300.0)

    async def the_record_is_full(self, service: Service, disk: Path) -> None:
        filler = disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        await self.site.kill_guest("b-n2")
        await self.prometheus.fires("VcreconRecordNotWritable")
        await self.prometheus.value("vcrecon:site_health", 2)
        shown = await self.look("the record's disk is full")
        assert shown.value("controller", "Record") == 0
        # What cannot be written down does not count: its cluster's tile is as before, and the site's says help.
        assert shown.value("clusters", "Clusters", cluster="b") == 0
        filler.unlink()
        await service.converged(300.0)

    async def prometheus_is_away(self, service: Service) -> None:
        """What happened meanwhile is counted; what happened before is not lost."""
        await self.prometheus.value(ALL_RESTARTS, 6, "a-n1 twice (once for its move), b-head three times, b-n2")
        await self.prometheus.stop(signal.SIGKILL)
        boots = self.site.witness.boots["guide"]
        await self.site.kill_guest("guide")
        await service.until(
            "guide runs again",
            lambda s: self.site.witness.boots["guide"] > boots and guest(s, "guide")["state"] == "running",
            120.0,
        )
        await self.prometheus.start()
        await self.prometheus.value('round(increase(vcrecon_guest_restarts_total{guest="guide"}[30m]))', 1)
        await self.prometheus.value(ALL_RESTARTS, 7)

    async def the_controller_is_away(self) -> None:
        await self.prometheus.fires("VcreconControllerDown")
        shown = await self.look("the controller is stopped")
        assert shown.value("site", "Are we ready?") == 3
        assert shown.value("controller", "Up") == 0

    async def the_controller_is_back(self, service: Service) -> None:
        await service.converged(300.0)
        await self.prometheus.clears("VcreconControllerDown")
        await self.prometheus.value("sum(vcrecon_guest_restarts_total)", 0, "its counters begin anew")
        await self.prometheus.value(ALL_RESTARTS, 7, "what was counted before is not lost, and nothing twice")
        await self.prometheus.clears("VcreconRecordNotWritable")
        shown = await self.look("the controller is back")
        assert shown.value("site", "Are we ready?") == 0
        assert shown.value("clusters", "Restarts", cluster="a") == 2, "the second after its move"

    def nothing_was_left_out(self) -> None:
        for board, panel in panels():
            key = (board.uid, panel.title)
            if key in ONLY_IN_INSTALLS:
                continue
            chapters = {name: shown for name, shown in self.seen.items() if name != "the controller is stopped"}
            for number, _ in enumerate(panel.queries):
                assert any(shown.panels[key][number] for shown in chapters.values()), f"{key}, query {number + 1}"
            if not panel.empty:
                silent = [name for name, shown in chapters.items() if not shown.panels[key][0]]
                assert silent == [], f"{key} gives no reason why it may be empty"


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(1500)
async def test_every_panel_and_alert_shows_what_is_true(
    tmp_path: Path, small_disk: Path, program: Callable[[str], str]
) -> None:
    port = free_port()
    listen = ("127.0.0.1", port)
    began_s = time.monotonic()
    async with (
        site_of(tmp_path, change=with_a_guide) as place,
        scraping(program("prometheus"), tmp_path / "prometheus", f"127.0.0.1:{port}") as prometheus,
    ):
        story = Story(place, prometheus)
        await prometheus.fires("VcreconControllerDown")
        async with serving(place, settings=PATIENT, listen=listen) as service:
            await prometheus.clears("VcreconControllerDown")
            await story.healthy(service)
            await story.a_guest_dies_while_paused_and_heals(service)
            await story.a_guest_crashes_again_and_again(service)
            deployment = await story.much_breaks_at_once()
            await story.all_is_mended(service, deployment)
            await story.every_container_vanishes(service)
            await story.the_record_is_full(service, small_disk)
            await story.prometheus_is_away(service)
        await story.the_controller_is_away()
        async with serving(place, settings=PATIENT, listen=listen) as service:
            await story.the_controller_is_back(service)
        story.nothing_was_left_out()
    print(f"the whole story took {time.monotonic() - began_s:.0f} s")


async def with_two_blank_and_one_slot(play: Playground) -> None:
    await installable(play)
    with play.files.editing("site") as site:
        site["limits"]["installs"] = 1
    for name in ("c01", "c02"):
        await Machine(play, name).blank()


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_installs_and_their_queue_are_shown(tmp_path: Path, program: Callable[[str], str]) -> None:
    async with playground(tmp_path, bind=with_two_blank_and_one_slot, converge=False) as play:

        def render() -> bytes:
            play.metrics.set_installs(play.controls.installs())  # as the service's housekeeping does
            play.metrics.set_spec(valid=True, generation=1)
            return play.metrics.render()

        server = TcpServer(metrics_app(render, lambda: (True, ""), lambda: (True, "")), "127.0.0.1", 0)
        await server.start()
        target = server.url.removeprefix("http://")
        try:
            async with scraping(program("prometheus"), tmp_path / "prometheus", target) as prometheus:
                first, second = Machine(play, "c01"), Machine(play, "c02")
                first.go_on.clear()
                first.boot()
                await play.until(lambda: "c01" in play.record.memory.tickets, "the first begins")
                second.boot()
                await prometheus.value('vcrecon_queue{queue="installs"}', 1)
                await prometheus.fires("VcreconInstallQueueStuck")
                await prometheus.value('vcrecon_install_progress_ratio{container="c01",step="filesystems"}', 0.4)
                shown = await prometheus.shown()
                print(f"--- installs\n{shown.table()}")
                assert shown.labels("containers", "Installs", "container") == ["c01"]
                assert shown.labels("containers", "Installs", "container", 1) == ["c01"], "the time left"
                assert shown.value("site", "Queue", queue="installs") == 1
                assert shown.value("containers", "Containers", container="c01") == 1, "being made ready, not down"
                assert "VcreconContainerDown" not in shown.labels("site", "Alerts", "alertname")
                first.go_on.set()
                await play.converged()
                await prometheus.clears("VcreconInstallQueueStuck")
                await prometheus.until("vcrecon_install_step_seconds_count", bool, "the steps are counted")
                await prometheus.value("absent(vcrecon_install_progress_ratio)", 1, "no install is under way")
                shown = await prometheus.shown()
                print(f"--- installed\n{shown.table()}")
                assert "download" in shown.labels("containers", "Time of an install, by step", "step")
                assert shown.labels("containers", "Installs", "container") == []
        finally:
            await server.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("containers", "clusters"), [(1, 0), (1000, 2000)])
async def test_a_site_of_any_size_is_shown_as_it_is(
    tmp_path: Path, program: Callable[[str], str], containers: int, clusters: int
) -> None:
    metrics = metrics_of(containers, clusters)
    server = TcpServer(metrics_app(metrics.render, lambda: (True, ""), lambda: (True, "")), "127.0.0.1", 0)
    await server.start()
    try:
        async with scraping(
            program("prometheus"), tmp_path / "prometheus", server.url.removeprefix("http://"), every="10s"
        ) as prometheus:
            await prometheus.value("vcrecon:site_health", 0)
            await prometheus.value("sum(vcrecon:guest_running) or vector(0)", 5 * clusters)
            await prometheus.value("count(vcrecon:cluster_health == 0) or vector(0)", clusters)
            shown = await prometheus.shown()
            print(shown.table())
            assert shown.value("site", "Guests in the spec") == 5 * clusters
            assert shown.value("site", "Containers ready") == containers
            assert len(shown.panels["vcrecon-containers", "One row each"][0]) == containers
            assert len(shown.panels["vcrecon-clusters", "Clusters"][0]) == clusters
            assert len(shown.panels["vcrecon-clusters", "Guests of the chosen clusters"][0]) == 5 * clusters
            assert shown.labels("site", "Alerts", "alertname") == []
    finally:
        await server.close()
