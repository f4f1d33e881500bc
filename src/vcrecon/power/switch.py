"""What every power switch promises, and the part that all of them share: act, then look until it is so.

Used by `power.redfish` and `power.ipmi`, which say how to read the state and how to press the button.
"""

from __future__ import annotations

import abc
import asyncio
from dataclasses import dataclass
from typing import Literal, Protocol

from vcrecon.errors import HostError, Transient, Unreachable

PowerState = Literal["on", "off", "unknown"]
_PROOFS = 2
"""How often in a row the wanted state must be seen: some controllers show "off" for a moment during a restart."""
_WORDS_MAX = 300


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: to connect, for one whole answer, until a change must show, and between two looks at it."""

    connect_s: float = 5.0
    answer_s: float = 30.0
    effect_s: float = 60.0
    poll_s: float = 1.0


class PowerSwitch(Protocol):
    """The power controller of one container. Every method raises a HostError whose kind begins with `power-`."""

    async def state(self) -> PowerState:
        """What it shows now. "unknown": it answers, but says neither on nor off."""

    async def on(self) -> None:
        """Switch it on; returns once its state says on."""

    async def off(self) -> None:
        """Cut the power, without asking the system; returns only once its state says off (S1)."""

    async def cycle(self) -> None:
        """Off, then on again, each proved by the state."""

    async def netboot_once(self) -> None:
        """Let the next boot be from the network. Counts from the next `on` or `cycle`, and may stay set after it:
        many controllers ignore "once", so whoever answers the netboots must send a machine to its own disk.
        """


class VerifiedSwitch(abc.ABC):
    """A switch that never believes the word of its controller, only the state that it shows afterwards."""

    def __init__(self, title: str, patience: Patience) -> None:
        self.title = title
        self._patience = patience

    @abc.abstractmethod
    async def state(self) -> PowerState: ...

    @abc.abstractmethod
    async def _press(self, wanted: Literal["on", "off"]) -> None:
        """Ask for `wanted`; may return before it is so."""

    async def on(self) -> None:
        await self._bring("on")

    async def off(self) -> None:
        await self._bring("off")

    async def cycle(self) -> None:
        # Not the controller's own "cycle" or "reset": these cannot be proved afterwards, and boot settings count
        # only from a real power-off on some.
        await self.off()
        await self.on()

    async def _bring(self, wanted: Literal["on", "off"]) -> None:
        if await self.state() != wanted:
            await self._press(wanted)
        await self._prove(wanted)

    async def _prove(self, wanted: Literal["on", "off"]) -> None:
        """Look until the state was `wanted` twice in a row. A look that fails is repeated until the deadline."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._patience.effect_s
        proofs, shown, trouble = 0, "nothing yet", None
        while True:
            try:
                shown, trouble = await self.state(), None
            except (Unreachable, Transient) as error:
                trouble = error
            proofs = proofs + 1 if trouble is None and shown == wanted else 0
            if proofs >= _PROOFS:
                return
            if clock() >= deadline:
                raise trouble or self._no_effect(wanted, shown)
            await asyncio.sleep(self._patience.poll_s)

    def _no_effect(self, wanted: str, shown: str) -> HostError:
        return Transient(
            f"{self.title} took the order to switch {wanted}, but {self._patience.effect_s:g} s later it still says "
            f"{shown!r}; look at its own web page, switch by hand, or reset the power controller",
            delay_s=30.0,
            kind="power-no-effect",
        )


def words(text: object) -> str:
    """What a power controller or a library said, fit for a message: one line, printable, not too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= _WORDS_MAX else line[: _WORDS_MAX - 1] + "…"
