from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, Field

from services.gateway.http.parameters import ADDRESS_SCHEMA, MAX_BIGINT
from shared.addresses import MAX_ADDRESS_LENGTH
from shared.channels import Channel
from shared.notifications import NotificationType
from shared.resources.events import AnyEvent


class EventQuery(BaseModel):
    """Filters of the events, and where to begin."""

    after: int | None = Field(
        default=None,
        ge=0,
        le=MAX_BIGINT,
        description="The `sequence` of the last event that was received. By default, a page begins with the "
        "oldest event that is stored, and a stream with the next one",
        examples=[4711],
    )
    limit: int = Field(default=50, ge=1, le=200, description="Maximum number of events on a page")
    type: list[NotificationType] = Field(
        default_factory=list, description="Only events of these types; repeat it for several"
    )
    channel: Channel | None = None
    address: str | None = Field(
        default=None,
        max_length=MAX_ADDRESS_LENGTH,
        description="Only events that concern this address of yours",
        json_schema_extra=ADDRESS_SCHEMA,
        examples=["+12016661234"],
    )


EventParameters = Annotated[EventQuery, Query()]


class EventPage(BaseModel):
    items: list[AnyEvent]
    next_cursor: str = Field(
        description="Pass it as `after` to get the next page. It is never null: more events will follow",
        examples=["4711"],
    )
    has_more: bool = Field(description="Whether the next page can be requested immediately")
