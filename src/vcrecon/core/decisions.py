"""What the planner says about one object: a closed set of results, each with its reason. Made by `plan`."""

from __future__ import annotations

from dataclasses import dataclass

from vcrecon.core.actions import Action
from vcrecon.core.backoff import wait_s
from vcrecon.core.memory import Memory
from vcrecon.core.states import State

NEEDS_A_PERSON = frozenset(
    {
        *("hook-failed", "image-not-a-tree", "image-no-init", "corrupt", "no-space"),
        *("no-lvm", "no-nftables", "no-hypervisor", "missing-program", "no-vlan", "no-trunk"),
        *("name-taken", "volume-taken", "disk-mounted"),
        *("disk-not-blank", "no-disk", "disk-too-small", "disk-failing", "disk-no-match", "no-mirror"),
        *("image-no-kernel", "boot-loader-failed", "install-stuck", "install-no-answer", "never-booted"),
        *("gives-up-work", "switch-on"),
    }
)
"""Reasons that do not pass by themselves: such an object is tried again, and `apply` does not wait for that."""

NEEDS_CONFIRMATION = "needs-confirmation"
"""The reason of what waits for `vcrecon confirm`."""


@dataclass(frozen=True, slots=True)
class Do:
    """Carry out this action, if admission allows."""

    action: Action

    @property
    def subject(self) -> str:
        return self.action.subject


@dataclass(frozen=True, slots=True)
class Wait:
    """Something is under way; look again after `look_again_s` seconds unless an event comes first.

    `image` names the image that the guest waits for on this container; with `boot_only` its kernel and initrd
    are enough.
    """

    subject: str
    message: str
    look_again_s: float = 5.0
    image: str = ""
    boot_only: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """Cannot go on by itself. `reason` is a short code (a metric label); `message` says what to do.

    `image` names the image that failed and that the guest still waits for; see Wait.
    """

    subject: str
    reason: str
    message: str
    look_again_s: float = 30.0
    image: str = ""
    boot_only: bool = False


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing to do, for the reason in `message`: it is as wanted, or not `ours` to look after."""

    subject: str
    message: str
    ours: bool = True


Decision = Do | Wait | Block | Rest


@dataclass(frozen=True, slots=True)
class Status:
    """The state of one object as this pass saw it; None when nothing is known."""

    subject: str
    state: State | None
    detail: str


@dataclass(frozen=True, slots=True)
class Plan:
    """One container's pass: the states it found and one decision for each object, in order.

    `hold` is what the container's machine is told when it boots from the network before its install may begin;
    without it the machine is sent to its own disk.
    """

    container: str
    statuses: tuple[Status, ...]
    decisions: tuple[Decision, ...]
    hold: str = ""

    @property
    def actions(self) -> tuple[Action, ...]:
        return tuple(d.action for d in self.decisions if isinstance(d, Do))

    @property
    def blocked(self) -> tuple[Block, ...]:
        return tuple(d for d in self.decisions if isinstance(d, Block))

    @property
    def held_back(self) -> bool:
        """Whether a guest here waits for a person's word for this spec (S3)."""
        return any(block.reason == NEEDS_CONFIRMATION for block in self.blocked)

    @property
    def waiting(self) -> tuple[Wait, ...]:
        return tuple(d for d in self.decisions if isinstance(d, Wait))

    def stuck(self, memory: Memory) -> bool:
        """Whether only people can help with what is left here; what waits for a stuck container is stuck with it."""
        blocks = {block.subject: block.reason for block in self.blocked}
        held_up = blocks.get(f"container/{self.container}") in NEEDS_A_PERSON
        return all(
            isinstance(d, Rest)
            or (isinstance(d, Block) and (d.reason in NEEDS_A_PERSON or d.subject not in memory.attempts))
            or (isinstance(d, Wait) and held_up)
            for d in self.decisions
        )

    @property
    def settled(self) -> bool:
        """Whether everything here is as the spec wants."""
        return all(isinstance(d, Rest) for d in self.decisions)

    def look_again_s(self, relist_s: float) -> float:
        """When to look again, in seconds, if no event comes first."""
        return min(
            [relist_s] + [d.look_again_s for d in self.decisions if isinstance(d, Wait | Block)],
        )


def backing_off(memory: Memory, subject: str, now_s: float) -> Block | None:
    """Why an object that failed is not tried now, or None when it may be."""
    attempts = memory.attempts.get(subject)
    left_s = wait_s(attempts, now_s)
    if attempts is None or not left_s:
        return None
    message = f"{attempts.message} (try {attempts.count + 1} in {left_s:.0f} s)"
    return Block(subject, attempts.error, message, look_again_s=left_s + 0.05)
