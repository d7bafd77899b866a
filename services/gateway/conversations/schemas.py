from typing import Annotated, Any, Self

from fastapi import Query
from pydantic import AwareDatetime, Field

from services.gateway.http.pagination import Cursor, PageParameters
from services.gateway.http.parameters import ADDRESS_SCHEMA
from shared.addresses import MAX_ADDRESS_LENGTH
from shared.channels import Channel

MAX_BIGINT = 2**63 - 1


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
