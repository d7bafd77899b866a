"""Measures how many messages ingest stores, compared with a bare COPY of the same rows."""

import asyncio
from time import perf_counter

import asyncpg

from dev.bench.report import Row, of_rounds
from dev.bench.samples import accepted_events
from dev.bench.size import Size
from dev.bench.stack import Stack
from dev.bench.waiting import until
from services.ingest.projection import message_row
from shared.bus.topology import Stream
from shared.message import Message

_CONSUMER = "ingest-outbound"
_POLL_INTERVAL = 0.02
_TIMEOUT = 60

# Everything except the triggers and the foreign key.
_TWIN = "CREATE TABLE bench_messages (LIKE messages INCLUDING ALL)"


async def measure(stack: Stack, size: Size) -> list[Row]:
    connection = await asyncpg.connect(stack.postgres_url)
    try:
        await connection.execute(_TWIN)
        rounds = []
        for _ in range(size.rounds):
            events = list(accepted_events(size.ingested))
            limit = await _copy(connection, [event.data.message for event in events])
            await stack.fill(events)
            rounds.append((await _ingest(stack), limit))
    finally:
        await connection.close()
    await stack.empty()
    return [of_rounds("messages ingested per second", rounds, "5,000; limit: a bare COPY")]


async def _copy(connection: "asyncpg.Connection[asyncpg.Record]", messages: list[Message]) -> float:
    rows = [message_row(message, 1) for message in messages]
    started = perf_counter()
    await connection.copy_records_to_table(
        "bench_messages", records=[tuple(row.values()) for row in rows], columns=list(rows[0])
    )
    return len(rows) / (perf_counter() - started)


async def _ingest(stack: Stack) -> float:
    """Start ingest on the waiting messages, and time it from its first batch to its last."""
    left = waiting = await stack.left(Stream.OUTBOUND, _CONSUMER)

    async def fewer_than(count: int) -> bool:
        nonlocal left
        left = await stack.left(Stream.OUTBOUND, _CONSUMER)
        return left < count

    starting = asyncio.create_task(stack.start("ingest"))
    try:
        await until(lambda: fewer_than(waiting), seconds=_TIMEOUT, every=_POLL_INTERVAL)
        first, started = left, perf_counter()
        await until(lambda: fewer_than(1), seconds=_TIMEOUT, every=_POLL_INTERVAL)
        return first / (perf_counter() - started)
    finally:
        await starting
        await stack.stop("ingest")
