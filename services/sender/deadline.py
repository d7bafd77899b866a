"""A deadline for a response, which a suspended process does not mistake for a missing one."""

import asyncio
from types import TracebackType
from typing import Self

_GRACE = 0.1
"""Seconds between the deadline and the cancellation."""


class Deadline:
    """Ends the block with TimeoutError at a certain time, but not before what has arrived was processed.

    When a process continues after a suspension, `asyncio.timeout` cancels the block before the event loop
    has passed on a response that arrived in the meantime.

    Args:
        when: the time by the clock of the event loop.
    """

    def __init__(self, when: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None
        self.when = when

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self.reschedule(self.when)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer:
            self._timer.cancel()
        await self._timeout.__aexit__(kind, error, traceback)

    def reschedule(self, when: float) -> None:
        """Change the deadline."""
        self.when = when
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._wait_for_the_loop)

    def _wait_for_the_loop(self) -> None:
        # This timer starts only now, so the loop reads what has arrived before it is over.
        self._timer = self._loop.call_later(_GRACE, self._timeout.reschedule, 0)
