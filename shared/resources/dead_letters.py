"""Dead letters as the API shows them."""

from enum import StrEnum
from typing import Any

from pydantic import AwareDatetime, BaseModel, Field
from sqlalchemy import ColumnElement, Row, Select, and_, exists, select

from shared.db import tables
from shared.db.tables import DeadLetterResolution
from shared.db.views import message_history
from shared.dead_letters import DeadLetter, Origin
from shared.message import DeliveryRequest
from shared.status import Status

_dead_letter = tables.DeadLetter.__table__
_resolution = DeadLetterResolution.__table__.alias("resolution")


class DeadLetterState(StrEnum):
    OPEN = "open"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


class ResolutionResponse(BaseModel):
    by: str = Field(description="Name of the API key", examples=["support"])
    at: AwareDatetime
    reason: str | None = Field(description="Reason for discarding it", examples=["The customer was called"])


class DeadLetterResponse(DeadLetter):
    """A message that could not be processed, and how that was resolved."""

    # Only the services need these. An application gets the message by its id.
    request: DeliveryRequest | None = Field(default=None, exclude=True)
    origin: Origin | None = Field(default=None, exclude=True)

    state: DeadLetterState
    is_sent: bool = Field(description="Whether its message was sent after all, so that it cannot be replayed")
    resolution: ResolutionResponse | None = Field(
        description="How it was resolved; null if it is open, or was replayed without the API"
    )
    created_at: AwareDatetime


_IS_SENT = exists().where(
    message_history.c.message_id == _dead_letter.c.message_id,
    message_history.c.status.in_([Status.SENT.value, Status.DELIVERED.value]),
)


def show_dead_letter(row: Row[Any]) -> DeadLetterResponse:
    return DeadLetterResponse.model_validate(dead_letter_fields(row))


def dead_letter_fields(row: Row[Any]) -> dict[str, Any]:
    resolution = row.resolved_by and ResolutionResponse(
        by=row.resolved_by, at=row.resolved_at, reason=row.reason
    )
    return {
        **row.content,
        "state": row.state,
        "is_sent": row.is_sent,
        "resolution": resolution,
        "created_at": row.created_at,
    }


def select_dead_letters(content: ColumnElement[Any] = _dead_letter.c.content) -> Select[Any]:
    """Select dead letters; `content` may leave out a part of the column of this name."""
    deciding = and_(
        _resolution.c.dead_letter_id == _dead_letter.c.id, _resolution.c.resolution == _dead_letter.c.state
    )
    return select(
        _dead_letter.c.id,
        content.label("content"),
        _dead_letter.c.message_id,
        _dead_letter.c.created_at,
        _dead_letter.c.state,
        _IS_SENT.label("is_sent"),
        _resolution.c.resolved_by,
        _resolution.c.resolved_at,
        _resolution.c.reason,
    ).select_from(_dead_letter.outerjoin(_resolution, deciding))
