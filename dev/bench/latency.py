"""How long a message takes on its way out and in, at a rate that keeps nobody busy."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar
from uuid import uuid4

import httpx

from dev.bench.report import Row, percentile
from dev.bench.samples import send_request, webhook
from dev.bench.size import Size
from dev.bench.stack import Stack
from dev.bench.waiting import until

_INTERVAL = 0.05
_LOOK_EVERY = 0.005
_PATIENCE = 10
_WARM_UP = 20
_PERCENTILES = (0.5, 0.99)

T = TypeVar("T")


async def measure(stack: Stack, size: Size) -> list[Row]:
    await stack.start("mocks", "gateway", "ingest", "sender")
    (await stack.http.delete(stack.url("mocks", "/mock/messages"))).raise_for_status()
    count = int(size.latency_seconds / _INTERVAL)
    sent = await _trickle(stack, _send, count)
    arrived = await _arrivals(stack, [id_ for id_, _, _ in sent])
    out = [(arrived[id_] - posted_at, limit) for id_, posted_at, limit in sent]
    into = await _trickle(stack, _receive, count)
    return [
        *_rows("from POST to provider, ms", out, "limit: a POST to the provider"),
        *_rows("from webhook to visible, ms", into, "limit: a GET of it"),
    ]


def _rows(name: str, times: list[tuple[float, float]], aim: str) -> list[Row]:
    taken, limits = zip(*times, strict=True)
    return [
        Row(
            f"{name}, p{round(100 * share)}",
            1_000 * percentile(taken, share),
            1_000 * percentile(limits, share),
            aim,
        )
        for share in _PERCENTILES
    ]


async def _trickle(stack: Stack, act: Callable[[Stack, int], Awaitable[T]], count: int) -> list[T]:
    """Act `count` times, evenly spaced; the first few do not count."""
    acts = []
    for number in range(_WARM_UP + count):
        acts.append(asyncio.ensure_future(act(stack, number)))
        await asyncio.sleep(_INTERVAL)
    return (await asyncio.gather(*acts))[_WARM_UP:]


async def _send(stack: Stack, number: int) -> tuple[str, float, float]:
    """Post to the provider, then to the gateway.

    Returns:
        the message's id, when it was posted (seconds since the epoch), and how long the provider took.
    """
    payload = send_request(number)
    headers = {"Idempotency-Key": str(uuid4())}
    limit, _ = await _timed(stack.http.post(stack.url("mocks", "/messages"), json=payload, headers=headers))
    posted_at = time.time()
    response = await stack.http.post(stack.url("gateway", "/api/messages/sms"), json=payload)
    return response.raise_for_status().json()["id"], posted_at, limit


async def _arrivals(stack: Stack, ids: list[str]) -> dict[str, float]:
    """Tell when the provider got each message, in seconds since the epoch, by its own clock: the same one."""
    arrived: dict[str, float] = {}

    async def all_are_there() -> bool:
        answer = await stack.http.get(stack.url("mocks", "/mock/messages"))
        for item in answer.raise_for_status().json()["items"]:
            arrived[item["idempotency_key"]] = datetime.fromisoformat(item["accepted_at"]).timestamp()
        return arrived.keys() >= set(ids)

    await until(all_are_there, seconds=_PATIENCE, every=0.2)
    return arrived


async def _receive(stack: Stack, number: int) -> tuple[float, float]:
    """Deliver a webhook and look until its message is there; then time one more look.

    Returns:
        the seconds from one to the other, and those of the last look.
    """
    started = time.perf_counter()
    response = await stack.http.post(
        stack.url("gateway", "/api/webhooks/sms"), json=webhook(number, uuid4().hex)
    )
    url = stack.url("gateway", f"/api/messages/{response.raise_for_status().json()['id']}")

    async def is_visible() -> bool:
        return (await stack.http.get(url)).is_success

    await until(is_visible, seconds=_PATIENCE, every=_LOOK_EVERY)
    taken = time.perf_counter() - started
    limit, answer = await _timed(stack.http.get(url))
    answer.raise_for_status()
    return taken, limit


async def _timed(request: Awaitable[httpx.Response]) -> tuple[float, httpx.Response]:
    started = time.perf_counter()
    response = await request
    return time.perf_counter() - started, response
