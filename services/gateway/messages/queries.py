"""Queries for messages in PostgreSQL."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.messages.listing import list_newest, list_scheduled
from services.gateway.messages.schemas import (
    HistoryEntry,
    MessageCursor,
    MessageFilter,
    MessageWithHistory,
    NewestCursor,
    ScheduledCursor,
)
from shared.db.keyset import Rows
from shared.db.reader import Reader
from shared.db.tables import Message
from shared.db.views import message_history
from shared.resources.messages import place_of, select_messages

Statement = Select[Any]

_message = Message.__table__


class MessageQueries:
    """Reads messages; its methods raise DatabaseUnavailableError.

    Args:
        reader: reads PostgreSQL.
        validity: how long after its time a message may still be sent.
    """

    def __init__(self, reader: Reader, validity: timedelta) -> None:
        self._reader = reader
        self._validity = validity

    async def get(self, id_: UUID) -> MessageWithHistory | None:
        async def query(connection: AsyncConnection) -> MessageWithHistory | None:
            statement = select_messages().where(_message.c.id == id_)
            found = (await connection.execute(statement)).mappings().one_or_none()
            if found is None:
                return None
            return MessageWithHistory.model_validate({**found, "history": await history(connection, id_)})

        return await self._reader.read(query)

    async def newest(self, selected: MessageFilter, cursor: NewestCursor | None, limit: int) -> Rows:
        """Return messages, newest first."""
        return await self._reader.read(lambda connection: list_newest(connection, selected, cursor, limit))

    async def scheduled(self, selected: MessageFilter, cursor: ScheduledCursor | None, limit: int) -> Rows:
        """Return scheduled messages that have not expired, soonest first."""
        since = datetime.now(UTC) - self._validity
        return await self._reader.read(
            lambda connection: list_scheduled(connection, selected, since, cursor, limit)
        )


async def history(connection: AsyncConnection, id_: UUID) -> list[HistoryEntry]:
    """Return the history of a message in the order of its steps, since providers' clocks differ from ours."""
    entry = message_history.c
    statement = (
        select(message_history)
        .where(entry.message_id == id_)
        .order_by(entry.generation, entry.attempt, entry.precedence, entry.occurred_at, entry.event_id)
    )
    return [HistoryEntry.model_validate(row) for row in (await connection.execute(statement)).mappings()]


def messages_of(conversation_id: int, cursor: MessageCursor | None, limit: int) -> Statement:
    """Select messages of a conversation, oldest first."""
    placed_at, *_ = place = place_of(_message)
    statement = select_messages().where(_message.c.conversation_id == conversation_id)
    if cursor is not None:
        statement = statement.where(
            tuple_(*place) > tuple_(literal(cursor.placed_at), literal(cursor.created_at), literal(cursor.id))
        )
    return statement.add_columns(placed_at.label("placed_at")).order_by(*place).limit(limit)
