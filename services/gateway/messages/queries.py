"""Queries for messages in PostgreSQL."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, exists, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased

from services.gateway.messages.schemas import HistoryEntry, MessageCursor, MessageWithHistory, ScheduledCursor
from shared.channels import Channel
from shared.db.reader import Reader
from shared.db.tables import Message, MessageEvent
from shared.db.views import message_history
from shared.resources.messages import MESSAGE_WITH_CONVERSATION, place_of, select_messages
from shared.status import Status

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

    async def recipient_of(self, provider: str, provider_message_id: str) -> str | None:
        """Return the address to which the newest message with a provider's id was sent, if one is stored."""
        statement = (
            select(_message.c.to_address)
            .join(MessageEvent, MessageEvent.message_id == _message.c.id)
            .where(MessageEvent.provider == provider, MessageEvent.provider_message_id == provider_message_id)
            .order_by(MessageEvent.occurred_at.desc())
            .limit(1)
        )

        async def query(connection: AsyncConnection) -> str | None:
            address: str | None = await connection.scalar(statement)
            return address

        return await self._reader.read(query)

    async def scheduled(
        self, channel: Channel | None, cursor: ScheduledCursor | None, limit: int
    ) -> Sequence[Row[Any]]:
        """Return scheduled messages that have not expired, soonest first."""
        since = datetime.now(UTC) - self._validity
        statement = scheduled_messages(channel, since, cursor, limit)

        async def query(connection: AsyncConnection) -> Sequence[Row[Any]]:
            return (await connection.execute(statement)).all()

        return await self._reader.read(query)


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


def scheduled_messages(
    channel: Channel | None, since: datetime, cursor: ScheduledCursor | None, limit: int
) -> Statement:
    """Select messages that are due after `since`, soonest first.

    Their status comes from the report `scheduled` unless another one takes precedence. Receipts need not be
    considered, since they are about messages that were `sent`. An index has these reports in the order of
    their due times.
    """
    report, other = aliased(MessageEvent), aliased(MessageEvent)
    counts_instead = tuple_(other.generation, other.precedence, other.attempt) > tuple_(
        report.generation, report.precedence, report.attempt
    )
    waiting = (
        select(report.message_id, report.next_attempt_at.label("due"))
        .where(report.status == Status.SCHEDULED.value, report.next_attempt_at > since)
        .where(~exists().where(other.message_id == report.message_id, counts_instead))
        .order_by(report.next_attempt_at, report.message_id)
        .limit(limit)
    )
    waiting = waiting.join(Message, Message.id == report.message_id)
    if channel is not None:
        types = [type_.value for type_ in channel.rules.types]
        waiting = waiting.where(Message.type.in_(types))
    if cursor is not None:
        place = tuple_(report.next_attempt_at, report.message_id)
        waiting = waiting.where(place > tuple_(literal(cursor.due), literal(cursor.id)))
    page = waiting.subquery("waiting")
    source = MESSAGE_WITH_CONVERSATION.join(page, page.c.message_id == _message.c.id)
    return select_messages(source=source).add_columns(page.c.due).order_by(page.c.due, page.c.message_id)
