import asyncio

import pytest
from nats.js import JetStreamContext

from shared.bus.key_value import Bucket, ConflictError
from shared.bus.client import Bus
from shared.bus.publisher import Outgoing, Publisher, RefusedError
from shared.bus.topology import DELIVERIES_BUCKET, Stream, outbound_subject
from shared.events import decode
from shared.ids import EventId
from tests import messages


def outgoing() -> Outgoing:
    event = messages.accepted()
    message = event.data.message
    return Outgoing(outbound_subject(message.channel, message.conversation_key), event.id, event.encode())


async def stored(jetstream: JetStreamContext, stream: Stream) -> int:
    return (await jetstream.stream_info(stream)).state.messages


async def test_many_at_once_are_stored_each_with_its_sequence(
    publisher: Publisher, jetstream: JetStreamContext
) -> None:
    batch = [outgoing() for _ in range(450)]
    sequences = await asyncio.gather(*(publisher.publish(Stream.OUTBOUND, each) for each in batch))
    assert sorted(sequences) == list(range(1, 451))
    for each, sequence in list(zip(batch, sequences, strict=True))[::50]:
        message = await jetstream.get_msg(Stream.OUTBOUND, sequence)
        assert decode(message.data or b"").id == each.id


async def test_the_same_event_twice_is_stored_once(publisher: Publisher, jetstream: JetStreamContext) -> None:
    first, others = outgoing(), [outgoing() for _ in range(10)]
    await publisher.publish(Stream.OUTBOUND, first)
    await asyncio.gather(*(publisher.publish(Stream.OUTBOUND, each) for each in [first, *others, first]))
    assert await stored(jetstream, Stream.OUTBOUND) == 11


async def test_what_the_server_has_no_place_for_is_refused(
    publisher: Publisher, jetstream: JetStreamContext
) -> None:
    config = (await jetstream.stream_info(Stream.OUTBOUND)).config
    await jetstream.update_stream(config.evolve(max_msgs=3))
    results = await asyncio.gather(
        *(publisher.publish(Stream.OUTBOUND, outgoing()) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(result, RefusedError) for result in results) == 2
    assert await stored(jetstream, Stream.OUTBOUND) == 3


async def test_a_bucket_changes_only_what_it_has_read(bus: Bus, publisher: Publisher) -> None:
    bucket = Bucket(bus, publisher, DELIVERIES_BUCKET)
    assert await bucket.get("key") is None
    revision = await bucket.put("key", b"one", revision=0)
    with pytest.raises(ConflictError):
        await bucket.put("key", b"two", revision=0)
    await bucket.put("key", b"two", revision=revision)
    with pytest.raises(ConflictError):
        await bucket.put("key", b"three", revision=revision)
    value = await bucket.get("key")
    assert value is not None
    assert value.data == b"two"


async def test_one_conflict_among_many_writes_spoils_none_of_the_others(
    bus: Bus, publisher: Publisher
) -> None:
    bucket = Bucket(bus, publisher, DELIVERIES_BUCKET)
    await bucket.put("taken", b"", revision=0)
    keys = [f"key-{number}" for number in range(20)]
    results = await asyncio.gather(
        *(bucket.put(key, b"x", revision=0) for key in [*keys, "taken"]), return_exceptions=True
    )
    assert isinstance(results[-1], ConflictError)
    for key, revision in zip(keys, results, strict=False):
        value = await bucket.get(key)
        assert value is not None
        assert value.revision == revision


async def test_ids_are_optional(publisher: Publisher) -> None:
    event = outgoing()
    without: EventId | None = None
    for _ in range(2):
        await publisher.publish(Stream.OUTBOUND, Outgoing(event.subject, without, event.payload))


async def test_what_is_too_large_is_refused_and_disturbs_no_other(publisher: Publisher) -> None:
    event = outgoing()
    large = Outgoing(event.subject, None, b"x" * 1024 * 1024)
    results = await asyncio.gather(
        *(publisher.publish(Stream.OUTBOUND, each) for each in [*(outgoing() for _ in range(30)), large]),
        return_exceptions=True,
    )
    assert isinstance(results[-1], RefusedError)
    assert sorted(result for result in results if isinstance(result, int)) == list(range(1, 31))
