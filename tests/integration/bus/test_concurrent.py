import asyncio
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from nats.js import JetStreamContext
from structlog.testing import capture_logs

from shared.bus import concurrent, processing
from shared.bus.client import Bus, connect
from shared.bus.consumer import HandBack, Outcome, StreamMessage
from shared.bus.processing import Begin, Processing
from shared.bus.provision import provision
from shared.bus.publisher import Publisher, publishing
from shared.bus.topology import MAX_DELIVER
from shared.errors import BusUnavailableError
from tests import infrastructure
from tests.integration.bus.readers import (
    READ_BY_ALL,
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
