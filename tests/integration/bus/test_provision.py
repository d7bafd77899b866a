from nats.js import JetStreamContext
from nats.js.api import StreamConfig, SubjectTransform

from shared.bus.provision import provision
from shared.bus.topology import CONSUMERS, streams
from shared.ids import PARTITIONS, partition_of
from tests import messages


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
