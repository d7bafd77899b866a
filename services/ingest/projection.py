"""The projection: pure functions from an event to the rows that it adds to the database.

A row takes the columns of its table that are fields of the model, so that a new field needs only a column.
The rows of an event do not depend on earlier events, so that events can be stored in any order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pydantic import BaseModel

from shared.db import tables
from shared.dead_letters import DeadLetter, DeadLetterResolution
from shared.events import Event, EventType, accepted_status
from shared.ids import MessageId
from shared.media import Media, MediaReport
from shared.message import (
    EMAIL_FIELDS,
    DeliveryRequest,
    IncomingMessage,
    IncomingReceipt,
    Message,
    StatusReport,
)
from shared.status import Status
from shared.suppressions import SuppressionChange
from shared.webhook_attempts import WebhookAttempt

Row = Mapping[str, Any]
"""The columns of a row by name, as values or models; those that are missing are null."""

Table = type[tables.Base]


@dataclass(frozen=True, slots=True)
class Projection:
    """The rows that one event adds to the database.

    Attributes:
        message: a message, which is stored with its conversation and its participants.
        media: the files of a message, or one of them.
        rows: other rows, at most one for each table.
    """

    message: Message | None = None
    media: Sequence[Row] = ()
    rows: Mapping[Table, Row] = field(default_factory=dict)


def project(event: Event[Any]) -> Projection:
    """Return the rows that an event adds to the database."""
    return _PROJECTIONS[type(event.data)](event)


def message_row(message: Message, conversation_id: int) -> Row:
    return _row(
        tables.Message,
        message,
        conversation_id=conversation_id,
        from_address=message.from_,
        to_address=message.to,
        email={name: value for name in EMAIL_FIELDS if (value := getattr(message, name))} or None,
    )


def _row(table: Table, model: BaseModel, **computed: object) -> Row:
    """Return the row of a model, with the values of the columns that are not fields of it."""
    names = _common_names(table, type(model))
    return {name: value for name in names if (value := getattr(model, name)) is not None} | computed


@cache
def _common_names(table: Table, model: type[BaseModel]) -> frozenset[str]:
    """Return the names of the columns that are fields of a model."""
    return frozenset(name for name in model.model_fields if name in table.__table__.columns)


def _project_request(event: Event[DeliveryRequest]) -> Projection:
    if event.type is not EventType.MESSAGE_ACCEPTED:
        return Projection()  # a delivery that is due concerns only the sender
    request, status = event.data, accepted_status(event)
    row = _row(
        tables.MessageEvent,
        request,
        id=event.id,
        message_id=request.message.id,
        status=status,
        precedence=status.precedence,
        attempt=0,
        next_attempt_at=request.message.send_at if status is Status.SCHEDULED else None,
        occurred_at=event.time,
    )
    return Projection(request.message, rows={tables.MessageEvent: row})


def _project_incoming_message(event: Event[IncomingMessage]) -> Projection:
    message = event.data.message
    return Projection(message, media=tuple(_media_row(message.id, media) for media in message.media))


def _project_media_report(event: Event[MediaReport]) -> Projection:
    report = event.data
    return Projection(media=(_media_row(report.message_id, report.media),))


def _media_row(message_id: MessageId, media: Media) -> Row:
    return _row(tables.Media, media, message_id=message_id)


def _project_status_report(event: Event[StatusReport]) -> Projection:
    report = event.data
    row = _row(tables.MessageEvent, report, id=event.id, precedence=report.precedence, occurred_at=event.time)
    return Projection(rows={tables.MessageEvent: row})


def _project_receipt(event: Event[IncomingReceipt]) -> Projection:
    receipt = event.data
    row = _row(tables.DeliveryReceipt, receipt, id=event.id, precedence=receipt.precedence)
    return Projection(rows={tables.DeliveryReceipt: row})


def _project_dead_letter(event: Event[DeadLetter]) -> Projection:
    dead_letter = event.data
    row = _row(
        tables.DeadLetter,
        dead_letter,
        content=dead_letter,
        created_at=event.time,
        state="open",  # triggers change it
    )
    return Projection(rows={tables.DeadLetter: row})


def _project_resolution(event: Event[DeadLetterResolution]) -> Projection:
    resolution = event.data
    row = _row(tables.DeadLetterResolution, resolution, resolved_by=resolution.by, resolved_at=event.time)
    return Projection(rows={tables.DeadLetterResolution: row})


def _project_suppression_change(event: Event[SuppressionChange]) -> Projection:
    change = event.data
    row = _row(tables.SuppressionChange, change, id=event.id, key=change.key, changed_by=change.by)
    return Projection(rows={tables.SuppressionChange: row})


def _project_webhook_attempt(event: Event[WebhookAttempt]) -> Projection:
    return Projection(rows={tables.WebhookAttempt: _row(tables.WebhookAttempt, event.data)})


_PROJECTIONS: Mapping[type[BaseModel], Callable[[Event[Any]], Projection]] = {
    DeliveryRequest: _project_request,
    IncomingMessage: _project_incoming_message,
    StatusReport: _project_status_report,
    IncomingReceipt: _project_receipt,
    DeadLetter: _project_dead_letter,
    DeadLetterResolution: _project_resolution,
    SuppressionChange: _project_suppression_change,
    MediaReport: _project_media_report,
    WebhookAttempt: _project_webhook_attempt,
}
