"""The stored state of a message is that of its decisive report, whichever processes store its reports."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.ingest.projection import project
from services.ingest.repository import Repository
from shared.db.tables import Base, DeliveryReceipt, MessageEvent
from shared.events import Event
from shared.status import Status
from tests.events import accepted, message, receipt, status_changed
from tests.integration.ingest.database import states_and_decisive_reports
from tests.waiting import eventually

pytestmark = pytest.mark.integration

ROUNDS = 60


async def store(engine: AsyncEngine, *events: Event[Any]) -> None:
    await Repository(engine).store([project(event) for event in events])


async def statuses(engine: AsyncEngine) -> Sequence[str]:
    async with engine.connect() as connection:
        return (await connection.scalars(text("SELECT status FROM message_states ORDER BY message_id"))).all()


async def test_a_receipt_and_its_report_are_stored_at_the_same_time(engine: AsyncEngine) -> None:
    for number in range(ROUNDS):
        new = message(number)
        parts: list[Event[Any]] = [accepted(new), status_changed(new.id, Status.SENT), receipt(new.id)]
        # Each of the six orders in which they may begin.
        first = parts.pop(number % 3)
        parts = parts if number % 2 else parts[::-1]
        await asyncio.gather(*(store(engine, event) for event in [first, *parts]))
    assert await statuses(engine) == [Status.DELIVERED] * ROUNDS
    stored, decisive = await states_and_decisive_reports(engine)
    assert stored == decisive


async def test_no_trigger_has_to_look_up_when_each_message_was_created(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE message_states DISABLE TRIGGER message_states_dated"))
    new = message()
    await store(engine, accepted(new))
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT created_at FROM message_states")) == new.created_at


async def insert_row(connection: AsyncConnection, event: Event[Any]) -> None:
    """Insert the row of an event, and leave the transaction open."""
    for table, row in project(event).rows.items():
        values = {
            key: getattr(value, "model_dump", lambda value=value: value)() for key, value in row.items()
        }
        await connection.execute(insert(table).values(values))


@pytest.mark.parametrize("table", [MessageEvent, DeliveryReceipt])
async def test_a_report_waits_for_another_one_that_is_not_committed(
    engine: AsyncEngine, table: type[Base]
) -> None:
    new = message()
    await store(engine, accepted(new))
    events: list[Event[Any]] = [status_changed(new.id, Status.SENT), receipt(new.id)]
    first, second = events if table is MessageEvent else events[::-1]
    async with engine.connect() as connection:
        await insert_row(connection, first)
        storing = asyncio.create_task(store(engine, second))

        async def is_waiting() -> bool:
            async with engine.connect() as other:
                waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
                return bool(await other.scalar(waiting))

        await eventually(is_waiting)
        await connection.commit()
    await storing
    assert await statuses(engine) == [Status.DELIVERED]


async def test_a_state_is_replaced_by_a_lower_one_if_a_receipt_turns_out_to_be_of_another_generation(
    engine: AsyncEngine,
) -> None:
    new = message()
    doubtful = status_changed(new.id, Status.FAILED, generation=1, attempt=2, in_doubt=True)
    of_provider = receipt(new.id)
    of_provider = of_provider.model_copy(
        update={"data": of_provider.data.model_copy(update={"message_id": new.id})}
    )
    await store(engine, accepted(new), accepted(new, generation=1), doubtful)
    await store(engine, of_provider)
    assert await statuses(engine) == [Status.DELIVERED]
    await store(engine, status_changed(new.id, Status.SENT))
    assert await statuses(engine) == [Status.FAILED]
    stored, decisive = await states_and_decisive_reports(engine)
    assert stored == decisive


async def test_a_message_that_was_deleted_has_its_state_again_after_a_replay(engine: AsyncEngine) -> None:
    new = message()
    events: list[Event[Any]] = [accepted(new), status_changed(new.id, Status.SENT)]
    await store(engine, *events)
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM messages"))
    await store(engine, events[0])
    assert await statuses(engine) == [Status.SENT]
