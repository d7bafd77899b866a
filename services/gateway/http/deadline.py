"""The time that a request may take."""

import asyncio
from types import TracebackType

from shared.errors import BusUnavailableError

DEADLINE = 4.25
"""Seconds that NATS has for a whole request: a single step may take 4, and clients wait for 5."""


class deadline:  # noqa: N801 - used like asyncio.timeout; on every send, a class costs less than a generator
    """Limit the time of the block; raise BusUnavailableError if it takes longer."""

    def __init__(self) -> None:
        self._timeout = asyncio.timeout(DEADLINE)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, exc, traceback)
        except TimeoutError as timeout:
            raise BusUnavailableError("NATS did not acknowledge in time") from timeout
