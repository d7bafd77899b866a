"""The time of each read and list with many messages, compared with few."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median
from time import perf_counter
from urllib.parse import quote

import asyncpg
import httpx

from dev.bench import rows
from dev.bench.errors import BenchError
from dev.bench.report import Table
from dev.bench.stack import Stack

_FEW = 1_000
"""The number of messages that is enough for full pages."""

_REPETITIONS = 15
_WARM_UP = 3

_ADDRESS = quote(rows.OURS)

READS = {
    "a message": "/api/messages/{message}",
    "a conversation": "/api/conversations/50",
    "its messages": "/api/conversations/50/messages",
    "conversations": "/api/conversations",
    "conversations of one participant": f"/api/conversations?participant={_ADDRESS}",
    "conversations of one participant, updated since": f"/api/conversations?participant={_ADDRESS}"
    "&updated_since=2025-12-31T23:58:00Z",
    "conversations of a rare channel": "/api/conversations?channel=email",
    "messages": "/api/messages",
    "messages of a rare channel": "/api/messages?channel=email",
    "messages by direction": "/api/messages?direction=inbound",
    "messages by address": f"/api/messages?address={_ADDRESS}",
    "messages by conversation": "/api/messages?conversation=50",
    "messages by provider": "/api/messages?provider=generic_sms",
    "messages by error code": "/api/messages?error_code=http_400",
    "messages by reference": "/api/messages?reference=order-500",
    "messages by metadata, rare": "/api/messages?metadata[order]=500",
    "messages by metadata, frequent": "/api/messages?metadata[campaign]=new",
    "messages by status, rare": "/api/messages?status=failed",
    "messages by status, frequent": "/api/messages?status=delivered",
    "messages by time": "/api/messages?created_before=2025-12-31T23:59:00Z",
    "messages by status and address": f"/api/messages?status=failed&address={_ADDRESS}",
    "scheduled messages": "/api/messages?status=scheduled",
    "dead letters": "/api/dead-letters",
    "dead letters, open": "/api/dead-letters?state=open",
    "dead letters, open, by reason": "/api/dead-letters?state=open&reason=unknown_type",
    "dead letters of a rare channel": "/api/dead-letters?channel=email",
    "suppressions": "/api/suppressions",
    "suppressions of a rare channel": "/api/suppressions?channel=email",
    "suppressions of an address": "/api/suppressions?address=%2B18040000030",
}


async def measure(stack: Stack, messages: int) -> list[Table]:
    """Return the times with few messages and with `messages`, in milliseconds."""
    await stack.start("gateway")
    few, many = [await _times(stack, count) for count in (_FEW, messages)]
    columns = [f"{_FEW:,} messages", f"{messages:,} messages", "ratio"]
    lines = [(name, [few[name], many[name], many[name] / few[name]]) for name in few]
    return [Table("Reads and lists, ms", ["", *columns], [[name, *cells] for name, cells in lines])]


async def _times(stack: Stack, messages: int) -> dict[str, float]:
    async with _connection(stack) as connection:
        await rows.empty(connection)
        await rows.load(connection, messages)
    newest = (await stack.http.get(stack.url("gateway", "/api/messages?limit=1"))).json()["items"][0]["id"]
    paths = {name: path.format(message=newest) for name, path in READS.items()}
    times = {name: await _time(stack.http, stack.url("gateway", path)) for name, path in paths.items()}
    times["discarding five dead letters"] = await _time_of_discarding(stack)
    return times


async def _time(http: httpx.AsyncClient, url: str) -> float:
    times = []
    for _ in range(_WARM_UP + _REPETITIONS):
        started = perf_counter()
        response = await http.get(url)
        times.append((perf_counter() - started) * 1_000)
        if not response.is_success:
            raise BenchError(f"{url}: {response.status_code}")
    return median(times[_WARM_UP:])


async def _time_of_discarding(stack: Stack) -> float:
    """Return the time to discard dead letters. Nothing stores the resolutions, so they remain open."""
    url = stack.url("gateway", "/api/dead-letters/discard")
    body = {"filter": {"reason": "unknown_type"}, "limit": 5, "reason": "a measurement"}
    times = []
    for _ in range(_WARM_UP):
        started = perf_counter()
        (await stack.http.post(url, json=body)).raise_for_status()
        times.append((perf_counter() - started) * 1_000)
    return median(times)


@asynccontextmanager
async def _connection(stack: Stack) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(stack.postgres.url)
    try:
        yield connection
    finally:
        await connection.close()
