import asyncio
from collections.abc import Awaitable, Callable

from dev.bench.errors import BenchError


async def until(true: Callable[[], Awaitable[bool]], *, seconds: float, every: float) -> None:
    """Ask again and again.

    Args:
        true: what to ask.
        seconds: after which it is given up.
        every: seconds between an answer and the next question.

    Raises:
        BenchError: it did not become true in time.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        if await true():
            return
        if loop.time() > deadline:
            raise BenchError(f"nothing happened within {seconds:g} s")
        await asyncio.sleep(every)
