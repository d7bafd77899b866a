import asyncio
from collections.abc import Awaitable, Callable

from dev.bench.errors import BenchError


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float, every: float) -> None:
    """Wait until a condition is true.

    Args:
        condition: checks it.
        seconds: how long to wait at most.
        every: seconds between the checks.

    Raises:
        BenchError: the condition did not become true in time.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        if await condition():
            return
        if loop.time() > deadline:
            raise BenchError(f"a condition was not met within {seconds:g} s")
        await asyncio.sleep(every)
