import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import pytest
from nats.js import JetStreamContext

from shared.bus import consumer
from shared.bus.client import Bus
from shared.bus.consumer import ConsumerLoop, Done, HandBack, Handler, Outcome, StreamMessage
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.topology import (
    ACK_WAIT,
    INGEST_CONSUMERS,
    MAX_DELIVER,
    Consumer,
    Stream,
    outbound_subject,
)
from shared.errors import BusUnavailableError
from tests import messages
from tests.waiting import eventually

INGEST = next(consumer for consumer in INGEST_CONSUMERS if consumer.stream is Stream.OUTBOUND)


@asynccontextmanager
async def running(*loops: ConsumerLoop) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(loop.run()) for loop in loops]
    try:
        yield
    finally:
        for loop in loops:
            loop.stop()
        await asyncio.gather(*tasks)


async def fill(publisher: Publisher, count: int) -> list[bytes]:
    """Publish this number of messages in one conversation, in order."""
    payloads = []
    for _ in range(count):
        event = messages.accepted()
        message = event.data.message
        subject = outbound_subject(message.channel, message.conversation_key)
        payloads.append(event.encode())
        await publisher.publish(Stream.OUTBOUND, Outgoing(subject, event.id, payloads[-1]))
    return payloads


def collecting(into: list[bytes]) -> Handler:
    async def handle(batch: Sequence[StreamMessage]) -> Sequence[Outcome]:
        into.extend(each.payload for each in batch)
        return [Done()] * len(batch)

    return handle


async def unprocessed(jetstream: JetStreamContext, consumer: Consumer) -> int:
    info = await jetstream.consumer_info(consumer.stream, consumer.name)
    return (info.num_pending or 0) + (info.num_ack_pending or 0)


async def test_a_batch_is_handled_in_order_and_acknowledged(
    bus: Bus, publisher: Publisher, jetstream: JetStreamContext
) -> None:
    payloads, seen = await fill(publisher, 30), list[bytes]()

    async def is_acknowledged() -> bool:
        return await unprocessed(jetstream, INGEST) == 0

    async with running(ConsumerLoop(bus, INGEST, collecting(seen), batch=100)):
        await eventually(is_acknowledged)
    assert seen == payloads


async def test_a_message_that_is_handed_back_is_delivered_again(bus: Bus, publisher: Publisher) -> None:
    payloads, seen = await fill(publisher, 3), list[bytes]()

    async def handle(batch: Sequence[StreamMessage]) -> Sequence[Outcome]:
        again = not seen
        seen.extend(each.payload for each in batch)
        return [HandBack(timedelta(milliseconds=10)) if again else Done() for _ in batch]

    async def all_twice() -> bool:
        return len(seen) == 6

    async with running(ConsumerLoop(bus, INGEST, handle, batch=3)):
        await eventually(all_twice)
    assert sorted(seen) == sorted(payloads * 2)


async def test_no_message_is_lost_when_a_handler_raises(bus: Bus, publisher: Publisher) -> None:
    payloads, seen, calls = await fill(publisher, 2), list[bytes](), list[int]()
    collect = collecting(seen)

    async def handle(batch: Sequence[StreamMessage]) -> Sequence[Outcome]:
        calls.append(len(batch))
        if len(calls) == 1:
            raise ValueError
        return await collect(batch)

    async def all_seen() -> bool:
        return len(seen) == 2

    async with running(ConsumerLoop(bus, INGEST, handle, batch=10)):
        await eventually(all_seen)
    assert sorted(seen) == sorted(payloads)


async def batch_sizes(bus: Bus, publisher: Publisher, *, linger: float) -> list[int]:
    """Return the sizes of the batches in which a loop reads 40 messages, published one after another."""
    sizes = list[int]()

    async def handle(batch: Sequence[StreamMessage]) -> Sequence[Outcome]:
        sizes.append(len(batch))
        return [Done()] * len(batch)

    async def all_read() -> bool:
        return sum(sizes) == 40

    async with running(ConsumerLoop(bus, INGEST, handle, batch=100, linger=linger)):
        for _ in range(40):
            await fill(publisher, 1)
            await asyncio.sleep(0.005)
        await eventually(all_read)
    return sizes


async def test_a_loop_that_lingers_reads_fewer_and_larger_batches(bus: Bus, publisher: Publisher) -> None:
    without = await batch_sizes(bus, publisher, linger=0)
    sizes = await batch_sizes(bus, publisher, linger=0.1)
    assert sizes[0] == 1  # the first message does not wait for others
    assert len(sizes) < len(without) / 2


async def test_a_loop_does_not_linger_after_a_full_batch(bus: Bus, publisher: Publisher) -> None:
    payloads, seen = await fill(publisher, 20), list[bytes]()

    async def all_seen() -> bool:
        return len(seen) == 20

    async with running(ConsumerLoop(bus, INGEST, collecting(seen), batch=5, linger=60)):
        await eventually(all_seen)
    assert seen == payloads


async def test_a_loop_that_had_nothing_to_do_does_not_linger(
    bus: Bus, publisher: Publisher, jetstream: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "_IDLE_SECONDS", 0.0001)
    pauses, seen, linger = list[float](), list[bytes](), 0.0001

    class Loop(ConsumerLoop):
        async def _pause(self, seconds: float) -> None:
            pauses.append(seconds)
            await super()._pause(seconds)

    async def is_waiting() -> bool:
        return bool((await jetstream.consumer_info(INGEST.stream, INGEST.name)).num_waiting)

    async def count_is(count: int) -> bool:
        return len(seen) == count

    async with running(Loop(bus, INGEST, collecting(seen), batch=5, linger=linger)):
        for count in (1, 2):
            await eventually(is_waiting)
            await fill(publisher, 1)
            await eventually(partial(count_is, count))
        await eventually(is_waiting)
        assert linger not in pauses


async def test_a_loop_that_stops_leaves_no_message_outstanding(
    bus: Bus, publisher: Publisher, jetstream: JetStreamContext
) -> None:
    seen = list[bytes]()

    async def nothing_is_outstanding() -> bool:
        # The server processes acknowledgements shortly after it has received them.
        info = await jetstream.consumer_info(INGEST.stream, INGEST.name)
        return info.num_ack_pending == 0 and len(seen) + (info.num_pending or 0) == 25

    async with running(ConsumerLoop(bus, INGEST, collecting(seen), batch=10)):
        await fill(publisher, 25)
    await eventually(nothing_is_outstanding, within=ACK_WAIT.total_seconds() / 3)


async def test_a_consumer_that_is_deleted_and_created_again_is_read(
    bus: Bus, publisher: Publisher, jetstream: JetStreamContext
) -> None:
    seen = list[bytes]()

    async def count_is(count: int) -> bool:
        return len(seen) >= count

    async with running(ConsumerLoop(bus, INGEST, collecting(seen), batch=10)):
        await fill(publisher, 1)
        await eventually(lambda: count_is(1))
        await jetstream.delete_consumer(INGEST.stream, INGEST.name)
        await jetstream.add_consumer(INGEST.stream, INGEST.config(1))
        await fill(publisher, 1)
        await eventually(lambda: count_is(3))  # the new one begins with the first message


async def test_a_handler_that_is_unavailable_is_called_again_without_another_delivery(
    bus: Bus, publisher: Publisher, jetstream: JetStreamContext
) -> None:
    payloads, seen, refusals = await fill(publisher, 2), list[bytes](), list[int]()
    collect = collecting(seen)

    async def handle(batch: Sequence[StreamMessage]) -> Sequence[Outcome]:
        if len(refusals) < 2 * MAX_DELIVER:
            refusals.append(1)
            raise BusUnavailableError("not available")
        return await collect(batch)

    async def all_seen() -> bool:
        return len(seen) == 2

    async with running(ConsumerLoop(bus, INGEST, handle, batch=10, longest_pause=0.01)):
        await eventually(all_seen)
    assert seen == payloads
    assert (await jetstream.consumer_info(INGEST.stream, INGEST.name)).num_redelivered == 0
