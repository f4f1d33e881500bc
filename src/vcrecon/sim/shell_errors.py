"""How a simulated shell's flow of control leaves a command. Raised and caught in `sim.shell` and its parts.

ExitShell            `exit`, or a failure under `set -e`
ReturnFromFunction   `return`
LoopJump             `break N` (BreakLoop) or `continue N` (ContinueLoop)
ShellError           dash prints the message and ends with status 2
RedirectionError     a file could not be opened: the command has status 2
"""

from __future__ import annotations


class ExitShell(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class ReturnFromFunction(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class LoopJump(Exception):
    def __init__(self, levels: int) -> None:
        super().__init__(levels)
        self.levels = levels


class BreakLoop(LoopJump):
    pass


class ContinueLoop(LoopJump):
    pass


class ShellError(Exception):
    pass


class RedirectionError(Exception):
    pass
