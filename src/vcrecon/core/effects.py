"""Whether actions that succeed have an effect. Pure; asked by the controller.

A program may say that it worked and have done nothing. Its action is planned again from the next look, and would be
carried out as fast as it ends, for ever (S8).
"""

from __future__ import annotations

from collections.abc import Collection

from vcrecon.core.actions import Action
from vcrecon.core.wanted import Wanted
from vcrecon.errors import Transient


class Effects:
    """The last action of each subject that succeeded, until a plan shows that it had its effect."""

    def __init__(self) -> None:
        self._succeeded: dict[str, tuple[Action, Wanted]] = {}

    def succeeded(self, action: Action, wanted: Wanted) -> Transient | None:
        """Take note; returns the error of an action that succeeds once more without a change in between.

        For another spec, `wanted`, the same action may have other work to do.
        """
        if self._succeeded.get(action.subject) != (action, wanted):
            self._succeeded[action.subject] = action, wanted
            return None
        return Transient(
            f"{action.kind} of {action.subject} on {action.container} says that it is done, and the container shows no "
            "change: do its commands do what they say? Look at `vcrecon events` and at the container",
            kind="no-effect",
        )

    def planned(self, container: str, actions: Collection[Action], busy: Collection[str]) -> None:
        """What was done on the container, was looked at and is not planned again has had its effect."""
        for subject, (action, _) in list(self._succeeded.items()):
            if action.container == container and subject not in busy and action not in actions:
                del self._succeeded[subject]
