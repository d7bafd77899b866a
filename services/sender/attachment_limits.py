"""Limits attachment downloads, so that slow servers hold up only the messages that need them."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

SMALL = 256 * 1024
"""Bytes of all attachments of a message. Only a few messages with more are processed at the same time."""

_ALL = 64
"""The maximum number of messages whose attachments are in memory or being fetched. They take five times as
much memory while the request to the provider is built."""

_EACH = 16
"""The maximum number of these messages for each host and each caller."""

_LARGE = 3
"""The maximum number of messages with larger attachments: one for each host. A caller leaves one of
these places to others."""


class AttachmentLimits:
    """Limits the number of messages whose attachments are in memory."""

    def __init__(self, *, in_all: int = _ALL, each: int = _EACH, large: int = _LARGE) -> None:
        self._all = asyncio.Semaphore(in_all)
        self._each = each
        self._large = asyncio.Semaphore(large)
        self._large_each = max(large - 1, 1)
        self._semaphores: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def place(self, caller: str | None, urls: Sequence[str]) -> AsyncIterator[None]:
        """Wait for a place for a message of a caller, and hold it until the context exits."""
        callers = [] if caller is None else [f"caller {caller}"]
        semaphores = [self._semaphore(key, self._each) for key in (*_hosts("host", urls), *callers)]
        async with _all_of([*semaphores, self._all]):
            yield

    @asynccontextmanager
    async def large_place(self, caller: str | None, urls: Sequence[str]) -> AsyncIterator[None]:
        """Wait for a place for a message with larger attachments, and hold it until the context exits."""
        callers = [] if caller is None else [f"large caller {caller}"]
        semaphores = [
            *(self._semaphore(key, 1) for key in _hosts("large host", urls)),
            *(self._semaphore(key, self._large_each) for key in callers),
        ]
        async with _all_of([*semaphores, self._large]):
            yield

    def _semaphore(self, key: str, value: int) -> asyncio.Semaphore:
        return self._semaphores.setdefault(key, asyncio.Semaphore(value))


@asynccontextmanager
async def _all_of(semaphores: Iterable[asyncio.Semaphore]) -> AsyncIterator[None]:
    # All messages acquire in the same order, so there is no deadlock. Hosts come first: a message that waits
    # for a slow host must not hold anything that others need.
    async with AsyncExitStack() as stack:
        for semaphore in semaphores:
            await stack.enter_async_context(semaphore)
        yield


def _hosts(prefix: str, urls: Sequence[str]) -> list[str]:
    return [f"{prefix} {host}" for host in sorted({_host_of(url) for url in urls})]


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
