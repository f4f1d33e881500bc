"""An event loop whose clock jumps to the next timer, and whose order of tasks comes from a seed.

Nothing here waits for real: an hour passes as soon as nobody has anything to do before it. `kill` ends a process as
SIGKILL does: its tasks are not cancelled, they just never run again. Which process a task belongs to is its context's
`OWNER`, which whatever it starts inherits.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import random
from collections.abc import Callable
from typing import Any

OWNER: contextvars.ContextVar[str] = contextvars.ContextVar("owner", default="")
"""The process that a task belongs to; nothing for the hosts and for what strikes them."""

_STEPS_MAX = 3_000_000
_TIMERS_MIN, _CANCELLED_FRACTION = 100, 0.5
"""Of so many timers, when more than this are cancelled, those are thrown out, as in asyncio."""


class Deadlock(RuntimeError):
    """Nobody will ever do anything again, and somebody waits."""


class Endless(RuntimeError):
    """More steps than any schedule needs: a loop that waits for nothing."""


class CountedTask(asyncio.Task[Any]):
    """Hashes by birth, so that sets of tasks have the same order in every run."""

    _numbers = itertools.count()

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._number = next(self._numbers)
        self.owner = OWNER.get()
        super().__init__(*arguments, **named)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class _Soon(asyncio.Handle):
    """A Handle that never asks whether its loop is debugged, which costs as much as all else that it does."""

    __slots__ = ()

    def __init__(self, callback: Any, args: Any, loop: Any, context: contextvars.Context | None) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._loop, self._callback, self._args = loop, callback, args
        self._cancelled = False
        self._repr = self._source_traceback = None


class _Timer(asyncio.TimerHandle):
    """Like `_Soon`."""

    __slots__ = ()

    def __init__(self, when: float, callback: Any, args: Any, loop: Any, context: contextvars.Context | None) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._loop, self._callback, self._args = loop, callback, args
        self._cancelled = self._scheduled = False
        self._repr = self._source_traceback = None
        self._when = when

    def __lt__(self, other: asyncio.TimerHandle) -> bool:
        return self._when < other._when


class VirtualLoop(asyncio.BaseEventLoop):
    """Its time begins at 0 and is measured in virtual seconds."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        CountedTask._numbers = itertools.count()
        self._rng = rng
        self._now_s = 0.0
        self._clock_resolution = 1e-9
        self._dead: set[str] = set()
        self.steps = 0
        self.graves: list[object] = []
        """What killed processes leave; kept, so that no clean-up of theirs ever runs."""
        self.set_task_factory(_counted)

    def time(self) -> float:
        return self._now_s

    def _run_once(self) -> None:
        """One turn, as BaseEventLoop's, without the selector: the clock jumps instead."""
        self.steps += 1
        if self.steps > _STEPS_MAX:
            raise Endless(f"{self.steps} turns of the loop, {self._now_s:.1f} virtual seconds")
        self._drop_cancelled()
        ready, timers = self._ready, self._scheduled
        if ready or self._stopping:
            if len(ready) > 1:
                self._shuffle()
        elif timers:
            self._now_s += max(0.0, timers[0]._when - self._now_s)
        else:
            raise Deadlock("nothing is scheduled and somebody waits")
        due_s = self._now_s + self._clock_resolution
        while timers and timers[0]._when < due_s:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _drop_cancelled(self) -> None:
        timers = self._scheduled
        if len(timers) > _TIMERS_MIN and self._timer_cancelled_count > _CANCELLED_FRACTION * len(timers):
            for timer in timers:
                timer._scheduled = not timer._cancelled
            timers[:] = [timer for timer in timers if not timer._cancelled]
            heapq.heapify(timers)
            self._timer_cancelled_count = 0
        else:
            while timers and timers[0]._cancelled:
                self._timer_cancelled_count -= 1
                heapq.heappop(timers)._scheduled = False

    def _write_to_self(self) -> None:
        pass

    def _shuffle(self) -> None:
        """Tasks that are ready at once run in any order; callbacks keep theirs, which asyncio promises."""
        ready = self._ready
        places = [n for n, handle in enumerate(ready) if _is_step(handle)]
        if len(places) > 1:
            handles = [ready[n] for n in places]
            self._rng.shuffle(handles)
            for n, handle in zip(places, handles, strict=True):
                ready[n] = handle

    # Threads would not be reproducible: their work is done at once.

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    # Killing.

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> asyncio.Handle:
        handle = _Soon(callback, args, self, context)
        self._ready.append(handle)
        if self._dead:
            self._bury_if_dead(handle)
        return handle

    def call_at(
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        handle = _Timer(when, callback, args, self, context)
        heapq.heappush(self._scheduled, handle)
        handle._scheduled = True
        if self._dead:
            self._bury_if_dead(handle)
        return handle

    def _bury_if_dead(self, handle: asyncio.Handle) -> None:
        if self._dead and handle._context.get(OWNER) in self._dead:
            self.graves.append((handle._callback, handle._args))
            handle.cancel()

    def tasks_of(self, owner: str) -> list[CountedTask]:
        """The tasks of a process that have not ended."""
        found = [task for task in asyncio.all_tasks(self) if isinstance(task, CountedTask) and task.owner == owner]
        return sorted(found, key=hash)

    def kill(self, owner: str) -> None:
        """No task of `owner` takes another step."""
        self._dead.add(owner)
        for handle in [*self._ready, *self._scheduled]:
            if not handle.cancelled():
                self._bury_if_dead(handle)
        for task in self.tasks_of(owner):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            self.graves.append(task)


def _counted(loop: asyncio.AbstractEventLoop, coroutine: Any, **named: Any) -> CountedTask:
    return CountedTask(coroutine, loop=loop, **named)


def _is_step(handle: asyncio.Handle) -> bool:
    return isinstance(getattr(handle._callback, "__self__", None), asyncio.Task)
