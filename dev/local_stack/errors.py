"""The errors of the local stack.

StackError          something that a person can correct; shown as a line, without a traceback
└── NotStartedError a process ended, or took too long, before it was ready; has its last lines
"""

from collections.abc import Sequence


class StackError(Exception):
    pass


class NotStartedError(StackError):
    def __init__(self, reason: str, last_lines: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.last_lines = tuple(last_lines)
