"""Consumers whose files on the server were damaged."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest

from dev.local_stack.servers import NatsServer
from shared.bus.client import connect
from shared.bus.provision import DamagedConsumersError, provision
from shared.bus.streams import Streams
from shared.bus.topology import INGEST_CONSUMERS, Stream, missing_shards, sender_shards
from shared.channels import Channel
from tests.ports import free_port

pytestmark = pytest.mark.integration

CONSUMER = next(each for each in INGEST_CONSUMERS if each.stream == Stream.EVENTS)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """Run a server with a consumer that has processed some messages and is processing others."""
    server = NatsServer(tmp_path / "nats", free_port(), log=tmp_path / "nats.log", durable=False)
    await server.start()
    client = await nats.connect(server.url)
    jetstream = client.jetstream()
    await provision(jetstream)
    for _ in range(10):
        await jetstream.publish("events.sms.sent", b"")
    subscription = await jetstream.pull_subscribe_bind(CONSUMER.name, stream=CONSUMER.stream)
    messages = await subscription.fetch(9)
    for message in (*messages[:3], *messages[5:7]):
        await message.ack_sync()
    await client.close()
    yield server
    await server.kill()


async def damage(server: NatsServer, *names: str) -> Path:
    """Cut files of the consumer in half while the server is down, and return its folder."""
    await server.stop()
    [folder] = server.folder.rglob(CONSUMER.name)
    for name in names:
        file = folder / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    await server.start()
    return folder


async def provision_again(server: NatsServer) -> int:
    """Provision, and return the sequence up to which the consumer has processed its stream."""
    client = await nats.connect(server.url)
    jetstream = client.jetstream()
    try:
        await provision(jetstream)
        info = await jetstream.consumer_info(CONSUMER.stream, CONSUMER.name)
    finally:
        await client.close()
    assert info.ack_floor is not None
    sequence: int = info.ack_floor.stream_seq
    return sequence


async def test_a_consumer_whose_configuration_is_damaged_continues(server: NatsServer) -> None:
    await damage(server, "meta.inf")
    assert await provision_again(server) == 3


async def test_a_consumer_whose_state_is_damaged_begins_again_without_it(server: NatsServer) -> None:
    folder = await damage(server, "o.dat")
    async with connect(server.url, name="test") as bus:
        await bus.until_connected()
        reason = await Streams(bus).unready_reason(INGEST_CONSUMERS)
        assert reason == "NATS: the consumer ingest-events of EVENTS is not provisioned"
    with pytest.raises(DamagedConsumersError, match="ingest-events of EVENTS; everything else is up to date"):
        await provision_again(server)
    shutil.rmtree(folder)
    assert await provision_again(server) == 0


def test_a_shard_is_missing_if_others_of_its_total_are_there() -> None:
    former, new = ([shard.name for shard in sender_shards(Channel.SMS, count)] for count in (2, 3))
    assert [shard.name for shard in missing_shards(former[1:], Channel.SMS)] == former[:1]
    assert missing_shards([*former[1:], *new], Channel.SMS) == []
    assert missing_shards(["ingest-outbound"], Channel.SMS) == []
