"""Waiting for what has to happen, instead of for time to pass."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_PATIENCE = 30.0
_PAUSE = 0.02


async def eventually(look: Callable[[], Awaitable[T]], *, within: float = _PATIENCE) -> T:
    """Call `look` until it returns something true, and return that.

    Raises:
        AssertionError: it did not within so many seconds; names what it returned last.
    """
    deadline = time.monotonic() + within
    while True:
        found = await look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s; last seen: {found!r}")
        await asyncio.sleep(_PAUSE)
