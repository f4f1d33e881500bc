"""The workflows that the sweep crashes and misleads: each a small classroom at rest, and one change to it.

All that the product does is among them: guests are created, healed, moved with their disks, rebuilt, held for rescue
and released, removed, put back and pruned; images are fetched, also corrupt ones, and replaced; a host reboots, a blank
one is installed, one with a guest is installed anew by its switch and by hand; a site comes up from nothing; a master
is replaced, with the record of the old one and without.

A workflow's `change` is all that happens from outside; what follows is the controller's own work, and its effects are
the points of the sweep. Whatever has to go on beside (a host that comes back) belongs to the hosts, so that a crash of
the controller does not end it.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.simulation.specs import FIRST_PORT, IMAGES, draw

from vcrecon.shell import master_files, promote

if TYPE_CHECKING:
    from tests.simulation.classroom import Classroom
    from tests.simulation.schedule import Play

Step = Callable[["Play"], Awaitable[None]]
HOME = {"a-head": "c01", "a-n1": "c02", "x1": "c01"}
_OUTSIDE = "outside"


@dataclass(frozen=True)
class Workflow:
    """`prepare` begins where the service runs nowhere, and ends at rest; `restarts` are the guests that may boot."""

    name: str
    change: Step
    prepare: Step
    restarts: tuple[str, ...] = ()
    documents: Callable[[dict[str, Any]], None] = field(default=lambda documents: None)
    switches: tuple[str, ...] = ()


def documents() -> dict[str, Any]:
    """Three containers, KVM, Xen and KVM, the last without guests; a cluster of two, and one guest of its own."""
    found = draw(random.Random(0))
    site = found["site"]
    site |= {"session": "running", "provisioning": {"network": "127.0.0.0/24"}, "limits": {"moves": 2}}
    site["policies"] |= {"on_poweroff": "restart", "stop_grace": "5s"}
    found["images"].pop("systems", None)
    found["containers"]["containers"] = [
        {"name": name, "address": "127.0.0.1", "port": FIRST_PORT + number, "hypervisor": hypervisor}
        for number, (name, hypervisor) in enumerate({"c01": "kvm", "c02": "xen", "c03": "kvm"}.items())
    ]
    found["clusters"]["templates"]["node"]["storage"] = "thin"
    found["clusters"]["clusters"] = [
        {
            "name": "a",
            "vlan": 101,
            "subnet": "10.1.1.0/24",
            "head": {"template": "head", "networks": {_OUTSIDE: "10.200.0.11"}},
            "nodes": {"count": 1, "template": "node"},
        }
    ]
    interfaces = [{"network": _OUTSIDE, "address": "10.200.0.51"}]
    found["clusters"]["guests"] = [{"name": "x1", "template": "node", "interfaces": interfaces}]
    deployment: dict[str, list[str]] = {"c01": [], "c02": [], "c03": []}
    for guest, container in HOME.items():
        deployment[container].append(guest)
    found["deployment"]["deployment"] = deployment
    return found


# --- beginnings ------------------------------------------------------------------------------------------------


async def at_rest(play: Play) -> None:
    """All runs, and students have worked."""
    play.room.main.start()
    await come_to_rest(play)
    await play.room.write_new_work()
    play.truth.may_restart.clear()


async def come_to_rest(play: Play) -> None:
    if not await play.room.until(play.room.converged, 1800):
        raise RuntimeError(f"the classroom did not come up: {list(play.room.explain())}")


async def _nothing(play: Play) -> None:
    """The service was never started."""


async def _held(play: Play) -> None:
    await at_rest(play)
    await _rescue(play)
    await come_to_rest(play)


async def _removed(play: Play) -> None:
    await at_rest(play)
    await _remove(play)
    await come_to_rest(play)


async def _blank_machine(play: Play) -> None:
    """c03 was never seen, and has no power yet."""
    room = play.room
    await room.site.power_off("c03")
    room.main.start()
    await room.until(lambda: all(room.hosts_of(guest) for guest in room.home), 1800)
    await asyncio.sleep(70)
    await room.write_new_work()


async def _master_gone(play: Play) -> None:
    """The first master burnt down in the middle of a move; its leases are still on the containers."""
    room = play.room
    await at_rest(play)
    room.files.move("x1", "c03")
    await _save(play)
    await asyncio.sleep(4.0)
    room.main.kill()


# --- changes ---------------------------------------------------------------------------------------------------


async def _save(play: Play) -> None:
    """The files are saved; a service that dies over them leaves nobody waiting."""
    await asyncio.wait({asyncio.ensure_future(play.room.edited())}, timeout=1.0)
    play.truth.edits.spec_changed()


async def _start(play: Play) -> None:
    play.room.main.start()
    play.room.changed_at_s = play.room.loop.time()


def _move(container: str) -> Step:
    async def move(play: Play) -> None:
        play.room.files.move("x1", container)
        await _save(play)

    return move


async def _kill(play: Play) -> None:
    play.truth.brought_down("x1")
    play.room.changed_at_s = play.room.loop.time()
    await play.room.site.kill_guest("x1")


async def _rebuild(play: Play) -> None:
    play.room.gives_up("rebuild", "x1")
    play.strikes.say(lambda controls: controls.consent("rebuild", ["x1"]))


async def _rescue(play: Play) -> None:
    play.room.asked_to_hold.add("x1")
    play.strikes.say(lambda controls: controls.rescue("x1", "a person"))


async def _release(play: Play) -> None:
    play.room.asked_to_hold.discard("x1")
    play.strikes.say(lambda controls: controls.release("x1", "a person"))


async def _remove(play: Play) -> None:
    play.room.files.remove_single("x1")
    await _save(play)


async def _put_back(play: Play) -> None:
    play.room.files.add_single("x1", "c01")
    await _save(play)


async def _prune(play: Play) -> None:
    play.room.gives_up("prune", "x1")
    play.strikes.say(lambda controls: controls.consent("prune", ["x1"]))


async def _add(play: Play) -> None:
    play.room.files.add_single("x2", "c03")
    await _save(play)


async def _add_with_corrupt_image(play: Play) -> None:
    """The image server's first answer has a wrong byte."""
    site = play.room.site
    path = site.image_path(IMAGES[0], "root")
    assert path is not None
    offered = site.images.files[path]
    before = offered.requests
    await site.corrupt_image(IMAGES[0], "root")

    async def mend() -> None:
        await play.room.until(lambda: offered.requests > before, 1800)
        await site.corrupt_image(IMAGES[0], "root", on=False)

    site.spawn(mend())
    await _add(play)


async def _reboot(play: Play) -> None:
    """c01 reboots: networks, rules and guests are gone."""
    room = play.room
    room.changed_at_s = room.loop.time()
    play.strikes.disturbed("c01")
    await room.site.power_off("c01")

    async def back() -> None:
        await asyncio.sleep(10.0)
        room.changed_at_s = room.loop.time()
        await room.site.power_on("c01")

    room.site.spawn(back())
    await asyncio.sleep(12.0)


async def _other_image(play: Play) -> None:
    play.room.files.documents["site"]["defaults"]["image"] = IMAGES[1]
    await _save(play)


async def _boot_blank_machine(play: Play) -> None:
    room = play.room
    room.machines["c03"].boot()
    room.machines["c03"].blank = True
    room.changed_at_s = room.loop.time()


async def _reinstall(play: Play) -> None:
    play.room.gives_up("reinstall", "x1")
    play.room.consents.add(("reinstall", "c03"))
    play.strikes.disturbed("c03")
    play.strikes.say(lambda controls: controls.reinstall("c03", ["x1"], "a person"))


def _take_over(*, exported: bool) -> Step:
    async def take_over(play: Play) -> None:
        room, first = play.room, play.room.main
        give_a_real_key(room)
        second = room.service("m2")
        known = room.good
        if exported:
            archive = room.directory / "master.tar.gz"
            master_files.export(archive, room.files.directory, first.state, known, version="0", now_s=first.clock())
            promote.from_export(
                archive, specs=room.files.directory, state=second.state, default_state=_never, now=second.clock
            )
        else:
            promote.from_specs(
                room.files.directory, key=first.state / "site.key", state=second.state, default_state=_never,
                now=second.clock,
            )  # fmt: skip
        shutil.rmtree(first.state)
        room.main, room.services = second, [second]
        room.record_lost()
        await _start(play)

    return take_over


def _never(site: str) -> Any:
    raise AssertionError("the state directory was named")


# --- spec variants ---------------------------------------------------------------------------------------------


def _thick(found: dict[str, Any]) -> None:
    found["clusters"]["templates"]["node"]["storage"] = "thick"


def _preparing(found: dict[str, Any]) -> None:
    found["site"]["session"] = "preparing"


def _bare_metal(found: dict[str, Any]) -> None:
    """c03 can be installed."""
    from tests.simulation.site import IMAGES_URL
    from tests.simulation.specs import SYSTEM_SHA256

    found["site"]["provisioning"] |= {"mode": "external", "address": "127.0.0.1", "install_deadline": "10m"}
    system = {"url": f"{IMAGES_URL}/images/system.tar.zst", "sha256": SYSTEM_SHA256}
    found["images"]["systems"] = {"kvm": {"root": system, "hypervisor": "kvm"}}
    found["containers"]["containers"][2] |= {"mac": "52:54:00:00:00:03", "system": "kvm"}


def _x1_on_c03(found: dict[str, Any]) -> None:
    """A guest is on the one that can be installed."""
    _bare_metal(found)
    found["deployment"]["deployment"]["c01"].remove("x1")
    found["deployment"]["deployment"]["c03"].append("x1")


def _x1_on_c03_with_a_switch(found: dict[str, Any]) -> None:
    """The same, and it can be switched from afar."""
    _x1_on_c03(found)
    power = {"kind": "ipmi", "address": "127.0.0.1", "credentials": "secrets/bmc"}
    found["containers"]["containers"][2] |= {"power": power}


# --- the table -------------------------------------------------------------------------------------------------

WORKFLOWS: dict[str, Workflow] = {
    workflow.name: workflow
    for workflow in (
        Workflow("first-start", _start, _nothing, ("a-head", "a-n1", "x1")),
        Workflow("create", _add, at_rest, ("x2",)),
        Workflow("fetch-corrupt", _add_with_corrupt_image, at_rest, ("x2",)),
        Workflow("heal", _kill, at_rest, ("x1",)),
        Workflow("move-thin-to-xen", _move("c02"), at_rest, ("x1",)),
        Workflow("move-thick-to-kvm", _move("c03"), at_rest, ("x1",), _thick),
        Workflow("rebuild", _rebuild, at_rest, ("x1",)),
        Workflow("rescue", _rescue, at_rest, ("x1",)),
        Workflow("release", _release, _held, ("x1",)),
        Workflow("remove", _remove, at_rest),
        Workflow("return", _put_back, _removed, ("x1",)),
        Workflow("prune", _prune, _removed),
        Workflow("reboot", _reboot, at_rest, ("a-head", "x1")),
        Workflow("other-image", _other_image, at_rest, ("a-head", "a-n1", "x1"), _preparing),
        Workflow("install", _boot_blank_machine, _blank_machine, (), _bare_metal),
        Workflow("reinstall", _reinstall, at_rest, ("x1",), _x1_on_c03_with_a_switch, ("c03",)),
        Workflow("reinstall-by-hand", _reinstall, at_rest, ("x1",), _x1_on_c03),
        Workflow("takeover-exported", _take_over(exported=True), _master_gone, ("x1",)),
        Workflow("takeover-fresh", _take_over(exported=False), _master_gone, ("x1",)),
    )
}


def classroom_of(workflow: Workflow) -> dict[str, Any]:
    """Its documents."""
    found = documents()
    workflow.documents(found)
    return found


def give_a_real_key(room: Classroom) -> None:
    """One that `vcrecon master promote` can read; the simulated hosts ask for none."""
    import asyncssh

    (room.files.directory / "client_key").write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key())
