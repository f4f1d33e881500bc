"""When to try again after failures: per object, exponential with jitter (S8). Pure.

Called by the controller to count, and by the planner to wait.
"""

from __future__ import annotations

from vcrecon.core.memory import Attempts

FIRST_S = 2.0
LONGEST_S = 300.0
CRASH_LOOP = "crash-loop"
"""The error of a guest that goes down again and again: delays its next start, and nothing else."""


def wait_s(attempts: Attempts | None, now_s: float) -> float:
    """Seconds until the next try, 0 when it is due. A wait longer than any given out means a jumped clock."""
    if attempts is None:
        return 0.0
    left_s = attempts.retry_at_s - now_s
    return left_s if 0.0 < left_s <= 2 * LONGEST_S else 0.0


def after_failure(
    before: Attempts | None, *, error: str, message: str, now_s: float, jitter: float, least_s: float = 0.0
) -> Attempts:
    """Count one more failure. `jitter` is a random number in [0, 1); the wait is 50 to 100 % of the step.

    `least_s` is the shortest wait that the failure itself asked for, in seconds.
    """
    count = (before.count if before else 0) + 1
    step_s = min(LONGEST_S, FIRST_S * 2.0 ** min(count - 1, 16))
    return Attempts(count, now_s + max(least_s, step_s * (0.5 + jitter / 2)), error, message)
