import asyncio
import json
from datetime import timedelta

import pytest
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, ConsumerInfo, StreamConfig, SubjectTransform

from shared.bus.client import Bus
from shared.bus.concurrent import ConcurrentReader
from shared.bus.consumer import Done, HandBack, Outcome, StreamMessage
from shared.bus.processing import Begin
from shared.bus.provision import provision
from shared.bus.streams import Streams
from shared.bus.topology import (
    ACK_WAIT,
    CONSUMERS,
    DEFAULT_SHARDS,
    MAX_DELIVER,
    PIN_GROUP,
    Stream,
    sender_shards,
    streams,
)
from shared.channels import Channel
from shared.ids import PARTITIONS, partition_of
from shared.message import Priority
from tests import messages
from tests.waiting import eventually


async def test_provisioning_again_changes_nothing(jetstream: JetStreamContext) -> None:
    async def everything() -> list[object]:
        infos = [
            (await jetstream.stream_info(str(stream.name))).config
            for stream in streams(replicas=1, max_bytes=-1)
        ]
        consumers = [
            (await jetstream.consumer_info(consumer.stream, consumer.name)).config for consumer in CONSUMERS
        ]
        return [*infos, *consumers]

    before = await everything()
    await provision(jetstream)
    assert await everything() == before


async def test_a_changed_limit_is_applied(jetstream: JetStreamContext) -> None:
    await provision(jetstream, max_bytes=1_000_000)
    assert (await jetstream.stream_info("OUTBOUND")).config.max_bytes == 1_000_000


LANES = {
    f"sender-{channel}-{lane:02}": [
        f"outbound.{channel}.{partition}.*" for partition in range(lane, PARTITIONS, 32)
    ]
    for channel in Channel
    for lane in range(32)
}
"""The consumers of OUTBOUND that version 0.1 had instead of shards, and their subjects."""


@pytest.fixture
async def lanes(jetstream: JetStreamContext) -> None:
    """Provision the topology of version 0.1: lanes instead of shards, and other limits."""
    for consumer in CONSUMERS:
        if consumer.is_pinned:
            await jetstream.delete_consumer(consumer.stream, consumer.name)
        else:
            old = consumer.config(1).evolve(ack_wait=30, max_deliver=20, max_ack_pending=256)
            await jetstream.add_consumer(consumer.stream, old)
    for name, filters in LANES.items():
        config = ConsumerConfig(
            durable_name=name,
            filter_subjects=filters,
            ack_wait=30,
            max_deliver=20,
            max_ack_pending=1,
            max_waiting=512,
        )
        await jetstream.add_consumer(Stream.OUTBOUND, config)


async def publish_to(jetstream: JetStreamContext, *partitions: int) -> None:
    """Publish messages as version 0.1 did."""
    for partition in partitions:
        await jetstream.publish(f"outbound.sms.{partition}.x", b"x")


async def publish_new(jetstream: JetStreamContext, *tokens: str) -> None:
    for token in tokens:
        await jetstream.publish(f"outbound.sms.{token}.0a", b"x")


async def read_by(jetstream: JetStreamContext, name: str, count: int) -> list[int]:
    """Read and acknowledge messages of a consumer that is not pinned; return their sequences."""
    subscription = await jetstream.pull_subscribe_bind(name, stream=Stream.OUTBOUND)
    sequences = []
    for _ in range(count):
        [message] = await subscription.fetch(1)
        await message.ack_sync()
        sequences.append(message.metadata.sequence.stream)
    await subscription.unsubscribe()
    return sequences


async def unread_by_shards(bus: Bus, count: int = DEFAULT_SHARDS) -> list[int]:
    """Return the sequences of the messages that the shards of text messages deliver."""
    sequences: list[int] = []

    async def collect(message: StreamMessage, _: Begin) -> Outcome:
        sequences.append(message.origin.sequence)
        return Done()

    async def all_read() -> bool:
        infos = [await bus.jetstream.consumer_info(each.stream, each.name) for each in shards]
        return not any(info.num_pending or info.num_ack_pending for info in infos)

    shards = sender_shards(Channel.SMS, count)
    readers = [ConcurrentReader(bus, shard, collect, capacity=10) for shard in shards]
    running = [asyncio.create_task(reader.run()) for reader in readers]
    await eventually(all_read)
    for reader in readers:
        reader.stop()
    await asyncio.gather(*running)
    return sorted(sequences)


async def read_by_shard(bus: Bus, name: str, count: int) -> None:
    """Read and acknowledge messages of a shard, and let it serve another reader."""
    [shard] = [shard for shard in sender_shards(Channel.SMS) if shard.name == name]
    sequences: list[int] = []

    async def collect(message: StreamMessage, _: Begin) -> Outcome:
        sequences.append(message.origin.sequence)
        return Done() if len(sequences) <= count else HandBack(timedelta(minutes=1))

    async def are_read() -> bool:
        return len(sequences) >= count

    reader = ConcurrentReader(bus, shard, collect, capacity=1)
    running = asyncio.create_task(reader.run())
    await eventually(are_read)
    reader.stop()
    await running


async def shards_of_sms(bus: Bus) -> set[str]:
    names = await Streams(bus).consumers_of(Stream.OUTBOUND)
    return {name for name in names if name.startswith("sender-sms-")}


async def lanes_left(jetstream: JetStreamContext) -> set[str]:
    return {info.name for info in await jetstream.consumers_info(Stream.OUTBOUND)} & set(LANES)


@pytest.mark.usefixtures("lanes")
async def test_shards_begin_where_the_lanes_of_version_0_1_have_stopped(
    bus: Bus, jetstream: JetStreamContext
) -> None:
    await publish_to(jetstream, 3, 11, 4, 3, 19, 27, 35, 11, 4)  # 3 to 35, except 4, belong to shard 3
    await read_by(jetstream, "sender-sms-03", 3)
    await read_by(jetstream, "sender-sms-11", 1)
    await read_by(jetstream, "sender-sms-19", 1)
    await read_by(jetstream, "sender-sms-27", 1)
    await read_by(jetstream, "sender-sms-04", 1)
    await provision(jetstream)

    assert await lanes_left(jetstream) == set()
    # Lane 11 has message 8 left, and lane 4 has message 9.
    assert await unread_by_shards(bus) == [8, 9]


@pytest.mark.usefixtures("lanes")
async def test_shards_skip_all_messages_that_lanes_have_read(bus: Bus, jetstream: JetStreamContext) -> None:
    await publish_to(jetstream, 3, 4, 5)
    for lane in (3, 4, 5):
        await read_by(jetstream, f"sender-sms-{lane:02}", 1)
    await provision(jetstream)
    await publish_to(jetstream, 3, 63)
    assert await unread_by_shards(bus) == [4, 5]


@pytest.mark.usefixtures("lanes")
async def test_shards_skip_no_new_messages_that_lanes_do_not_read(
    bus: Bus, jetstream: JetStreamContext
) -> None:
    """An earlier run may have been interrupted, and the gateways may have been upgraded since."""
    stream = await jetstream.stream_info(Stream.OUTBOUND)
    await jetstream.update_stream(stream.config.evolve(subjects=["outbound.>"]))
    await publish_to(jetstream, 3, 3)
    await publish_new(jetstream, "transactional.3", "bulk.3")
    await publish_to(jetstream, 3)
    await read_by(jetstream, "sender-sms-03", 3)
    await provision(jetstream)
    assert await unread_by_shards(bus) == [3, 4, 5]  # 5 again, but not 1 and 2


@pytest.mark.parametrize("count", [1, 3, 16, 64])
async def test_resharding_begins_where_the_slowest_of_the_former_shards_has_stopped(
    bus: Bus, jetstream: JetStreamContext, count: int
) -> None:
    await publish_new(jetstream, *(f"{priority}.3" for priority in Priority for _ in range(3)))
    await publish_new(jetstream, "transactional.4", "transactional.11", "transactional.3")
    await read_by_shard(bus, "sender-sms-transactional-03-of-08", 2)
    await read_by_shard(bus, "sender-sms-bulk-03-of-08", 1)
    await provision(jetstream, shards=count)

    assert await shards_of_sms(bus) == {shard.name for shard in sender_shards(Channel.SMS, count)}
    assert await unread_by_shards(bus, count) == [3, 5, 6, 7, 8, 9]
    await provision(jetstream, shards=count)
    assert await unread_by_shards(bus, count) == []


async def test_resharding_skips_nothing_that_arrives_meanwhile(
    bus: Bus, jetstream: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = jetstream.consumers_info

    async def look_just_before_a_message_arrives(stream: str, offset: int) -> list[ConsumerInfo]:
        found = await look(stream, offset)
        await publish_new(jetstream, "transactional.3")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(jetstream, "consumers_info", look_just_before_a_message_arrives)
        await provision(jetstream, shards=16)
    stored = (await jetstream.stream_info(Stream.OUTBOUND)).state.messages
    assert stored > 0
    assert await unread_by_shards(bus, 16) == list(range(1, stored + 1))


@pytest.mark.usefixtures("lanes")
async def test_shards_skip_nothing_if_provisioning_was_interrupted(
    bus: Bus, jetstream: JetStreamContext
) -> None:
    await publish_to(jetstream, 3, 3, 11, 11)
    await read_by(jetstream, "sender-sms-03", 1)
    await read_by(jetstream, "sender-sms-11", 2)
    with pytest.MonkeyPatch.context() as interruption:
        deleted: list[str] = []

        async def delete_consumer(_: str, name: str) -> None:
            deleted.append(name)
            if name == "sender-sms-05":
                raise TimeoutError

        delete = jetstream.delete_consumer
        interruption.setattr(jetstream, "delete_consumer", delete_consumer)
        with pytest.raises(TimeoutError):
            await provision(jetstream)
    for name in deleted:
        await delete(Stream.OUTBOUND, name)
    await provision(jetstream)
    assert await lanes_left(jetstream) == set()
    assert await unread_by_shards(bus) == [2, 3, 4]


@pytest.mark.usefixtures("lanes")
async def test_the_limits_of_existing_consumers_are_updated(jetstream: JetStreamContext) -> None:
    await provision(jetstream)
    for consumer in CONSUMERS:
        found = (await jetstream.consumer_info(consumer.stream, consumer.name)).config
        limits = (found.ack_wait, found.max_deliver, found.max_ack_pending)
        assert limits == (ACK_WAIT.total_seconds(), MAX_DELIVER, consumer.max_ack_pending)


async def test_the_shards_are_pinned(bus: Bus) -> None:
    for shard in (shard for channel in Channel for shard in sender_shards(channel)):
        place = f"{shard.stream}.{shard.name}"
        answer = await bus.client.request(f"$JS.API.CONSUMER.INFO.{place}", b"")
        config = json.loads(answer.data)["config"]
        assert config["priority_policy"] == "pinned_client"
        assert config["priority_groups"] == [PIN_GROUP]
        assert config["priority_timeout"] == 5_000_000_000


async def test_partitions_are_computed_as_the_server_does(jetstream: JetStreamContext) -> None:
    transform = SubjectTransform(
        src="in.*", dest=f"out.{{{{partition({PARTITIONS},1)}}}}.{{{{wildcard(1)}}}}"
    )
    await jetstream.add_stream(
        StreamConfig(name="PARTITIONS", subjects=["in.*"], subject_transform=transform)
    )
    keys = [messages.message(from_=f"+1201666{number:04}").conversation_key for number in range(200)]
    for key in keys:
        await jetstream.publish(f"in.{key}")
    for sequence, key in enumerate(keys, start=1):
        stored = await jetstream.get_msg("PARTITIONS", sequence)
        assert stored.subject == f"out.{partition_of(key)}.{key}"
