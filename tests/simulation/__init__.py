"""The real controller on a virtual clock: simulated hosts, faults and crashes, all drawn from a seed."""
