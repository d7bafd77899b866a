"""What is stored, as it is shown. The gateway reads PostgreSQL here and writes it nowhere."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar
from uuid import UUID

import asyncpg
from sqlalchemy import RowMapping, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.gateway import queries
from services.gateway.http.pagination import (
    BulkCursor,
    ConversationCursor,
    DeadLetterCursor,
    MessageCursor,
    ScheduledCursor,
    SuppressionCursor,
)
from services.gateway.queries import ConversationFilter, DeadLetterFilter, SuppressionFilter
from services.gateway.views import (
    ConversationView,
    DeadLetterView,
    DeadLetterWithHistory,
    HistoryEntry,
    MessageView,
    MessageWithHistory,
    ResolutionView,
    SuppressionView,
)
from shared.channels import Channel
from shared.errors import DatabaseUnavailableError

_PATIENCE = 2.0
"""Seconds that PostgreSQL has to answer; to let go of a connection that hangs may take two more."""

_UNAVAILABLE = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)

T = TypeVar("T")
Item = TypeVar("Item")
End = TypeVar("End")


@dataclass(frozen=True, slots=True)
class Slice(Generic[Item, End]):
    """A part of a list, and where it ends; None where the list ends with it."""

    items: list[Item]
    end: End | None


class Archive:
    """Reads; every method raises DatabaseUnavailableError when PostgreSQL does not answer in time.

    Args:
        validity: how long after its time a message may still be sent.
    """

    def __init__(self, engine: AsyncEngine, validity: timedelta) -> None:
        self._engine = engine
        self._validity = validity

    async def ping(self) -> None:
        """Find out whether there is something to read from."""
        await self._read(lambda connection: connection.execute(text("SELECT FROM messages LIMIT 0")))

    async def message(self, id_: UUID) -> MessageWithHistory | None:
        async def read(connection: AsyncConnection) -> MessageWithHistory | None:
            found = (await connection.execute(queries.message(id_))).mappings().one_or_none()
            if found is None:
                return None
            history = await _history(connection, id_)
            return MessageWithHistory.model_validate({**found, "history": history})

        return await self._read(read)

    async def messages(
        self, conversation: int | UUID, cursor: MessageCursor | None, limit: int
    ) -> Slice[MessageView, MessageCursor] | None:
        """List the messages of a conversation, oldest first; None if there is no such conversation."""

        async def read(connection: AsyncConnection) -> Slice[MessageView, MessageCursor] | None:
            id_ = await connection.scalar(queries.conversation_id(conversation))
            if id_ is None:
                return None
            rows = (await connection.execute(queries.messages(id_, cursor, limit + 1))).mappings()
            return _slice([MessageView.model_validate(row) for row in rows], limit, _end_of_messages)

        return await self._read(read)

    async def scheduled(
        self, channel: Channel | None, cursor: ScheduledCursor | None, limit: int
    ) -> Slice[MessageView, ScheduledCursor]:
        """List the messages that wait for their time and have not expired, the next one first."""

        async def read(connection: AsyncConnection) -> Slice[MessageView, ScheduledCursor]:
            since = datetime.now(UTC) - self._validity
            statement = queries.scheduled_messages(channel, since, cursor, limit + 1)
            rows = (await connection.execute(statement)).mappings().all()
            found = _slice(rows, limit, lambda last: ScheduledCursor(due=last["due"], id=last["id"]))
            return Slice([MessageView.model_validate(row) for row in found.items], found.end)

        return await self._read(read)

    async def conversation(self, reference: int | UUID) -> ConversationView | None:
        async def read(connection: AsyncConnection) -> ConversationView | None:
            id_ = await connection.scalar(queries.conversation_id(reference))
            if id_ is None:
                return None
            return (await _conversations(connection, [id_]))[0]

        return await self._read(read)

    async def conversations(
        self, wanted: ConversationFilter, cursor: ConversationCursor | None, limit: int
    ) -> Slice[ConversationView, ConversationCursor]:
        """List conversations as they are now, in the order they had when the first page was read.

        A conversation that gets a message meanwhile is therefore on exactly one of the pages.
        """

        async def read(connection: AsyncConnection) -> Slice[ConversationView, ConversationCursor]:
            if cursor is None:
                statement = queries.first_conversations(wanted, limit + 1)
            else:
                statement = queries.further_conversations(wanted, cursor, limit + 1)
            places = (await connection.execute(statement)).all()
            items = await _conversations(connection, [place.id for place in places[:limit]])
            if len(places) <= limit:
                return Slice(items, None)
            last = places[limit - 1]
            snapshot = last.snapshot if cursor is None else cursor.snapshot
            return Slice(items, ConversationCursor(snapshot=snapshot, position=last.position, id=last.id))

        return await self._read(read)

    async def dead_letters(
        self, wanted: DeadLetterFilter, cursor: DeadLetterCursor | None, limit: int
    ) -> Slice[DeadLetterView, DeadLetterCursor]:
        """List dead letters, newest first."""

        async def read(connection: AsyncConnection) -> Slice[DeadLetterView, DeadLetterCursor]:
            rows = (await connection.execute(queries.dead_letters(wanted, cursor, limit + 1))).mappings()
            items = [DeadLetterView.model_validate(_dead_letter(row)) for row in rows]
            return _slice(items, limit, _end_of_dead_letters)

        return await self._read(read)

    async def open_dead_letters(
        self, wanted: DeadLetterFilter, cursor: BulkCursor, limit: int
    ) -> Slice[DeadLetterView, BulkCursor]:
        """List the dead letters that nothing was done about yet, oldest first."""

        async def read(connection: AsyncConnection) -> Slice[DeadLetterView, BulkCursor]:
            rows = (await connection.execute(queries.open_dead_letters(wanted, cursor, limit + 1))).mappings()
            items = [DeadLetterView.model_validate(_dead_letter(row)) for row in rows]
            return _slice(items, limit, lambda last: cursor.behind(last.created_at, last.id))

        return await self._read(read)

    async def dead_letter(self, id_: UUID) -> DeadLetterWithHistory | None:
        async def read(connection: AsyncConnection) -> DeadLetterWithHistory | None:
            row = (await connection.execute(queries.dead_letter(id_))).mappings().one_or_none()
            if row is None:
                return None
            message = row["message_id"]
            history = await _history(connection, message) if message else []
            return DeadLetterWithHistory.model_validate({**_dead_letter(row), "history": history})

        return await self._read(read)

    async def suppressions(
        self, wanted: SuppressionFilter, cursor: SuppressionCursor | None, limit: int
    ) -> Slice[SuppressionView, SuppressionCursor]:
        """List who has opted out, the latest first."""

        async def read(connection: AsyncConnection) -> Slice[SuppressionView, SuppressionCursor]:
            statement = queries.suppressions(wanted, cursor, limit + 1)
            rows = (await connection.execute(statement)).mappings().all()
            found = _slice(
                rows, limit, lambda last: SuppressionCursor(occurred_at=last["since"], id=last["id"])
            )
            return Slice([SuppressionView.model_validate(row) for row in found.items], found.end)

        return await self._read(read)

    async def _read(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(_PATIENCE):
                try:
                    return await self._connected(work)
                except DBAPIError as exc:
                    if not exc.connection_invalidated:
                        raise
                # The server was started anew since this connection was made; the pool makes another.
                return await self._connected(work)
        except _UNAVAILABLE as exc:
            raise DatabaseUnavailableError(_reason(exc)) from exc

    async def _connected(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self._engine.connect() as connection:
            return await work(connection)


def _reason(exc: Exception) -> str:
    """Say what was wrong, without the statement and the addresses in it."""
    cause = exc.orig if isinstance(exc, DBAPIError) else exc
    return str(cause) or type(cause).__name__


async def _conversations(connection: AsyncConnection, ids: list[int]) -> list[ConversationView]:
    """Show conversations, in the order of their ids."""
    rows = (await connection.execute(queries.conversations(ids))).mappings()
    last_messages = (await connection.execute(queries.last_messages(ids))).mappings()
    last = {row["conversation_id"]: MessageView.model_validate(row) for row in last_messages}
    shown = {
        row["id"]: ConversationView.model_validate({**row, "last_message": last.get(row["id"])})
        for row in rows
    }
    return [shown[id_] for id_ in ids]


async def _history(connection: AsyncConnection, message: UUID) -> list[HistoryEntry]:
    rows = (await connection.execute(queries.history(message))).mappings()
    return [HistoryEntry.model_validate(row) for row in rows]


def _dead_letter(row: RowMapping) -> dict[str, Any]:
    """Put the fields of a dead letter together."""
    by, at = row["resolved_by"], row["resolved_at"]
    resolution = by and ResolutionView(by=by, at=at, reason=row["reason"])
    return {
        **row["content"],
        "state": row["state"],
        "resolution": resolution,
        "created_at": row["created_at"],
    }


def _slice(items: Sequence[Item], limit: int, end_of: Callable[[Item], End]) -> Slice[Item, End]:
    """Cut off the one item that was read to see whether there are more."""
    shown = list(items[:limit])
    return Slice(shown, end_of(shown[-1]) if len(items) > limit else None)


def _end_of_messages(last: MessageView) -> MessageCursor:
    return MessageCursor(timestamp=last.timestamp, created_at=last.created_at, id=last.id)


def _end_of_dead_letters(last: DeadLetterView) -> DeadLetterCursor:
    return DeadLetterCursor(created_at=last.created_at, id=last.id)
