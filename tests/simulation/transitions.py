"""Spec transitions: a classroom that went from spec A to spec B ends as one that was brought up with B (after Acto).

`python -m tests.simulation.transitions --pairs N --first-seed S` plays N pairs; `--seed S` one, and says more.

Each pair is judged twice. First once B is in force and confirmed: whatever differs from a fresh B must be one of

- the disk of a guest whose disk holds, or may hold, a student's work (`vc.touched`): its image, context, size and kind
  stay until a person gives it up (S2);
- the size and kind of any disk that was there before: they are taken when a disk is made;
- whether a guest answers whose disk is such a one, and whose address is another in B (`silent`);
- the definition of a guest that ran all the while: "taken at its next start", as `status` says of it, so that a healthy
  guest is never restarted. Where its network is another in B, its interfaces stay on the bridge that they were on, or
  on none when B has no use for it: the rules of B let nothing of theirs through.

Then the person says `vcrecon rebuild` for those disks and resets those guests, and nothing at all may differ.
Containers that left the spec are not compared: vcrecon talks to them no more.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import multiprocessing
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulation.entropy import require_fixed_hashes
from tests.simulation.neighbours import Documents, is_valid, pair
from tests.simulation.portrait import Difference, Portrait, portray
from tests.simulation.schedule import REST_S, Play, run
from tests.simulation.specs import SpecFiles

from vcrecon.errors import HostError, Refused

REPLAY = "python -m tests.simulation.transitions --seed {}"
LOOK_AGAIN_S = 1.0


@dataclass
class Outcome:
    """What became of one pair. `legitimate` counts, by kind, what differed until a person gave it up."""

    seed: int
    problems: list[str] = field(default_factory=list)
    legitimate: Counter[str] = field(default_factory=Counter)
    history: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Transition:
    """The same seed gives the same site, and the same A and B, to the classroom that begins with B and to the other."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.outcome = Outcome(seed)
        self.fresh = Portrait()
        self.containers: set[str] = set()

    def play(self) -> Outcome:
        began_s = time.process_time()
        for name, story in (("fresh", self._fresh), ("transition", self._transition)):
            result = run(self.seed, story)
            self.outcome.problems += [f"{name}: {violation}" for violation in result.violations]
            self.outcome.history += [f"--- {name}", *result.history]
            if result.violations:
                break
        self.outcome.seconds = time.process_time() - began_s
        return self.outcome

    def _drawn(self, play: Play) -> tuple[random.Random, Documents, Documents]:
        rng = random.Random(self.seed)
        first, second = pair(rng, play.room.files.documents, play.room.directory / "scratch")
        return rng, first, second

    async def _fresh(self, play: Play) -> None:
        _, _, second = self._drawn(play)
        await begin(play, second)
        self.fresh = portray(play.room)

    async def _transition(self, play: Play) -> None:
        rng, first, second = self._drawn(play)
        room = play.room
        await begin(play, first)
        await room.write_new_work()
        before = {guest: parts["disk"] for (_, guest), parts in portray(room).guests.items() if "disk" in parts}
        await self._leave_containers(play, rng, first, second)
        since_s = room.loop.time()
        await put_into_force(play, second)
        await settle(play)
        play.truth.at_rest(set(), set())
        there = list(self.fresh.differences(portray(room)))
        excuses = [_excuse(play, difference, since_s, before) for difference in there]
        self._judge(play, [difference for difference, excuse in zip(there, excuses, strict=True) if not excuse])
        self.outcome.legitimate += Counter(excuse for excuse in excuses if excuse)
        await give_up(play, there)
        await settle(play)
        play.truth.at_rest(set(), set())
        self._judge(play, list(self.fresh.differences(portray(room))))

    def _judge(self, play: Play, differences: list[Difference]) -> None:
        for difference in differences:
            play.truth.violate("transition", str(difference))

    async def _leave_containers(self, play: Play, rng: random.Random, first: Documents, second: Documents) -> None:
        """Containers that B lacks are emptied first, as a person ought to; or somebody pulls their plugs."""
        room = play.room
        staying = [name for name in SpecFiles(Path(), first).containers if name in SpecFiles(Path(), second).containers]
        leaving = [name for name in SpecFiles(Path(), first).containers if name not in staying]
        if not leaving:
            return
        between = copy.deepcopy(first)
        files = SpecFiles(Path(), between)
        for guest, container in files.placement.items():
            if container in leaving and staying:
                files.move(guest, rng.choice(staying))
        if staying and rng.random() < 0.7 and is_valid(between, room.directory / "scratch"):
            room.note(f"{' '.join(leaving)} are emptied")
            await put_into_force(play, between)
            await settle(play)
            return
        for name in leaving:
            room.note(f"{name} is switched off for good, and fenced")
            await room.site.power_off(name)
            await room.until(lambda name=name: not room.main.controller.world.reachable(name), 600)  # type: ignore[misc]
            say(play, lambda name=name: room.main.controls.fence(name, "a person"))  # type: ignore[misc]
            room.fenced.add(name)
            for guest in sorted(room.known_guests):
                if name in room.places(guest):
                    room.anew.add(guest)
                    room.given_up.add(guest)


async def begin(play: Play, documents: Documents) -> None:
    """Start a service on untouched hosts, and wait until all is as the spec says."""
    room = play.room
    room.files.documents = copy.deepcopy(documents)
    await room.edited()
    room.site.witness.preparing = room.good.site.session == "preparing"
    room.known_guests = set(room.good.guests)
    room.main.start()
    await settle(play)


async def put_into_force(play: Play, documents: Documents) -> None:
    """Save the files, and confirm what they say."""
    room = play.room
    room.files.documents = copy.deepcopy(documents)
    await room.edited()
    play.truth.edits.spec_changed()
    room.site.witness.preparing = room.good.site.session == "preparing"
    say(play, room.main.controls.confirm)
    room.confirmed = True


def say(play: Play, words: object) -> None:
    """A command; a refusal is only noted."""
    try:
        play.room.main.run(words)  # type: ignore[arg-type]
        play.room.changed_at_s = play.room.loop.time()
    except (Refused, HostError, LookupError) as error:
        play.room.note(f"refused: {error}")


async def settle(play: Play) -> None:
    """Until all is as wanted or waits for a person, who prunes the disks put aside that take the room of others."""
    room, end_s = play.room, play.room.loop.time() + REST_S
    while not (room.converged() or _waits_for_a_person(play)):
        for guest in _aside_where_full(play):
            room.gives_up("prune", guest)
            say(play, lambda guest=guest: room.main.controls.consent("prune", [guest]))  # type: ignore[misc]
        if room.loop.time() > end_s:
            said = [line for line in room.explain() if "plan" in line or "converged" in line]
            play.truth.violate("converges", f"not at rest within {REST_S:.0f} s: {' | '.join(said)[:600]}")
            return
        await asyncio.sleep(LOOK_AGAIN_S)


def _aside_where_full(play: Play) -> list[str]:
    """Guests of whom a disk is kept aside, and no word was given for it, on a container whose pool is full."""
    room = play.room
    full = {plan["container"] for plan in room.main.controls.plans() if plan["reason"] == "pool-full"}
    return [
        guest
        for guest in sorted(room.known_guests)
        if ("prune", guest) not in room.main.record.memory.consents
        and any(
            name in full and any(t.startswith("vc.quarantined") for t in v.tags) for name, _, v in room.disks(guest)
        )
    ]


def _waits_for_a_person(play: Play) -> bool:
    """Whether all is as wanted but guests that do not answer, since their disks have the addresses of another spec."""
    room = play.room
    if not room.looked_since():
        return False  # what is said is of before the last word: that a disk is given up, or another spec
    controller = room.main.controller
    open_ones = [plan for plan in room.main.controls.plans() if plan["decision"] != "rest"]
    for plan in open_ones:
        guest = controller.spec.guests.get(plan["subject"].removeprefix("guest/"))
        if plan["reason"] != "silent" or guest is None:
            return False
        context = f"vc.context={controller.wanted.context(guest)}"
        if not any("vc.touched" in v.tags and context not in v.tags for _, _, v in room.disks(guest.name)):
            return False
    return bool(open_ones) and not controller.admission.in_flight


def _excuse(play: Play, difference: Difference, since_s: float, before: dict[str, object]) -> str:
    """Why this may differ as long as nobody gives anything up; nothing when it may not.

    `before` has the disks as A had them: one that is kept for its work is kept whole.
    """
    room = play.room
    machine = room.site.hosts[difference.container].machine
    domain = machine.domains.by_name.get(difference.guest)
    ran = domain is not None and domain.live and domain.started_at < since_s
    disks = [v for name, _, v in room.disks(difference.guest) if name == difference.container]
    if difference.part == "disk" and isinstance(difference.fresh, dict) and isinstance(difference.found, dict):
        was, kept = before.get(difference.guest), difference.found
        same = isinstance(was, dict) and all(was[key] == kept[key] for key in ("tags", "files"))
        if same and any("vc.touched" in volume.tags for volume in disks):
            return "touched disk"
        if all(difference.fresh[key] == difference.found[key] for key in ("tags", "files", "held")):
            return "size of a disk"
    if difference.part == "definition" and ran:
        return "definition of a running guest"
    if difference.part == "interfaces" and ran and domain is not None:
        fresh, found = difference.fresh, difference.found
        assert isinstance(fresh, dict)
        assert isinstance(found, dict)
        links = machine.network.links
        own = zip(domain.taps, [nic.bridge for nic in domain.nics], strict=True)
        stay = all(links[tap].master == (bridge if bridge in links else "") for tap, bridge in own)
        # An interface is named after its VLAN: one whose network is the same in B is as B has it.
        if stay and all(fresh[tap] == found[tap] for tap in fresh.keys() & found.keys()):
            return "interfaces of a running guest"
    return ""


async def give_up(play: Play, there: list[Difference]) -> None:
    """The person's word for each disk that is not as B has it, and a reset of each guest that runs as A had it."""
    room = play.room
    disks = sorted({difference.guest for difference in there if difference.part == "disk"})
    for guest in disks:
        room.gives_up("rebuild", guest)
        say(play, lambda guest=guest: room.main.controls.consent("rebuild", [guest]))  # type: ignore[misc]
    for difference in there:
        if difference.part == "definition" and difference.guest not in disks:
            play.truth.brought_down(difference.guest)
            room.site.hosts[difference.container].machine.kill_domain(difference.guest)
            room.changed_at_s = room.loop.time()


def play_pair(seed: int) -> Outcome:
    return Transition(seed).play()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.transitions", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this pair, and say what happened")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.seed is not None:
        outcome = play_pair(asked.seed)
        print(*outcome.history, *outcome.problems, dict(outcome.legitimate), sep="\n")
        return 1 if outcome.problems else 0
    return _many(asked)


def _many(asked: argparse.Namespace) -> int:
    began_s = time.monotonic()
    failing, problems, played, cpu_s = [], 0, 0, 0.0
    legitimate: Counter[str] = Counter()
    for outcome in _outcomes(range(asked.first_seed, asked.first_seed + asked.pairs), asked.jobs):
        played, cpu_s = played + 1, cpu_s + outcome.seconds
        legitimate += outcome.legitimate
        if outcome.problems:
            failing.append(outcome.seed)
            problems += len(outcome.problems)
            print(f"{outcome.problems[0]}   replay: {REPLAY.format(outcome.seed)}", flush=True)
    total = {
        "pairs": played,
        "differences": problems,
        "legitimate": dict(legitimate),
        "seconds": round(time.monotonic() - began_s, 2),
        "cpu_seconds": round(cpu_s, 2),
        "failing_seeds": sorted(failing),
    }
    print(json.dumps(total) if asked.json else total)
    return 1 if failing else 0


def _outcomes(seeds: range, jobs: int) -> Iterator[Outcome]:
    # Also one alone is a child's, and of one that ends: what a few hundred played pairs leave behind fills a machine.
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=50) as pool:
        yield from pool.imap_unordered(play_pair, seeds)


if __name__ == "__main__":
    require_fixed_hashes()
    sys.exit(main())
