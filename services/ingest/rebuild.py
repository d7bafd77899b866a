"""Rebuilds the database from the streams, while everything is running.

    python -m services.ingest.rebuild

The rows are set aside in the schema `former`, the streams are stored again, and the rows that the streams do
not contain are brought back. If the command is interrupted, it continues when it is run again. Only one
rebuild can run at a time.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog
from nats.js import JetStreamContext
from sqlalchemy import ColumnElement, pool, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from tenacity import retry, retry_if_exception, stop_after_delay, wait_random

from shared.bus.provision import administering
from shared.bus.topology import INGEST_CONSUMERS
from shared.db import tables
from shared.observability.logging import configure
from shared.settings import BusSettings, DatabaseSettings, load

_log = structlog.get_logger()

_FORMER = "former"

_LOCK_TIMEOUT = "100ms"
"""For each table. All of them together take less than the second after which PostgreSQL looks for a deadlock,
so no other transaction can become the victim of one."""

_FIRST_LOCK_TIMEOUT = "2s"
"""For the first table. While it waits for this one, it holds no lock for which others could wait."""

_LOCK_SECONDS = 120
_BUSY = {"55P03", "40P01"}
"""The SQLSTATEs of a lock that is not available, and of a deadlock."""

_ADVISORY_LOCK = 8_073_117_420_416
"""The arbitrary number of the advisory lock that a rebuild holds."""

_POLL_SECONDS = 0.5
_REPORT_EVERY = 20
"""Polls between two reports of the progress."""

_MODELS: tuple[type[tables.Base], ...] = (
    tables.Message,
    tables.Conversation,
    tables.Participant,
    tables.ConversationParticipant,
    tables.MessageEvent,
    tables.Media,
    tables.DeliveryReceipt,
    tables.DeadLetter,
    tables.DeadLetterResolution,
    tables.SuppressionChange,
    tables.WebhookAttempt,
)
_NAMES = ", ".join(model.__tablename__ for model in _MODELS)

_DERIVED: tuple[type[tables.Base], ...] = (
    tables.MessageState,
    tables.ParticipantMessage,
    tables.MessageMetadata,
    tables.Suppression,
)
_TRUNCATED = ", ".join(model.__tablename__ for model in (*_MODELS, *_DERIVED))
"""The triggers derive the others again. Notifications that are to be published stay where they are."""

_KNOWN: Mapping[type[tables.Base], str] = {
    tables.Message: "id",
    tables.Conversation: "key",
    tables.MessageEvent: "id",
    tables.DeliveryReceipt: "id",
    tables.DeadLetter: "id",
    tables.DeadLetterResolution: "dead_letter_id",
    tables.SuppressionChange: "id",
}
"""The columns by which the function `former_ids` looks up former rows."""

_BRING_BACK_CONVERSATIONS = (
    """
    INSERT INTO participants (address, channel)
    SELECT address, channel FROM former.participants ORDER BY address, channel
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO conversations (key, channel)
    SELECT key, channel FROM former.conversations ORDER BY key
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO conversation_participants (conversation_id, participant_id)
    SELECT conversations.id, participants.id
    FROM former.conversation_participants AS link
    JOIN former.conversations AS conversation ON conversation.id = link.conversation_id
    JOIN former.participants AS participant ON participant.id = link.participant_id
    JOIN conversations ON conversations.key = conversation.key
    JOIN participants
        ON participants.address = participant.address AND participants.channel = participant.channel
    ORDER BY conversations.key, participants.address
    ON CONFLICT DO NOTHING
    """,
    # The trigger of messages expects their conversations to be locked in the order of the keys.
    """
    SELECT FROM conversations
    JOIN former.conversations AS conversation USING (key)
    WHERE EXISTS (
        SELECT FROM former.messages AS message
        WHERE message.conversation_id = conversation.id
            AND NOT EXISTS (SELECT FROM messages WHERE messages.id = message.id)
    )
    ORDER BY key
    FOR NO KEY UPDATE OF conversations
    """,
)


class RebuildInProgressError(Exception):
    """Another process is rebuilding the database."""


class RebuildSettings(BusSettings, DatabaseSettings):
    """The settings of the command."""


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _BUSY


_until_free = retry(
    retry=retry_if_exception(_is_busy),
    stop=stop_after_delay(_LOCK_SECONDS),
    wait=wait_random(0.05, 0.5),
    reraise=True,
)


async def rebuild(engine: AsyncEngine, jetstream: JetStreamContext) -> int:
    """Rebuild the database, and return the number of rows that the streams no longer contained.

    Raises:
        RebuildInProgressError: another process is doing so; nothing was changed.
        sqlalchemy.exc.DBAPIError: the database is not available, or its tables stayed in use for two minutes.
        nats.js.errors.APIError: JetStream rejected a request.
    """
    async with _exclusively(engine):
        if not await _is_begun(engine):
            await _set_aside(engine)
        await _index(engine)
        await _replay(jetstream)
        return await _bring_back(engine)


@asynccontextmanager
async def _exclusively(engine: AsyncEngine) -> AsyncIterator[None]:
    """Hold an advisory lock, which PostgreSQL releases if this process ends."""
    lock = {"lock": _ADVISORY_LOCK}
    # Without a transaction, which would otherwise stay open during the whole rebuild.
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        if not await connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), lock):
            raise RebuildInProgressError
        try:
            yield
        finally:
            with suppress(DBAPIError):
                await connection.execute(text("SELECT pg_advisory_unlock(:lock)"), lock)


async def _is_begun(engine: AsyncEngine) -> bool:
    async with engine.connect() as connection:
        found = await connection.scalar(text("SELECT to_regnamespace(:name)"), {"name": _FORMER})
    return found is not None


async def _set_aside(engine: AsyncEngine) -> None:
    """Move all rows to the other schema. Until they are copied, all other transactions wait."""
    async with engine.begin() as connection:
        await _lock(connection)
        await connection.execute(text(f"CREATE SCHEMA {_FORMER}"))
        for model in _MODELS:
            name = model.__tablename__
            await connection.execute(text(f"CREATE TABLE {_FORMER}.{name} AS TABLE {name}"))
        await connection.execute(text(f"TRUNCATE {_TRUNCATED}"))


async def _index(engine: AsyncEngine) -> None:
    """Index the former rows, in which the triggers look up whether applications have been notified."""
    async with engine.begin() as connection:
        for model, column in _KNOWN.items():
            name = model.__tablename__
            await connection.execute(
                text(f"CREATE INDEX IF NOT EXISTS {name}_{column} ON {_FORMER}.{name} ({column})")
            )


@_until_free
async def _lock(connection: AsyncConnection) -> None:
    async with connection.begin_nested():  # which releases the locks that it has if it cannot have all
        await connection.execute(text(f"SET LOCAL lock_timeout = '{_FIRST_LOCK_TIMEOUT}'"))
        await connection.execute(text(f"LOCK TABLE {_MODELS[0].__tablename__}"))
        await connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
        await connection.execute(text(f"LOCK TABLE {_TRUNCATED}"))
        await connection.execute(text("SET LOCAL lock_timeout = 0"))


async def _replay(jetstream: JetStreamContext) -> None:
    """Store everything that the streams contain at this time."""
    last = {
        each.stream: (await jetstream.stream_info(each.stream)).state.last_seq for each in INGEST_CONSUMERS
    }
    for consumer in INGEST_CONSUMERS:
        await jetstream.reset_consumer(consumer.stream, consumer.name, 1)
    polls = 0
    while left := [
        f"{consumer.stream}: {count}"
        for consumer in INGEST_CONSUMERS
        if (count := await _left(jetstream, consumer.stream, consumer.name, last[consumer.stream]))
    ]:
        if polls % _REPORT_EVERY == 0:
            _log.info("waiting_for_ingest", messages=left)
        polls += 1
        await asyncio.sleep(_POLL_SECONDS)


async def _left(jetstream: JetStreamContext, stream: str, name: str, last: int) -> int:
    """Return how many messages are left to store, or 0 if everything up to `last` is stored."""
    info = await jetstream.consumer_info(stream, name)
    if info.ack_floor is not None and info.ack_floor.stream_seq >= last:
        return 0
    return (info.num_pending or 0) + (info.num_ack_pending or 0)


@_until_free
async def _bring_back(engine: AsyncEngine) -> int:
    """Bring back the rows that are missing, and return their number."""
    async with engine.begin() as connection:
        for statement in _BRING_BACK_CONVERSATIONS:
            await connection.execute(text(statement))
        count = await _insert_messages(connection)
        for model in _MODELS[_MODELS.index(tables.MessageEvent) :]:
            name, columns = model.__tablename__, _quoted(model.__table__.columns)
            count += await _insert(
                connection,
                f"INSERT INTO {name} ({columns}) SELECT {columns} FROM {_FORMER}.{name}"  # noqa: S608
                f" ORDER BY {_quoted(model.__table__.primary_key)} ON CONFLICT DO NOTHING",
            )
        await connection.execute(text(f"DROP SCHEMA {_FORMER} CASCADE"))
    return count


async def _insert_messages(connection: AsyncConnection) -> int:
    own = [column for column in tables.Message.__table__.columns if column.name != "conversation_id"]
    return await _insert(
        connection,
        f"""
        INSERT INTO messages (conversation_id, {_quoted(own)})
        SELECT conversations.id, {_quoted(own, "message.")}
        FROM {_FORMER}.messages AS message
        JOIN {_FORMER}.conversations AS conversation ON conversation.id = message.conversation_id
        JOIN conversations ON conversations.key = conversation.key
        ORDER BY message.id
        ON CONFLICT DO NOTHING
        """,  # noqa: S608
    )


async def _insert(connection: AsyncConnection, statement: str) -> int:
    return (await connection.execute(text(statement))).rowcount


def _quoted(columns: Iterable[ColumnElement[Any]], prefix: str = "") -> str:
    return ", ".join(f'{prefix}"{column.key}"' for column in columns)


async def main() -> None:
    settings = load(RebuildSettings, program="rebuild")
    configure(settings, service="rebuild")
    engine = create_async_engine(settings.database_url, poolclass=pool.NullPool, echo=settings.sql_debug)
    async with administering(settings, program="rebuild") as jetstream:
        try:
            kept = await rebuild(engine, jetstream)
        except RebuildInProgressError:
            sys.exit("rebuild: another rebuild of this database is in progress; nothing was changed")
        except (DBAPIError, OSError) as exc:
            reason = str(exc.orig if isinstance(exc, DBAPIError) else exc).partition("\n")[0]
            sys.exit(f"rebuild: {reason}; run it again")
    print(f"rebuild: complete; {kept} rows that the streams no longer contain were kept")  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main())
