"""Chaos: random faults and random wishes upon a small site, drawn from a seed, and what must hold all the same.

The run goes in rounds: a few operations at random moments, now and then right across each other, then everything
from outside is healed and the site must come to rest as the spec wants it. `VCRECON_TEST_CHAOS=SEED[:ROUNDS]`
hunts longer or repeats a run. The moments depend on the machine, so a seed repeats the operations, not the races.
"""

from __future__ import annotations

import asyncio
import io
import math
import os
import random
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from harness import QUICK, STUDENT_FILE, Playground, SpecFiles, playground

from vcrecon.errors import Refused, SpecError
from vcrecon.preview import plan_once
from vcrecon.sim.files import Files
from vcrecon.sim.lvm import Volume

SEED, _, _ROUNDS = os.environ.get("VCRECON_TEST_CHAOS", "1").partition(":")
ROUNDS = int(_ROUNDS or 6)
OPERATIONS_A_ROUND = 8
REST_DEADLINE_S = 90.0  # longer than the deadline of a step, which a process that hangs may use up
OPERATION_DEADLINE_S = 20.0
SETTINGS = replace(QUICK, stable_s=0.5, look_deadline_s=2.0, connect_deadline_s=1.0)
CONTAINERS = ("c01", "c02", "c03", "c04", "c05")
SINGLES = {"x1": "10.200.0.51", "x2": "10.200.0.52"}
VLANS = (101, 102, 900)
IMAGE = "debian-12"

# Programs of every kind of step, and of the looks.
PROGRAMS = (
    "^lvchange", "^lvcreate", "^lvrename", "^lvremove", "^lvs", "^lvm fullreport", "^mount ", "^umount", "^tar",
    "^chpasswd", "^virsh", "^xl", "^dd", "^zstd", "^sha256sum", "^nft", "^ip ", "^flock", "^ping", "^cat", "^sync",
)  # fmt: skip


def five_containers(files: SpecFiles) -> None:
    """Two clusters of 1 + 3 and two guests of their own on five containers, one of them with Xen."""
    with files.editing("containers") as document:
        document["containers"] = [
            {"name": "c[01-04]", "address": "10.64.0.[11-14]", "hypervisor": "kvm"},
            {"name": "c05", "address": "10.64.0.15", "hypervisor": "xen"},
        ]
    with files.editing("clusters") as document:
        document["clusters"][0]["nodes"]["count"] = 3
    with files.editing("deployment") as document:
        document["deployment"] = {
            "c01": ["a-head", "b-n1"], "c02": ["b-head", "a-n1"], "c03": ["a-n2"], "c04": ["b-n2"],
            "c05": ["a-n3", "b-n3"],
        }  # fmt: skip
    for name, address in SINGLES.items():
        files.add_single(name, "c03" if name == "x1" else "c04", address)
    files.set_policy(stop_grace="2s")


@dataclass
class Chaos:
    """The site, the dice, and what a person who watched would know."""

    play: Playground
    rng: random.Random
    works: dict[str, list[str]] = field(default_factory=dict)
    """All that students ever wrote, by guest; the last is on the live disk unless the guest began anew."""
    pages: Counter[str] = field(default_factory=Counter)
    excused: set[str] = field(default_factory=set)
    """Guests with a reason to have been started since the site last came to rest."""
    anew: set[str] = field(default_factory=set)
    """Guests whose disk was given up, by a consent or by a fence."""
    home: dict[str, str] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    off: set[str] = field(default_factory=set)
    history: list[str] = field(default_factory=list)

    # --- the dice ------------------------------------------------------------------------------------------

    def container(self) -> str:
        return self.rng.choice(CONTAINERS)

    def guest(self) -> str:
        return self.rng.choice(sorted(self.home))

    def one_of(self, names: Iterable[str]) -> str:
        """Raises LookupError when there is none."""
        return self.rng.choice(sorted(names))

    def on(self, container: str) -> set[str]:
        """Guests that run there, or belong there: whatever happens to it may start them once more."""
        here = {guest for guest in self.works if container in self.play.hosts_of(guest)}
        return here | {guest for guest, place in self.home.items() if place == container}

    # --- the operations ------------------------------------------------------------------------------------

    async def kill_guest(self) -> str:
        guest = self.guest()
        self.excused.add(guest)
        await self.play.site.kill_guest(guest)
        return guest

    async def shutdown_guest(self) -> str:
        guest = self.guest()
        self.excused.add(guest)
        await self.play.site.shutdown_guest(guest)
        return guest

    async def cut(self) -> str:
        container = self.container()
        await self.play.site.cut(container)
        return container

    async def mend(self) -> str:
        container = self.container()
        await self.play.site.mend(container)
        return container

    async def power_off(self) -> str:
        container = self.container()
        self.excused |= self.on(container)
        self.off.add(container)
        await self.play.site.power_off(container)
        return container

    async def power_on(self) -> str:
        container = self.one_of(self.off)
        self.off.discard(container)
        await self.play.site.power_on(container)
        return container

    async def reboot(self) -> str:
        container = self.one_of(set(CONTAINERS) - self.off)
        self.excused |= self.on(container)
        await self.play.site.reboot(container)
        return container

    async def wipe_bridge(self) -> str:
        container, vlan = self.container(), self.rng.choice(VLANS)
        await self.play.site.wipe_bridge(container, vlan)
        return f"{container} {vlan}"

    async def delete_vlan(self) -> str:
        container, vlan = self.container(), self.rng.choice(VLANS)
        await self.play.site.delete_vlan(container, vlan)
        return f"{container} {vlan}"

    async def flush_rules(self) -> str:
        container = self.container()
        await self.play.site.flush_rules(container)
        return container

    async def fail_command(self) -> str:
        container, pattern = self.container(), self.rng.choice(PROGRAMS)
        await self.play.site.fail_command(container, pattern, times=self.rng.choice([1, 2, 5]))
        return f"{container} {pattern}"

    async def hang_command(self) -> str:
        container, pattern = self.container(), self.rng.choice(PROGRAMS)
        await self.play.site.hang_command(container, pattern)
        return f"{container} {pattern}"

    async def slow(self) -> str:
        container = self.container()
        await self.play.site.slow(container, self.rng.choice([0.01, 0.05, 0.3]))
        return container

    async def garbage(self) -> str:
        container = self.container()
        await self.play.site.garbage(container, self.rng.choice(["output", "banner"]))
        return container

    async def corrupt_image(self) -> str:
        await self.play.site.corrupt_image(IMAGE, on=self.rng.random() < 0.6)
        return IMAGE

    async def fill_pool(self) -> str:
        container = self.container()
        data, metadata = self.rng.choice([(100.0, 0.0), (50.0, 99.0), (97.0, 0.0)])
        await self.play.site.fill_pool(container, data, metadata)
        return f"{container} {data:.0f} {metadata:.0f}"

    async def move(self) -> str:
        guest, container = self.guest(), self.container()
        self.excused.add(guest)
        self.play.files.move(guest, container)
        self.home[guest] = container
        self.play.reload()
        return f"{guest} to {container}"

    async def remove(self) -> str:
        guest = self.one_of(SINGLES.keys() - self.removed)
        self.excused.add(guest)
        self.play.files.remove_single(guest)
        self.removed.add(guest)
        del self.home[guest]
        self.play.reload()
        return guest

    async def add_again(self) -> str:
        guest, container = self.one_of(self.removed), self.container()
        self.put_back(guest, container)
        return f"{guest} on {container}"

    def put_back(self, guest: str, container: str) -> None:
        self.excused.add(guest)
        self.play.files.add_single(guest, container, SINGLES[guest])
        self.removed.discard(guest)
        self.home[guest] = container
        self.play.reload()

    async def pause(self) -> str:
        subject = self.rng.choice([self.guest(), self.container(), "site", "cluster/a"])
        self.play.controls.pause(subject)
        return subject

    async def resume(self) -> str:
        subject = self.one_of(self.play.record.memory.paused)
        self.play.controls.resume(subject)
        return subject

    async def rebuild(self) -> str:
        guest = self.guest()
        self.excused.add(guest)
        self.anew.add(guest)
        self.play.controls.consent("rebuild", [guest])
        return guest

    async def fence(self) -> str:
        """A person vouches for a host that is really off, and places its guests elsewhere."""
        container = self.one_of(self.off)
        await self.play.until(lambda: not self.play.controller.world.reachable(container), f"{container} is lost")
        self.play.controls.fence(container, "operator")
        self.anew |= {guest for guest in self.works if any(c == container for c, _ in self.play.volumes(guest))}
        for guest in sorted(g for g, place in self.home.items() if place == container):
            target = self.container()
            self.excused.add(guest)
            self.play.files.move(guest, target)
            self.home[guest] = target
        self.play.reload()
        return container

    async def restart(self) -> str:
        await self.play.restart()
        return ""

    async def crash(self) -> str:
        """As SIGKILL: nothing that is under way ends."""
        await self.die()
        self.play.start()
        return ""

    async def lose_record(self) -> str:
        await self.die()
        shutil.rmtree(self.play.state)
        self.play.start()
        return ""

    async def die(self) -> None:
        self.play.controller.settings = replace(SETTINGS, shutdown_s=0.0)
        await self.play.stop()

    def operations(self) -> dict[Callable[[], Awaitable[str]], int]:
        """Each with its weight."""
        return {
            self.kill_guest: 4, self.shutdown_guest: 2, self.cut: 4, self.mend: 4, self.power_off: 5,
            self.power_on: 3, self.reboot: 2, self.wipe_bridge: 2, self.delete_vlan: 2, self.flush_rules: 2,
            self.fail_command: 8, self.hang_command: 4, self.slow: 2, self.garbage: 2, self.corrupt_image: 1,
            self.fill_pool: 2, self.move: 10, self.remove: 3, self.add_again: 3, self.pause: 2, self.resume: 2,
            self.rebuild: 2, self.fence: 6, self.restart: 1, self.crash: 4, self.lose_record: 1,
        }  # fmt: skip

    async def strike(self) -> None:
        """One operation; one that finds nothing to break, or is refused, makes place for another."""
        operations = self.operations()
        for operation in self.rng.choices(list(operations), list(operations.values()), k=10):
            name = operation.__name__
            self.history.append(f"{name} …")
            try:
                self.history[-1] = f"{name} {await within(operation(), OPERATION_DEADLINE_S)}"
                return
            except (LookupError, Refused, SpecError) as error:
                self.history[-1] = f"{name}: {error}"

    # --- coming to rest ------------------------------------------------------------------------------------

    async def heal(self) -> None:
        """Everything from outside is in order again; nothing that vcrecon has to do itself is done for it."""
        play = self.play
        self.history.append("-- heal")
        for name, host in play.site.hosts.items():
            await play.site.heal(name)
            await play.site.slow(name, 0.0)
            await play.site.fill_pool(name, 0.0)
            host.programs.kill_all()  # somebody ends what hangs there
            if name in self.off:
                await play.site.power_on(name)
            for domain in host.machine.domains.live():
                if domain.answers_at == math.inf:
                    # It booted on a full disk and hangs: vcrecon says "silent" after five minutes, a person resets it.
                    self.excused.add(domain.name)
                    host.machine.kill_domain(domain.name)
        self.off.clear()
        await play.site.corrupt_image(IMAGE, on=False)
        for guest in sorted(self.removed):
            self.put_back(guest, self.container())
        for subject in list(play.record.memory.paused):
            play.controls.resume(subject)
        play.controls.confirm()

    def hurry(self) -> bool:
        """Nobody wants to wait for backoffs of minutes here. Whether the site is at rest."""
        with self.play.record.batch() as batch:
            for subject in list(self.play.record.memory.attempts):
                batch.remove_attempts(subject)
        return self.play.controller.converged

    async def come_to_rest(self) -> None:
        await self.play.until(self.hurry, "at rest", REST_DEADLINE_S)
        await self.play.converged(REST_DEADLINE_S)

    # --- what must hold ------------------------------------------------------------------------------------

    async def pass_time(self) -> None:
        """Often none at all, so that operations meet in the middle of each other."""
        await asyncio.sleep(self.rng.choice([0.0, 0.0, 0.05, 0.3, 1.0]))

    async def check_always(self) -> None:
        assert (await self.play.site.audit())["violations"] == []

    async def check_at_rest(self, boots_before: dict[str, int]) -> None:
        boots = self.play.all_boots()
        restarted = {guest for guest, count in boots.items() if count != boots_before.get(guest, 0)}
        assert restarted <= self.excused, f"{restarted - self.excused} were restarted for no reason"
        assert {g: self.play.hosts_of(g) for g in self.home} == {g: [c] for g, c in self.home.items()}
        for guest in self.home:
            self.check_work(guest)
        self.check_nothing_left_over()
        report = await plan_once(self.play.files.directory, self.play.state, settings=SETTINGS)
        assert (report.steps, report.blocked) == ((), ())

    def check_work(self, guest: str) -> None:
        found = dict(works_on(self.play.volumes(guest)))
        lost = [work for work in self.works.get(guest, []) if work not in found.values()]
        assert lost == [], f"{guest}: {lost} is on none of {found}"
        live = found.get(f"{self.home[guest]}:vcg-{guest}")
        if guest not in self.anew and self.works.get(guest):
            assert live == self.works[guest][-1], f"{guest} runs on {live!r}, not on its newest disk: {found}"

    def check_nothing_left_over(self) -> None:
        for name, host in self.play.site.hosts.items():
            mounts = [mount.target for mount in host.machine.files.mounts if "vcrecon/mnt" in mount.target]
            assert mounts == [], f"{name} still has {mounts} mounted"
            unfinished = [
                volume.name for volume in host.machine.all_volumes() if {"vc.building", "vc.incoming"} & volume.tags
            ]
            assert unfinished == [], f"{name} keeps {unfinished}, unfinished"
            assert list(host.programs.held_locks) == [], f"{name} is locked"

    async def write_new_work(self) -> None:
        """Each student writes something new, so that an outdated disk can be told from the newest."""
        for guest in self.home:
            before = await self.play.work_of(guest)
            self.pages[guest] += 1
            text = f"{guest}, page {self.pages[guest]}"
            kept = self.works.setdefault(guest, [])
            if before in kept:
                kept.remove(before)  # overwritten by its author
            kept.append(text)
            await self.play.students_work(guest, text)
        self.excused.clear()
        self.anew.clear()


async def within(work: Awaitable[str], deadline_s: float) -> str:
    """What `work` returns. One that hangs may also ignore being cancelled, so it is left behind and told of."""
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait({task}, timeout=deadline_s)
    if done:
        return task.result()
    shown = io.StringIO()
    for each in asyncio.all_tasks():
        each.print_stack(limit=6, file=shown)
    raise AssertionError(f"no end within {deadline_s:.0f} s; the tasks:\n{shown.getvalue()}")


def works_on(volumes: dict[tuple[str, str], Volume]) -> Iterator[tuple[str, str]]:
    """`container:volume` and the student's text on each disk that has one."""
    for (container, name), volume in volumes.items():
        filesystem = volume.look()
        if filesystem is not None:
            files = Files(filesystem, clock=float)
            if files.exists(STUDENT_FILE):
                yield f"{container}:{name}", files.read(STUDENT_FILE).decode()


@pytest.mark.slow
@pytest.mark.timeout(60 + 120 * ROUNDS)
async def test_whatever_happens_no_work_is_lost_and_the_site_comes_to_rest_as_wanted(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    pace = rng.choice([0.02, 0.02, 0.1])
    async with playground(tmp_path, vary=five_containers, settings=SETTINGS, timing_scale=pace) as play:
        chaos = Chaos(play, rng)
        chaos.home = dict(play.controller.spec.placement)
        try:
            for _ in range(ROUNDS):
                await chaos.write_new_work()
                boots = play.all_boots()
                for _ in range(chaos.rng.randint(1, 2 * OPERATIONS_A_ROUND)):
                    await chaos.strike()
                    await chaos.check_always()
                    await chaos.pass_time()
                await chaos.heal()
                await chaos.come_to_rest()
                await chaos.check_always()
                await chaos.check_at_rest(boots)
        finally:
            print(f"seed {SEED}:", *chaos.history, sep="\n  ")  # shown when it fails
