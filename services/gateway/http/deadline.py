"""The time that a request may take."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.errors import BusUnavailableError

DEADLINE = 4.5
"""Seconds that NATS has for a whole request: a single step may take 4, and clients wait for 5."""


@asynccontextmanager
async def deadline() -> AsyncIterator[None]:
    """Limit the time of the block; raise BusUnavailableError if it takes longer."""
    try:
        async with asyncio.timeout(DEADLINE):
            yield
    except TimeoutError as exc:
        raise BusUnavailableError("NATS did not acknowledge in time") from exc
