"""Queries for messages in PostgreSQL. The columns have the names of the response's fields."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Row,
    Select,
    case,
    exists,
    func,
    literal,
    select,
    true,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased

from services.gateway.messages.schemas import (
    HistoryEntry,
    MessageCursor,
    MessageResponse,
    MessageWithHistory,
    ScheduledCursor,
)
from shared.channels import Channel, Direction
from shared.db.reader import Reader
from shared.db.tables import Conversation, Message, MessageEvent
from shared.db.views import message_history
from shared.message import EMAIL_FIELDS
from shared.status import Status

Statement = Select[Any]

_message = Message.__table__
_conversation = Conversation.__table__

_MESSAGE_WITH_CONVERSATION = _message.join(_conversation)

_DECIDING_FIRST = (
    message_history.c.generation.desc(),
    message_history.c.precedence.desc(),
    message_history.c.attempt.desc(),
    message_history.c.occurred_at.desc(),
    message_history.c.event_id,
)
"""The order in which the decisive report comes first."""


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


def show(row: Row[Any]) -> MessageResponse:
    return MessageResponse.model_validate(row._mapping)  # noqa: SLF001 - public in SQLAlchemy despite its name


def messages_of(conversation_id: int, cursor: MessageCursor | None, limit: int) -> Statement:
    """Select messages of a conversation, oldest first."""
    placed_at, *_ = place = _place_of(_message)
    statement = select_messages().where(_message.c.conversation_id == conversation_id)
    if cursor is not None:
        statement = statement.where(
            tuple_(*place) > tuple_(literal(cursor.placed_at), literal(cursor.created_at), literal(cursor.id))
        )
    return statement.add_columns(placed_at.label("placed_at")).order_by(*place).limit(limit)


def _place_of(message: FromClause) -> Sequence[ColumnElement[Any]]:
    """Return the columns that order the messages of a conversation."""
    placed_at = func.place_in_time(message.c.timestamp, message.c.created_at)
    return placed_at, message.c.created_at, message.c.id


def last_messages_of(conversation_ids: Sequence[int]) -> Statement:
    """Select the newest message of each conversation."""
    newest = (
        select(_message)
        .where(_message.c.conversation_id == _conversation.c.id)
        .order_by(*(column.desc() for column in _place_of(_message)))
        .limit(1)
        .lateral("newest")
    )
    source = _conversation.join(newest, true())
    return select_messages(newest, source).where(_conversation.c.id.in_(conversation_ids))


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
    source = _MESSAGE_WITH_CONVERSATION.join(page, page.c.message_id == _message.c.id)
    return select_messages(source=source).add_columns(page.c.due).order_by(page.c.due, page.c.message_id)


def select_messages(
    message: FromClause = _message, source: FromClause = _MESSAGE_WITH_CONVERSATION
) -> Statement:
    """Select the fields of a response: columns of the same names, and the fields that depend on the history.

    Args:
        message: the table or subquery of the messages.
        source: a join of `message` with its conversation.
    """
    state = _deciding_report(message, "state")
    sent = _deciding_report(message, "sent", message_history.c.status == Status.SENT.value)
    initial = case(
        (message.c.direction == Direction.INBOUND.value, Status.RECEIVED.value), else_=Status.ACCEPTED.value
    )
    derived: dict[str, Any] = {
        **{name: message.c.email[name] for name in EMAIL_FIELDS},
        "from_": message.c.from_address,
        "to": message.c.to_address,
        "conversation_key": _conversation.c.key,
        "status": func.coalesce(state.c.status, initial),
        "provider": func.coalesce(message.c.provider, sent.c.provider),
        "provider_message_id": func.coalesce(message.c.provider_message_id, sent.c.provider_message_id),
        "error": state.c.error,
    }
    own = [
        column
        for column in message.c
        if column.key in MessageResponse.model_fields and column.key not in derived
    ]
    return select(*own, *(column.label(name) for name, column in derived.items())).select_from(
        source.outerjoin(state, true()).outerjoin(sent, true())
    )


def _deciding_report(message: FromClause, name: str, *conditions: ColumnElement[bool]) -> FromClause:
    return (
        select(message_history)
        .where(message_history.c.message_id == message.c.id, *conditions)
        .order_by(*_DECIDING_FIRST)
        .limit(1)
        .lateral(name)
    )
