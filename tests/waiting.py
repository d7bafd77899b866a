"""Waiting for an event instead of for an amount of time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_DEADLINE = 30.0
_PAUSE = 0.02


async def eventually(probe: Callable[[], Awaitable[T]], *, within: float = _DEADLINE) -> T:
    """Call `probe` until its result is true, and return the result.

    Raises:
        AssertionError: the result was not true `within` this many seconds; the message has the last result.
    """
    deadline = time.monotonic() + within
    while True:
        result = await probe()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {within} s; the last result was {result!r}")
        await asyncio.sleep(_PAUSE)
