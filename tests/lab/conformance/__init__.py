"""One list of commands and situations, run against a real container and against the simulated one.

`python -m tests.lab.conformance` runs it and prints the comparison; tests/conformance replays what real
containers answered against the simulation, without a lab.
"""
