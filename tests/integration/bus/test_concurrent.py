import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from nats.js import JetStreamContext
from structlog.testing import capture_logs

from shared.bus import concurrent, processing
from shared.bus.client import Bus, connect
from shared.bus.concurrent import ConcurrentReader
from shared.bus.consumer import Done, HandBack, Outcome, StreamMessage
from shared.bus.processing import Begin, Process, Processing
from shared.bus.provision import provision
from shared.bus.publisher import Outgoing, Publisher, publishing
from shared.bus.topology import (
    ACK_WAIT,
    INGEST_CONSUMERS,
    MAX_DELIVER,
    PIN_GROUP,
    Consumer,
    Stream,
    sender_shards,
)
from shared.channels import Channel
from shared.errors import BusUnavailableError
from tests import infrastructure
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


# --- Order and concurrency ---


async def test_conversations_are_processed_concurrently_and_each_in_order(
    bus: Bus, publisher: Publisher, jetstream: JetStreamContext
) -> None:
    conversations = [uuid4().hex for _ in range(12)]
    await publish(publisher, *(f"{each}:{number}" for number in range(15) for each in conversations))
    recorder = Recorder(seconds=0.002)
    async with reading(bus, recorder):
        await recorder.until_done(180)
        await is_settled(jetstream)
    by_conversation = defaultdict(list)
    for each in recorder.done:
        by_conversation[each.partition(":")[0]].append(each)
    assert dict(by_conversation) == {each: numbered(each, 15) for each in conversations}
    assert recorder.concurrent == 12


async def test_no_more_messages_are_read_than_the_capacity(
    bus: Bus, publisher: Publisher, jetstream: JetStreamContext
) -> None:
    await publish(publisher, *(f"{uuid4().hex}:0" for _ in range(40)))
    recorder = Recorder(holds=lambda _: True)
    async with reading(bus, recorder, capacity=6):
        await recorder.until_begun(6)
        assert await unprocessed(jetstream) == (34, 6, 0)
        recorder.may_go_on.set()
        await recorder.until_done(40)
    assert recorder.concurrent == 6


async def test_the_first_message_is_read_alone_for_a_moment(
    bus: Bus, publisher: Publisher, jetstream: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it crashes the process, it interrupts no others."""
    monkeypatch.setattr(concurrent, "_GROWTH_INTERVAL", 1.0)
    await publish(publisher, *(f"{uuid4().hex}:0" for _ in range(10)))
    recorder = Recorder(holds=lambda _: True)
    async with reading(bus, recorder):
        await recorder.until_begun(1)
        assert await unprocessed(jetstream) == (9, 1, 0)
        await recorder.until_begun(10)
        recorder.may_go_on.set()


async def test_thousands_of_messages_that_wait_leave_room_for_others(
    bus: Bus, publisher: Publisher, jetstream: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversation is blocked, and so are the messages to one provider."""
    monkeypatch.setattr(concurrent, "_GROWTH_INTERVAL", 0.01)
    busy = [*numbered("busy", 1_000), *(f"slow{number}:0" for number in range(1_000))]
    await publish_many(publisher, busy)
    recorder = Recorder(holds=lambda text: text == "busy:0" or text.startswith("slow"))

    async def all_are_held() -> bool:
        return await unprocessed(jetstream) == (0, 2_000, 0)

    async with reading(bus, recorder, capacity=4_096):
        await eventually(all_are_held)
        await publish(publisher, "stranger:0")
        await recorder.until_done(1, within=1)
        assert recorder.done == ["stranger:0"]
        recorder.may_go_on.set()
        await recorder.until_done(2_001)
    assert [text for text in recorder.done if text.startswith("busy")] == numbered("busy", 1_000)
    assert set(recorder.deliveries.values()) == {1}


# --- Messages that cannot be processed yet ---


async def test_a_message_that_is_handed_back_keeps_its_place(
    bus: Bus, publisher: Publisher, jetstream: JetStreamContext
) -> None:
    await publish(publisher, *numbered("a", 4), *numbered("b", 4))
    calls: list[str] = []
    recorder = Recorder()

    async def process(message: StreamMessage, begin: Begin) -> Outcome:
        calls.append(text(message))
        if calls.count(text(message)) < 4:
            return HandBack()
        return await recorder(message, begin)

    async with reading(bus, process):
        await recorder.until_done(8)
    assert [each for each in recorder.done if each.startswith("a")] == numbered("a", 4)
    assert [each for each in recorder.done if each.startswith("b")] == numbered("b", 4)
    assert set(recorder.deliveries.values()) == {1}
    await is_settled(jetstream)


async def test_an_unavailable_process_is_called_again_without_a_redelivery(
    bus: Bus, publisher: Publisher, jetstream: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing, "_LAST_RETRY", 0.001)
    monkeypatch.setattr(processing, "_FIRST_RETRY", 0.001)
    await publish(publisher, *numbered("a", 3))
    refusals: list[str] = []
    recorder = Recorder()

    async def process(message: StreamMessage, begin: Begin) -> Outcome:
        if len(refusals) < 2 * MAX_DELIVER:
            refusals.append(text(message))
            raise BusUnavailableError("not available")
        return await recorder(message, begin)

    async with reading(bus, process):
        await recorder.until_done(3)
    assert recorder.done == numbered("a", 3)
    assert set(refusals) == {"a:0"}
    assert set(recorder.deliveries.values()) == {1}
    await is_settled(jetstream)


async def test_messages_wait_in_their_place_until_they_can_be_processed(
    bus: Bus, publisher: Publisher
) -> None:
    """The server still has a request when that begins; the messages that it then sends are not returned."""
    is_able, recorder, refusals = [True], Recorder(), list[str]()
    looks = 0

    def may_read() -> bool:
        nonlocal looks
        looks += not is_able[0]
        return is_able[0]

    async def has_noticed() -> bool:
        return bool(refusals) and looks - len(refusals) >= 2  # each refused message looks once itself

    async def process(message: StreamMessage, begin: Begin) -> Outcome:
        if not is_able[0]:
            refusals.append(text(message))
            raise BusUnavailableError("not available")
        return await recorder(message, begin)

    async with reading(bus, process, may_read=may_read):
        await publish(publisher, *(f"{uuid4().hex}:0" for _ in range(20)))
        await recorder.until_done(20)
        is_able[0] = False
        await publish(publisher, *(f"{uuid4().hex}:0" for _ in range(100)))
        await eventually(has_noticed)
        assert len(set(refusals)) == len(refusals)
        assert len(recorder.done) == 20
        is_able[0] = True
        await recorder.until_done(120)
    assert refusals
    assert set(recorder.deliveries.values()) == {1}


async def test_the_answer_to_a_request_is_received_even_if_messages_cannot_be_processed_by_then(
    bus: Bus, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that unsubscribed would lose it: its messages would be redelivered, after later ones."""
    is_able, recorder, asked = [True], Recorder(), list[None]()
    subscribe, subscriptions = bus.client.subscribe, list[str]()

    def count(subject: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as in nats-py
        if not subject.endswith(".*"):  # the client's own inbox, for the responses to its requests
            subscriptions.append(subject)
        return subscribe(subject, *args, **options)

    def may_read() -> bool:
        asked.append(None)
        return is_able[0]

    async def was_asked_twice() -> bool:
        return len(asked) > 1

    monkeypatch.setattr(bus.client, "subscribe", count)
    async with reading(bus, recorder, may_read=may_read):
        await publish(publisher, "a:0")
        await recorder.until_done(1)
        is_able[0] = False
        asked.clear()
        await eventually(was_asked_twice)
        is_able[0] = True
        await publish(publisher, "a:1")
        await recorder.until_done(2)
        assert len(subscriptions) == 1


async def test_nothing_is_read_while_messages_cannot_be_processed(
    bus: Bus, publisher: Publisher, jetstream: JetStreamContext
) -> None:
    is_able, recorder, asked = [False], Recorder(), list[None]()

    def may_read() -> bool:
        asked.append(None)
        return is_able[0]

    async def was_asked_twice() -> bool:
        return len(asked) > 1

    async with reading(bus, recorder, may_read=may_read):
        await publish(publisher, *numbered("a", 3))
        asked.clear()
        await eventually(was_asked_twice)
        assert await unprocessed(jetstream) == (3, 0, 0)
        is_able[0] = True
        await recorder.until_done(3)


# --- Failures ---


async def test_a_message_is_delivered_again_after_an_unexpected_error(
    bus: Bus, publisher: Publisher, jetstream: JetStreamContext
) -> None:
    await publish(publisher, "a:0", "b:0")
    recorder = Recorder()

    async def process(message: StreamMessage, begin: Begin) -> Outcome:
        if text(message) == "a:0" and message.deliveries == 1:
            raise ValueError
        return await recorder(message, begin)

    async with reading(bus, process):
        await recorder.until_done(2)
    assert recorder.deliveries == {"a:0": 2, "b:0": 1}
    await is_settled(jetstream)


async def test_messages_that_may_crash_the_process_are_processed_one_by_one(
    bus: Bus, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing, "_SUSPECT_DELIVERIES", 2)
    monkeypatch.setattr(processing, "_SUSPECT_DELAY", 0.05)
    texts = [f"{number}:0" for number in range(20)]
    await publish(publisher, *texts)
    recorder = Recorder(seconds=0.01)

    async def process(message: StreamMessage, begin: Begin) -> Outcome:
        if message.deliveries == 1:
            raise ValueError
        return await recorder(message, begin)

    async with reading(bus, process):
        await recorder.until_done(20)
    assert recorder.concurrent == 1
    assert sorted(recorder.done) == sorted(texts)


async def test_a_message_that_crashes_the_process_does_not_take_others_to_the_limit_of_deliveries(
    bus: Bus, publisher: Publisher, jetstream: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All 100 messages are in progress at the first crash, and are then delivered again at the same time."""
    monkeypatch.setattr(processing, "_SUSPECT_DELAY", 0.1)
    monkeypatch.setattr(Processing, "return_unsettled", do_nothing)
    await jetstream.add_consumer(READ_BY_ALL.stream, READ_BY_ALL.config(1).evolve(ack_wait=0.3))
    recorder, received, crash = Recorder(seconds=0.005), set[str](), asyncio.Event()

    async def process(message: StreamMessage, begin: Begin) -> Outcome:
        received.add(text(message))
        if len(received) < 100 or text(message) == "50:0":
            if len(received) == 100:
                crash.set()
            await asyncio.sleep(60)
        return await recorder(message, begin)

    await publish(publisher, *(f"{number}:0" for number in range(100)))
    for _ in range(MAX_DELIVER):
        crash.clear()
        reader, task = start(bus, process, consumer=READ_BY_ALL, capacity=100)
        monkeypatch.setattr(reader, "_capacity", 100)  # instead of 1
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await crash.wait()
        task.cancel()
        await asyncio.wait({task})
    assert set(recorder.done) == {f"{number}:0" for number in range(100)} - {"50:0"}
    assert max(recorder.deliveries.values()) < MAX_DELIVER


async def do_nothing(_: Processing) -> None:
    pass


async def test_heartbeats_prevent_the_redelivery_of_a_message_that_takes_long(
    bus: Bus, publisher: Publisher, jetstream: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing, "_HEARTBEAT", 0.2)
    monkeypatch.setattr(processing, "_HEARTBEAT_CHECK", 0.1)
    await jetstream.add_consumer(SHARD.stream, SHARD.config(1).evolve(ack_wait=1.0))
    await publish(publisher, "a:0", "a:1")
    recorder = Recorder(seconds=1.5)
    async with reading(bus, recorder):
        await recorder.until_done(2)
    assert recorder.begun == ["a:0", "a:1"]
    await is_settled(jetstream)


async def test_reading_continues_after_a_restart_of_the_server(tmp_path: Path) -> None:
    async with (
        infrastructure.nats(tmp_path) as server,
        connect(server.url, name="test") as bus,
        publishing(bus) as publisher,
    ):
        await bus.until_connected()
        await provision(bus.jetstream)
        recorder = Recorder()
        async with reading(bus, recorder):
            for restart in (server.stop, server.kill):
                await publish(publisher, "a:0", "b:0")
                await recorder.until_done(2)
                await restart()
                await server.start()
                await bus.until_connected()
                await publish(publisher, "c:0", "d:0")
                await recorder.until_done(4, within=5)
                recorder.done.clear()


async def test_a_consumer_that_is_deleted_and_created_again_is_read(
    bus: Bus, publisher: Publisher, jetstream: JetStreamContext
) -> None:
    recorder = Recorder()
    async with reading(bus, recorder):
        await publish(publisher, "a:0")
        await recorder.until_done(1)
        with capture_logs() as logs:
            await jetstream.delete_consumer(SHARD.stream, SHARD.name)
            await asyncio.sleep(2.5)
            await jetstream.add_consumer(SHARD.stream, SHARD.config(1))
            await publish(publisher, "a:1")
            await recorder.until_done(3)  # the new one begins with the first message
    assert recorder.done == ["a:0", "a:0", "a:1"]
    # The server does not answer a request that arrives while it deletes the consumer.
    assert {entry["event"] for entry in logs} <= {"consumer_missing", "consumer_failed"}
    assert logs
    assert len(logs) <= 4  # it does not repeat its request endlessly


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
