from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import Query
from pydantic import AwareDatetime, BaseModel, Field

from services.gateway.http.pagination import Cursor, PageParameters
from services.gateway.http.parameters import ADDRESS_SCHEMA
from services.gateway.messages.schemas import MessageResponse
from shared.addresses import MAX_ADDRESS_LENGTH
from shared.channels import Channel

MAX_BIGINT = 2**63 - 1


class ConversationResponse(BaseModel):
    id: int = Field(description="A small number, for people and URLs", examples=[1])
    key: UUID = Field(description="Computed from the channel and the participants; it never changes")
    channel: Channel
    participants: list[str] = Field(examples=[["+12016661234", "+18045551234"]])
    message_count: int = Field(examples=[2])
    last_message_at: AwareDatetime | None
    last_message: MessageResponse | None


class ConversationQuery(PageParameters):
    """Filters of the conversations."""

    participant: str | None = Field(
        default=None,
        max_length=MAX_ADDRESS_LENGTH,
        description="A phone number or an e-mail address",
        json_schema_extra=ADDRESS_SCHEMA,
        examples=["+18045551234"],
    )
    channel: Channel | None = None


ConversationParameters = Annotated[ConversationQuery, Query()]


class ConversationCursor(Cursor):
    last_message_at: AwareDatetime
    id: int = Field(ge=1, le=MAX_BIGINT)

    @classmethod
    def of(cls, row: Any) -> Self:  # noqa: ANN401 - a row
        return cls(last_message_at=row.last_message_at, id=row.id)
