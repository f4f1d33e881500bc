"""Events about strangers, refused tokens and garbage, so that a machine gone mad does not fill the history.

Called by `boot.server` and `boot.services`; the events go where the constructor's `on_event` takes them.
"""

from __future__ import annotations

from collections.abc import Callable

OnEvent = Callable[[str, str, str], None]
"""(subject, reason, message): subject as in the history, reason a short code."""

REPEAT_S = 600.0
REMEMBERED_MAX = 1000
BURST = 30
"""So many events at once, and one more every BURST_REFILL_S: also when each comes from another machine."""
BURST_REFILL_S = 20.0


class Complaints:
    """Passes on the same thing once in ten minutes, and of different things a limited number."""

    def __init__(self, on_event: OnEvent, clock: Callable[[], float]) -> None:
        self._on_event, self._clock = on_event, clock
        self._told: dict[tuple[str, str, str], float] = {}
        self._left = float(BURST)
        self._at_s = clock()

    def tell(self, subject: str, reason: str, message: str, *, about: str = "") -> None:
        """`about` tells two of the same reason apart, a MAC or an address for instance."""
        now_s = self._clock()
        key = (subject, reason, about)
        if now_s - self._told.get(key, float("-inf")) < REPEAT_S:
            return
        self._left = min(float(BURST), self._left + max(0.0, now_s - self._at_s) / BURST_REFILL_S)
        self._at_s = now_s
        if self._left < 1:
            return
        self._left -= 1
        self._told.pop(key, None)
        self._told[key] = now_s
        while len(self._told) > REMEMBERED_MAX:
            self._told.pop(next(iter(self._told)))
        self._on_event(subject, reason, message)
