"""What bad input gets, by the running service: nothing is stopped or deleted, and status says what is wrong where."""

from __future__ import annotations

import copy
import os
import random
import shutil
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from running import (
    GUESTS,
    QUICK,
    Place,
    Service,
    boots,
    rewrite,
    running,
    serving,
    site_of,
)

from vcrecon.core.memory import Memory
from vcrecon.core.observation import ALL_PARTS
from vcrecon.core.wanted import Wanted
from vcrecon.core.world import World
from vcrecon.errors import Refused, SpecError
from vcrecon.preview import preview
from vcrecon.shell.connector import Connector
from vcrecon.shell.observe import observe
from vcrecon.shell.record import Record
from vcrecon.spec.load import load
from vcrecon.spec.model import Spec

FILES = ("site.yaml", "images.yaml", "containers.yaml", "clusters.yaml", "deployment.yaml")
HARMFUL = frozenset({"stop-guest", "discard", "quarantine", "prune"})


async def _bad(service: Service, *expected: str) -> None:
    """The spec on disk is refused with these words, and nothing else changed."""
    status = await service.until(
        f"a finding with {expected}",
        lambda s: not s["spec"]["valid"] and all(any(e in p for p in s["spec"]["problems"]) for e in expected),
        10,
    )
    assert status["spec"]["generation"] == 1
    assert running(status, GUESTS)


async def _good(service: Service) -> None:
    await service.until("in order again", lambda s: s["spec"]["valid"], 10)


class TestSpecFiles:
    async def test_an_empty_directory_is_refused_at_the_start(self, tmp_path: Path) -> None:
        async with site_of(tmp_path) as place:
            for path in place.specs.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            with pytest.raises(SpecError, match="no spec files here"):
                async with serving(place):
                    pass

    async def test_an_emptied_directory_changes_nothing(self, tmp_path: Path) -> None:
        async with site_of(tmp_path) as place, serving(place) as service:
            await service.converged()
            kept = tmp_path / "kept"
            shutil.copytree(place.specs, kept)
            for path in place.specs.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            await _bad(service, "no spec files here")
            shutil.copytree(kept, place.specs, dirs_exist_ok=True)
            await _good(service)
            assert set((await boots(place.site)).values()) == {1}

    async def test_each_missing_empty_or_unreadable_file_is_named_and_changes_nothing(self, tmp_path: Path) -> None:
        async with site_of(tmp_path) as place, serving(place) as service:
            await service.converged()
            for name in FILES:
                path = place.specs / name
                content = path.read_bytes()
                path.unlink()
                await _bad(service, f"{name}:0:0: error: the file is missing")
                path.write_bytes(b"")
                await _bad(service, f"{name}:0:0: error: the file is empty")
                path.write_bytes(content[:40] + b"\xff\xfe" + content[40:])
                await _bad(service, f"{name}:")
                path.write_bytes(b"a: &a [x, x]\nb: &b [*a, *a, *a, *a]\nc: [*b, *b, *b, *b]\n" + content)
                await _bad(service, f"{name}:")
                path.write_bytes(content)
                await _good(service)
            assert set((await boots(place.site)).values()) == {1}

    async def test_two_files_that_disagree_change_nothing(self, tmp_path: Path) -> None:
        """A guest that one file knows and the other does not; one on two containers; a container that is gone."""
        async with site_of(tmp_path) as place, serving(place) as service:
            await service.converged()
            deployment, clusters = place.specs / "deployment.yaml", place.specs / "clusters.yaml"
            containers = place.specs / "containers.yaml"
            kept = {path: path.read_text() for path in (deployment, clusters, containers)}
            for path, before, after, expected in (
                (deployment, "[b-head, a-n2]", "[b-head, a-n2, a-head]", "a-head"),
                (deployment, "[b-head, a-n2]", "[b-head]", "a-n2"),
                (clusters, "count: 2", "count: 1", "a-n2"),
                (containers, "name: c03", "name: c04", "c03"),
            ):
                assert before in kept[path], path
                path.write_text(kept[path].replace(before, after))
                await _bad(service, expected)
                path.write_text(kept[path])
                await _good(service)
            assert set((await boots(place.site)).values()) == {1}

    async def test_a_spec_without_half_of_the_guests_waits_for_a_person(self, tmp_path: Path) -> None:
        async with site_of(tmp_path) as place, serving(place) as service:
            await service.converged()
            kept = {name: (place.specs / name).read_text() for name in ("clusters.yaml", "deployment.yaml")}
            _without_cluster_b(place.specs)
            held = await service.until("held back", lambda s: s["spec"]["held_back"], 10)
            assert "would stop 3 of 6 running guests" in held["spec"]["held_back"]
            assert "vcrecon confirm" in held["spec"]["held_back"]
            await place.site.kill_guest("a-head")
            await service.until(
                "the rest is looked after",
                lambda s: place.site.witness.boots["a-head"] == 2 and running(s, ("a-head",)),
            )
            assert (await place.site.world())["running"] == len(GUESTS), "nothing was stopped meanwhile"
            for name, content in kept.items():
                (place.specs / name).write_text(content)
            await service.until("put back", lambda s: not s["spec"]["held_back"] and s["converged"])
            assert await boots(place.site) == {name: 1 + (name == "a-head") for name in GUESTS}

    async def test_a_spec_without_half_of_the_guests_stops_and_keeps_them_once_confirmed(self, tmp_path: Path) -> None:
        async with site_of(tmp_path) as place, serving(place) as service:
            await service.converged()
            _without_cluster_b(place.specs)
            await service.until("held back", lambda s: s["spec"]["held_back"], 10)
            await service.control.confirm()
            await service.until("stopped and kept", lambda s: s["converged"] and len(s["orphans"]) == 3)
            world = await place.site.world()
            assert world["running"] == 3
            for name in ("b-head", "b-n1", "b-n2"):
                assert len(world["guests"][name]["disks"]) == 1, "its disk is kept (S3)"


def _without_cluster_b(specs: Path) -> None:
    def clusters(content: Any) -> None:
        content["clusters"][0].update(name="a", vlan=101, subnet="10.1.1.0/24")
        content["clusters"][0]["head"]["networks"]["outside"] = "10.200.0.11"

    def deployment(content: Any) -> None:
        for guests in content["deployment"].values():
            guests[:] = [name for name in guests if not name.startswith("b-")]

    # One generation, as an editor that saves two files cannot promise but `git checkout` nearly does.
    rewrite(specs / "clusters.yaml", clusters)
    rewrite(specs / "deployment.yaml", deployment)


class TestTruncatedFiles:
    """A file that ends at any byte: never a deletion, never a traceback."""

    async def test_no_spec_cut_at_any_byte_would_stop_or_delete_anything(self, tmp_path: Path) -> None:
        async with site_of(tmp_path) as place:
            async with serving(place) as service:
                await service.converged()
            spec = load(place.specs).spec
            world, memory = await _look(place, spec), _remembered(place)
            assert preview(Wanted(spec), copy.deepcopy(world), copy.deepcopy(memory)).steps == (), "nothing to do"
            told: Counter[str] = Counter()
            for name in FILES:
                path = place.specs / name
                content = _without_comments(path.read_bytes())
                for length in range(len(content)):
                    path.write_bytes(content[:length])
                    verdict = _verdict(place.specs, spec, world, memory)
                    assert not verdict.startswith("harm:"), f"{name} cut at byte {length}: {verdict}"
                    told[verdict] += 1
                path.write_bytes(content)
            print(dict(told))
            assert told["refused"] > 1000, "nearly every cut is an error"

    async def test_a_running_service_survives_files_cut_anywhere(self, tmp_path: Path) -> None:
        """A sample of bytes; the service is never harmed, and heals a guest beside each of the broken specs."""
        chance = random.Random(20261123)
        async with site_of(tmp_path) as place, serving(place) as service:
            await service.converged()
            for name, victim in zip(FILES, GUESTS, strict=False):
                path = place.specs / name
                content = path.read_bytes()
                for length in sorted(chance.sample(range(len(content)), 4)):
                    path.write_bytes(content[:length])
                    if _loads(place.specs) is None:
                        await service.until(f"{name} cut at {length} is refused", lambda s: not s["spec"]["valid"], 10)
                    path.write_bytes(content)
                    await _good(service)
                path.write_bytes(content[: len(content) // 2])
                await service.until(f"half of {name} is refused", lambda s: not s["spec"]["valid"], 10)
                await place.site.kill_guest(victim)
                await service.until(
                    f"{victim} heals beside a broken spec",
                    lambda s, name=victim: place.site.witness.boots[name] == 2 and running(s, (name,)),
                )
                path.write_bytes(content)
                await _good(service)
            await service.converged()
            assert set((await boots(place.site)).values()) == {1, 2}


def _without_comments(content: bytes) -> bytes:
    """A small spec: what a comment is cut at tells nothing."""
    lines = (line.split(b" #")[0].rstrip() for line in content.splitlines())
    return b"\n".join(line for line in lines if line and not line.lstrip().startswith(b"#")) + b"\n"


def _loads(specs: Path) -> Spec | None:
    try:
        return load(specs).spec
    except SpecError:
        return None


def _verdict(specs: Path, good: Spec, world: World, memory: Memory) -> str:
    """What the service would do with the spec on disk."""
    spec = _loads(specs)
    if spec is None or spec.site.name != good.site.name:
        return "refused"
    if spec.digest == good.digest:
        return "the same"
    report = preview(Wanted(spec), copy.deepcopy(world), copy.deepcopy(memory))
    harm = [f"{step.action} of {step.subject}" for step in report.steps if step.action in HARMFUL]
    return f"harm: {harm}" if harm else "harmless"


async def _look(place: Place, spec: Spec) -> World:
    """One full look at every host, as `vcrecon plan` takes it."""
    world, connect = World(), Connector(QUICK)
    for entry in spec.containers.values():
        host = connect(entry, spec)
        try:
            world.observe(
                await observe(
                    host, entry, site=spec.site.name, parts=ALL_PARTS, probes=(), before=None, clock=lambda: 1.0,
                    deadline_s=30,
                )
            )  # fmt: skip
        finally:
            await host.close()
    return world


def _remembered(place: Place) -> Memory:
    with Record.read_only(place.state) as record:
        return copy.deepcopy(record.memory)


class TestRefusedToRun:
    async def test_a_metrics_port_in_use_is_named(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = taken.getsockname()
            async with site_of(tmp_path) as place:
                with pytest.raises(Refused, match=str(address[1])):
                    async with serving(place, listen=(address[0], address[1])):
                        pass
                assert (await place.site.world())["running"] == 0

    async def test_a_file_in_the_place_of_the_record_is_named(self, tmp_path: Path) -> None:
        async with site_of(tmp_path) as place:
            place.state.write_text("not a directory\n")
            with pytest.raises(Refused, match=r"state.*--state"):
                async with serving(place):
                    pass
            assert place.state.read_text() == "not a directory\n"

    async def test_a_record_on_a_file_system_that_takes_no_files_is_named(self, tmp_path: Path) -> None:
        async with site_of(tmp_path) as place:
            with pytest.raises(Refused, match="/proc"):
                async with serving(Place(place.site, place.specs, Path("/proc/self/vcrecon-state"))):
                    pass

    async def test_a_second_controller_on_the_same_record_is_refused_with_the_firsts_pid(self, tmp_path: Path) -> None:
        async with site_of(tmp_path) as place, serving(place) as service:
            await service.converged()
            with pytest.raises(Refused, match=rf"pid {os.getpid()}\b"):
                async with serving(place):
                    pass
            await service.until("the first one goes on", lambda s: s["converged"])
