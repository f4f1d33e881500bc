"""Spec fuzzing: `python -m tests.fuzz`. No input makes the loader crash, hang or babble, nor the planner delete."""
