"""Batches of messages, read from a real consumer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from nats.js import JetStreamContext

from shared.bus.client import Bus
from shared.bus.publisher import Outgoing, Publisher
from shared.bus.pull import Pull
from shared.bus.topology import INGEST_CONSUMERS, Consumer, Stream
from shared.errors import BusUnavailableError
from tests import messages

INGEST = next(consumer for consumer in INGEST_CONSUMERS if consumer.stream is Stream.OUTBOUND)
SUBJECT = "outbound.sms.transactional.0.00"


@asynccontextmanager
async def opened(bus: Bus) -> AsyncIterator[Pull]:
    pull = Pull(bus.client, INGEST)
    await pull.open()
    try:
        yield pull
    finally:
        await pull.close()


async def publish(publisher: Publisher, count: int) -> None:
    for _ in range(count):
        event = messages.accepted()
        await publisher.publish(Stream.OUTBOUND, Outgoing(SUBJECT, event.id, event.encode()))


async def outstanding(jetstream: JetStreamContext, consumer: Consumer) -> tuple[int | None, int | None]:
    info = await jetstream.consumer_info(consumer.stream, consumer.name)
    return info.num_waiting, info.num_ack_pending


async def test_a_batch_has_the_messages_that_are_there(bus: Bus, publisher: Publisher) -> None:
    await publish(publisher, 7)
    async with opened(bus) as pull:
        assert [len(await pull.next_batch(5)) for _ in range(3)] == [5, 2, 0]


async def test_no_request_is_left_when_a_batch_is_returned(
    bus: Bus, publisher: Publisher, jetstream: JetStreamContext
) -> None:
    async with opened(bus) as pull:
        await publish(publisher, 2)
        assert len(await pull.next_batch(100)) == 2
        await publish(publisher, 1)
        assert await outstanding(jetstream, INGEST) == (0, 2)


async def test_a_late_report_on_an_earlier_request_does_not_end_the_current_one(
    bus: Bus, publisher: Publisher
) -> None:
    async with opened(bus) as pull:
        assert await pull.next_batch(10) == []
        [inbox] = [each.subject for each in bus.client._subs.values() if each.subject.endswith(".*")]  # noqa: SLF001
        reading = asyncio.create_task(pull.next_batch(10))
        await asyncio.sleep(0)
        late = {"Status": "408", "Description": "Request Timeout"}
        await bus.client.publish(inbox.replace("*", "0"), b"", headers=late)
        await publish(publisher, 1)
        assert len(await reading) == 1


async def test_a_consumer_that_is_full_does_not_hold_up_a_batch(
    bus: Bus, publisher: Publisher, jetstream: JetStreamContext
) -> None:
    await jetstream.add_consumer(
        INGEST.stream, INGEST.config(1).evolve(durable_name="full", max_ack_pending=3)
    )
    await publish(publisher, 5)
    pull = Pull(bus.client, Consumer(INGEST.stream, "full"))
    await pull.open()
    assert [len(await pull.next_batch(10)) for _ in range(2)] == [3, 0]
    await pull.close()


async def test_a_missing_consumer_is_reported(bus: Bus) -> None:
    pull = Pull(bus.client, Consumer(INGEST.stream, "missing"))
    await pull.open()
    with pytest.raises(BusUnavailableError):
        await pull.next_batch(10)
    await pull.close()
