"""Storing batches in a real PostgreSQL."""

import asyncio
import random
from collections.abc import Sequence
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.ingest.repository import Repository
from services.ingest.projection import rows_of
from services.ingest.settings import IngestSettings
from shared.db.engine import make_engine
from shared.errors import BadMessageError, DatabaseUnavailableError
from shared.events import Event
from tests.integration.ingest.stories import (
    accepted,
    count,
    every_row,
    life_of,
    lives,
    message,
    received,
)
from tests.waiting import eventually

pytestmark = pytest.mark.integration

STORY = lives()


async def store(engine: AsyncEngine, events: Sequence[Event]) -> None:
    await Repository(engine).store([rows_of(event) for event in events])


async def test_storing_again_changes_no_row(engine: AsyncEngine) -> None:
    await store(engine, STORY)
    before = await every_row(engine)

    await store(engine, STORY)
    for event in STORY:
        await store(engine, [event])

    assert await every_row(engine) == before


async def test_fifty_first_messages_at_once_make_one_conversation(engine: AsyncEngine) -> None:
    events: list[Event] = [accepted(message(number)) for number in range(25)]
    events += [received(number) for number in range(25)]

    await asyncio.gather(*(store(engine, [event]) for event in events))

    async with engine.connect() as connection:
        counts = list(await connection.scalars(text("SELECT message_count FROM conversations")))
    assert counts == [50]


async def test_workers_with_the_same_messages_in_another_order_never_deadlock(engine: AsyncEngine) -> None:
    chance = random.Random(5)
    events = [
        accepted(
            message(number, sender=f"+120166600{number % 7:02}", recipient=f"+180455500{number % 11:02}")
        )
        for number in range(300)
    ]

    async def work(own: random.Random) -> None:
        for _ in range(8):
            await store(engine, own.sample(events, k=120))  # a deadlock would be raised

    await asyncio.gather(*(work(random.Random(chance.random())) for _ in range(4)))

    await store(engine, events)
    assert await count(engine, "messages") == 300


async def test_the_numbers_of_conversations_have_no_gaps(engine: AsyncEngine) -> None:
    for number in range(4):
        recipient = f"+1804555000{number}"
        await store(engine, [accepted(message(number, recipient=recipient)), *life_of(9)])

    async with engine.connect() as connection:
        ids = list(await connection.scalars(text("SELECT id FROM conversations ORDER BY id")))
    assert ids == [1, 2, 3, 4]


async def test_what_a_message_says_is_what_is_stored(engine: AsyncEngine) -> None:
    sent = message(1, body='quotes " and \\ and 🎈 and\nlines')
    await store(engine, [accepted(sent)])

    async with engine.connect() as connection:
        row = (await connection.execute(text("SELECT * FROM messages"))).one()
    assert row.id == sent.id
    assert row.body == sent.body
    assert row.attachments == sent.attachments
    assert row.timestamp == sent.timestamp
    assert row.created_at - row.timestamp == timedelta(milliseconds=5)


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(accepted(message(1, body="nul \0 in it")), id="a NUL byte"),
        pytest.param(accepted(message(1, recipient="x" * 321)), id="an address that is too long"),
        pytest.param(accepted(message(1), generation=2**31), id="a number that is too large"),
    ],
)
async def test_what_the_database_will_never_take_is_a_bad_message(engine: AsyncEngine, event: Event) -> None:
    with pytest.raises(BadMessageError) as caught:
        await store(engine, [accepted(message(0)), event])

    assert caught.value.code == "not_storable"
    assert await count(engine, "messages") == 0


async def test_a_database_that_is_not_migrated_is_a_matter_of_time(empty_database_url: str) -> None:
    engine = make_engine(
        IngestSettings(database_url=empty_database_url, nats_url="-"), pool_size=1, application="tests"
    )

    with pytest.raises(DatabaseUnavailableError, match="does not exist"):
        await Repository(engine).check()
    with pytest.raises(DatabaseUnavailableError, match="does not exist"):
        await store(engine, STORY)
    await engine.dispose()


async def test_a_server_that_is_not_there_is_a_matter_of_time() -> None:
    settings = IngestSettings(database_url="postgresql+asyncpg://u:p@127.0.0.1:1/none", nats_url="-")
    engine = make_engine(settings, pool_size=1, application="tests")

    with pytest.raises(DatabaseUnavailableError):
        await store(engine, STORY)
    await engine.dispose()


async def test_a_deadlock_with_an_operator_is_a_matter_of_time(engine: AsyncEngine) -> None:
    await store(engine, STORY)

    async with engine.connect() as operator:
        await operator.execute(text("SET deadlock_timeout = '1min'"))  # so that it is ours that gives way
        await operator.execute(text("LOCK TABLE messages"))
        storing = asyncio.create_task(store(engine, [accepted(message(7))]))
        await eventually(lambda: somebody_waits(engine))
        await operator.execute(text("SELECT FROM conversations FOR UPDATE"))

    with pytest.raises(DatabaseUnavailableError, match="deadlock"):
        await storing


async def somebody_waits(engine: AsyncEngine) -> bool:
    async with engine.connect() as connection:
        return bool(await connection.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))
