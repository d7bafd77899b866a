import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from uuid import uuid4

import pytest
from nats.js import JetStreamContext

from shared.bus import concurrent, processing
from shared.bus.client import Bus, connect
from shared.bus.consumer import Outcome, StreamMessage
from shared.bus.processing import Begin
from shared.bus.publisher import Publisher
from shared.bus.topology import ACK_WAIT, PIN_GROUP
from shared.errors import BusUnavailableError
from tests.integration.bus.readers import (
    PLACE,
    SHARD,
    Recorder,
    is_settled,
    numbered,
    publish,
    publish_many,
    reading,
    start,
    text,
    unprocessed,
)
from tests.waiting import eventually

# --- Stopping ---


async def test_a_reader_that_stops_finishes_what_it_has_read(
    bus: Bus, publisher: Publisher, jetstream: JetStreamContext
) -> None:
    await publish(publisher, *numbered("a", 30))
    recorder = Recorder(seconds=0.01)
    async with reading(bus, recorder):
        await recorder.until_done(5)
    pending, outstanding, redelivered = await unprocessed(jetstream)
    assert (outstanding, redelivered) == (0, 0)
    assert recorder.done == numbered("a", 30 - pending)


async def test_a_reader_that_stops_returns_unfinished_messages_in_order(
    bus: Bus, publisher: Publisher, jetstream: JetStreamContext
) -> None:
    texts = [f"{name}:{number}" for number in range(20) for name in ("a", "b", "c")]
    await publish(publisher, *texts)
    slow = Recorder(holds=lambda text: text == "a:2", seconds=0.2)
    reader, task = start(bus, slow)
    await slow.until_begun(7)
    reader.stop()
    await asyncio.sleep(concurrent.PATIENCE + 0.5)
    assert not task.done()  # it finishes the message that it has begun
    begun, (_, outstanding, _) = list(slow.begun), await unprocessed(jetstream)
    assert outstanding
    slow.may_go_on.set()
    await task
    assert slow.begun == begun
    assert sorted(slow.done) == sorted(begun)

    rest = Recorder()
    async with reading(bus, rest):
        await rest.until_done(len(texts) - len(begun))
        await is_settled(jetstream)
    for name in ("a", "b", "c"):
        everything = [each for each in [*slow.done, *rest.done] if each.startswith(name)]
        assert everything == numbered(name, 20)


async def test_the_size_of_the_messages_that_wait_is_bounded(
    bus: Bus, publisher: Publisher, jetstream: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concurrent, "_MAX_HELD_BYTES", 10)
    recorder = Recorder(holds=lambda _: True)
    await publish(publisher, *(f"{number}:{'x' * 20}" for number in range(20)))
    async with reading(bus, recorder):

        async def is_read() -> bool:
            return bool(recorder.begun)

        await eventually(is_read)
        assert (await unprocessed(jetstream))[1] == 1  # the first request is for a single message
        recorder.may_go_on.set()
        await recorder.until_done(20)


async def test_a_reader_that_stops_returns_thousands_of_messages_in_order(
    bus: Bus, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concurrent, "_GROWTH_INTERVAL", 0.01)
    monkeypatch.setattr(concurrent, "PATIENCE", 0.1)
    texts = [f"{name}:{number}" for number in range(30) for name in range(100)]
    await publish_many(publisher, texts)
    waiting: set[str] = set()

    async def wait(message: StreamMessage, _: Begin) -> Outcome:
        waiting.add(text(message))
        await asyncio.Event().wait()
        raise AssertionError

    async def conversations_are_read() -> bool:
        return len(waiting) == 100

    reader, task = start(bus, wait, capacity=4_096)
    await eventually(conversations_are_read)
    reader.stop()
    await task
    rest = Recorder()
    async with reading(bus, rest, capacity=4_096):
        await rest.until_done(3_000)
    for name in range(100):
        prefix = f"{name}:"
        assert [each for each in rest.done if each.startswith(prefix)] == numbered(str(name), 30)


async def test_messages_keep_their_order_if_readers_stop_soon_after_each_other(
    bus: Bus, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second reader has read only the first of the messages that the first reader has returned."""
    monkeypatch.setattr(concurrent, "PATIENCE", 0.1)
    await publish(publisher, *numbered("a", 40))
    recorder, is_read = Recorder(), asyncio.Event()

    async def wait(_: StreamMessage, __: Begin) -> Outcome:
        is_read.set()
        await asyncio.Event().wait()
        raise AssertionError

    for growth in (0.01, 60.0):
        monkeypatch.setattr(concurrent, "_GROWTH_INTERVAL", growth)
        is_read.clear()
        reader, task = start(bus, wait, capacity=64)
        await is_read.wait()
        if growth < 1:
            await eventually(partial(is_held, bus, 40))
        reader.stop()
        await task
    async with reading(bus, recorder):
        await recorder.until_done(40)
    assert recorder.done == numbered("a", 40)


async def is_held(bus: Bus, count: int) -> bool:
    return await unprocessed(bus.jetstream) == (0, count, 0)


async def test_a_message_that_is_delivered_again_while_it_is_in_progress_is_processed_once(
    bus: Bus, publisher: Publisher, jetstream: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its heartbeat is overdue, as after an outage."""
    monkeypatch.setattr(processing, "_HEARTBEAT", 60)
    await jetstream.add_consumer(SHARD.stream, SHARD.config(1).evolve(ack_wait=0.2))
    await publish(publisher, "a:0", "a:1")
    recorder = Recorder(holds=lambda _: True)

    async def was_redelivered() -> bool:
        return bool((await jetstream.consumer_info(SHARD.stream, SHARD.name)).num_redelivered)

    async with reading(bus, recorder):
        await eventually(was_redelivered)
        recorder.may_go_on.set()
        await recorder.until_done(2)
        await is_settled(jetstream)
    assert recorder.done == ["a:0", "a:1"]


async def test_a_message_does_not_overtake_the_one_before_it_when_the_reader_stops(
    bus: Bus, publisher: Publisher, jetstream: JetStreamContext
) -> None:
    refused, recorder, second = list[str](), Recorder(), Recorder()

    async def process(message: StreamMessage, begin: Begin) -> Outcome:
        if text(message) != "a:0":
            return await recorder(message, begin)
        refused.append(text(message))
        raise BusUnavailableError("not available")

    async def is_refused() -> bool:
        return bool(refused)

    async def are_delivered() -> bool:
        return (await unprocessed(jetstream))[:2] == (0, 3)

    async with reading(bus, process):
        await publish(publisher, *(f"{uuid4().hex}:0" for _ in range(20)))
        await recorder.until_done(20)  # so that the reader takes more than one message
        recorder.begun.clear()
        await publish(publisher, *numbered("a", 3))
        await eventually(is_refused)
        await eventually(are_delivered)
    assert recorder.begun == []
    async with reading(bus, second):
        await second.until_done(3)
    assert second.done == numbered("a", 3)


async def test_a_reader_that_is_cancelled_leaves_its_messages_to_another_one(
    bus: Bus, publisher: Publisher
) -> None:
    await publish(publisher, *numbered("a", 3))
    stuck = Recorder(holds=lambda _: True)
    _, task = start(bus, stuck)
    await stuck.until_begun(1)
    task.cancel()
    await asyncio.wait({task})
    recorder = Recorder()
    async with reading(bus, recorder):
        await recorder.until_done(3, within=1)
    assert recorder.done == numbered("a", 3)
    assert stuck.done == []


# --- Pinned consumers ---


@pytest.fixture
async def other_bus(nats_url: str) -> AsyncIterator[Bus]:
    async with connect(nats_url, name="other") as bus:
        await bus.until_connected()
        yield bus


async def test_a_pinned_consumer_serves_one_of_two_readers_until_that_one_stops(
    bus: Bus, other_bus: Bus, publisher: Publisher
) -> None:
    first, second = Recorder(), Recorder()
    reader, task = start(bus, first)
    await publish(publisher, "a:0")
    await first.until_done(1)
    async with reading(other_bus, second):
        await publish(publisher, *numbered("b", 50))
        await first.until_done(51)
        await asyncio.sleep(1)
        await publish(publisher, *numbered("c", 50))
        await first.until_done(101)
        assert second.done == []

        reader.stop()
        await task
        await publish(publisher, *numbered("d", 50))
        await second.until_done(50, within=1)
    assert second.done == numbered("d", 50)
    assert first.done == ["a:0", *numbered("b", 50), *numbered("c", 50)]


async def test_a_pinned_consumer_serves_another_reader_when_the_first_one_hangs_or_dies(
    bus: Bus, other_bus: Bus, publisher: Publisher
) -> None:
    request = json.dumps({"batch": 1, "expires": int(60e9), "group": PIN_GROUP}).encode()
    subscription = await other_bus.client.subscribe("_INBOX_other.hangs")
    await other_bus.client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{PLACE}", request, reply=subscription.subject)
    await publish(publisher, "a:0")
    assert (await subscription.next_msg()).data == b"a:0"

    recorder = Recorder()
    async with reading(bus, recorder):
        await publish(publisher, *numbered("b", 3))
        await asyncio.sleep(1)
        assert recorder.done == []
        await recorder.until_done(3, within=6)
        await recorder.until_done(4, within=ACK_WAIT.total_seconds())
    assert recorder.done == [*numbered("b", 3), "a:0"]


async def test_a_reader_that_loses_its_pin_gets_another_one(bus: Bus, publisher: Publisher) -> None:
    recorder = Recorder()
    async with reading(bus, recorder):
        await publish(publisher, "a:0")
        await recorder.until_done(1)
        unpin = json.dumps({"group": PIN_GROUP}).encode()
        await bus.client.request(f"$JS.API.CONSUMER.UNPIN.{PLACE}", unpin)
        await publish(publisher, "a:1", "a:2")
        await recorder.until_done(3, within=3)
    assert recorder.done == numbered("a", 3)
