"""Limits attachment downloads, so that slow servers hold up only the messages that need them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

_ALL = 32
"""The maximum number of messages whose attachments are in memory or being fetched."""

_EACH = 8
"""The maximum number of these messages for each host and each caller."""


class AttachmentLimits:
    """Limits the number of messages whose attachments are fetched at the same time."""

    def __init__(self, *, in_all: int = _ALL, each: int = _EACH) -> None:
        self._all = asyncio.Semaphore(in_all)
        self._each = each
        self._semaphores: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def place(self, caller: str | None, urls: Sequence[str]) -> AsyncIterator[None]:
        """Wait for a place for a message of a caller, and hold it until the context exits."""
        # All messages acquire in the same order, so there is no deadlock. Hosts come first: a message that
        # waits for a slow host must not hold anything that others need.
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
