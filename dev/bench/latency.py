"""Measures the latency of outbound and inbound messages, at a rate that leaves every process mostly idle."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import uuid4

import httpx

from dev.bench.report import Table, percentile
from dev.bench.samples import send_request, webhook
from dev.bench.size import Size
from dev.bench.stack import Stack
from dev.bench.waiting import until

_INTERVAL = 0.05
_POLL_INTERVAL = 0.005
_TIMEOUT = 60
_WARM_UP = 20

T = TypeVar("T")


async def measure(stack: Stack, size: Size) -> list[Table]:
    await stack.start("gateway", "ingest", "sender")
    await stack.set_latency(0)
    count = int(size.latency_seconds / _INTERVAL)
    sent = await _trickle(stack, _send, count)
    arrived = await _arrivals(stack, [id_ for id_, _, _ in sent])
    received = await _trickle(stack, _receive, count)
    await stack.stop("gateway", "ingest", "sender")
    rows = [
        _row("POST → request to the provider", [arrived[id_] - posted_at for id_, posted_at, _ in sent]),
        _row("a POST to the provider alone", [limit for _, _, limit in sent]),
        _row("webhook → GET finds the message", [taken for taken, _ in received]),
        _row("a GET of the message alone", [limit for _, limit in received]),
    ]
    return [Table("Latency when idle (at most 20 messages/s), ms", ["", "p50", "p99"], rows)]


def _row(name: str, seconds: list[float]) -> list[str]:
    return [name, *(f"{1_000 * percentile(seconds, share):.1f}" for share in (0.5, 0.99))]


async def _trickle(stack: Stack, act: Callable[[Stack, int], Awaitable[T]], count: int) -> list[T]:
    """Call `act` once per interval; return its results without those of the first, warm-up calls.

    There is one call at a time, because on a busy machine they would only slow each other down.
    """
    results = []
    for number in range(_WARM_UP + count):
        result, _ = await asyncio.gather(act(stack, number), asyncio.sleep(_INTERVAL))
        results.append(result)
    return results[_WARM_UP:]


async def _send(stack: Stack, number: int) -> tuple[str, float, float]:
    """Post to the provider, then to the gateway.

    Returns:
        The message's id, the time when it was posted (in seconds since the epoch), and the seconds that the
        provider took.
    """
    payload = send_request(number)
    limit, _ = await _timed(stack.http.post(stack.url("provider", "/messages"), json=payload))
    posted_at = time.time()
    response = await stack.http.post(stack.url("gateway", "/api/messages/sms"), json=payload)
    return response.raise_for_status().json()["id"], posted_at, limit


async def _arrivals(stack: Stack, ids: list[str]) -> dict[str, float]:
    """Return when the provider received each message, in seconds since the epoch.

    The provider is a process on this machine, so both ends use the same clock.
    """
    arrived: dict[str, float] = {}

    async def all_have_arrived() -> bool:
        answer = await stack.http.get(stack.url("provider", "/arrivals"))
        arrived.update(answer.raise_for_status().json())
        return arrived.keys() >= set(ids)

    await until(all_have_arrived, seconds=_TIMEOUT, every=0.2)
    return arrived


async def _receive(stack: Stack, number: int) -> tuple[float, float]:
    """Deliver a webhook and read its message until it is found; then read it once more.

    Returns:
        The seconds from the webhook until the message was found, and those of the last read.
    """
    started = time.perf_counter()
    response = await stack.http.post(
        stack.url("gateway", "/api/webhooks/sms"), json=webhook(number, uuid4().hex)
    )
    url = stack.url("gateway", f"/api/messages/{response.raise_for_status().json()['id']}")

    async def is_visible() -> bool:
        return (await stack.http.get(url)).is_success

    await until(is_visible, seconds=_TIMEOUT, every=_POLL_INTERVAL)
    taken = time.perf_counter() - started
    limit, answer = await _timed(stack.http.get(url))
    answer.raise_for_status()
    return taken, limit


async def _timed(request: Awaitable[httpx.Response]) -> tuple[float, httpx.Response]:
    started = time.perf_counter()
    response = await request
    return time.perf_counter() - started, response
