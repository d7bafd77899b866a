"""From the streams into the database, with a real NATS and a real PostgreSQL."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js.api import ConsumerConfig
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.ingest.outbox import Outbox
from services.ingest.repository import Repository
from services.ingest.settings import IngestSettings
from services.ingest.worker import Worker
from shared.bus.client import connect
from shared.bus.publisher import publishing
from shared.bus.topology import INGEST_CONSUMERS, Stream
from shared.db.engine import make_engine
from shared.events import Event
from tests import infrastructure
from tests.conftest import sqlalchemy_url
from tests.events import accepted, delivered, message, of_all_kinds, received
from tests.integration.alembic_command import alembic
from tests.integration.ingest.database import contents, count, empty, until_count
from tests.integration.ingest.streams import place_of, publish, publish_raw
from tests.waiting import eventually

pytestmark = pytest.mark.integration


@asynccontextmanager
async def working(engine: AsyncEngine, nats_url: str) -> AsyncIterator[Worker]:
    async with connect(nats_url, name="ingest") as bus, publishing(bus) as publisher:
        worker = Worker(bus, Repository(engine), publisher, Outbox(engine, publisher))
        worker.start()
        try:
            yield worker
        finally:
            await worker.stop()


async def read_from_the_start(nats_url: str) -> None:
    """Reset the consumers of ingest, as `nats consumer reset` does."""
    client = await nats.connect(nats_url)
    jetstream = client.jetstream()
    for consumer in INGEST_CONSUMERS:
        await jetstream.delete_consumer(consumer.stream, consumer.name)
        await jetstream.add_consumer(consumer.stream, consumer.config(1))
    await client.close()


async def until_all_is_read(nats_url: str) -> None:
    client = await nats.connect(nats_url)
    jetstream = client.jetstream()

    async def nothing_is_left() -> bool:
        infos = [await jetstream.consumer_info(each.stream, each.name) for each in INGEST_CONSUMERS]
        return not any(info.num_pending or info.num_ack_pending for info in infos)

    try:
        await eventually(nothing_is_left)
    finally:
        await client.close()


async def dead_letters(engine: AsyncEngine) -> dict[str, dict[str, Any]]:
    """Return the contents of the dead letters by reason."""
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT reason, content FROM dead_letters"))
        return {row.reason: row.content for row in rows}


async def test_two_workers_store_all_of_fifty_first_messages_in_one_conversation(
    engine: AsyncEngine, nats_url: str
) -> None:
    events: list[Event[Any]] = [accepted(message(number)) for number in range(25)]
    events += [received(number) for number in range(25)]

    async with working(engine, nats_url), working(engine, nats_url):
        await publish(nats_url, events)
        await until_count(engine, "messages", 50)

    async with engine.connect() as connection:
        counts = list(await connection.scalars(text("SELECT message_count FROM conversations")))
    assert counts == [50]


async def test_a_rebuilt_database_gets_the_same_messages_and_conversations(
    engine: AsyncEngine, nats_url: str
) -> None:
    events = of_all_kinds()
    random.Random(1).shuffle(events)
    await publish(nats_url, events)
    async with working(engine, nats_url):
        await until_all_is_read(nats_url)
        before = await contents(engine)

        await empty(engine)
        await read_from_the_start(nats_url)
        await until_count(engine, "messages", 4)
        await until_all_is_read(nats_url)

    assert before["messages"]
    assert await contents(engine) == before


async def test_bad_events_become_dead_letters_and_the_others_are_stored(
    engine: AsyncEngine, nats_url: str
) -> None:
    good = [accepted(message(number)) for number in range(20)]
    unstorable = accepted(message(99, body="nul \0"))
    stream, subject = place_of(unstorable)
    unknown = good[0].encode().replace(b"accepted.v1", b"accepted.v9")
    incomplete = b'{"type": "messaging.message.accepted.v1"}'
    payloads = [
        *(event.encode() for event in good),
        unstorable.encode(),
        b"{",
        b"\xff\0",
        unknown,
        incomplete,
    ]
    random.Random(2).shuffle(payloads)
    await publish_raw(nats_url, [(stream, subject, payload) for payload in payloads])

    async with working(engine, nats_url):
        await until_count(engine, "dead_letters", 5)
        await until_all_is_read(nats_url)

    assert await count(engine, "messages") == len(good)
    found = await dead_letters(engine)
    assert found.keys() == {"not_storable", "not_json", "unknown_type", "invalid_event"}
    assert found["not_storable"]["payload"] == unstorable.encode().decode()
    assert found["unknown_type"]["origin"]["stream"] == "OUTBOUND"


async def test_an_unreadable_dead_letter_becomes_a_readable_one(engine: AsyncEngine, nats_url: str) -> None:
    await publish_raw(nats_url, [(Stream.DEADLETTER, "deadletter.outbound.sms", b"not a dead letter")])

    async with working(engine, nats_url):
        await until_count(engine, "dead_letters", 1)
        await until_all_is_read(nats_url)

    assert (await dead_letters(engine))["not_json"]["payload"] == "not a dead letter"
    assert await count(engine, "dead_letters") == 1


async def test_a_message_that_the_server_no_longer_delivers_becomes_a_dead_letter(
    engine: AsyncEngine, nats_url: str
) -> None:
    event = accepted(message())
    await publish(nats_url, [event])
    client = await nats.connect(nats_url)
    crashing = ConsumerConfig(durable_name="crashing", ack_wait=0.1, max_deliver=1)
    await client.jetstream().add_consumer("OUTBOUND", crashing)
    subscription = await client.jetstream().pull_subscribe_bind("crashing", "OUTBOUND")
    await subscription.fetch(1)  # and never acknowledge

    async with working(engine, nats_url):
        with pytest.raises(TimeoutError):
            await subscription.fetch(1, timeout=1)  # the server notices at the next request
        await until_count(engine, "dead_letters", 1)
    await client.close()

    dead_letter = (await dead_letters(engine))["max_deliver_exceeded"]
    assert dead_letter["payload"] == event.encode().decode()
    assert dead_letter["origin"]["consumer"] == "crashing"
    assert dead_letter["channel"] == "sms"


async def test_readiness_has_the_reason(engine: AsyncEngine, nats_url: str) -> None:
    async with working(engine, nats_url) as worker:
        await eventually(lambda: is_ready(worker))

        async with engine.begin() as connection:
            await connection.execute(text("ALTER TABLE messages RENAME TO mislaid"))

        assert 'PostgreSQL: relation "messages" does not exist' in str(await worker.unready_reason())


async def is_ready(worker: Worker) -> bool:
    return await worker.unready_reason() is None


@pytest.mark.parametrize("outage", ["stop", "kill", "pause"])
async def test_no_event_is_lost_while_the_database_is_down(
    tmp_path: Path, nats_url: str, outage: str
) -> None:
    events = [event for number in range(10) for event in delivered(number)]
    async with infrastructure.postgres(tmp_path) as postgres, postgres.database() as url:
        database_url = sqlalchemy_url(url)
        assert (await alembic("upgrade", "head", database_url=database_url)).status == 0
        settings = IngestSettings(database_url=database_url, nats_url=nats_url)
        engine = make_engine(settings, pool_size=9, application="ingest")
        async with working(engine, nats_url) as worker:
            await publish(nats_url, events[:10])
            await until_count(engine, "message_events", 6)

            await getattr(postgres.server, outage)()
            await publish(nats_url, events[10:])
            assert await worker.unready_reason() is not None
            await (postgres.server.resume() if outage == "pause" else postgres.server.start())

            await until_all_is_read(nats_url)
        assert await count(engine, "messages") == 20
        assert await count(engine, "message_events") == 30
        await engine.dispose()


async def test_it_stops_promptly_while_the_database_is_down(nats_url: str) -> None:
    settings = IngestSettings(database_url="postgresql+asyncpg://u:p@127.0.0.1:1/none", nats_url=nats_url)
    engine = make_engine(settings, pool_size=9, application="ingest")
    await publish(nats_url, delivered(1))

    async with asyncio.timeout(8):
        async with working(engine, nats_url) as worker:
            await eventually(lambda: _lacks_postgres(worker))

    await engine.dispose()


async def _lacks_postgres(worker: Worker) -> bool:
    return "PostgreSQL" in (await worker.unready_reason() or "")
