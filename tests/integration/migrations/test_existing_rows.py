"""Migrations fill new tables and columns for the rows that exist already."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from shared.channels import Channel, Direction
from shared.dead_letters import Resolution
from shared.status import Status
from shared.suppressions import SuppressionChange, SuppressionSource, SuppressionState
from tests.integration.alembic_command import alembic
from tests.integration.gateway.dead_letters.letters import undelivered, unknown
from tests.integration.gateway.rows import START, Rows, minutes
from tests.integration.ingest.database import Dump, contents
from tests.messages import ALICE, BOB

pytestmark = pytest.mark.integration


@pytest.fixture
async def engine(empty_database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(empty_database_url)
    yield engine
    await engine.dispose()


async def upgrade(url: str, revision: str) -> None:
    result = await alembic("upgrade", revision, database_url=url)
    assert result.status == 0, result.errors


async def test_lists_are_filled_with_the_rows_that_exist(
    engine: AsyncEngine, empty_database_url: str
) -> None:
    await upgrade(empty_database_url, "0009")
    rows = Rows(engine)
    for number in range(3):
        message = await rows.message(ALICE, BOB, timestamp=minutes(number), direction=Direction.OUTBOUND)
        await rows.event(message, Status.ACCEPTED, attempt=0)
    await rows.message("ann@example.com", "ben@example.com", timestamp=minutes(9))
    for letter in (undelivered(1), unknown()):
        await rows.dead_letter(letter)
    await rows.resolution(unknown(), Resolution.DISCARDED)
    for number, state in enumerate(SuppressionState):
        change = SuppressionChange(
            channel=Channel.SMS,
            theirs=BOB,
            state=state,
            source=SuppressionSource.API,
            occurred_at=START + timedelta(minutes=number),
        )
        await rows.suppression(change)

    await upgrade(empty_database_url, "head")
    migrated = await contents(engine)

    assert migrated == await _derived_by_triggers(engine)
    assert all(migrated[name] for name in ("participant_messages", "suppressions", "dead_letters"))


async def _derived_by_triggers(engine: AsyncEngine) -> Dump:
    """Insert all rows again, and return the contents."""
    facts = ("messages", "message_events", "dead_letters", "dead_letter_resolutions", "suppression_changes")
    derived = ("participant_messages", "suppressions", "message_states")
    async with engine.begin() as connection:
        for name in facts:
            await connection.execute(text(f"CREATE TEMP TABLE copy_of_{name} AS TABLE {name}"))
        await connection.execute(text("UPDATE copy_of_dead_letters SET state = 'open'"))
        await connection.execute(text("UPDATE conversations SET message_count = 0, last_message_at = NULL"))
        await connection.execute(text("UPDATE conversation_participants SET last_message_at = NULL"))
        await connection.execute(text(f"TRUNCATE {', '.join((*facts, *derived))}"))
        for name in facts:
            await connection.execute(text(f"INSERT INTO {name} SELECT * FROM copy_of_{name}"))  # noqa: S608
    return await contents(engine)
