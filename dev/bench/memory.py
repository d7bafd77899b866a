"""Measures the memory of the services, and the disk space in PostgreSQL, after a burst of messages."""

import psutil

from dev.bench.costs import send_all
from dev.bench.report import Table
from dev.bench.size import Size
from dev.bench.stack import Stack

_SERVICES = ("gateway", "ingest", "sender")
_MIB = 1024 * 1024
_DISK = """
    SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""


async def measure(stack: Stack, size: Size) -> list[Table]:
    await stack.start("bare", *_SERVICES)
    await stack.set_latency(0)
    await stack.load("bare", size.messages)
    before = await stack.query(_DISK)
    await send_all(stack, size.messages)
    disk = (await stack.query(_DISK) - before) / size.messages
    names = (*_SERVICES, "bare")
    figures = [psutil.Process(stack.pids(name)[0]).memory_info().rss / _MIB for name in names]
    await stack.stop(*names)
    title = f"Memory of a process after {size.messages:,} messages (RSS), MiB"
    return [
        Table(title, ["", *_SERVICES, "bare FastAPI endpoint"], [["RSS", *figures]]),
        Table(
            "Disk in PostgreSQL, bytes", ["", "bytes"], [["a message that was sent, with its history", disk]]
        ),
    ]
