"""Measures how many messages a sender passes to a provider, compared with its HTTP client alone."""

import asyncio
from time import perf_counter

from dev.bench.report import Row, of_rounds
from dev.bench.samples import accepted_events
from dev.bench.size import Size
from dev.bench.stack import Stack
from dev.bench.waiting import until

_CONCURRENCY = 48
"""The number of requests in progress, as in the default settings of the sender."""

_WARM_UP = 1.5
_HIGHEST_RATE = 1_500
"""Messages per second. Enough messages are published that no shard runs out of them at this rate."""

_TIMEOUT = 20


async def measure(stack: Stack, size: Size) -> list[Row]:
    await stack.start("mocks")
    rounds = []
    for _ in range(size.rounds):
        limit = await _post(stack, size.posted)
        await stack.fill(list(accepted_events(int(_HIGHEST_RATE * (size.send_seconds + _WARM_UP)))))
        rounds.append((await _send(stack, size.send_seconds), limit))
        await stack.empty()
    return [of_rounds("messages sent per second", rounds, "600; limit: the HTTP client alone")]


async def _post(stack: Stack, count: int) -> float:
    url = stack.url("mocks", "/messages")
    return float(await stack.run("dev.bench.bare_client", url, str(count), str(_CONCURRENCY)))


async def _send(stack: Stack, seconds: float) -> float:
    """Start a sender on the waiting messages, and measure its rate once it is warmed up."""
    before = await _accepted(stack)

    async def has_started() -> bool:
        return await _accepted(stack) > before

    await stack.start("sender")
    try:
        await until(has_started, seconds=_TIMEOUT, every=0.05)
        await asyncio.sleep(_WARM_UP)
        first, started = await _accepted(stack), perf_counter()
        await asyncio.sleep(seconds)
        return (await _accepted(stack) - first) / (perf_counter() - started)
    finally:
        await stack.stop("sender")


async def _accepted(stack: Stack) -> int:
    stats = await stack.http.get(stack.url("mocks", "/mock/stats"))
    return int(stats.raise_for_status().json()["accepted"])
