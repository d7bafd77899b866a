"""Readers of a shard whose processing tests can hold up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from nats.js import JetStreamContext

from shared.bus.client import Bus
from shared.bus.concurrent import ConcurrentReader
from shared.bus.consumer import Done, Outcome, StreamMessage
from shared.bus.processing import Begin, Process
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import INGEST_CONSUMERS, Consumer, Stream, sender_shards
from shared.channels import Channel
from tests.waiting import eventually

SHARD = sender_shards(Channel.SMS)[3]
PLACE = f"{SHARD.stream}.{SHARD.name}"
READ_BY_ALL = next(consumer for consumer in INGEST_CONSUMERS if consumer.stream is Stream.OUTBOUND)
"""A consumer that is not pinned."""


def key_of(message: StreamMessage) -> str:
    return message.origin.subject


def text(message: StreamMessage) -> str:
    return message.payload.decode()


def start(
    bus: Bus,
    process: Process,
    *,
    consumer: Consumer = SHARD,
    capacity: int = 50,
    may_read: Callable[[], bool] = lambda: True,
) -> tuple[ConcurrentReader, asyncio.Task[None]]:
    reader = ConcurrentReader(bus, consumer, process, capacity=capacity, key_of=key_of, may_read=may_read)
    return reader, asyncio.create_task(reader.run())


@asynccontextmanager
async def reading(
    bus: Bus,
    process: Process,
    *,
    capacity: int = 50,
    may_read: Callable[[], bool] = lambda: True,
) -> AsyncIterator[ConcurrentReader]:
    reader, task = start(bus, process, capacity=capacity, may_read=may_read)
    try:
        yield reader
    finally:
        reader.stop()
        await task


async def publish(publisher: Publisher, *texts: str) -> None:
    """Publish messages in order, each in the conversation that its text begins with."""
    for each in texts:
        conversation = each.partition(":")[0]
        subject = f"outbound.sms.3.{conversation}"
        await publisher.publish(Stream.OUTBOUND, Outgoing(subject, None, each.encode()))


async def publish_many(publisher: Publisher, texts: list[str]) -> None:
    """Publish messages as `publish` does, in batches."""
    for start in range(0, len(texts), 200):
        await asyncio.gather(*(publish(publisher, each) for each in texts[start : start + 200]))


def numbered(conversation: str, count: int) -> list[str]:
    return [f"{conversation}:{number}" for number in range(count)]


class Recorder:
    """Processes messages immediately, unless they have to wait for `may_go_on`.

    Attributes:
        begun, done: the texts of the messages, in order.
        deliveries: the number of deliveries of each message when it was last begun.
        concurrent: the maximum number of messages that were processed at the same time.
    """

    def __init__(self, *, seconds: float = 0, holds: Callable[[str], bool] = lambda _: False) -> None:
        self.begun: list[str] = []
        self.done: list[str] = []
        self.deliveries: dict[str, int] = {}
        self.concurrent = 0
        self.may_go_on = asyncio.Event()
        self._seconds = seconds
        self._holds = holds
        self._working = 0

    async def __call__(self, message: StreamMessage, begin: Begin) -> Outcome:
        begin()
        self.begun.append(text(message))
        self.deliveries[text(message)] = message.deliveries
        self._working += 1
        self.concurrent = max(self.concurrent, self._working)
        try:
            if self._holds(text(message)):
                await self.may_go_on.wait()
            await asyncio.sleep(self._seconds)
        finally:
            self._working -= 1
        self.done.append(text(message))
        return Done()

    async def until_done(self, count: int, *, within: float = 30) -> None:
        async def are_done() -> bool:
            return len(self.done) >= count

        await eventually(are_done, within=within)

    async def until_begun(self, count: int) -> None:
        async def are_begun() -> bool:
            return len(self.begun) >= count

        await eventually(are_begun)


async def unprocessed(jetstream: JetStreamContext) -> tuple[int, int, int]:
    """Return the messages that are unread, outstanding, and delivered more than once."""
    info = await jetstream.consumer_info(SHARD.stream, SHARD.name)
    return info.num_pending or 0, info.num_ack_pending or 0, info.num_redelivered or 0


async def is_settled(jetstream: JetStreamContext) -> None:
    async def probe() -> bool:
        return await unprocessed(jetstream) == (0, 0, 0)

    await eventually(probe)
