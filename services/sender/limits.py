"""Keeps the requests to a provider within its limits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiolimiter import AsyncLimiter

from services.sender.settings import Limits


class Limiter:
    """Admits requests within `limits`."""

    def __init__(self, limits: Limits) -> None:
        self._slots = asyncio.Semaphore(limits.concurrency)
        rate = limits.rate
        # Up to one message per second is admitted singly; a higher rate is admitted in bursts of one second.
        self._rate_limiter = AsyncLimiter(max(rate, 1), max(rate, 1) / rate) if rate else None

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait until a request may be made, and count it as in progress until the context exits."""
        async with self._slots:
            if self._rate_limiter:
                await self._rate_limiter.acquire()
            yield
