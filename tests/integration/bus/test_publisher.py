import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from nats.js import JetStreamContext
from pydantic import BaseModel

from shared.bus import lines
from shared.bus.client import Bus
from shared.bus.key_value import KeyValueStore, RevisionConflictError
from shared.bus.publisher import Outgoing, Publisher, PublishRejectedError
from shared.bus.topology import DELIVERIES_BUCKET, Stream, event_subject, outbound_subject
from shared.channels import Channel
from shared.events import decode
from shared.ids import EventId, new_message_id
from shared.status import Status
from tests import messages
from tests.events import status_changed
from tests.waiting import eventually


def outgoing() -> Outgoing:
    event = messages.accepted()
    message = event.data.message
    return Outgoing(outbound_subject(message.channel, message.conversation_key), event.id, event.encode())


async def stored(jetstream: JetStreamContext, stream: Stream) -> int:
    return (await jetstream.stream_info(stream)).state.messages


async def test_many_concurrent_messages_are_stored_each_with_its_sequence(
    publisher: Publisher, jetstream: JetStreamContext
) -> None:
    batch = [outgoing() for _ in range(450)]
    sequences = await asyncio.gather(*(publisher.publish(Stream.OUTBOUND, each) for each in batch))
    assert sorted(sequences) == list(range(1, 451))
    for each, sequence in list(zip(batch, sequences, strict=True))[::50]:
        message = await jetstream.get_msg(Stream.OUTBOUND, sequence)
        assert decode(message.data or b"").id == each.id


async def test_an_event_published_twice_is_stored_once(
    publisher: Publisher, jetstream: JetStreamContext
) -> None:
    first, others = outgoing(), [outgoing() for _ in range(10)]
    await publisher.publish(Stream.OUTBOUND, first)
    await asyncio.gather(*(publisher.publish(Stream.OUTBOUND, each) for each in [first, *others, first]))
    assert await stored(jetstream, Stream.OUTBOUND) == 11


async def test_messages_are_published_together_or_not_at_all(
    publisher: Publisher, jetstream: JetStreamContext
) -> None:
    config = (await jetstream.stream_info(Stream.OUTBOUND)).config
    await jetstream.update_stream(config.evolve(max_msgs=500))
    batch = [outgoing() for _ in range(500)]

    await publisher.publish_atomically(Stream.OUTBOUND, batch)
    await publisher.publish_atomically(Stream.OUTBOUND, batch)
    with pytest.raises(PublishRejectedError):
        await publisher.publish_atomically(Stream.OUTBOUND, [outgoing(), outgoing()])

    assert await stored(jetstream, Stream.OUTBOUND) == 500
    raw = await jetstream.get_msg(Stream.OUTBOUND, 500)
    assert (raw.headers or {})["Nats-Batch-Sequence"] == "500"


async def test_a_message_is_rejected_if_its_stream_is_full(
    publisher: Publisher, jetstream: JetStreamContext
) -> None:
    config = (await jetstream.stream_info(Stream.OUTBOUND)).config
    await jetstream.update_stream(config.evolve(max_msgs=3))
    results = await asyncio.gather(
        *(publisher.publish(Stream.OUTBOUND, outgoing()) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(result, PublishRejectedError) for result in results) == 2
    assert await stored(jetstream, Stream.OUTBOUND) == 3


def status_events(count: int, status: Status = Status.SENT) -> list[Outgoing]:
    events = [status_changed(new_message_id(), status) for _ in range(count)]
    return [Outgoing(event_subject(Channel.SMS, status), event.id, event.encode()) for event in events]


async def test_status_events_published_together_become_lines_of_one_message_per_subject(
    publisher: Publisher, jetstream: JetStreamContext
) -> None:
    sent, failed = status_events(30), status_events(20, Status.FAILED)
    await asyncio.gather(*(publisher.publish(Stream.EVENTS, each) for each in [*sent, *failed]))

    assert await stored(jetstream, Stream.EVENTS) == 2
    for group in (sent, failed):
        message = await jetstream.get_last_msg(Stream.EVENTS, group[0].subject)
        assert [decode(line).id for line in lines.split(message.data or b"")] == [each.id for each in group]


async def test_status_events_that_are_too_large_together_become_several_messages(
    publisher: Publisher, jetstream: JetStreamContext
) -> None:
    long_source = b'"/sender' + b"x" * 100_000 + b'"'
    events = [
        replace(each, payload=each.payload.replace(b'"/sender"', long_source)) for each in status_events(20)
    ]
    await asyncio.gather(*(publisher.publish(Stream.EVENTS, each) for each in events))

    found = [await jetstream.get_msg(Stream.EVENTS, number + 1) for number in range(7)]
    assert [decode(line).id for message in found for line in lines.split(message.data or b"")] == [
        each.id for each in events
    ]


async def test_status_events_with_a_trace_keep_it(publisher: Publisher, jetstream: JetStreamContext) -> None:
    events = [replace(each, headers={"traceparent": str(each.id)}) for each in status_events(3)]
    await asyncio.gather(*(publisher.publish(Stream.EVENTS, each) for each in events))

    found = [await jetstream.get_msg(Stream.EVENTS, number + 1) for number in range(3)]
    assert {(message.headers or {})["traceparent"] for message in found} == {str(each.id) for each in events}


class Note(BaseModel):
    text: str


def notes(bus: Bus, publisher: Publisher) -> KeyValueStore[Note]:
    return KeyValueStore.bucket(bus, publisher, DELIVERIES_BUCKET, Note)


async def test_a_key_value_store_only_changes_the_value_that_was_read(bus: Bus, publisher: Publisher) -> None:
    store = notes(bus, publisher)
    assert await store.get("key") is None
    first = await store.put("key", Note(text="one"), after=None)
    with pytest.raises(RevisionConflictError):
        await store.put("key", Note(text="two"), after=None)
    second = await store.put("key", Note(text="two"), after=first)
    with pytest.raises(RevisionConflictError):
        await store.put("key", Note(text="three"), after=first)
    assert await store.get("key") == second
    assert second.value == Note(text="two")


async def test_a_value_is_forgotten_after_its_time_and_can_be_created_again(
    bus: Bus, publisher: Publisher
) -> None:
    store = notes(bus, publisher)
    keys = [f"key{number}" for number in range(20)]  # enough for a batch
    brief, lasting = timedelta(seconds=1), timedelta(hours=1)
    await store.put("lasting", Note(text="one"), after=None, ttl=lasting)
    await asyncio.gather(*(store.put(key, Note(text="one"), after=None, ttl=brief) for key in keys))

    async def are_forgotten() -> bool:
        return not any(await asyncio.gather(*map(store.get, keys)))

    await eventually(are_forgotten)
    assert await store.get("lasting") is not None
    await asyncio.gather(*(store.put(key, Note(text="two"), after=None, ttl=lasting) for key in keys))


async def test_one_conflict_among_many_writes_does_not_affect_the_others(
    bus: Bus, publisher: Publisher
) -> None:
    store = notes(bus, publisher)
    await store.put("taken", Note(text=""), after=None)
    keys = [f"key-{number}" for number in range(20)]
    results = await asyncio.gather(
        *(store.put(key, Note(text=key), after=None) for key in [*keys, "taken"]), return_exceptions=True
    )
    assert isinstance(results[-1], RevisionConflictError)
    assert [await store.get(key) for key in keys] == results[:-1]


async def test_ids_are_optional(publisher: Publisher) -> None:
    event = outgoing()
    without: EventId | None = None
    for _ in range(2):
        await publisher.publish(Stream.OUTBOUND, Outgoing(event.subject, without, event.payload))


async def test_a_message_that_is_too_large_is_rejected_without_the_others(
    publisher: Publisher,
) -> None:
    event = outgoing()
    large = Outgoing(event.subject, None, b"x" * 1024 * 1024)
    results = await asyncio.gather(
        *(publisher.publish(Stream.OUTBOUND, each) for each in [*(outgoing() for _ in range(30)), large]),
        return_exceptions=True,
    )
    assert isinstance(results[-1], PublishRejectedError)
    assert sorted(result for result in results if isinstance(result, int)) == list(range(1, 31))


async def test_a_stream_that_stores_nothing_is_reported_until_it_does(
    publisher: Publisher, jetstream: JetStreamContext
) -> None:
    config = (await jetstream.stream_info(Stream.OUTBOUND)).config
    await jetstream.update_stream(config.evolve(max_bytes=1))
    with pytest.raises(PublishRejectedError):
        await publisher.publish(Stream.OUTBOUND, outgoing())
    assert str(publisher.outage).startswith("OUTBOUND: ")

    await jetstream.update_stream(config)
    await publisher.publish(Stream.OUTBOUND, outgoing())
    assert publisher.outage is None


async def test_a_message_that_is_rejected_for_its_own_sake_is_no_outage(publisher: Publisher) -> None:
    headers = {"Nats-Expected-Last-Subject-Sequence": "7"}
    with pytest.raises(PublishRejectedError):
        await publisher.publish(
            Stream.OUTBOUND, Outgoing("outbound.sms.transactional.0.00", None, b"", headers)
        )
    assert publisher.outage is None
