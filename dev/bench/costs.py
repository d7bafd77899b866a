"""Measures the CPU time to accept, send and receive a message, and the lower limits of these times."""

import asyncio
from time import perf_counter

import asyncpg

from dev.bench.cpu_time import Meter
from dev.bench.load import BATCH
from dev.bench.report import Table, costs_table
from dev.bench.samples import accepted_events
from dev.bench.size import Size
from dev.bench.stack import Stack
from dev.bench.waiting import until
from services.ingest.projection import message_row

_COLUMNS = ("nats-server", "PostgreSQL", "gateway", "ingest", "sender")
_WARM_UP = 300
_CLIENTS = 16
"""Requests in progress; httpx becomes slower with each additional one."""
_PROVIDER_MS = 20
_POLL_INTERVAL = 0.25
_TIMEOUT = 300

_SENT = "SELECT count(*) FROM message_events WHERE status = 'sent'"
_RECEIVED = "SELECT count(*) FROM messages WHERE direction = 'inbound'"

# Everything except the triggers and the foreign key.
_TWIN = "CREATE TABLE bench_messages (LIKE messages INCLUDING ALL)"


async def measure(stack: Stack, size: Size) -> list[Table]:
    limits = await _limits(stack, size)
    await stack.set_latency(_PROVIDER_MS)
    await stack.start("gateway")
    await stack.load("send", _WARM_UP)
    costs = {
        "accepting: POST until 202": await _accept(stack, "send", size.messages),
        f"accepting in batches of {BATCH}": await _accept(stack, "batch", size.messages // BATCH, BATCH),
    }
    await stack.empty()
    await stack.start("ingest", "sender")
    for name, kind, stored in (
        ("whole path: POST until `sent` is stored", "send", _SENT),
        ("inbound: webhook until it is stored", "webhook", _RECEIVED),
    ):
        await _through(stack, kind, stored, _WARM_UP)
        costs[name] = await _through(stack, kind, stored, size.messages)
        for rate in size.rates:
            count = int(rate * size.steady_seconds)
            costs[f"{name}, {rate:g}/s"] = await _through(stack, kind, stored, count, rate)
    idle = await _idle(stack, size.steady_seconds)
    await stack.stop("gateway", "ingest", "sender")
    return [
        costs_table("CPU time per message, µs", _COLUMNS, costs),
        Table("CPU time of the limits, µs", ["", "µs"], list(limits.items())),
        costs_table("CPU time while nothing happens, ms per second", _COLUMNS, {"all services": idle}),
    ]


async def _limits(stack: Stack, size: Size) -> dict[str, float]:
    """Return the CPU time that each service would take if it did nothing but its input and output."""
    await stack.start("bare")
    await stack.load("bare", _WARM_UP)
    meter = Meter({"bare": stack.pids("bare")})
    await stack.load("bare", size.limit_requests)
    limits = {"a request to a bare FastAPI endpoint": meter.per_message(size.limit_requests)["bare"]}
    await stack.stop("bare")
    await stack.set_latency(0)
    for client in ("aiohttp", "httpx"):
        arguments = (client, stack.url("provider", "/messages"), str(size.limit_requests), str(_CLIENTS))
        limits[f"a request with bare {client}"] = float(await stack.run("dev.bench.bare_client", *arguments))
    limits["a row by COPY, in PostgreSQL"] = await _copy(stack, size.copied)
    return limits


async def _copy(stack: Stack, count: int) -> float:
    rows = [message_row(event.data.message, 1) for event in accepted_events(count)]
    connection = await asyncpg.connect(stack.postgres.url)
    try:
        await connection.execute(_TWIN)
        meter = Meter({"PostgreSQL": [stack.postgres.pid]})
        await connection.copy_records_to_table(
            "bench_messages", records=[tuple(row.values()) for row in rows], columns=list(rows[0])
        )
        cost = meter.per_message(count)["PostgreSQL"]
        await connection.execute("DROP TABLE bench_messages")
        return cost
    finally:
        await connection.close()


async def _accept(stack: Stack, kind: str, count: int, messages: int = 1) -> dict[str, float]:
    """Return the cost per message of requests with this number of messages each."""
    meter = Meter({"nats-server": [stack.nats.pid], "gateway": stack.pids("gateway")})
    await stack.load(kind, count)
    return meter.per_message(count * messages)


async def send_all(stack: Stack, count: int) -> None:
    """Send messages as fast as possible, until the results are stored."""
    await _through(stack, "send", _SENT, count)


async def _through(
    stack: Stack, kind: str, stored: str, count: int, rate: float | None = None
) -> dict[str, float]:
    """Return the cost of requests, from the first one until the result of the last one is stored."""
    before = await stack.query(stored)

    async def all_are_stored() -> bool:
        return await stack.query(stored) >= before + count

    services = ("gateway", "ingest", *(["sender"] if kind == "send" else []))
    meter = stack.meter(*services)
    await stack.load(kind, count, rate)
    await until(all_are_stored, seconds=_TIMEOUT, every=_POLL_INTERVAL)
    return meter.per_message(count)


async def _idle(stack: Stack, seconds: float) -> dict[str, float]:
    """Return the milliseconds of CPU time per second while no messages are in progress."""
    meter, started = stack.meter(), perf_counter()
    await asyncio.sleep(seconds)
    elapsed = perf_counter() - started
    return {name: used / elapsed * 1_000 for name, used in meter.seconds().items()}
