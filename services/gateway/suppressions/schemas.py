from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from services.gateway.http.pagination import Cursor, PageParameters
from services.gateway.http.parameters import ADDRESS_SCHEMA
from shared.addresses import MAX_ADDRESS_LENGTH
from shared.channels import Channel
from shared.suppressions import SuppressionChange, SuppressionSource
from shared.validation import SuppressionReason


class SuppressRequest(BaseModel):
    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        json_schema_extra={"examples": [{"reason": "The customer called and asked for it"}]},
    )

    reason: SuppressionReason


class SuppressionResponse(BaseModel):
    """An address that is not sent any more messages."""

    channel: Channel
    address: str = Field(description="The recipient's address", examples=["+18045551234"])
    sender: str | None = Field(
        description="The sender address that the opt-out applies to, or the opt-out group of the provider, "
        "such as a Messaging Service; null for all sender addresses",
        examples=["+12016661234"],
    )
    source: SuppressionSource = Field(description="The cause of the opt-out")
    detail: str | None = Field(
        description="The text message, or the reason given by the provider or by the API's caller",
        examples=["STOP"],
    )
    by: str | None = Field(description="Name of the caller's API key, if the API was used", examples=[None])
    since: AwareDatetime

    @classmethod
    def of(cls, change: SuppressionChange) -> Self:
        return cls(
            channel=change.channel,
            address=change.theirs,
            sender=change.ours,
            source=change.source,
            detail=change.detail,
            by=change.by,
            since=change.occurred_at,
        )


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
