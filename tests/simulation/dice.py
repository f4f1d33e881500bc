"""The dice that every strike throws, and the hammer: what strikes of all kinds need. The base of `strikes`."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from tests.simulation.classroom import Classroom
from tests.simulation.truth import Truth


class Dice:
    """Draws from the seed, and knows whom to tell of a strike."""

    def __init__(self, room: Classroom, truth: Truth, rng: random.Random) -> None:
        self.room, self.truth, self.rng = room, truth, rng
        self.site = room.site
        self.removed: set[str] = set()
        self.off: set[str] = set()
        self.bad_files = False
        self._entries = list(room.files.documents["containers"]["containers"])

    def container(self) -> str:
        return self.rng.choice(sorted(self.site.hosts))

    def guest(self) -> str:
        return self.rng.choice(sorted(self.room.home))

    def one_of(self, names: Iterable[str]) -> str:
        found = sorted(names)
        if not found:
            raise LookupError("there is none")
        return self.rng.choice(found)

    def disturbed(self, container: str) -> None:
        """Whatever is there, or belongs there, may be started once more."""
        self.truth.may_restart |= self.room.on(container)

    @property
    def dropped(self) -> list[dict[str, Any]]:
        """The entries of containers that left the spec."""
        left = self.room.files.containers
        return [entry for entry in self._entries if entry["name"] not in left]

    def _reachable(self, container: str) -> bool:
        main = self.room.main
        return main.alive and main.controller.world.reachable(container)

    def say(self, words: Callable[..., object]) -> None:
        """A command of the command line, given to the running service. Raises LookupError when none runs."""
        main = self.room.main
        if not main.alive:
            raise LookupError("the service does not run")
        main.run(words, main.controls)
        self.room.changed_at_s = self.room.loop.time()
