"""An action that succeeds twice without a change in between is told (S8), and no other."""

from __future__ import annotations

from worlds import a_spec

from vcrecon.core.actions import SetUpNetwork
from vcrecon.core.effects import Effects
from vcrecon.core.wanted import Wanted

WANTED = Wanted(a_spec({"c1": []}))
ACTION = SetUpNetwork("c1", "its bridges differ", vlans=(101,))


def test_an_action_that_is_planned_again_after_its_success_had_no_effect() -> None:
    effects = Effects()
    assert effects.succeeded(ACTION, WANTED) is None
    effects.planned("c1", [ACTION], busy=())
    assert effects.succeeded(ACTION, WANTED).kind == "no-effect"  # type: ignore[union-attr]


def test_one_that_is_not_planned_again_had_its_effect() -> None:
    effects = Effects()
    effects.succeeded(ACTION, WANTED)
    effects.planned("c1", [], busy=())
    assert effects.succeeded(ACTION, WANTED) is None


def test_another_spec_gives_the_same_action_other_work() -> None:
    """A firewall that was edited twice within one look is set up twice, by actions that are equal."""
    effects = Effects()
    effects.succeeded(ACTION, WANTED)
    assert effects.succeeded(ACTION, Wanted(a_spec({"c1": ["alice"]}))) is None
