"""The times of all reads and lists, and of some writes, with many messages, compared with few."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter
from urllib.parse import quote
from uuid import UUID

import asyncpg

from dev.bench import rows
from dev.bench.errors import BenchError
from dev.bench.report import Cell, Table
from dev.bench.samples import send_request
from dev.bench.stack import Stack
from dev.bench.waiting import until
from shared.bus.topology import Stream

_FEW = 1_000
"""The number of messages that is enough for full pages."""

_READS = 30
_WRITES = 6
_WARM_UP = 3

_RESOLVED = 10
"""Dead letters that are replayed or discarded at once."""

_STORED = 500
"""Messages that are stored at once."""

_TIMEOUT = 60
_POLL_INTERVAL = 0.01

_ADDRESS = quote(rows.OURS)

READS = {
    "a message": "/api/messages/{message}",
    "a conversation": "/api/conversations/50",
    "its messages": "/api/conversations/50/messages",
    "conversations": "/api/conversations",
    "conversations of one participant": f"/api/conversations?participant={_ADDRESS}",
    "conversations of one participant, updated since": f"/api/conversations?participant={_ADDRESS}"
    "&updated_since=2025-12-31T23:58:00Z",
    "conversations, updated since": "/api/conversations?updated_since=2025-12-31T23:58:00Z",
    "conversations of a rare channel": "/api/conversations?channel=email",
    "messages": "/api/messages",
    "messages of a rare channel": "/api/messages?channel=email",
    "messages by direction": "/api/messages?direction=inbound",
    "messages by address": f"/api/messages?address={_ADDRESS}",
    "messages by conversation": "/api/messages?conversation=50",
    "messages by provider": "/api/messages?provider=generic_sms",
    "messages by provider, rare": "/api/messages?provider=generic_email",
    "messages by error code": "/api/messages?error_code=http_400",
    "messages by reference": "/api/messages?reference=order-500",
    "messages by metadata, rare": "/api/messages?metadata[order]=500",
    "messages by metadata, frequent": "/api/messages?metadata[campaign]=new",
    "messages by status, rare": "/api/messages?status=failed",
    "messages by status, frequent": "/api/messages?status=delivered",
    "messages by time": "/api/messages?created_since=2025-12-31T23:45:00Z"
    "&created_before=2025-12-31T23:59:00Z",
    "messages by status and address": f"/api/messages?status=failed&address={_ADDRESS}",
    "messages by status and provider": "/api/messages?status=failed&provider=generic_sms",
    "scheduled messages": "/api/messages?status=scheduled",
    "events": "/api/events",
    "dead letters": "/api/dead-letters",
    "a dead letter": "/api/dead-letters/{dead_letter}",
    "dead letters, open": "/api/dead-letters?state=open",
    "dead letters, open, by reason": f"/api/dead-letters?state=open&reason={rows.DISCARDABLE}",
    "dead letters of a message": "/api/dead-letters?message_id={message}",
    "dead letters of a rare channel": "/api/dead-letters?channel=email",
    "dead letters of a rare direction": "/api/dead-letters?direction=outbound",
    "suppressions": "/api/suppressions",
    "suppressions of a rare channel": "/api/suppressions?channel=email",
    "suppressions of an address": "/api/suppressions?address=%2B18042000030",
    "attempts": "/api/webhook-endpoints/{endpoint}/attempts",
    "attempts that failed": "/api/webhook-endpoints/{endpoint}/attempts?succeeded=false",
    "attempts for an event": "/api/webhook-endpoints/{endpoint}/attempts?event_id={event}",
    "attempts for an event that failed": "/api/webhook-endpoints/{endpoint}/attempts?event_id={event}"
    "&succeeded=false",
    "traffic": "/api/operations/traffic",
}


async def measure(stack: Stack, messages: int) -> list[Table]:
    """Return the times with few messages and with `messages`, in milliseconds."""
    async with _connection(stack) as connection:
        # COPY to a table that was truncated by the same transaction then writes no log.
        await connection.execute("ALTER SYSTEM SET wal_level = 'minimal'")
        await connection.execute("ALTER SYSTEM SET max_wal_senders = 0")
    await stack.postgres.stop()
    await stack.postgres.start()
    await stack.start("gateway", "ingest")
    url = stack.url("gateway", "/api/webhook-endpoints")
    response = await stack.http.post(url, json={"url": "https://example.com"})
    endpoint = UUID(response.raise_for_status().json()["id"])
    few, many = [await _times(stack, count, endpoint) for count in (_FEW, messages)]
    columns = [f"{_FEW:,} messages", f"{messages:,} messages", "ratio"]
    lines: list[list[Cell]] = [[name, few[name], many[name], many[name] / few[name]] for name in few]
    return [Table("Reads, lists and writes, ms", ["", *columns], lines)]


async def _times(stack: Stack, messages: int, endpoint: UUID) -> dict[str, float]:
    await stack.empty()
    await stack.bus.jetstream.purge_stream(Stream.NOTIFICATIONS)
    async with _connection(stack) as connection:
        started = perf_counter()
        await rows.load(connection, messages, endpoint)
        took = perf_counter() - started
        print(f"loaded {messages:,} messages in {took:.0f} s", file=sys.stderr, flush=True)
        recipients = [*rows.recipients(_STORED, messages)]
        examples = await rows.examples(connection)
        writes = {
            f"{_STORED} messages, until they are stored": partial(_store, stack, connection, recipients),
            f"replaying {_RESOLVED} dead letters": partial(
                _resolve, stack, connection, "replay", rows.REPLAYABLE
            ),
            f"discarding {_RESOLVED} dead letters": partial(
                _resolve, stack, connection, "discard", rows.DISCARDABLE, reason="a measurement"
            ),
        }
        times = {name: await _shortest(write, _WRITES) for name, write in writes.items()}
    for name, path in READS.items():
        url = stack.url("gateway", path.format(endpoint=endpoint, **examples))
        times[name] = await _shortest(partial(_get, stack, url), _READS)
    return times


async def _shortest(action: Callable[[], Awaitable[None]], repetitions: int) -> float:
    """Return the shortest time of an action, to which other work on the machine adds least, in ms."""
    times = []
    for _ in range(_WARM_UP + repetitions):
        started = perf_counter()
        await action()
        times.append((perf_counter() - started) * 1_000)
    return min(times[_WARM_UP:])


async def _get(stack: Stack, url: str) -> None:
    response = await stack.http.get(url)
    if not response.is_success:
        raise BenchError(f"{url}: {response.status_code}")


async def _store(stack: Stack, connection: asyncpg.Connection, recipients: Sequence[str]) -> None:
    requests = [{**send_request(0), "from": rows.OURS, "to": recipient} for recipient in recipients]
    url = stack.url("gateway", "/api/messages/batch")
    response = (await stack.http.post(url, json={"messages": requests})).raise_for_status()
    ids = [item["message"]["id"] for item in response.json()["items"]]

    async def are_stored() -> bool:
        query = "SELECT count(*) FROM messages WHERE id = ANY ($1)"
        return bool(await connection.fetchval(query, ids) == len(ids))

    await until(are_stored, seconds=_TIMEOUT, every=_POLL_INTERVAL)


async def _resolve(
    stack: Stack, connection: asyncpg.Connection, action: str, code: str, **fields: str
) -> None:
    """Replay or discard the oldest open dead letters with a certain reason, until that is stored."""

    async def count() -> int:
        query = "SELECT count(*) FROM dead_letters WHERE reason = $1 AND state = 'open'"
        return int(await connection.fetchval(query, code))

    before = await count()
    body = {"filter": {"reason": code}, "limit": _RESOLVED, **fields}
    url = stack.url("gateway", f"/api/dead-letters/{action}")
    (await stack.http.post(url, json=body)).raise_for_status()

    async def are_resolved() -> bool:
        return await count() == before - _RESOLVED

    await until(are_resolved, seconds=_TIMEOUT, every=_POLL_INTERVAL)


@asynccontextmanager
async def _connection(stack: Stack) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(stack.postgres.url)
    try:
        yield connection
    finally:
        await connection.close()
