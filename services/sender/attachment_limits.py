"""Limits the downloads of attachments, so that slow servers hold up only the messages that need them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

_ALL = 32
"""Messages whose attachments are in memory, or being fetched, at the same time."""

_EACH = 8
"""The same for each host and each caller."""


class AttachmentLimits:
    """Places for messages whose attachments are fetched."""

    def __init__(self, *, in_all: int = _ALL, each: int = _EACH) -> None:
        self._all = asyncio.Semaphore(in_all)
        self._each = each
        self._semaphores: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def place(self, caller: str | None, urls: Sequence[str]) -> AsyncIterator[None]:
        """Wait for a place for a message of a caller, and hold it until the context exits."""
        # All messages acquire in the same order, so that none of them waits for another in a circle. Hosts
        # are the first: a message that waits for a slow one must not hold anything that others need.
        keys = [f"host {host}" for host in sorted({_host_of(url) for url in urls})]
        if caller is not None:
            keys.append(f"caller {caller}")
        async with AsyncExitStack() as stack:
            for key in keys:
                semaphore = self._semaphores.setdefault(key, asyncio.Semaphore(self._each))
                await stack.enter_async_context(semaphore)
            await stack.enter_async_context(self._all)
            yield


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
