"""Queries for conversations in PostgreSQL."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.conversations.schemas import ConversationCursor, ConversationFilter
from services.gateway.http.parameters import ConversationReference
from services.gateway.messages.queries import messages_of
from services.gateway.messages.schemas import MessageCursor
from shared.channels import Channel
from shared.db.keyset import Keyset, read_page
from shared.db.reader import Reader
from shared.db.tables import Conversation, ConversationParticipant, Participant
from shared.resources.conversations import (
    ConversationResponse,
    last_messages,
    select_conversations,
    show_conversation,
)
from shared.resources.messages import MessageResponse

_conversation = Conversation.__table__
_link = ConversationParticipant.__table__


class ConversationQueries:
    """Reads conversations; its methods raise DatabaseUnavailableError."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def get(self, reference: ConversationReference) -> ConversationResponse | None:
        async def query(connection: AsyncConnection) -> ConversationResponse | None:
            row = (await connection.execute(select_conversations().where(_is(reference)))).one_or_none()
            if row is None:
                return None
            return show_conversation(row, await last_messages(connection, [row]))

        return await self._reader.read(query)

    async def list(
        self, selected: ConversationFilter, cursor: ConversationCursor | None, limit: int
    ) -> tuple[Sequence[Row[Any]], Mapping[int, MessageResponse]]:
        """Return conversations, most recent message first, and the newest message of each by its id.

        Args:
            selected: the conditions that they meet.
            cursor: the last conversation of the previous page.
            limit: maximum number of conversations.
        """
        after = (cursor.last_message_at, cursor.id) if cursor else None
        keyset = Keyset(_ranges(selected), ("last_message_at", "id"), after)

        async def query(
            connection: AsyncConnection,
        ) -> tuple[Sequence[Row[Any]], Mapping[int, MessageResponse]]:
            page = await read_page(connection, keyset, select_conversations(), _conversation.c.id, limit)
            return page.rows, await last_messages(connection, page.rows)

        return await self._reader.read(query)

    async def messages(
        self, reference: ConversationReference, cursor: MessageCursor | None, limit: int
    ) -> Sequence[Row[Any]] | None:
        """Return messages of a conversation, oldest first; None if the conversation does not exist."""

        async def query(connection: AsyncConnection) -> Sequence[Row[Any]] | None:
            id_ = await connection.scalar(select(_conversation.c.id).where(_is(reference)))
            if id_ is None:
                return None
            return (await connection.execute(messages_of(id_, cursor, limit))).all()

        return await self._reader.read(query)


def _is(reference: ConversationReference) -> Any:  # noqa: ANN401 - a condition
    column = _conversation.c.key if isinstance(reference, UUID) else _conversation.c.id
    return column == reference


def _ranges(selected: ConversationFilter) -> Sequence[Select[Any]]:
    """Return the conversations of each channel, whose indexes have them in the order of the list."""
    channels = [each for each in Channel if selected.channel in (None, each)]
    since, address = selected.updated_since, selected.participant
    ranges = [_of_participant(address, each) if address else _of_channel(each) for each in channels]
    if since is None:
        return [rows.where(rows.selected_columns.last_message_at.is_not(None)) for rows in ranges]
    return [rows.where(rows.selected_columns.last_message_at >= since) for rows in ranges]


def _of_channel(channel: Channel) -> Select[Any]:
    columns = select(_conversation.c.id, _conversation.c.last_message_at)
    return columns.where(_conversation.c.channel == channel.value)


def _of_participant(address: str, channel: Channel) -> Select[Any]:
    participant = (
        select(Participant.id)
        .where(Participant.address == address, Participant.channel == channel.value)
        .scalar_subquery()
    )
    columns = select(_link.c.conversation_id.label("id"), _link.c.last_message_at)
    return columns.where(_link.c.participant_id == participant)
