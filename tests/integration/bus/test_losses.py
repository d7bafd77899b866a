"""The age of messages, and those that a stream has dropped before they were processed."""

import asyncio

import pytest
from nats.js import JetStreamContext

from shared.bus import lag, losses
from shared.bus.client import Bus
from shared.bus.lag import watch_lag
from shared.bus.losses import LossCounter
from shared.bus.streams import Streams
from shared.bus.topology import INGEST_CONSUMERS, Consumer, Stream, sender_shards
from shared.channels import Channel
from shared.observability.metrics import CONSUMER_MISSING, CONSUMER_OLDEST, LOST
from tests.waiting import eventually

EVENTS = next(each for each in INGEST_CONSUMERS if each.stream == Stream.EVENTS)


async def publish(jetstream: JetStreamContext, count: int) -> None:
    for _ in range(count):
        await jetstream.publish("events.sms.sent", b"")


async def drop(jetstream: JetStreamContext, first: int, after: int) -> None:
    """Drop messages as the server does because of their age; a purge would also move the consumers."""
    for sequence in range(first, after):
        await jetstream.delete_msg(EVENTS.stream, sequence)


async def read(jetstream: JetStreamContext, count: int) -> None:
    subscription = await jetstream.pull_subscribe_bind(EVENTS.name, stream=EVENTS.stream)
    for message in await subscription.fetch(count):
        await message.ack_sync()


def lost() -> float:
    value: float = LOST.labels(EVENTS.stream, EVENTS.name)._value.get()  # noqa: SLF001 - nothing is public
    return value


@pytest.fixture
def counter(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> LossCounter:
    monkeypatch.setattr(losses, "_INTERVAL", 0)
    LOST.clear()
    return LossCounter(Streams(bus), EVENTS)


async def test_messages_that_were_dropped_unread_are_counted_once(
    jetstream: JetStreamContext, counter: LossCounter
) -> None:
    await publish(jetstream, 10)
    await read(jetstream, 3)
    await drop(jetstream, 1, 9)
    for _ in range(2):
        await counter.check()
        assert lost() == 5


async def test_messages_are_counted_even_if_the_next_one_has_been_read(
    jetstream: JetStreamContext, counter: LossCounter
) -> None:
    await publish(jetstream, 3)
    await read(jetstream, 3)
    await counter.check()
    await publish(jetstream, 4)
    await drop(jetstream, 1, 8)
    await counter.check()
    await publish(jetstream, 1)
    await read(jetstream, 1)
    await counter.check()
    assert lost() == 4


async def test_messages_that_were_dropped_after_they_were_read_are_not_lost(
    jetstream: JetStreamContext, counter: LossCounter
) -> None:
    await publish(jetstream, 10)
    await read(jetstream, 8)
    await drop(jetstream, 1, 7)
    await counter.check()
    await jetstream.reset_consumer(EVENTS.stream, EVENTS.name, 1)
    await counter.check()
    assert lost() == 0


async def test_a_consumer_that_is_replayed_has_lost_nothing(
    jetstream: JetStreamContext, counter: LossCounter
) -> None:
    await publish(jetstream, 10)
    await drop(jetstream, 1, 7)
    await jetstream.reset_consumer(EVENTS.stream, EVENTS.name, 1)
    await counter.check()
    assert lost() == 0


async def test_the_age_is_that_of_the_oldest_message_that_is_not_processed(
    bus: Bus, jetstream: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lag, "_INTERVAL", 0.01)
    monkeypatch.setattr(lag, "_AGE_EVERY", 1)
    first, second, *_ = sender_shards(Channel.SMS)
    gone = Consumer(Stream.OUTBOUND, "gone")
    watching = asyncio.create_task(watch_lag(Streams(bus), lambda: [first, second, gone]))

    def value(metric: object, consumer: Consumer) -> float:
        return metric.labels(consumer.stream, consumer.name)._value.get()  # type: ignore[attr-defined,no-any-return] # noqa: SLF001

    async def only_the_second_has_an_age() -> bool:
        return value(CONSUMER_OLDEST, second) > 0 and value(CONSUMER_OLDEST, first) == 0

    await jetstream.publish(second.filter_subjects[-1].replace("*", "x"), b"")
    await eventually(only_the_second_has_an_age)
    assert value(CONSUMER_MISSING, first) == 0

    async def is_missing() -> bool:
        return value(CONSUMER_MISSING, gone) == 1

    await eventually(is_missing)
    watching.cancel()
