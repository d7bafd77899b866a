"""Queries for conversations in PostgreSQL."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.conversations.schemas import ConversationCursor
from services.gateway.messages.queries import messages_of
from services.gateway.messages.schemas import MessageCursor
from shared.channels import Channel
from shared.db.reader import Reader
from shared.db.tables import Conversation, ConversationParticipant, Participant
from shared.resources.conversations import (
    ConversationResponse,
    last_messages,
    select_conversations,
    show_conversation,
)
from shared.resources.messages import MessageResponse

Reference = int | UUID
"""The id or the key of a conversation."""

_conversation = Conversation.__table__


class ConversationQueries:
    """Reads conversations; its methods raise DatabaseUnavailableError."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def get(self, reference: Reference) -> ConversationResponse | None:
        async def query(connection: AsyncConnection) -> ConversationResponse | None:
            row = (await connection.execute(select_conversations().where(_is(reference)))).one_or_none()
            if row is None:
                return None
            return show_conversation(row, await last_messages(connection, [row]))

        return await self._reader.read(query)

    async def list(
        self, channel: Channel | None, participant: str | None, cursor: ConversationCursor | None, limit: int
    ) -> tuple[Sequence[Row[Any]], Mapping[int, MessageResponse]]:
        """Return conversations, most recent message first, and the newest message of each by its id.

        Args:
            channel: of the conversations.
            participant: key of the address of a participant.
            cursor: the last conversation of the previous page.
            limit: maximum number of conversations.
        """
        statement = _list(channel, participant, cursor, limit)

        async def query(
            connection: AsyncConnection,
        ) -> tuple[Sequence[Row[Any]], Mapping[int, MessageResponse]]:
            rows = (await connection.execute(statement)).all()
            return rows, await last_messages(connection, rows)

        return await self._reader.read(query)

    async def messages(
        self, reference: Reference, cursor: MessageCursor | None, limit: int
    ) -> Sequence[Row[Any]] | None:
        """Return messages of a conversation, oldest first; None if the conversation does not exist."""

        async def query(connection: AsyncConnection) -> Sequence[Row[Any]] | None:
            id_ = await connection.scalar(select(_conversation.c.id).where(_is(reference)))
            if id_ is None:
                return None
            return (await connection.execute(messages_of(id_, cursor, limit))).all()

        return await self._reader.read(query)


def _is(reference: Reference) -> Any:  # noqa: ANN401 - a condition
    column = _conversation.c.key if isinstance(reference, UUID) else _conversation.c.id
    return column == reference


def _list(
    channel: Channel | None, participant: str | None, cursor: ConversationCursor | None, limit: int
) -> Select[Any]:
    place = (_conversation.c.last_message_at, _conversation.c.id)
    statement = select_conversations().where(_conversation.c.last_message_at.is_not(None))
    if channel is not None:
        statement = statement.where(_conversation.c.channel == channel.value)
    if participant is not None:
        joined = (
            select(ConversationParticipant.conversation_id)
            .join(Participant)
            .where(Participant.address == participant)
        )
        statement = statement.where(_conversation.c.id.in_(joined))
    if cursor is not None:
        statement = statement.where(
            tuple_(*place) < tuple_(literal(cursor.last_message_at), literal(cursor.id))
        )
    return statement.order_by(*(column.desc() for column in place)).limit(limit)
