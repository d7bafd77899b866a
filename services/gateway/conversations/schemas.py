from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import Query
from pydantic import AwareDatetime, Field

from services.gateway.http.pagination import Cursor, PageParameters
from services.gateway.http.parameters import ADDRESS_SCHEMA, MAX_BIGINT
from shared.addresses import MAX_ADDRESS_LENGTH
from shared.channels import Channel
from shared.validation import Moment


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
    updated_since: Moment | None = Field(
        default=None,
        description="Only conversations with a message at or after this time. An inbound message counts from "
        "when it was written, and may arrive later, so leave some minutes of overlap",
    )


@dataclass(frozen=True, slots=True)
class ConversationFilter:
    """The conditions of a list of conversations; `participant` is the key of an address."""

    channel: Channel | None = None
    participant: str | None = None
    updated_since: datetime | None = None


ConversationParameters = Annotated[ConversationQuery, Query()]


class ConversationCursor(Cursor):
    last_message_at: AwareDatetime
    id: int = Field(ge=1, le=MAX_BIGINT)

    @classmethod
    def of(cls, row: Any) -> Self:  # noqa: ANN401 - a row
        return cls(last_message_at=row.last_message_at, id=row.id)
