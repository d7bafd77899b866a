"""How long a request waits for NATS."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.errors import BusUnavailableError

PATIENCE = 4.5
"""Seconds that NATS has for all that a request takes: one step alone may take 4, and clients wait for 5."""


@asynccontextmanager
async def patience() -> AsyncIterator[None]:
    """Bound what is done inside; raises BusUnavailableError when it takes longer."""
    try:
        async with asyncio.timeout(PATIENCE):
            yield
    except TimeoutError as exc:
        raise BusUnavailableError("NATS did not acknowledge in time") from exc
