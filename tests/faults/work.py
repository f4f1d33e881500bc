"""The work that goes on while hosts break: vcrecon's own scripts over its own transport. Used by `one`.

Each worker repeats one thing until it is told to end, and writes every call down. What a call that succeeded must
have left behind is looked at on the box itself, not over the transport.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from tests.faults.box import TRUNK, Box
from tests.faults.images import Images
from tests.faults.judge import Call, Told

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
from worlds import a_container, a_guest, a_spec

from vcrecon.core.mastery import Master
from vcrecon.core.observation import ALL_PARTS, Lease, NetworkFacts, Part, Seen
from vcrecon.core.wanted import Firewall, Wanted
from vcrecon.errors import HostError
from vcrecon.host import firewall, network
from vcrecon.host.names import guest_volume
from vcrecon.host.steps import failure, locked
from vcrecon.host.storage import Disks
from vcrecon.shell.observe import observe
from vcrecon.shell.transport import Reply, SshHost, copy

T = TypeVar("T")
SITE = "lab"
MASTER = Master("me", 1, "here", lease_s=90)
CANARY = "canary-" + secrets.token_hex(12)
"""In every secret of this process; nowhere else may it be seen (S10)."""
JOURNAL = "/var/lib/journal"
LOCKS = ("quick", "long", "copy")
VLAN = 101
BOOT_ID = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
SILENCE_S = 12.0
"""A stream that says nothing for so long, though its command would, should have been given up by keep-alives."""
# A volume group is a directory here: its volumes are plain files.
DISKS = Disks("../var/lib/vcrecon/vg", "pool", SITE)


def uptime_s() -> float:
    """What a host reads in /proc/uptime."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def rule_sets() -> dict[str, Firewall]:
    """A few rule sets, by digest, of guests on a network without a gateway (this kernel takes all of their rules)."""
    names = [f"g{number}" for number in range(1, 5)]
    spec = a_spec({"c1": names}, guests={name: a_guest(name, number) for number, name in enumerate(names, 1)})
    wanted = Wanted(spec)
    found = [wanted.firewall("c1", [spec.guests[name] for name in names[:count]]) for count in range(1, 5)]
    return {rules.digest: rules for rules in found}


class Site:
    """The boxes, a host for each, and all that is known of the calls."""

    def __init__(self, boxes: list[Box], hosts: list[SshHost], images: Images, rng: random.Random) -> None:
        self.boxes, self.images = boxes, images
        self.hosts = dict(zip((box.name for box in boxes), hosts, strict=True))
        self.calls: list[Call] = []
        self.told: dict[str, dict[str, Told]] = {box.name: {} for box in boxes}
        self.violations: list[str] = []
        self.unjudged: list[str] = []
        """What would be a violation on a machine that keeps pace."""
        self.words: list[str] = []
        """All that errors said."""
        self.over = False
        self.rules = rule_sets()
        self._loads: dict[str, set[str]] = {box.name: set() for box in boxes}
        self._numbers = {(box.name, lock): 0 for box in boxes for lock in LOCKS}
        self._rng = rng

    def workers(self) -> list[Callable[[], Awaitable[None]]]:
        """One function for each worker."""
        made: list[Callable[[], Awaitable[None]]] = []
        for box in self.boxes:
            for work in (self._quick, self._quick, self._long, self._look, self._firewall, self._fetch, self._pulse):
                made.append(partial(self._repeat, work, box, self._fork()))
            made += [partial(self._repeat, self._tool, box, self._fork()), partial(self._follow, box)]
        return [*made, partial(self._repeat, self._copy, self.boxes[0], self._fork())]

    def _fork(self) -> random.Random:
        return random.Random(self._rng.random())

    async def _repeat(
        self, work: Callable[[Box, random.Random], Awaitable[object]], box: Box, rng: random.Random
    ) -> None:
        while not self.over:
            await work(box, rng)
            await asyncio.sleep(rng.uniform(0.1, 0.5))

    async def call(self, what: str, boxes: tuple[Box, ...], deadline_s: float, calling: Awaitable[T]) -> T | None:
        """The answer of a call, or None if it failed as calls may; written down either way."""
        began_s, outcome, answer = time.monotonic(), "ok", None
        try:
            answer = await calling
            if isinstance(answer, Reply) and answer.status:
                outcome = f"status {answer.status}"
        except HostError as error:
            outcome = error.kind
            self.words.append(f"{error!r} {error.__cause__!r}")
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        names = tuple(box.name for box in boxes)
        self.calls.append(Call(what, names, began_s, time.monotonic(), deadline_s, outcome))
        return answer

    def wrong(self, words: str) -> None:
        self.violations.append(words)

    # --- steps ---------------------------------------------------------------------------------------------

    async def step(self, box: Box, lock: str, script: list[str], data: bytes, deadline_s: float) -> bool:
        """A step with a line of secrets and `data` on standard input; whether it was done."""
        self._numbers[box.name, lock] += 1
        step = f"{lock}.{self._numbers[box.name, lock]}"
        given = f"{CANARY}-{step}\n".encode() + data
        sha256 = hashlib.sha256(given).hexdigest()
        lines = [
            "read -r up idle </proc/uptime",
            f'echo "begin {step} $up" >>{JOURNAL}',
            "sum=$(sha256sum | cut -d ' ' -f 1)",
            *(line.replace("STEP", step) for line in script),
            f'echo "end {step} $sum" >>{JOURNAL}',
        ]
        calling = self.hosts[box.name].run(locked(lock, lines), stdin=given, deadline_s=deadline_s)
        await self.call(f"{lock} step", (box,), deadline_s, calling)
        self.told[box.name][step] = Told(self.calls[-1].outcome, uptime_s(), sha256)
        return self.calls[-1].outcome == "ok"

    async def _quick(self, box: Box, rng: random.Random) -> None:
        data = bytes(rng.choice((0, 100, 5000)))
        wait = f"sleep {rng.uniform(0.0, 0.1):.3f}; echo 'beat STEP' >>{JOURNAL}"
        await self.step(box, "quick", [wait] * rng.randint(0, 2), data, 3.0)

    async def _long(self, box: Box, rng: random.Random) -> None:
        """It writes a file, whole under its last name or not at all."""
        file = f"/var/lib/vcrecon/{rng.randint(1, 3)}.file"
        size = rng.choice((1000, 100_000, 1_000_000))
        script = [
            f"head -c {size} /dev/urandom >{file}.part",
            f"echo 'beat STEP' >>{JOURNAL}",
            f"sha256sum {file}.part | cut -d ' ' -f 1 >{file}.sum",
            f"mv {file}.part {file}",
            f'[ "$(sha256sum {file} | cut -d \' \' -f 1)" = "$(cat {file}.sum)" ]',
        ]
        await self.step(box, "long", script, bytes(rng.choice((0, 200_000))), rng.choice((1.0, 4.0)))

    # --- looks ---------------------------------------------------------------------------------------------

    async def look(self, box: Box, deadline_s: float = 4.0) -> Seen | None:
        """One whole look, with the lease."""
        return await self._observe("look", box, deadline_s, ALL_PARTS, MASTER)

    async def _observe(
        self, what: str, box: Box, deadline_s: float, parts: frozenset[Part], master: Master | None
    ) -> Seen | None:
        async def looking() -> Seen:
            seen = await observe(
                self.hosts[box.name],
                replace(a_container(box.name), trunk=TRUNK),
                site=SITE,
                parts=parts,
                probes=(),
                before=Seen(box.name, 0.0, BOOT_ID),
                clock=time.time,
                deadline_s=deadline_s,
                master=master,
            )
            if isinstance(seen, Seen):
                return seen
            raise HostError(seen.reason, kind=seen.kind)

        return await self.call(what, (box,), deadline_s, looking())

    async def _look(self, box: Box, rng: random.Random) -> None:
        seen = await self.look(box)
        if seen is not None and isinstance(seen.lease, Lease) and not seen.lease.ours:
            self.wrong(f"lease: {box.name} is {seen.lease.master}'s, and there is no other master")

    async def _pulse(self, box: Box, rng: random.Random) -> None:
        reply = await self.call("pulse", (box,), 3.0, self.hosts[box.name].ask("echo up", deadline_s=3.0))
        if reply is not None and reply.stdout != b"up\n":
            self.wrong(f"answers mixed up: `echo up` on {box.name} gave {reply.stdout[:80]!r}")

    async def _tool(self, box: Box, rng: random.Random) -> None:
        word = f"word{rng.randrange(10**6)}"
        asking = self.hosts[box.name].ask_tool("virsh -q", [f"echo {word}", "list --all --name"], deadline_s=4.0)
        answers = await self.call("tool", (box,), 4.0, asking)
        if answers is not None and [answer.strip() for answer in answers] != [word, "test"]:
            self.wrong(f"answers mixed up: virsh on {box.name} gave {answers!r} for {word}")

    async def _follow(self, box: Box) -> None:
        """Follow a stream without an end, and begin again when it is cut."""
        while not self.over:
            lines = self.hosts[box.name].lines("while echo tick; do sleep 0.2; done")
            await self.call("stream", (box,), float("inf"), self._ticks(box, lines))
            await lines.aclose()  # type: ignore[attr-defined]
            await asyncio.sleep(0.2)

    async def _ticks(self, box: Box, lines: AsyncIterator[str]) -> None:
        while not self.over:
            try:
                word = await asyncio.wait_for(anext(lines), SILENCE_S)
            except StopAsyncIteration:
                return
            except TimeoutError:
                self.wrong(f"silence: a stream from {box.name} neither spoke nor ended for {SILENCE_S:g} s")
                return
            if word not in {"tick", "tic", "ti", "t"}:
                self.wrong(f"answers mixed up: a stream from {box.name} said {word[:80]!r}")

    # --- the network ---------------------------------------------------------------------------------------

    async def load_rules(self, box: Box, digest: str, deadline_s: float = 4.0) -> bool:
        self._loads[box.name].add(digest)
        script = locked(f"network-{SITE}", network.set_up_firewall(digest))
        rules = firewall.render(self.rules[digest]).encode()
        calling = self.hosts[box.name].run(script, stdin=rules, deadline_s=deadline_s)
        reply = await self.call("firewall", (box,), deadline_s, calling)
        return reply is not None and not reply.status

    async def _firewall(self, box: Box, rng: random.Random) -> None:
        digest = rng.choice(sorted(self.rules))
        done = await self.load_rules(box, digest)
        seen = await self._observe("look at the network", box, 4.0, frozenset({Part.NETWORK}), None)
        if seen is not None and isinstance(seen.network, NetworkFacts):
            shown = seen.network.firewall
            if shown not in self._loads[box.name] | {""}:
                self.wrong(f"firewall: {box.name} shows {shown!r}, which nobody loaded")
            if done and shown not in {digest, *self._unknown_loads(box)}:
                self.wrong(f"firewall: {digest} was said to be loaded on {box.name}, which shows {shown!r}")
        if rng.random() < 0.3:
            await self._bridge(box)

    def _unknown_loads(self, box: Box) -> set[str]:
        """Those that may be carried out late, since their outcome was never known."""
        unknown = any(
            call.what == "firewall" and call.boxes == (box.name,) and call.outcome in {"connection-lost", "deadline"}
            for call in self.calls
        )
        return self._loads[box.name] | {""} if unknown else set()

    async def _bridge(self, box: Box) -> None:
        """Made as far as this kernel can, and taken away again."""
        wanted = Wanted(a_spec({"c1": ["g1"]}))
        bridges = wanted.bridges([wanted.spec.guests["g1"]])
        lines = network.set_up(bridges, [VLAN], [], trunk=TRUNK, site=SITE, taps={})

        async def making() -> Reply:
            reply = await self.hosts[box.name].run(locked(f"network-{SITE}", lines), deadline_s=4.0)
            known = reply.status and failure("bridge", box.name, reply.status, reply.stderr).kind in {
                "no-vlan",
                "locked",
            }
            return replace(reply, status=0) if known else reply

        await self.call("bridge", (box,), 4.0, making())
        taking = self.hosts[box.name].run(locked(f"network-{SITE}", network.remove_bridge(VLAN)), deadline_s=4.0)
        await self.call("no bridge", (box,), 4.0, taking)

    # --- data ----------------------------------------------------------------------------------------------

    async def fetch(self, box: Box, name: str, deadline_s: float) -> bool:
        image = self.images.image(name, box.near)
        script = locked(f"image-{name}", DISKS.fetch_boot_files(image))
        before = self.images.turns

        async def fetching() -> Reply:
            reply = await self.hosts[box.name].run(script, deadline_s=deadline_s)
            # What is served wrong must be refused; that is no failure of the call.
            wrong = self.images.mode or self.images.turns != before
            refused = reply.status and wrong
            return replace(reply, status=0, stderr=b"refused") if refused else reply

        reply = await self.call("fetch", (box,), deadline_s, fetching())
        done = reply is not None and not reply.status and reply.stderr != b"refused"
        if done and not (box.disk / "images" / self.images.sha256[name]).exists():
            self.wrong(f"lost: image {name} was said to be on {box.name}")
        self.judge_images(box)
        return done

    async def _fetch(self, box: Box, rng: random.Random) -> None:
        name = rng.choice(sorted(self.images.sha256))
        (box.disk / "images" / self.images.sha256[name]).unlink(missing_ok=True)
        if rng.random() < 0.25:
            self.images.turn(rng.choice(("corrupt", "short", "slow")))
        await self.fetch(box, name, 6.0)
        if self.images.mode:
            self.images.turn("")

    def judge_images(self, box: Box) -> None:
        """No file has the name of a digest that it has not (S11)."""
        for sha256 in self.images.sha256.values():
            try:
                data = (box.disk / "images" / sha256).read_bytes()
            except FileNotFoundError:
                continue
            if hashlib.sha256(data).hexdigest() != sha256:
                self.wrong(f"S11: an image on {box.name} is not what its name says")

    async def copy(self, source: Box, target: Box, data: bytes, deadline_s: float) -> bool:
        """Move a disk as a CopyDisk does, without LVM's own commands; whether it was proved equal."""
        guest, lock = f"of-{source.name}", f"disk-{source.name}"
        volume = guest_volume(guest)
        (source.disk / "vg" / volume).write_bytes(data)
        (target.disk / "vg" / volume).touch()
        there, here = self.hosts[source.name], self.hosts[target.name]
        moving = copy(
            there,
            locked(lock, DISKS.send(volume)[-1:]),
            here,
            locked(lock, DISKS.write(guest, thick=True)[-1:]),
            deadline_s=deadline_s,
        )
        moved = await self.call("copy", (source, target), deadline_s, _both(moving))
        if moved is None or moved.status:
            return False
        digest = await self.call(
            "digest", (source,), 4.0, there.run(locked(lock, DISKS.digest(volume)), deadline_s=4.0)
        )
        if digest is None or digest.status:
            return False
        prove = locked(lock, DISKS.prove(guest, digest.stdout.decode().strip(), [])[:-1])
        proved = await self.call("prove", (target,), 4.0, here.run(prove, deadline_s=4.0))
        if proved is None or proved.status:
            return False
        if (target.disk / "vg" / volume).read_bytes() != data:
            self.wrong(f"S11: a copy on {target.name} was proved equal, and is not")
        return True

    async def _copy(self, box: Box, rng: random.Random) -> None:
        source, target = rng.sample(self.boxes, 2)
        try:
            await self.copy(
                source, target, rng.randbytes(rng.choice((1000, 300_000, 3_000_000))), rng.choice((2.0, 6.0))
            )
        except OSError:
            await asyncio.sleep(0.1)  # no room for its disk: a fault of this moment


async def _both(moving: Awaitable[tuple[Reply, Reply]]) -> Reply:
    """One reply for the two sides of a copy: the one that failed."""
    sent, written = await moving
    return written if written.status else sent
