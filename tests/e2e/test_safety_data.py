"""Secrets stay secret (S10), no image is used before it is proved, and no full pool is written to (S11)."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from harness import Playground, SpecFiles, playground

from vcrecon.shell import log
from vcrecon.sim.site import Site

CANARY = "$6$canarysalt$" + "canaryCANARY".ljust(86, "7")


def with_canary(files: SpecFiles) -> None:
    (files.directory / "secrets" / "root.hash").write_text(f"{CANARY}\n")


def private_key_of(site: Site, guest: str) -> str:
    """A line of the guest's own SSH host key, as it was written to its disk."""
    tree = site.volume_files(guest)
    keys = [
        node.content()
        for path, node in tree.walk()
        if "ssh_host" in path and not path.endswith(".pub") and hasattr(node, "content")
    ]
    assert keys, "the guest has no host key of its own"
    lines = keys[0].decode().splitlines()
    return lines[len(lines) // 2]


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """All that is logged, as the service would log it at its most talkative."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    log.configure(log_format="json", level="debug", stream=stream)
    yield stream
    structlog.reset_defaults()
    root.handlers, root.level = handlers, level


async def test_no_secret_is_in_the_log_the_record_the_metrics_or_any_command_line(
    tmp_path: Path, logged: io.StringIO
) -> None:
    async with playground(tmp_path, vary=with_canary) as play:
        assert CANARY in (await play.site.read_guest_file("a-head", "/etc/shadow"))
        key = private_key_of(play.site, "a-head")
        await provoke_failures(play)
        secrets = {"password hash": CANARY, "host key": key, "site key": play.record.secret().hex()}
        shown = {
            "log": logged.getvalue(),
            "metrics": play.metrics.render().decode(),
            "status": repr(play.controls.status()),
            "events": repr(play.controls.events(None, 0, 10_000)),
            "plans": repr(play.controls.plans()),
        }
        for name in play.site.hosts:
            ran = await play.site.commands(name)
            shown[f"commands of {name}"] = "\n".join([*ran["log"], *map(str, ran["scripts"])])
        site_key = play.record.secret()
        await play.stop()
        for path in (p for p in play.state.rglob("*") if p.is_file()):
            assert path.stat().st_mode & 0o077 == 0, f"{path.name} is readable for others"
            if path.read_bytes().strip() not in (site_key, site_key.hex().encode()):  # its own file holds just it
                shown[path.name] = path.read_bytes().decode("latin-1")
        assert len(logged.getvalue()) > 1000
        assert any(name.endswith((".db", ".sqlite", ".sqlite3")) for name in shown), sorted(shown)
        found = [(where, what) for where, text in shown.items() for what, secret in secrets.items() if secret in text]
        assert found == []


async def provoke_failures(play: Playground) -> None:
    """Errors are where secrets like to hide: fail the step that carries them."""
    play.site.witness.consent("a-head")
    await play.site.fail_command("c01", "^chpasswd", stderr=f"chpasswd: cannot use {CANARY}")
    await play.site.fail_command("c01", "^tar ", times=1)
    mark, boots = play.last_event_id(), play.boots("a-head")
    play.controls.consent("rebuild", ["a-head"])
    await play.happened("guest/a-head", "failed", after_id=mark)
    await play.restarted("a-head", boots)


async def test_a_corrupt_image_is_never_used_and_heals_once_it_is_right_again(tmp_path: Path) -> None:
    async with playground(tmp_path, converge=False) as play:
        await play.site.corrupt_image("debian-12")
        failed = await play.happened("image/c02/debian-12", "failed")
        assert "its SHA-256 is not what images.yaml says" in failed["message"]
        assert play.all_boots() == {}
        assert goldens(play) == []
        await play.site.corrupt_image("debian-12", on=False)
        await play.converged()
        assert sum(play.all_boots().values()) == 6


async def test_a_corrupt_kernel_is_never_used(tmp_path: Path) -> None:
    async with playground(tmp_path, converge=False) as play:
        await play.site.corrupt_image("debian-12", part="kernel")
        await play.happened("image/c02/debian-12", "failed")
        assert play.all_boots() == {}
        await play.site.corrupt_image("debian-12", part="kernel", on=False)
        await play.converged()


async def test_a_truncated_image_is_never_used_and_heals_once_it_is_whole(tmp_path: Path) -> None:
    async with playground(tmp_path, converge=False) as play:
        await play.site.truncate_image("debian-12")
        await play.happened("image/c02/debian-12", "failed")
        assert play.all_boots() == {}
        assert goldens(play) == []
        await play.site.truncate_image("debian-12", on=False)
        await play.converged()


async def test_an_image_that_fails_to_unpack_is_begun_anew(tmp_path: Path) -> None:
    async with playground(tmp_path, converge=False) as play:
        await play.site.fail_command("c02", "^tar ")
        await play.happened("image/c02/debian-12", "failed")
        await play.converged()
        assert [tag for tag in goldens(play) if "building" in tag] == []


def goldens(play: Playground) -> list[str]:
    """The tags of complete golden images, on all containers."""
    return [
        tag
        for host in play.site.hosts.values()
        for volume in host.machine.all_volumes()
        for tag in volume.tags
        if tag.startswith("vc.golden=")
    ]


async def test_a_full_pool_is_not_written_to(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await play.site.fill_pool("c01", 100.0)
        await play.blocked("container/c01", "pool-full")
        before = {volume.name for volume in play.site.hosts["c01"].machine.all_volumes()}
        play.files.add_single("x", "c01", "10.200.0.50")
        play.reload()
        await play.blocked("x", "pool-full")
        await play.relisted("c01", times=2)
        assert {volume.name for volume in play.site.hosts["c01"].machine.all_volumes()} == before
        created = [line for line in await play.log_of("c01") if line.startswith("lvcreate") and "vcg-x" in line]
        assert created == []


async def test_a_pool_without_room_for_metadata_is_not_written_to(tmp_path: Path) -> None:
    async with playground(tmp_path) as play:
        await play.site.fill_pool("c01", 10.0, 99.0)
        await play.blocked("container/c01", "pool-full")
        play.files.add_single("x", "c01", "10.200.0.50")
        play.reload()
        await play.blocked("x", "pool-full")
        assert play.volumes("x") == {}
