"""The contents of the database."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.db.tables import Base
from tests.waiting import eventually

_TABLES = tuple(Base.metadata.tables)

_CONTENTS = {
    "participants": "SELECT address, channel FROM participants",
    "conversations": """
        SELECT key, channel, message_count, last_message_at, array(
            SELECT address
            FROM participants JOIN conversation_participants ON participant_id = participants.id
            WHERE conversation_id = conversations.id ORDER BY address
        ) AS addresses FROM conversations""",
    "messages": """
        SELECT to_jsonb(messages) - 'conversation_id' AS message, key
        FROM messages JOIN conversations ON conversations.id = conversation_id""",
    "message_events": "SELECT * FROM message_events",
    "delivery_receipts": "SELECT * FROM delivery_receipts",
    "dead_letters": "SELECT * FROM dead_letters",
    "dead_letter_resolutions": "SELECT * FROM dead_letter_resolutions",
    "suppression_changes": "SELECT * FROM suppression_changes",
    "message_states": "SELECT * FROM message_states",
}

_DECISIVE = """
    SELECT DISTINCT ON (message_id)
        message_id, event_id, source, status, generation, precedence, attempt, provider, provider_message_id,
        error, next_attempt_at, occurred_at
    FROM message_history WHERE message_id IN (SELECT id FROM messages)
    ORDER BY message_id, generation DESC, precedence DESC, attempt DESC, occurred_at DESC, event_id
"""

Dump = dict[str, list[str]]


async def all_rows(engine: AsyncEngine) -> Dump:
    """Return all rows with all columns, and with the transactions that wrote them."""
    return await _dump(engine, {table: f"SELECT xmin, * FROM {table}" for table in _TABLES})  # noqa: S608


async def contents(engine: AsyncEngine) -> Dump:
    """Return the rows without the numbers, which depend on the order in which they were stored."""
    return await _dump(engine, _CONTENTS)


async def states_and_decisive_reports(engine: AsyncEngine) -> tuple[list[str], list[str]]:
    """Return the stored states, and what they should be according to the view."""
    dump = await _dump(engine, {"stored": "SELECT * FROM message_states", "expected": _DECISIVE})
    return dump["stored"], dump["expected"]


async def _dump(engine: AsyncEngine, queries: dict[str, str]) -> Dump:
    async with engine.connect() as connection:
        return {
            name: list(await connection.scalars(text(f"SELECT r::text FROM ({query}) AS r ORDER BY 1")))  # noqa: S608
            for name, query in queries.items()
        }


async def count(engine: AsyncEngine, table: str) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)  # noqa: S608


async def empty(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(f"TRUNCATE {', '.join(_TABLES)}"))


async def until_count(engine: AsyncEngine, table: str, expected: int) -> None:
    """Wait until a table has this number of rows, or more."""

    async def is_reached() -> bool:
        return await count(engine, table) >= expected

    await eventually(is_reached)
