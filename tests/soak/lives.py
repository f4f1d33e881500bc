"""When each copy of a guest began and ceased to run, on any simulated host, whichever process plays it.

Each process of hosts writes one line for each start and each end to a file of its own, with the machine's monotonic
clock, which all processes share; the soak reads the files. So S1 is judged across processes, to the moment.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TextIO

from vcrecon.sim.domains import Domain
from vcrecon.sim.machine import Machine


def write_lives(machines: Iterable[Machine], log: TextIO) -> None:
    """Note every start and end of a guest on these machines from now on."""

    def note(what: str, machine: str, domain: Domain) -> None:
        log.write(json.dumps([time.monotonic(), what, machine, domain.name]) + "\n")
        log.flush()

    for machine in machines:
        machine.on_domain_start(lambda domain, name=machine.name: note("start", name, domain))
        machine.on_domain_end(lambda domain, name=machine.name: note("end", name, domain))


@dataclass(slots=True)
class Lives:
    """All that was read so far. `live` is where each guest runs, and since when; `starts` how often it was started."""

    logs: list[Path]
    starts: dict[str, int] = field(default_factory=dict)
    live: dict[str, dict[str, float]] = field(default_factory=dict)
    ended: dict[str, list[tuple[float, float, str]]] = field(default_factory=dict)
    """Begin, end and host of each life that is over."""
    last_end_s: dict[str, float] = field(default_factory=dict)
    _read: dict[Path, int] = field(default_factory=dict)

    def read(self) -> None:
        """Take in what was written since the last time."""
        for path in self.logs:
            with path.open("rb") as log:
                log.seek(self._read.get(path, 0))
                text = log.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(whole)
            for line in whole.splitlines():
                self.take(*json.loads(line))

    def take(self, at_s: float, what: str, host: str, guest: str) -> None:
        """One start or end."""
        if what == "start":
            self.starts[guest] = self.starts.get(guest, 0) + 1
            self.live.setdefault(guest, {})[host] = at_s
        else:
            began_s = self.live.get(guest, {}).pop(host, at_s)
            self.ended.setdefault(guest, []).append((began_s, at_s, host))
            self.last_end_s[guest] = at_s

    def hosts(self, guest: str) -> list[str]:
        """Where the guest runs now."""
        return sorted(self.live.get(guest, {}))

    def since_s(self, guest: str) -> float | None:
        """When the copy that runs was started; None when there is not exactly one."""
        found = list(self.live.get(guest, {}).values())
        return found[0] if len(found) == 1 else None

    def twice(self) -> list[str]:
        """Guests of which two copies ran at the same time (S1), with where and when."""
        found = []
        for guest in sorted({*self.live, *self.ended}):
            lives = sorted([*self.ended.get(guest, ()), *_unending(self.live.get(guest, {}))])
            for (_, end_s, host), (begin_s, _, other) in pairwise(lives):
                if begin_s < end_s:
                    found.append(f"{guest} began on {other} {end_s - begin_s:.3f} s before it ended on {host}")
        return found


def _unending(live: Mapping[str, float]) -> list[tuple[float, float, str]]:
    return [(began_s, float("inf"), host) for host, began_s in live.items()]
