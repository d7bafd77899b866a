from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from services.gateway.http.pagination import Cursor, PageParameters
from services.gateway.http.parameters import ADDRESS_SCHEMA
from shared.addresses import MAX_ADDRESS_LENGTH
from shared.channels import Channel
from shared.validation import SuppressionReason


class SuppressRequest(BaseModel):
    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        json_schema_extra={"examples": [{"reason": "The customer called and asked for it"}]},
    )

    reason: SuppressionReason


class SuppressionQuery(PageParameters):
    """Filters of the suppression list."""

    channel: Channel | None = None
    address: str | None = Field(
        default=None,
        max_length=MAX_ADDRESS_LENGTH,
        description="A phone number or an e-mail address",
        json_schema_extra=ADDRESS_SCHEMA,
        examples=["+18045551234"],
    )


SuppressionParameters = Annotated[SuppressionQuery, Query()]

SenderQuery = Annotated[
    str | None,
    Query(
        max_length=MAX_ADDRESS_LENGTH,
        description="The sender address, or an opt-out group; all sender addresses by default",
        json_schema_extra=ADDRESS_SCHEMA,
        examples=["+12016661234"],
    ),
]


class SuppressionCursor(Cursor):
    since: AwareDatetime
    id: UUID

    @classmethod
    def of(cls, row: Any) -> Self:  # noqa: ANN401 - a row
        return cls(since=row.since, id=row.id)
