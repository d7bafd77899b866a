"""The only code that writes to PostgreSQL.

A batch is one transaction with one statement for each table, which takes all its rows as one JSON array.
Each row is inserted once and never changed, so that a batch that is stored again, in part or in another
order, adds nothing.

Workers that store batches at the same time cannot deadlock, since all of them lock rows in the same order:
that of the statements below, and within each statement that of the keys.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from operator import methodcaller
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, TextClause, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.ingest.projection import Projection, Row, Table, message_row
from shared.db import tables
from shared.errors import BadMessageError, DatabaseUnavailableError
from shared.ids import ConversationKey
from shared.message import Message

_DATA_ERRORS = ("22", "23", "54")
"""Classes of SQLSTATE: data exception, integrity constraint violation, program limit exceeded.

All others concern the state of the server or the schema, which may be repaired in the meantime.
"""

_MODEL_AS_JSON = methodcaller("model_dump", mode="json", by_alias=True)

_CHECK = text("SELECT FROM messages LIMIT 0")

_FIND_CONVERSATIONS = text("SELECT key FROM conversations WHERE key = ANY(CAST(:keys AS uuid[]))")

_LOCK_CONVERSATIONS = text("""
    SELECT key, id FROM conversations WHERE key = ANY(CAST(:keys AS uuid[])) ORDER BY key FOR NO KEY UPDATE
""")

# A provider may use its ids again.
_FIND_RECIPIENT = text("""
    SELECT messages.to_address
    FROM message_events JOIN messages ON messages.id = message_events.message_id
    WHERE message_events.provider = :provider AND message_events.provider_message_id = :provider_message_id
    ORDER BY message_events.occurred_at DESC
    LIMIT 1
""")

# With ON CONFLICT alone, each participant that exists already would use up a number of the sequence.
_INSERT_PARTICIPANTS = text("""
    INSERT INTO participants (address, channel)
    SELECT address, channel
    FROM json_populate_recordset(NULL::participants, CAST(:rows AS json)) AS given
    WHERE NOT EXISTS (
        SELECT FROM participants AS known
        WHERE known.address = given.address AND known.channel = given.channel
    )
    ORDER BY address, channel
    ON CONFLICT DO NOTHING
""")

_INSERT_CONVERSATIONS = text("""
    INSERT INTO conversations (key, channel)
    SELECT key, channel
    FROM json_populate_recordset(NULL::conversations, CAST(:rows AS json))
    ORDER BY key
    ON CONFLICT DO NOTHING
""")

_INSERT_CONVERSATION_PARTICIPANTS = text("""
    INSERT INTO conversation_participants (conversation_id, participant_id)
    SELECT conversations.id, participants.id
    FROM json_to_recordset(CAST(:rows AS json)) AS given (key uuid, address text)
    JOIN conversations USING (key)
    JOIN participants USING (address, channel)
    ORDER BY conversations.key, participants.address
    ON CONFLICT DO NOTHING
""")


_IS_NEWS = """
    status <> 'expired' OR NOT EXISTS (
        SELECT FROM (TABLE message_events UNION ALL TABLE given) AS known
        WHERE known.message_id = given.message_id
            AND known.status IN ('sent', 'failed', 'expired', 'canceled')
            AND (known.generation, known.precedence, known.attempt)
                > (given.generation, given.precedence, given.attempt)
    )
"""
"""Excludes a report `expired` on a message that has already reached a later status. The sender publishes such
a report when it reads a message again that the ledger has forgotten."""


def _insertion(table: Table, *, where: str = "true") -> TextClause:
    """Return the statement that inserts rows into a table, except those that exist already."""
    name, columns = table.__tablename__, _quoted(table.__table__.columns)
    return text(f"""
        WITH given AS (SELECT * FROM json_populate_recordset(NULL::{name}, CAST(:rows AS json)))
        INSERT INTO {name} ({columns})
        SELECT {columns} FROM given
        WHERE {where}
        ORDER BY {_quoted(table.__table__.primary_key)}
        ON CONFLICT DO NOTHING
    """)  # noqa: S608 - the names of our own tables and columns


def _quoted(columns: Iterable[ColumnElement[Any]]) -> str:
    return ", ".join(f'"{column.key}"' for column in columns)


_INSERT_MESSAGES = _insertion(tables.Message)
_INSERT_MEDIA = _insertion(tables.Media)
_INSERTIONS = {
    tables.MessageEvent: _insertion(tables.MessageEvent, where=_IS_NEWS),
    tables.DeliveryReceipt: _insertion(tables.DeliveryReceipt),
    tables.DeadLetter: _insertion(tables.DeadLetter),
    tables.DeadLetterResolution: _insertion(tables.DeadLetterResolution),
    tables.SuppressionChange: _insertion(tables.SuppressionChange),
    tables.WebhookAttempt: _insertion(tables.WebhookAttempt),
}
"""The statements of the tables other than that of messages, in the order in which they are executed."""


class Repository:
    """Stores the projections of events."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def check(self) -> None:
        """Check, without any effect, whether `store` could work.

        Raises:
            DatabaseUnavailableError: it could not; the message has the reason.
        """
        async with self._transaction() as connection:
            await connection.execute(_CHECK)

    async def store(self, batch: Sequence[Projection]) -> None:
        """Store the whole batch or none of it.

        Raises:
            DatabaseUnavailableError: the database is not available; the same batch may work later.
            BadMessageError: the database will never accept one of the rows of the batch.
        """
        messages = [projection.message for projection in batch if projection.message is not None]
        async with self._transaction() as connection:
            if messages:
                await _insert_messages(connection, messages)
            await _insert(connection, _INSERT_MEDIA, (row for each in batch for row in each.media))
            for table, statement in _INSERTIONS.items():
                rows = (projection.rows[table] for projection in batch if table in projection.rows)
                await _insert(connection, statement, rows)

    async def recipient_of(self, provider: str, provider_message_id: str) -> str | None:
        """Return the address to which the newest message with a provider's id was sent, if one is stored.

        Raises:
            DatabaseUnavailableError: the database is not available.
        """
        parameters = {"provider": provider, "provider_message_id": provider_message_id}
        async with self._transaction() as connection:
            address: str | None = await connection.scalar(_FIND_RECIPIENT, parameters)
            return address

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as exc:
            raise _translated(exc) from exc
        except (OSError, TimeoutError) as exc:
            raise DatabaseUnavailableError(str(exc) or "PostgreSQL did not answer in time") from exc


async def _insert_messages(connection: AsyncConnection, messages: Sequence[Message]) -> None:
    # Conversations are created before any is locked: a worker that holds a lock on a conversation then never
    # waits for one that another worker is creating.
    by_key = {message.conversation_key: message for message in messages}
    await _create_conversations(connection, by_key)
    ids = await _lock_conversations(connection, by_key.keys())
    rows = (message_row(message, ids[message.conversation_key]) for message in messages)
    await _insert(connection, _INSERT_MESSAGES, rows)


async def _create_conversations(
    connection: AsyncConnection, by_key: Mapping[ConversationKey, Message]
) -> None:
    """Create the missing conversations, each from one of its messages, with their participants."""
    known = set(await connection.scalars(_FIND_CONVERSATIONS, {"keys": list(by_key)}))
    new = [message for key, message in by_key.items() if key not in known]
    if not new:
        return
    participants = {(address, message.channel) for message in new for address in message.participants}
    await _insert(
        connection,
        _INSERT_PARTICIPANTS,
        ({"address": address, "channel": channel} for address, channel in participants),
    )
    await _insert(
        connection,
        _INSERT_CONVERSATIONS,
        ({"key": message.conversation_key, "channel": message.channel} for message in new),
    )
    await _insert(
        connection,
        _INSERT_CONVERSATION_PARTICIPANTS,
        (
            {"key": message.conversation_key, "address": address}
            for message in new
            for address in message.participants
        ),
    )


async def _lock_conversations(
    connection: AsyncConnection, keys: Collection[ConversationKey]
) -> Mapping[UUID, int]:
    """Lock the conversations until the end of the transaction, and return their ids."""
    found = await connection.execute(_LOCK_CONVERSATIONS, {"keys": list(keys)})
    ids = {row.key: row.id for row in found}
    if len(ids) < len(keys):
        raise DatabaseUnavailableError("a conversation was deleted in the meantime")
    return ids


async def _insert(connection: AsyncConnection, statement: TextClause, rows: Iterable[Row]) -> None:
    if given := list(rows):
        json = orjson.dumps(given, default=_MODEL_AS_JSON)
        await connection.execute(statement, {"rows": json.decode()})


def _translated(error: SQLAlchemyError) -> BadMessageError | DatabaseUnavailableError:
    cause = error.orig if isinstance(error, DBAPIError) else error
    # Only the first line, since the others quote values, which may be private.
    reason = str(cause).partition("\n")[0]
    sqlstate: str = getattr(cause, "sqlstate", None) or ""
    if sqlstate.startswith(_DATA_ERRORS):
        return BadMessageError("not_storable", reason)
    return DatabaseUnavailableError(reason)
