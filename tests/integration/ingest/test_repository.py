"""Storing batches in a real PostgreSQL."""

import asyncio
import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, get_args

import pytest
from pydantic import AwareDatetime
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.ingest.projection import project
from services.ingest.repository import Repository
from services.ingest.settings import IngestSettings
from shared.db import tables
from shared.db.engine import make_engine
from shared.errors import BadMessageError, DatabaseUnavailableError
from shared.events import Event
from shared.message import Message, Priority, StatusReport
from shared.status import Status
from tests.events import NOON, accepted, delivered, message, of_all_kinds, received, status_changed
from tests.integration.ingest.database import all_rows, count
from tests.waiting import eventually

pytestmark = pytest.mark.integration

EVENTS = of_all_kinds()


async def store(engine: AsyncEngine, events: Sequence[Event[Any]]) -> None:
    await Repository(engine).store([project(event) for event in events])


async def test_storing_again_changes_no_row(engine: AsyncEngine) -> None:
    await store(engine, EVENTS)
    before = await all_rows(engine)

    await store(engine, EVENTS)
    for event in EVENTS:
        await store(engine, [event])

    assert await all_rows(engine) == before


async def reported(engine: AsyncEngine) -> list[tuple[str, int, int]]:
    """Return the status, the generation and the attempt of each report that is stored."""
    query = "SELECT status, generation, attempt FROM message_events ORDER BY generation, attempt, status"
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(query))]


LATE_EXPIRY = status_changed(message(0).id, Status.EXPIRED)


@pytest.mark.parametrize("is_one_batch", [True, False])
@pytest.mark.parametrize(
    "end",
    [
        status_changed(message(0).id, Status.SENT),
        status_changed(message(0).id, Status.SENT, attempt=3),
        status_changed(message(0).id, Status.FAILED, attempt=3),
        status_changed(message(0).id, Status.CANCELED),
        status_changed(message(0).id, Status.EXPIRED, attempt=3),
        status_changed(message(0).id, Status.SENT, generation=1),
    ],
    ids=lambda event: f"{event.data.status}-{event.data.generation}-{event.data.attempt}",
)
async def test_a_message_that_has_ended_does_not_expire(
    engine: AsyncEngine, end: Event[StatusReport], *, is_one_batch: bool
) -> None:
    ended: list[Event[Any]] = [accepted(message(0)), status_changed(message(0).id, Status.RETRYING), end]
    if is_one_batch:
        await store(engine, [LATE_EXPIRY, *ended])
    else:
        await store(engine, ended)
        before = await all_rows(engine)
        await store(engine, [LATE_EXPIRY])
        assert await all_rows(engine) == before

    assert ("expired", 0, 1) not in await reported(engine)
    assert len(await reported(engine)) == len(ended)


@pytest.mark.parametrize(
    "earlier",
    [
        [accepted(message(0))],
        [accepted(message(0)), status_changed(message(0).id, Status.RETRYING)],
        [accepted(message(0)), status_changed(message(1).id, Status.SENT)],
    ],
    ids=["accepted", "retrying", "another message is sent"],
)
async def test_a_message_that_has_not_ended_expires(engine: AsyncEngine, earlier: list[Event[Any]]) -> None:
    expiry = status_changed(message(0).id, Status.EXPIRED, attempt=2)
    await store(engine, earlier)
    await store(engine, [expiry])
    await store(engine, [expiry])

    assert (await reported(engine))[-1] == ("expired", 0, 2)
    assert len(await reported(engine)) == len(earlier) + 1


async def test_a_replay_that_expires_is_stored(engine: AsyncEngine) -> None:
    failed = status_changed(message(0).id, Status.FAILED)
    expired = status_changed(message(0).id, Status.EXPIRED, generation=1)
    await store(engine, [accepted(message(0)), failed, accepted(message(0), generation=1), expired])

    assert (await reported(engine))[-1] == ("expired", 1, 1)


async def test_fifty_first_messages_at_once_create_one_conversation(engine: AsyncEngine) -> None:
    events: list[Event[Any]] = [accepted(message(number)) for number in range(25)]
    events += [received(number) for number in range(25)]

    await asyncio.gather(*(store(engine, [event]) for event in events))

    async with engine.connect() as connection:
        counts = list(await connection.scalars(text("SELECT message_count FROM conversations")))
    assert counts == [50]


async def test_workers_with_the_same_messages_in_another_order_never_deadlock(engine: AsyncEngine) -> None:
    chance = random.Random(5)
    events = [
        accepted(message(number, from_=f"+120166600{number % 7:02}", to=f"+180455500{number % 11:02}"))
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
        to = f"+1804555000{number}"
        await store(engine, [accepted(message(number, to=to)), *delivered(9)])

    async with engine.connect() as connection:
        ids = list(await connection.scalars(text("SELECT id FROM conversations ORDER BY id")))
    assert ids == [1, 2, 3, 4]


async def test_texts_and_times_are_stored_unchanged(engine: AsyncEngine) -> None:
    sent = message(1, body='quotes " and \\ and 🎈 and\nlines')
    await store(engine, [accepted(sent)])

    async with engine.connect() as connection:
        row = (await connection.execute(text("SELECT * FROM messages"))).one()
    assert row.id == sent.id
    assert row.body == sent.body
    assert row.attachments == sent.attachments
    assert row.timestamp == sent.timestamp
    assert row.created_at - row.timestamp == timedelta(milliseconds=5)


def chosen_value(field: str) -> Any:  # noqa: ANN401 - the type of the field
    """Return a value that a field of a message may have, but does not have by default."""
    if field == "priority":
        return Priority.BULK
    if field == "metadata":
        return {"order": "17"}
    if field in {"warnings", "recipients"}:
        return [f"some {field}"]
    return NOON if AwareDatetime in get_args(Message.model_fields[field].annotation) else f"some {field}"


async def test_every_field_of_a_message_that_has_a_column_is_stored(engine: AsyncEngine) -> None:
    columns = set(tables.Message.__table__.columns.keys()) & Message.model_fields.keys()
    optional = [name for name in columns if not Message.model_fields[name].is_required()]
    sent = message(1, **{name: chosen_value(name) for name in optional})
    await store(engine, [accepted(sent)])

    async with engine.connect() as connection:
        row = (await connection.execute(text("SELECT * FROM messages"))).one()
    assert {name: getattr(row, name) for name in columns} == sent.model_dump(include=columns)


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(accepted(message(1, body="nul \0 in it")), id="a NUL byte"),
        pytest.param(accepted(message(1, to="x" * 321)), id="an address that is too long"),
        pytest.param(accepted(message(1), generation=2**31), id="a number that is too large"),
    ],
)
async def test_an_event_that_the_database_will_never_accept_is_a_bad_message(
    engine: AsyncEngine, event: Event[Any]
) -> None:
    with pytest.raises(BadMessageError) as caught:
        await store(engine, [accepted(message(0)), event])

    assert caught.value.code == "not_storable"
    assert await count(engine, "messages") == 0


async def test_an_event_can_be_stored_later_if_the_database_is_not_migrated(empty_database_url: str) -> None:
    engine = make_engine(
        IngestSettings(database_url=empty_database_url, nats_url="-"), pool_size=1, application="tests"
    )

    with pytest.raises(DatabaseUnavailableError, match="does not exist"):
        await Repository(engine).check()
    with pytest.raises(DatabaseUnavailableError, match="does not exist"):
        await store(engine, EVENTS)
    await engine.dispose()


async def test_an_event_can_be_stored_later_if_the_server_is_down() -> None:
    settings = IngestSettings(database_url="postgresql+asyncpg://u:p@127.0.0.1:1/none", nats_url="-")
    engine = make_engine(settings, pool_size=1, application="tests")

    with pytest.raises(DatabaseUnavailableError):
        await store(engine, EVENTS)
    await engine.dispose()


async def test_an_event_can_be_stored_later_after_a_deadlock_with_an_operator(engine: AsyncEngine) -> None:
    await store(engine, EVENTS)

    async with engine.connect() as operator:
        await operator.execute(text("SET deadlock_timeout = '1min'"))  # the other one is aborted
        await operator.execute(text("LOCK TABLE messages"))
        storing = asyncio.create_task(store(engine, [accepted(message(7))]))
        await eventually(lambda: is_blocked(engine))
        await operator.execute(text("SELECT FROM conversations FOR UPDATE"))

    with pytest.raises(DatabaseUnavailableError, match="deadlock"):
        await storing


async def is_blocked(engine: AsyncEngine) -> bool:
    async with engine.connect() as connection:
        return bool(await connection.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))
