"""The limit of the sender: its HTTP client alone, posting to a provider.

    python -m dev.bench.bare_client <url> <requests> <concurrency>

It prints the number of requests per second.
"""

import asyncio
import sys
import time
from collections.abc import Iterator

import uvloop

from dev.bench.samples import send_request
from shared.ids import new_message_id
from shared.providers.base import HttpRequest
from shared.providers.http import HttpClient, make_client

_TIMEOUT = 10
_TIME_LIMIT = 60
_SUCCESS = range(200, 300)


async def _run(url: str, count: int, concurrency: int) -> float:
    numbers = iter(range(count))
    async with make_client(timeout=_TIMEOUT) as client, asyncio.timeout(_TIME_LIMIT):
        started = time.perf_counter()
        await asyncio.gather(*(_post(client, url, numbers) for _ in range(concurrency)))
        return count / (time.perf_counter() - started)


async def _post(client: HttpClient, url: str, numbers: Iterator[int]) -> None:
    for number in numbers:
        headers = {"Idempotency-Key": str(new_message_id())}
        answer = await client.post(HttpRequest.json(url, send_request(number), headers))
        if answer.status not in _SUCCESS:
            raise ValueError(f"HTTP {answer.status}")


if __name__ == "__main__":
    print(uvloop.run(_run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
