"""Spec generations: which one a service begins with, and how the next one comes into force (S4).

Called by `service`, which watches the files. A spec that cannot be used changes nothing: the last good generation stays
in force, and log, history, metric and `status` say why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from vcrecon.controller import Controller
from vcrecon.controls import SpecState
from vcrecon.errors import SpecError
from vcrecon.shell import last_good
from vcrecon.shell.connector import pinned_keys
from vcrecon.spec.load import load
from vcrecon.spec.model import Spec

_log = structlog.get_logger("vcrecon")


def first_spec(specs: Path, state: Path, *, once: bool) -> tuple[Spec, tuple[str, ...]]:
    """The spec to begin with, and what is wrong with the one on disk: then it is the last good one.

    With `once` nobody waits for a better one. Raises SpecError when there is none that can be used.
    """
    try:
        return load(specs).spec, ()
    except SpecError as error:
        kept = None if once else last_good.read(state)
        if kept is None:
            raise
        _log.error("spec invalid, the last good one is in force", problems=[str(p) for p in error.problems[:20]])
        return kept, tuple(str(problem) for problem in error.problems)


class Generations:
    """The generation in force, and the files that the next one is read from.

    `on_spec` is called with each new spec that came into force, after the controller took it.
    """

    def __init__(
        self,
        specs: Path,
        state: Path,
        controller: Controller,
        problems: tuple[str, ...],
        on_spec: Callable[[Spec], Awaitable[None]],
    ) -> None:
        self.now = SpecState(str(specs), 1, not problems, problems)
        self._specs, self._state = specs, state
        self._controller = controller
        self._record, self._metrics = controller.ledger.record, controller.ledger.metrics
        self._on_spec = on_spec
        last_good.save(state, controller.spec)
        self._pins = pinned_keys(controller.spec.site.ssh.known_hosts)

    async def reload(self) -> None:
        """Read the files again, and put what they say into force when it is another spec that can be used."""
        try:
            old = self._controller.spec
            spec = await asyncio.to_thread(lambda: load(self._specs).spec.sharing(old))
        except SpecError as error:
            self._refuse(tuple(str(problem) for problem in error.problems))
            return
        if not self.now.valid:
            self._record.event("site", "spec-valid", "the spec files are in order again")
        self.now.valid, self.now.problems = True, ()
        if spec.site.name != old.site.name:
            self._refuse_rename(old.site.name, spec.site.name)
            return
        pins = pinned_keys(spec.site.ssh.known_hosts)
        if spec.digest != old.digest:
            self.now.generation += 1
            self._record.event(
                "site", "generation", f"generation {self.now.generation} is in force", digest=spec.digest
            )
            _log.info("generation", generation=self.now.generation)
            last_good.save(self._state, spec)
            self._controller.adopt(spec)
            await self._on_spec(spec)
        if pins != self._pins:
            self._pins = pins
            self._controller.pin(pins)
        self._metrics.set_spec(valid=True, generation=self.now.generation)

    def _refuse(self, problems: tuple[str, ...]) -> None:
        if problems != self.now.problems:
            self.now.valid, self.now.problems = False, problems
            self._record.event(
                "site", "spec-invalid", f"generation {self.now.generation} stays in force: {problems[0]}"
            )
            _log.error("spec invalid, the last good generation stays in force", problems=problems[:20])
        self._metrics.set_spec(valid=False, generation=self.now.generation)

    def _refuse_rename(self, old: str, new: str) -> None:
        """Everything on the hosts is marked with the site's name; under another it would all be strangers'."""
        message = (
            f"site.yaml: the site is now called {new!r}, but this service runs {old!r}: "
            "put the name back, or start another service for the other site"
        )
        self.now.valid, self.now.problems = False, (message,)
        self._record.event("site", "spec-invalid", message)
        self._metrics.set_spec(valid=False, generation=self.now.generation)
