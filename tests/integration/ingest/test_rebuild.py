"""Rebuilding the database while everything is running."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from nats.js import JetStreamContext
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from services.ingest import outbox
from services.ingest import rebuild as module
from services.ingest.outbox import Outbox
from services.ingest.rebuild import RebuildInProgressError, rebuild
from services.ingest.repository import Repository
from services.ingest.worker import Worker
from shared.bus.client import connect
from shared.bus.publisher import Outgoing, publishing
from shared.bus.topology import Stream
from shared.db.tables import Base, OutboxNotification, Traffic
from shared.status import Status
from tests.events import (
    accepted,
    delivered,
    message,
    of_all_kinds,
    receipt,
    received,
    status_changed,
)
from tests.integration.ingest.database import contents, count, until_count
from tests.integration.ingest.streams import publish
from tests.integration.ingest.test_worker import until_all_is_read
from tests.waiting import eventually

pytestmark = pytest.mark.integration


def test_it_covers_all_tables() -> None:
    models: list[type[Base]] = [*module._MODELS, *module._DERIVED, OutboxNotification, Traffic]  # noqa: SLF001
    assert {model.__tablename__ for model in models} == Base.metadata.tables.keys()


@pytest.fixture
async def working(engine: AsyncEngine, nats_url: str) -> AsyncIterator[None]:
    async with connect(nats_url, name="ingest") as bus, publishing(bus) as publisher:
        worker = Worker(bus, Repository(engine), publisher, Outbox(engine, publisher))
        worker.start()
        yield
        await worker.stop()


async def execute(engine: AsyncEngine, statement: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(statement))


@pytest.mark.usefixtures("working")
@pytest.mark.parametrize("stream", [Stream.INBOUND, Stream.OUTBOUND, Stream.EVENTS, Stream.DEADLETTER])
async def test_rows_that_a_stream_no_longer_contains_are_kept(
    engine: AsyncEngine, nats_url: str, jetstream: JetStreamContext, stream: Stream
) -> None:
    await publish(nats_url, [*of_all_kinds(), *delivered(9)])
    await until_all_is_read(nats_url)
    before = await contents(engine)
    await jetstream.purge_stream(stream)
    assert await rebuild(engine, jetstream) > 0
    assert await contents(engine) == before


@pytest.mark.usefixtures("working")
async def test_rows_are_as_the_streams_have_them(
    engine: AsyncEngine, nats_url: str, jetstream: JetStreamContext
) -> None:
    await publish(nats_url, of_all_kinds())
    await until_all_is_read(nats_url)
    before = await contents(engine)
    await execute(engine, "UPDATE messages SET body = 'damaged'")
    await execute(engine, "DELETE FROM message_events")
    assert await rebuild(engine, jetstream) == 0
    assert await contents(engine) == before


@pytest.mark.usefixtures("working")
async def test_an_interrupted_rebuild_continues(
    engine: AsyncEngine, nats_url: str, jetstream: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(nats_url, of_all_kinds())
    await until_all_is_read(nats_url)
    before = await contents(engine)
    await jetstream.purge_stream(Stream.EVENTS)
    for step in ("_replay", "_bring_back"):
        monkeypatch.setattr(module, step, _interrupt)
        with pytest.raises(_InterruptedError):
            await rebuild(engine, jetstream)
        monkeypatch.undo()
    assert await contents(engine) != before
    await rebuild(engine, jetstream)
    assert await contents(engine) == before


@pytest.mark.usefixtures("working")
async def test_only_one_rebuild_can_run_at_a_time(
    engine: AsyncEngine, nats_url: str, jetstream: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = module._replay  # noqa: SLF001
    refusals = []

    async def rebuild_meanwhile(_: JetStreamContext) -> None:
        with pytest.raises(RebuildInProgressError) as refusal:
            await rebuild(engine, jetstream)
        refusals.append(refusal)
        await replay(jetstream)

    await publish(nats_url, of_all_kinds())
    await until_all_is_read(nats_url)
    before = await contents(engine)
    monkeypatch.setattr(module, "_replay", rebuild_meanwhile)
    await rebuild(engine, jetstream)
    await rebuild(engine, jetstream)  # the lock is free again
    assert len(refusals) == 2
    assert await contents(engine) == before


@pytest.mark.usefixtures("working")
async def test_a_rebuild_notifies_only_of_what_is_new(
    engine: AsyncEngine, nats_url: str, jetstream: JetStreamContext, published: list[str]
) -> None:
    # NATS would recognise repeated notifications for ten minutes, so they are recorded before that.
    await publish(nats_url, [*of_all_kinds(), accepted(message(8)), *delivered(9)])
    await until_all_is_read(nats_url)
    await until_outbox_is_empty(engine)
    published.clear()
    await jetstream.purge_stream(Stream.EVENTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_bring_back", _interrupt)
        with pytest.raises(_InterruptedError):
            await rebuild(engine, jetstream)
    await publish(nats_url, [received(10), status_changed(message(8).id, Status.SENT)])
    await until_all_is_read(nats_url)
    await rebuild(engine, jetstream)
    await publish(nats_url, [receipt(message(8).id)])
    await until_all_is_read(nats_url)
    await until_outbox_is_empty(engine)
    assert sorted(published) == ["message.delivered", "message.received", "message.sent"]


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the types of the notifications that the outbox publishes from now on."""
    types: list[str] = []
    original = outbox.outgoing

    def outgoing(row: outbox.OutboxRow) -> Outgoing:
        types.append(row.type)
        return original(row)

    monkeypatch.setattr(outbox, "outgoing", outgoing)
    return types


async def until_outbox_is_empty(engine: AsyncEngine) -> None:
    async def is_empty() -> bool:
        return await count(engine, "notification_outbox") == 0

    await eventually(is_empty)


class _InterruptedError(Exception):
    pass


async def _interrupt(*_: object) -> None:
    raise _InterruptedError


@pytest.mark.usefixtures("working")
async def test_a_rebuild_under_traffic_causes_no_deadlock(
    engine: AsyncEngine, nats_url: str, jetstream: JetStreamContext
) -> None:
    async def send() -> None:
        for first in range(0, 200, 10):
            # Each message has a conversation of its own, which ingest creates as well.
            messages = [message(number, to=f"+1804555{number:04}") for number in range(first, first + 10)]
            events = [[accepted(each), *delivered(first + n)[1:]] for n, each in enumerate(messages)]
            await publish(nats_url, [event for each in events for event in each])

    async def read() -> None:
        while not sending.done():
            async with engine.connect() as connection:
                await connection.execute(text("SELECT FROM messages, conversations, message_history LIMIT 1"))
                await connection.execute(text("SELECT FROM suppression_changes, messages LIMIT 1"))

    with capture_logs() as logs:
        sending = asyncio.create_task(send())
        reading = asyncio.create_task(read())
        await until_count(engine, "messages", 20)
        await rebuild(engine, jetstream)
        await sending
        await reading
        await until_all_is_read(nats_url)
    assert [entry for entry in logs if entry["log_level"] != "info"] == []
    found = await contents(engine)
    assert len(found["messages"]) == 400
    assert len(found["message_events"]) == 600
