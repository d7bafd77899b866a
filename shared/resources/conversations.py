"""Conversations as the API shows them."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field
from sqlalchemy import Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.channels import Channel
from shared.db.tables import Conversation, ConversationParticipant, Participant
from shared.resources.messages import MessageResponse, last_messages_of, show_message

_conversation = Conversation.__table__


class ConversationResponse(BaseModel):
    id: int = Field(description="A small number, for people and URLs", examples=[1])
    key: UUID = Field(description="Computed from the channel and the participants; it never changes")
    channel: Channel
    participants: list[str] = Field(examples=[["+12016661234", "+18045551234"]])
    message_count: int = Field(examples=[2])
    last_message_at: AwareDatetime | None
    last_message: MessageResponse | None


def show_conversation(row: Row[Any], last_messages: Mapping[int, MessageResponse]) -> ConversationResponse:
    fields = {**row._mapping, "last_message": last_messages.get(row.id)}  # noqa: SLF001 - public despite its name
    return ConversationResponse.model_validate(fields)


async def last_messages(
    connection: AsyncConnection, conversations: Sequence[Row[Any]]
) -> Mapping[int, MessageResponse]:
    statement = last_messages_of([row.id for row in conversations])
    return {row.conversation_id: show_message(row) for row in await connection.execute(statement)}


def select_conversations() -> Select[Any]:
    addresses = (
        select(Participant.address)
        .join(ConversationParticipant)
        .where(ConversationParticipant.conversation_id == _conversation.c.id)
        .order_by(Participant.address)
    )
    return select(
        _conversation.c.id,
        _conversation.c.key,
        _conversation.c.channel,
        func.array(addresses.scalar_subquery()).label("participants"),
        _conversation.c.message_count,
        _conversation.c.last_message_at,
    )
