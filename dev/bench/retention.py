"""Measures the memory and the disk space that nats-server needs for each message that it retains.

One message is sent with an idempotency key, and its entries in the streams are copied many times to another
nats-server. Each copy has its own ids. This is the worst case, because the server keeps an index of subjects
in memory.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import httpx
from nats.js.errors import NotFoundError

from dev.bench.errors import BenchError
from dev.bench.report import Cell, Table
from dev.bench.samples import send_request
from dev.bench.size import Size
from dev.bench.stack import Stack, publish_all
from dev.bench.waiting import until
from dev.local_stack.ports import free_port
from dev.local_stack.processes import Command
from dev.local_stack.servers import HOST, NatsServer
from shared.bus.client import Bus, connect
from shared.bus.publisher import Outgoing
from shared.bus.topology import Stream, notification_subject
from shared.notifications import NotificationType

_DAY = 86_400
_FIRST = 20_000
"""Messages that are stored before the first measurement, so that the server's own memory is not counted."""
_COLLECTIONS = 2
"""Go empties its pools of buffers (`sync.Pool`) only in the second of two consecutive garbage collections."""
_TIMEOUT = 120
_HEAP = re.compile(r"^# HeapAlloc = (\d+)$", re.MULTILINE)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_COLUMNS = (
    "stream",
    "entries",
    "memory, bytes",
    "disk, bytes",
    "memory for 1,000,000 a day, MB",
    "disk for 1,000,000 a day, GB",
)
_SUMS = ("entries", "memory", "disk", "memory_retained", "disk_retained")


@dataclass(frozen=True)
class Share:
    """The space that a message takes in a stream.

    Attributes:
        entries: messages in the stream.
        memory: bytes of live heap, excluding garbage and caches.
        disk: bytes.
        memory_retained, disk_retained: bytes for one message a day, over the retention of its entries.
    """

    stream: str
    entries: int
    memory: float
    disk: float
    memory_retained: float
    disk_retained: float

    @property
    def cells(self) -> list[Cell]:
        # Bytes for one message are megabytes for a million.
        return [
            self.stream,
            self.entries,
            self.memory,
            self.disk,
            self.memory_retained,
            self.disk_retained / 1_000,
        ]


@dataclass(frozen=True)
class Entry:
    """The entry of a message in a stream; its ids are replaced in each copy.

    Attributes:
        ttl: how long the server keeps it, in seconds; None for as long as the stream keeps messages.
    """

    subject: str
    payload: bytes
    message_id: str
    ttl: int | None = None

    def copy(self) -> Outgoing:
        new_id = str(uuid4())
        subject = self.subject.replace(self.message_id, new_id)
        subject = _UUID.sub(lambda found: new_id if found[0] == new_id else str(uuid4()), subject)
        payload = self.payload.replace(self.message_id.encode(), new_id.encode())
        # There is no id for deduplication: the server forgets all of these after ten minutes.
        return Outgoing(subject, None, payload, {"Nats-TTL": f"{self.ttl}s"} if self.ttl else {})


async def measure(stack: Stack, size: Size) -> list[Table]:
    entries = await _entries_of_one_message(stack)
    rows = [await _measure_stream(stack, stream, left, size.retained) for stream, left in entries.items()]
    total = Share("total", *(sum(getattr(row, name) for row in rows) for name in _SUMS))
    title = f"nats-server at rest: what a message takes, from {size.retained:,} with distinct conversations"
    return [Table(title, _COLUMNS, [row.cells for row in (*rows, total)])]


class _ProfiledServer(NatsServer):
    """A nats-server with its profiling endpoint enabled."""

    def __init__(self, folder: Path, port: int, *, log: Path) -> None:
        super().__init__(folder, port, log=log, durable=False)
        self._profiling_port = free_port({port})

    def command(self) -> Command:
        command = super().command()
        return replace(command, argv=(*command.argv, "--profile", str(self._profiling_port)))

    async def live_heap(self) -> int:
        """Run the garbage collector, and return the size of the live heap in bytes."""
        async with httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False) as client:
            for _ in range(_COLLECTIONS):
                profile = await client.get(
                    f"http://{HOST}:{self._profiling_port}/debug/pprof/heap", params={"gc": 1, "debug": 1}
                )
                profile.raise_for_status()
        if (found := _HEAP.search(profile.text)) is None:
            raise BenchError("the heap profile of nats-server does not contain HeapAlloc")
        return int(found[1])


async def _measure_stream(stack: Stack, stream: str, entries: Sequence[Entry], count: int) -> Share:
    async with _another_server(stack) as (server, bus):
        await _copy(bus, stream, entries, _FIRST)
        before = await _live_heap_at_rest(server, bus)
        await _copy(bus, stream, entries, count - _FIRST)
        memory = (await _live_heap_at_rest(server, bus) - before) / (count - _FIRST)
        info = await bus.jetstream.stream_info(stream)
        days = (entries[0].ttl or info.config.max_age or 0) / _DAY
        return Share(
            stream,
            len(entries),
            memory,
            info.state.bytes / count,
            memory * days,
            info.state.bytes / count * days,
        )


async def _entries_of_one_message(stack: Stack) -> dict[str, list[Entry]]:
    """Send a message, and return its entries in each stream."""
    await stack.set_latency(0)
    await stack.start("gateway", "ingest", "sender")
    before = {str(info.config.name): info.state.last_seq for info in await stack.bus.jetstream.streams_info()}
    response = await stack.http.post(
        stack.url("gateway", "/api/messages/sms"),
        json=send_request(0),
        headers={"Idempotency-Key": str(uuid4())},
    )
    message_id = response.raise_for_status().json()["id"]

    async def applications_know_that_it_is_sent() -> bool:
        notifications = await _read(stack, Stream.NOTIFICATIONS, before[Stream.NOTIFICATIONS] + 1, message_id)
        return notification_subject(NotificationType.MESSAGE_SENT) in {each.subject for each in notifications}

    await until(applications_know_that_it_is_sent, seconds=_TIMEOUT, every=0.05)
    await stack.stop("gateway", "ingest", "sender")
    found = {name: await _read(stack, name, first + 1, message_id) for name, first in before.items()}
    return {name: entries for name, entries in found.items() if entries}


async def _read(stack: Stack, stream: str, first: int, message_id: str) -> list[Entry]:
    """Return the entries of a message in a stream, from a sequence on."""
    last = (await stack.bus.jetstream.stream_info(stream)).state.last_seq
    entries = []
    for sequence in range(first, last + 1):
        try:
            message = await stack.bus.jetstream.get_msg(stream, sequence)
        except NotFoundError:
            continue  # a later entry has replaced it
        ttl = (message.headers or {}).get("Nats-TTL")
        entry = Entry(
            str(message.subject), message.data or b"", message_id, int(ttl.removesuffix("s")) if ttl else None
        )
        if message_id in entry.subject or message_id.encode() in entry.payload:
            entries.append(entry)
    return entries


@asynccontextmanager
async def _another_server(stack: Stack) -> AsyncIterator[tuple[_ProfiledServer, Bus]]:
    """Run another server, which does not sync to disk, with the same streams."""
    server = _ProfiledServer(
        stack.folder / f"nats-{uuid4().hex}", free_port(), log=stack.folder / "nats-2.log"
    )
    await server.start()
    try:
        await stack.run("shared.bus.provision", NATS_URL=server.url)
        async with connect(server.url, name="dev.bench") as bus:
            await asyncio.wait_for(bus.until_connected(), _TIMEOUT)
            yield server, bus
    finally:
        await server.kill()


async def _copy(bus: Bus, stream: str, entries: Sequence[Entry], count: int) -> None:
    await publish_all(bus, stream, (entry.copy() for _ in range(count) for entry in entries))


async def _live_heap_at_rest(server: _ProfiledServer, bus: Bus) -> int:
    """Restart the server to clear its caches, and return the size of its live heap in bytes."""
    await server.stop()
    await server.start()
    await asyncio.wait_for(bus.until_connected(), _TIMEOUT)
    return await server.live_heap()
