"""Measure the limit of the sender: an HTTP client alone that posts to a provider.

    python -m dev.bench.bare_client <httpx | aiohttp> <url> <requests> <concurrency>

It prints the CPU time per request in microseconds. The aiohttp client is the sender's own.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import httpx
import uvloop

from dev.bench.samples import send_request
from shared.ids import new_message_id
from shared.providers.base import HttpRequest
from shared.providers.http import make_client

_TIMEOUT = 10
_TIME_LIMIT = 300
_SUCCESS = range(200, 300)

Post = Callable[[HttpRequest], Awaitable[int]]
"""Makes a request and returns the status of the response."""


@asynccontextmanager
async def _httpx() -> AsyncIterator[Post]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False, limits=limits) as client:

        async def post(request: HttpRequest) -> int:
            return (await client.post(request.url, content=request.body, headers=request.headers)).status_code

        yield post


@asynccontextmanager
async def _aiohttp() -> AsyncIterator[Post]:
    async with make_client(timeout=_TIMEOUT) as client:

        async def post(request: HttpRequest) -> int:
            return (await client.post(request)).status

        yield post


async def _run(kind: str, url: str, count: int, concurrency: int) -> float:
    numbers = iter(range(count))
    async with {"httpx": _httpx, "aiohttp": _aiohttp}[kind]() as post, asyncio.timeout(_TIME_LIMIT):
        await asyncio.gather(*(_post_all(post, url, iter([0])) for _ in range(concurrency)))  # connects
        started = time.process_time()
        await asyncio.gather(*(_post_all(post, url, numbers) for _ in range(concurrency)))
        return (time.process_time() - started) / count * 1_000_000


async def _post_all(post: Post, url: str, numbers: Iterator[int]) -> None:
    for number in numbers:
        headers = {"Idempotency-Key": str(new_message_id())}
        status = await post(HttpRequest.json(url, send_request(number), headers))
        if status not in _SUCCESS:
            raise ValueError(f"HTTP {status}")


if __name__ == "__main__":
    print(uvloop.run(_run(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
