"""A person types commands at a classroom, the world does as it pleases, and a model says what the person may expect.

`python -m tests.simulation.verbs --examples N --steps M` lets Hypothesis choose what is typed. The model keeps what was
asked for: what is paused, cordoned, held, wanted where. After each step `truth` must have seen no violation, `status`
must say what the model says, and nothing that is paused may have been started. A refused command must be one that the
model expects to be refused, must change nothing, and must say what to do next.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.simulation.classroom import Classroom
from tests.simulation.disks import epoch_of, is_live
from tests.simulation.entropy import bury_in_silence, require_fixed_hashes, seeded
from tests.simulation.loop import VirtualLoop
from tests.simulation.machine import Switch
from tests.simulation.schedule import _MEMORY, Play, _fell
from tests.simulation.specs import FILES
from tests.simulation.strikes import Strikes
from tests.simulation.truth import Truth
from tests.simulation.typed import Answer, command

from vcrecon.errors import HostError, Refused, SpecError
from vcrecon.spec.load import load

NEXT = re.compile(r"`[^`]+`|did you mean|; |\b(?:bring|correct|put|repair|say)\b|\(paused: ")
"""What a refusal must have: a command to type, another name, what there is instead, or what to do first."""
UNDER_WAY_S = 400.0
"""Virtual seconds within which a step that was under way has ended."""
DICE = st.integers(0, 31)
CHANGED_ITS_MIND = re.compile(r"vcrecon goes on trying|released once it|asked for something else meanwhile")
"""What `rescue` and `release` say when the wish was taken, and only the waiting for it ended."""

COUNTS: Counter[str] = Counter()
"""How often each command was typed in this process, and how many were refused."""
WORLD = (
    "kill_guest", "shut_down_guest", "cut", "mend", "power_off", "power_on", "wipe_bridge", "restart_service",
    "crash_service",
)  # fmt: skip
REPLAY = "python -m tests.simulation.verbs --examples {} --steps {} --seed {}"


class Desk(RuleBasedStateMachine):
    """One person, one service, one site. Each rule is a command, or an event of the world."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.room: Classroom
        self.paused: set[str] = set()
        self.still: dict[str, int] = {}
        """How often each guest had been started when it was paused."""
        self.asked_reinstall: set[str] = set()

    # --- beginning and end -----------------------------------------------------------------------------------------

    @initialize(site=st.integers(0, 9999))
    def begin(self, site: int) -> None:
        directory = Path(tempfile.mkdtemp(prefix="vcrecon-verbs-", dir=_MEMORY if _MEMORY.is_dir() else None))
        self.stack.callback(shutil.rmtree, directory, ignore_errors=True)
        rng = random.Random(site)
        log: list[str] = []
        self.loop = VirtualLoop(random.Random(rng.random()))
        asyncio.set_event_loop(self.loop)
        self.stack.callback(asyncio.set_event_loop, None)
        self.stack.enter_context(seeded(site, log))
        self.do(lambda: self._begin(rng, directory, log))

    async def _begin(self, rng: random.Random, directory: Path, log: list[str]) -> None:
        self.room = room = Classroom(self.loop, rng, directory)
        # As people write them: `adopt` and its like add lines to such files.
        room.files.text = lambda name: yaml.safe_dump(room.files.documents[name])  # type: ignore[method-assign]
        room.files.write_all()
        room.good = load(room.files.directory).spec
        self.truth = Truth(room)
        self.truth.log = log
        self.loop.set_exception_handler(lambda _, what: _fell(self.truth, what))
        room.main.switches = {name: Switch(room, name) for name in room.machines if rng.random() < 0.6}
        self.strikes = Strikes(room, self.truth, rng)
        self.play = Play(room, self.truth, self.strikes, rng)
        self.watch = asyncio.ensure_future(self.play.watch())
        room.main.start()
        await self.play.come_to_rest()
        await room.write_new_work()

    def teardown(self) -> None:
        try:
            if hasattr(self, "watch"):
                self.do(self._end)
                self.nothing_is_wrong()
        finally:
            self._bury()

    def _bury(self) -> None:
        """What this example left half done ends now, and not in the middle of the next."""
        if hasattr(self, "loop"):
            self.loop.set_exception_handler(lambda _, what: None)
            self.loop.graves.clear()
        self.stack.close()
        for name in ("loop", "room", "truth", "strikes", "play", "watch"):
            self.__dict__.pop(name, None)
        gc.collect()

    async def _end(self) -> None:
        await self.play.heal()
        await self.play.come_to_rest()
        self.truth.at_rest(set(), set())
        self.watch.cancel()

    def do(self, work: Callable[[], Awaitable[Any]]) -> Any:
        async def done() -> Any:
            return await work()

        return self.loop.run_until_complete(done())

    # --- typing ----------------------------------------------------------------------------------------------------

    def type(self, *words: str, refused: bool | None = False) -> Answer:
        """`refused` is what the model expects: True, False, or None when it depends on what only the service knows."""
        before = self._words_given()
        answer = command(self.room.main, *words)
        self.room.note(f"$ vcrecon {' '.join(words)}   [{answer.code}] {answer.refused}")
        self.room.changed_at_s = self.loop.time()
        COUNTS[words[0]] += 1
        COUNTS["refused"] += bool(answer.refused)
        if answer.refused:
            assert refused is not False, f"`{' '.join(words)}` is refused, and need not be: {answer.refused}"
            assert NEXT.search(answer.refused), f"a refusal that does not say what to do next: {answer.refused}"
            if not CHANGED_ITS_MIND.search(answer.refused):
                new = self._words_given() - before
                assert not new, f"`{' '.join(words)}` was refused and yet changed {sorted(new)}"
        else:
            assert refused is not True, f"`{' '.join(words)}` ought to be refused, and says {answer.out} {answer.err}"
        return answer

    def _words_given(self) -> set[tuple[str, ...]]:
        """What people said, as the service has it, and the spec files: none of it may come of a refusal."""
        memory = self.room.main.record.memory
        files = {("file", name, (self._directory / f"{name}.yaml").read_text()) for name in FILES}
        said = {
            *(("paused", name) for name in memory.paused),
            *(("consent", *map(str, key)) for key in memory.consents),
            *(("fence", name, str(fence.at_s)) for name, fence in memory.fences.items()),
            *(("rescue", name, rescue.wish, str(rescue.asked_at_s)) for name, rescue in memory.rescues.items()),
            ("confirmed", str(memory.confirmed_digest)),
        }
        return files | said

    @property
    def _directory(self) -> Path:
        return self.room.files.directory

    def _status(self) -> dict[str, Any]:
        return dict(self.room.main.controls.status())

    def _container(self, dice: int) -> str:
        return sorted(self.room.good.containers)[dice % len(self.room.good.containers)]

    def _guest(self, dice: int) -> str:
        names = sorted(self.room.home)
        return names[dice % len(names)]

    def _subject(self, dice: int) -> str:
        good = self.room.good
        kinds = {"cluster": good.clusters, "guest": self.room.home, "container": good.containers}
        everything = ["site", *(f"{kind}/{name}" for kind, names in kinds.items() for name in sorted(names))]
        return everything[dice % len(everything)]

    # --- commands that edit the spec -------------------------------------------------------------------------------

    def _edit(self, *words: str) -> None:
        """One of the commands that write deployment.yaml; the service takes it up as from the watch on the files."""
        before = (self._directory / "deployment.yaml").read_text()
        self.truth.may_restart |= set(self.room.home)
        answer = self.type(*words, "--specs", str(self._directory), "--yes")
        assert answer.code in (0, 1), answer.err
        text = (self._directory / "deployment.yaml").read_text()
        assert answer.code == 0 or "cannot move" in answer.out, answer.out + answer.err
        if text != before:
            self.room.files.documents["deployment"] = yaml.safe_load(text)
            self.do(self.strikes._save)

    @rule(dice=DICE, verb=st.sampled_from(["cordon", "uncordon"]))
    def cordon(self, dice: int, verb: str) -> None:
        container, home = self._container(dice), self.room.home
        self._edit(verb, container)
        assert (container in self.room.good.cordoned) == (verb == "cordon")
        assert self.room.home == home, f"{verb} moved guests"

    @rule(dice=DICE)
    def evacuate(self, dice: int) -> None:
        container = self._container(dice)
        guests = set(self.room.home)
        self._edit("evacuate", container)
        assert container in self.room.good.cordoned
        assert set(self.room.home) == guests, "an evacuation lost or made guests"

    @rule(rebalance=st.booleans())
    def place(self, rebalance: bool) -> None:
        self.truth.may_restart |= set(self.room.home)
        before = self.room.home
        words = ("place", str(self._directory), "--yes", *(["--rebalance"] if rebalance else []))
        answer = self.type(*words)
        assert answer.code == 0 or "cannot move" in answer.out, answer.out + answer.err
        self.room.files.documents["deployment"] = yaml.safe_load((self._directory / "deployment.yaml").read_text())
        self.do(self.strikes._save)
        assert rebalance or self.room.home == before, "a guest that is placed well was placed anew"

    @rule(dice=DICE)
    def cordon_of_nothing(self, dice: int) -> None:
        verb = ["cordon", "uncordon", "evacuate"][dice % 3]
        self.type(verb, "c99", "--specs", str(self._directory), "--yes", refused=True)

    @rule(guest=DICE, container=DICE)
    def move(self, guest: int, container: int) -> None:
        name = self._guest(guest)
        self.room.note(f"{name} to {self._container(container)}, by an editor")
        self.truth.may_restart.add(name)
        self.room.files.move(name, self._container(container))
        self.do(self.strikes._save)

    @rule(dice=DICE)
    def come_or_go(self, dice: int) -> None:
        """A guest of its own leaves the spec, or comes back."""
        self._strike(["remove", "add"][dice % 2], dice)

    @rule()
    def confirm(self) -> None:
        self.room.confirmed = True
        self.type("confirm")

    # --- commands that are a person's word -------------------------------------------------------------------------

    @rule(dice=DICE)
    def pause(self, dice: int) -> None:
        subject = self._subject(dice)
        self.type("pause", subject)
        self.paused.add(subject)
        guests = {guest for guest in self.room.home if self._is_left_alone(guest)} - self.still.keys()
        flying = self.room.main.controller.admission.in_flight

        async def ended() -> bool:
            return await self.room.until(lambda: not any(f"guest/{g}" in flying for g in guests), UNDER_WAY_S)

        assert self.do(ended), f"what was under way when {subject} was paused never ended"
        self.still |= {guest: self.room.site.witness.boots[guest] for guest in guests}

    def _is_paused(self, guest: str) -> bool:
        return self._is_left_alone(guest) or f"container/{self.room.home[guest]}" in self.paused

    def _is_left_alone(self, guest: str) -> bool:
        """Wherever it is; a guest that is to leave a container for a paused one may be started where it is."""
        cluster = self.room.good.guests[guest].cluster
        return bool({f"guest/{guest}", f"cluster/{cluster}", "site"} & self.paused)

    @rule(dice=DICE)
    def resume(self, dice: int) -> None:
        known = sorted(self.paused)
        subject = known[dice % len(known)] if known and dice % 4 else self._subject(dice)
        self.type("resume", subject, refused=subject not in self.paused)
        self.paused.discard(subject)

    @rule(dice=DICE)
    def rebuild(self, dice: int) -> None:
        guest = self._guest(dice)
        self.truth.may_restart.add(guest)
        self.room.gives_up("rebuild", guest)
        self.type("rebuild", guest, "--yes")

    @rule(dice=DICE)
    def prune(self, dice: int) -> None:
        guest = self._guest(dice)
        known = any(entry["name"] == guest and entry["disks"] for entry in self._status()["orphans"])
        if known:
            self.room.gives_up("prune", guest)
        self.type("prune", guest, "--yes", refused=not known)

    @rule(dice=DICE)
    def rescue(self, dice: int) -> None:
        guest = self._guest(dice)
        self.truth.may_restart.add(guest)
        self.room.asked_to_hold.add(guest)
        answer = self.type("rescue", guest, refused=None)
        if answer.refused and not CHANGED_ITS_MIND.search(answer.refused):
            if guest not in self.room.main.record.memory.rescues:
                self.room.asked_to_hold.discard(guest)
        elif answer.code == 0:
            held = [(host, v) for host, _, v in self.room.disks(guest) if "vc.held" in v.tags]
            assert held, f"`rescue {guest}` opened a shell, and no disk of it is held"
            assert not self.room.hosts_of(guest), f"{guest} runs on a disk that a person works on"

    @rule(dice=DICE)
    def release(self, dice: int) -> None:
        asked = sorted(self.room.asked_to_hold)
        guest = asked[dice % len(asked)] if asked and dice % 4 else self._guest(dice)
        held = any("vc.held" in volume.tags for _, _, volume in self.room.disks(guest))
        expected = None if held or guest in self.room.asked_to_hold else True
        answer = self.type("release", guest, refused=expected)
        if not answer.refused or CHANGED_ITS_MIND.search(answer.refused):
            self.room.asked_to_hold.discard(guest)
            self.truth.may_restart.add(guest)

    @rule(dice=DICE)
    def fence(self, dice: int) -> None:
        """Of one that is off and silent; or of one that answers, which must be refused. Nobody lies."""
        container, room = self._container(dice), self.room
        up, machine = room.site.hosts[container].machine.up, room.machines.get(container)
        silent = not room.main.controller.world.reachable(container)
        if (up and silent) or (machine is not None and machine.busy):
            return
        explained = self.type("fence", container)
        assert explained.code == 1, explained.out
        if not up:
            room.fenced.add(container)
            self.strikes._given_up_there(container)
            self.truth.may_restart |= room.on(container)
        noticed = False if silent else None  # that it lost its power
        self.type("fence", container, "--confirmed", "--json", refused=True if up else noticed)

    @rule(dice=DICE)
    def fence_by_power(self, dice: int) -> None:
        self._strike("power_fence", dice)

    @rule(dice=DICE, give_up=st.booleans())
    def reinstall(self, dice: int, give_up: bool) -> None:
        container, room = self._container(dice), self.room
        work = list(room.main.controls.container(container)["touched"])
        words = [word for guest in work if give_up for word in ("--give-up", guest)]
        never = container not in room.machines or (bool(work) and not give_up)
        never = never or bool({"site", f"container/{container}"} & self.paused)
        if not never:
            room.consents.add(("reinstall", container))
            self.strikes.disturbed(container)
            for guest in work:
                room.gives_up("reinstall", guest)
            self.asked_reinstall.add(container)
        self.type("reinstall", container, *words, "--yes", refused=True if never else None)

    @rule(dice=DICE)
    def cancel_reinstall(self, dice: int) -> None:
        container = self._container(dice)
        refused = None if container in self.asked_reinstall else True
        self.type("reinstall", container, "--cancel", refused=refused)

    @rule(dice=DICE)
    def adopt(self, dice: int) -> None:
        """Dry: the site has no other machine. A MAC that is known is refused."""
        words = ("--specs", str(self._directory), "--dry-run")
        known = sorted(self.room.machines)
        if known and dice % 2:
            mac = self.room.good.containers[known[dice % len(known)]].mac
            assert mac is not None
            self.type("adopt", mac, *words, refused=True)
        else:
            self.type("adopt", "52:54:00:00:aa:01", *words, refused=None)

    # --- commands that look ----------------------------------------------------------------------------------------

    @rule()
    def look_at_status(self) -> None:
        self.type("status", "--all")
        said = json.loads(self.type("status", "--json").out)
        assert {guest["name"] for guest in said["guests"]} == set(self.room.home)

    @rule(dice=DICE)
    def look_at_events(self, dice: int) -> None:
        subject = self._subject(dice)
        found = json.loads(self.type("events", subject, "--json").out)["events"]
        assert all(event["subject"] == subject and event["message"] for event in found)

    @rule()
    def look_at_plan(self) -> None:
        before = self._words_given()
        answer = self.type("plan", str(self._directory), "--state", str(self.room.main.state), "--json")
        assert answer.code in (0, 2), answer.err
        json.loads(answer.out)
        assert not self._words_given() - before, "a plan changed something"

    @rule(dice=DICE)
    def misspell(self, dice: int) -> None:
        verbs = (["pause"], ["resume"], ["rebuild"], ["rescue"], ["release"], ["fence"], ["events"], ["prune"])
        self.type(*verbs[dice % len(verbs)], "a-haed", refused=True)

    # --- the world -------------------------------------------------------------------------------------------------

    def _strike(self, name: str, dice: int) -> None:
        self.strikes.rng = random.Random(dice)

        async def strike() -> None:
            try:
                self.room.note(f"{name} {await getattr(self.strikes, name)()}")
            except (LookupError, Refused, SpecError, HostError) as error:
                self.room.note(f"{name}: {error}")

        self.do(strike)

    @rule(
        name=st.sampled_from(WORLD),
        dice=DICE,
    )
    def the_world(self, name: str, dice: int) -> None:
        self._strike(name, dice)

    @rule(seconds=st.sampled_from([1.0, 10.0, 60.0, 300.0]))
    def wait(self, seconds: float) -> None:
        self.do(lambda: asyncio.sleep(seconds))

    @rule()
    def students_work(self) -> None:
        """Not on a disk that was given up and is still there: what is written before it goes is lost with it."""
        room = self.room
        live = [(guest, epoch_of(v)) for guest in room.home for _, _, v in room.disks(guest) if is_live(v)]
        going = {guest for guest, epoch in live if (guest, epoch) in room.may_go}
        self.do(lambda: room.write_new_work(but=going))

    # --- what must hold after each step ----------------------------------------------------------------------------

    @invariant()
    def nothing_is_wrong(self) -> None:
        if hasattr(self, "truth"):
            assert not self.truth.violations, "\n".join([*self.room.history, *map(str, self.truth.violations)])

    @invariant()
    def status_says_what_was_asked_for(self) -> None:
        if not hasattr(self, "watch") or not self.room.main.alive:
            return
        status, room = self._status(), self.room
        assert status["spec"]["digest"] == room.good.digest
        for guest in status["guests"]:
            name = guest["name"]
            assert guest["container"] == room.home[name]
            assert guest["paused"] == self._is_paused(name), f"{name} paused: {guest['paused']} {self.paused}"
            assert not guest["held"] or name in room.asked_to_hold or self._released(name), f"{name} is held"
        for container in status["containers"]:
            name = container["name"]
            assert container["cordoned"] == (name in room.good.cordoned)
            assert container["paused"] == bool({"site", f"container/{name}"} & self.paused)
            assert not container["fenced"] or name in room.fenced

    def _released(self, guest: str) -> bool:
        """Given back by a person, and the service has not got there yet."""
        rescue = self.room.main.record.memory.rescues.get(guest)
        return rescue is not None and rescue.wish == "release"

    @invariant()
    def what_is_paused_is_left_alone(self) -> None:
        if not hasattr(self, "watch"):
            return
        for guest, boots in list(self.still.items()):
            if guest not in self.room.home or not self._is_left_alone(guest):
                del self.still[guest]
            else:
                assert self.room.site.witness.boots[guest] == boots, f"{guest} is paused, and was started"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.verbs", description=__doc__)
    parser.add_argument("--examples", type=int, default=30)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32), help="what Hypothesis begins with")
    asked = parser.parse_args()
    print(REPLAY.format(asked.examples, asked.steps, asked.seed), flush=True)
    bury_in_silence()
    seed(asked.seed)(Desk)
    run_state_machine_as_test(
        Desk,
        settings=settings(
            max_examples=asked.examples,
            stateful_step_count=asked.steps,
            deadline=None,
            database=None,
            derandomize=False,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    total = {"examples": asked.examples, "steps": asked.steps, "seed": asked.seed, "cpu_seconds": time.process_time()}
    print(json.dumps(total | {"typed": COUNTS.total() - COUNTS["refused"], "counts": COUNTS}))
    return 0


if __name__ == "__main__":
    require_fixed_hashes()
    sys.exit(main())
