from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, model_validator

from services.gateway.http.pagination import MAX_CURSOR, Cursor, PageParameters
from services.gateway.messages.schemas import HistoryEntry
from shared.channels import Channel, Direction
from shared.resources.dead_letters import DeadLetterResponse, DeadLetterState
from shared.validation import ResolutionReason

_REASON = "^[A-Za-z0-9_.-]*$"

_SELECTED: JsonValue = {"required": ["filter"], "properties": {"filter": {"type": "object"}}}
_ALL: JsonValue = {"required": ["all"], "properties": {"all": {"const": True}}}


class DeadLetterWithHistory(DeadLetterResponse):
    history: list[HistoryEntry] = Field(description="The reports on its message, attempt by attempt")


class ReplayResponse(BaseModel):
    dead_letter_id: UUID
    message_id: UUID | None
    generation: int | None = Field(
        description="The new generation of the message; null if the payload returned to its stream unchanged",
        examples=[1],
    )


class DiscardResponse(BaseModel):
    dead_letter_id: UUID
    message_id: UUID | None


class SkippedDeadLetter(BaseModel):
    dead_letter_id: UUID
    reason: str = Field(examples=["There is no payload to replay"])


class BulkResponse(BaseModel):
    """The result of resolving many dead letters, with a cursor if more are left."""

    resolved: int = Field(
        description="The number of dead letters that were replayed or discarded", examples=[100]
    )
    skipped: list[SkippedDeadLetter] = Field(description="The dead letters that could not be resolved")
    next_cursor: str | None = Field(description="Cursor of the next request; null if no more are left")


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class DiscardRequest(_Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "The customer was called"}]})

    reason: ResolutionReason


class DeadLetterSelection(_Request):
    """Selects the dead letters that meet all conditions."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    direction: Annotated[Direction | None, Field(strict=False)] = None
    channel: Annotated[Channel | None, Field(strict=False)] = None
    reason: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        pattern=_REASON,
        description="The reason code, as shown in the list",
    )
    message_id: Annotated[UUID | None, Field(strict=False)] = None

    @model_validator(mode="after")
    def _require_condition(self) -> Self:
        if not self.model_dump(exclude_none=True):
            raise ValueError('has no condition; to select all open dead letters, use "all": true instead')
        return self


class _BulkRequest(_Request):
    filter_: DeadLetterSelection | None = Field(default=None, alias="filter")
    all_: Literal[True] | None = Field(
        default=None, alias="all", description="Instead of a filter: all open dead letters"
    )
    limit: int = Field(default=100, ge=1, le=1_000, description="Maximum number of dead letters to resolve")
    cursor: str | None = Field(
        default=None,
        max_length=MAX_CURSOR,
        description="`next_cursor` of the previous request",
        json_schema_extra={"format": "cursor"},
    )

    @model_validator(mode="after")
    def _require_selection(self) -> Self:
        if (self.filter_ is None) is (self.all_ is None):
            raise ValueError('needs either "filter" or "all": true')
        return self

    @property
    def selected(self) -> "DeadLetterFilter":
        return DeadLetterFilter(**dict(self.filter_)) if self.filter_ else DeadLetterFilter()


class BulkReplayRequest(_BulkRequest):
    """Selects the open dead letters to replay."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"filter": {"channel": "sms", "reason": "http_503"}, "limit": 500}],
            "oneOf": [_SELECTED, _ALL],
        }
    )


class BulkDiscardRequest(_BulkRequest):
    """Selects the open dead letters to discard."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"all": True, "reason": "Test messages"}],
            "oneOf": [_SELECTED, _ALL],
        }
    )

    reason: ResolutionReason


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """The conditions of a list of dead letters."""

    direction: Direction | None = None
    channel: Channel | None = None
    reason: str | None = None
    message_id: UUID | None = None
    state: DeadLetterState | None = None


class DeadLetterQuery(PageParameters):
    """Filters of the dead letters."""

    direction: Direction | None = None
    channel: Channel | None = None
    reason: str | None = Field(default=None, max_length=64, pattern=_REASON)
    message_id: UUID | None = None
    state: DeadLetterState | None = None

    @property
    def selected(self) -> DeadLetterFilter:
        return DeadLetterFilter(**self.model_dump(exclude={"limit", "cursor"}))


DeadLetterParameters = Annotated[DeadLetterQuery, Query()]


class DeadLetterCursor(Cursor):
    created_at: AwareDatetime
    id: UUID

    @classmethod
    def of(cls, row: Any) -> Self:  # noqa: ANN401 - a row
        return cls(created_at=row.created_at, id=row.id)


class BulkCursor(Cursor):
    """The progress of a bulk request through the dead letters of a filter, oldest first.

    Attributes:
        until: when the first request was made. Later dead letters are excluded: a message that immediately
            fails again would otherwise be replayed forever.
        after: the last dead letter that was resolved.
    """

    until: AwareDatetime
    after: DeadLetterCursor | None = None

    def advance(self, created_at: datetime, id_: UUID) -> Self:
        """Return the cursor for continuing after a dead letter."""
        return self.model_copy(update={"after": DeadLetterCursor(created_at=created_at, id=id_)})
