"""The one place that writes to PostgreSQL.

A batch is one transaction of a few statements, each of which takes all its rows as one JSON array. Every row
is inserted once and never changed, so storing a batch again, in part or in another order does nothing more.

Workers that store at the same time cannot deadlock: all of them lock in the same order, that of the
statements below and within each that of the keys.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import orjson
from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.ingest.projection import Row, Rows, message_row
from shared.errors import BadMessageError, DatabaseUnavailableError
from shared.events import Message
from shared.ids import ConversationKey

_FAULTS_OF_THE_DATA = ("22", "23", "54")
"""Classes of SQLSTATE: data exception, integrity constraint violation, program limit exceeded.

All others are the server's state or the schema's, which may be mended while we wait."""

_CHECK = text("SELECT FROM messages LIMIT 0")

_FIND_CONVERSATIONS = text("SELECT key FROM conversations WHERE key = ANY(CAST(:keys AS uuid[]))")

_LOCK_CONVERSATIONS = text("""
    SELECT key, id FROM conversations WHERE key = ANY(CAST(:keys AS uuid[])) ORDER BY key FOR NO KEY UPDATE
""")

# ON CONFLICT alone would take a number from the sequence for every participant that is there already.
_INSERT_PARTICIPANTS = text("""
    INSERT INTO participants (address, channel)
    SELECT address, channel
    FROM json_populate_recordset(NULL::participants, CAST(:rows AS json)) AS given
    WHERE NOT EXISTS (SELECT FROM participants AS known WHERE known.address = given.address)
    ORDER BY address
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
    JOIN participants USING (address)
    ORDER BY conversations.key, participants.address
    ON CONFLICT DO NOTHING
""")

_INSERT_MESSAGES = text("""
    INSERT INTO messages (
        id, conversation_id, direction, type, from_address, to_address, subject, body, attachments,
        "timestamp", created_at, send_at, provider, provider_message_id
    )
    SELECT
        id, conversation_id, direction, type, from_address, to_address, subject, body, attachments,
        "timestamp", created_at, send_at, provider, provider_message_id
    FROM json_populate_recordset(NULL::messages, CAST(:rows AS json))
    ORDER BY id
    ON CONFLICT DO NOTHING
""")

_INSERT_MESSAGE_EVENTS = text("""
    INSERT INTO message_events (
        id, message_id, status, generation, precedence, attempt, provider, provider_message_id, error,
        next_attempt_at, occurred_at
    )
    SELECT
        id, message_id, status, generation, precedence, attempt, provider, provider_message_id, error,
        next_attempt_at, occurred_at
    FROM json_populate_recordset(NULL::message_events, CAST(:rows AS json))
    ORDER BY id
    ON CONFLICT DO NOTHING
""")

_INSERT_RECEIPTS = text("""
    INSERT INTO delivery_receipts (
        id, provider, provider_message_id, message_id, status, precedence, error_code, error_detail, occurred_at
    )
    SELECT
        id, provider, provider_message_id, message_id, status, precedence, error_code, error_detail, occurred_at
    FROM json_populate_recordset(NULL::delivery_receipts, CAST(:rows AS json))
    ORDER BY id
    ON CONFLICT DO NOTHING
""")

_INSERT_DEAD_LETTERS = text("""
    INSERT INTO dead_letters (id, direction, channel, reason, message_id, generation, content, created_at)
    SELECT id, direction, channel, reason, message_id, generation, content, created_at
    FROM json_populate_recordset(NULL::dead_letters, CAST(:rows AS json))
    ORDER BY id
    ON CONFLICT DO NOTHING
""")

_INSERT_RESOLUTIONS = text("""
    INSERT INTO dead_letter_resolutions (dead_letter_id, resolution, reason, resolved_by, resolved_at)
    SELECT dead_letter_id, resolution, reason, resolved_by, resolved_at
    FROM json_populate_recordset(NULL::dead_letter_resolutions, CAST(:rows AS json))
    ORDER BY dead_letter_id, resolution
    ON CONFLICT DO NOTHING
""")

_INSERT_CONSENT_CHANGES = text("""
    INSERT INTO suppression_changes (
        id, key, channel, ours, theirs, state, source, detail, changed_by, occurred_at
    )
    SELECT id, key, channel, ours, theirs, state, source, detail, changed_by, occurred_at
    FROM json_populate_recordset(NULL::suppression_changes, CAST(:rows AS json))
    ORDER BY id
    ON CONFLICT DO NOTHING
""")


class Repository:
    """Stores the rows of events."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def check(self) -> None:
        """Do nothing but find out whether `store` could work.

        Raises:
            DatabaseUnavailableError: it could not; the message says why.
        """
        async with self._transaction() as connection:
            await connection.execute(_CHECK)

    async def store(self, batch: Sequence[Rows]) -> None:
        """Store all of the batch or nothing of it.

        Raises:
            DatabaseUnavailableError: not now; the same batch may work later.
            BadMessageError: the database will never take some row of the batch.
        """
        messages = [rows.message for rows in batch if rows.message is not None]
        async with self._transaction() as connection:
            if messages:
                await _insert_messages(connection, messages)
            await _insert(connection, _INSERT_MESSAGE_EVENTS, (rows.message_event for rows in batch))
            await _insert(connection, _INSERT_RECEIPTS, (rows.receipt for rows in batch))
            await _insert(connection, _INSERT_DEAD_LETTERS, (rows.dead_letter for rows in batch))
            await _insert(connection, _INSERT_RESOLUTIONS, (rows.resolution for rows in batch))
            await _insert(connection, _INSERT_CONSENT_CHANGES, (rows.suppression_change for rows in batch))

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
    # Opening comes before locking: who holds a lock on a conversation then never waits for one that another
    # worker is about to open.
    by_key = {message.conversation_key: message for message in messages}
    await _open_conversations(connection, by_key)
    ids = await _lock_conversations(connection, by_key.keys())
    rows = (message_row(message, ids[message.conversation_key]) for message in messages)
    await _insert(connection, _INSERT_MESSAGES, rows)


async def _open_conversations(connection: AsyncConnection, by_key: Mapping[ConversationKey, Message]) -> None:
    """Add the conversations that are not there, each given by one of its messages, and who takes part."""
    known = set(await connection.scalars(_FIND_CONVERSATIONS, {"keys": list(by_key)}))
    new = [message for key, message in by_key.items() if key not in known]
    if not new:
        return
    channels = {address: message.channel for message in new for address in message.participants}
    await _insert(
        connection,
        _INSERT_PARTICIPANTS,
        ({"address": address, "channel": channel} for address, channel in channels.items()),
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
    """Keep the conversations for this transaction, and tell their ids."""
    found = await connection.execute(_LOCK_CONVERSATIONS, {"keys": list(keys)})
    ids = {row.key: row.id for row in found}
    if len(ids) < len(keys):
        raise DatabaseUnavailableError("a conversation was deleted meanwhile")
    return ids


async def _insert(connection: AsyncConnection, statement: TextClause, rows: Iterable[Row | None]) -> None:
    if present := [row for row in rows if row is not None]:
        await connection.execute(statement, {"rows": orjson.dumps(present).decode()})


def _translated(error: SQLAlchemyError) -> BadMessageError | DatabaseUnavailableError:
    cause = error.orig if isinstance(error, DBAPIError) else error
    # The first line: the others quote the values, which may be somebody's text.
    reason = str(cause).partition("\n")[0]
    sqlstate: str = getattr(cause, "sqlstate", None) or ""
    if sqlstate.startswith(_FAULTS_OF_THE_DATA):
        return BadMessageError("not_storable", reason)
    return DatabaseUnavailableError(reason)
