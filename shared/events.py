"""The events that the services publish: CloudEvents 1.0 in structured JSON mode.

An event contains everything that its reader needs, because the NATS CLI may drop headers. Its `id` is also
its `Nats-Msg-Id` and is computed from what happened, so that an event that is published twice is one event.
Its `type` carries a version; a reader that does not know a type dead-letters the event.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ValidationError
from pydantic_core import from_json

from shared.dead_letters import DeadLetter, DeadLetterResolution
from shared.errors import BadMessageError
from shared.ids import EventId, event_id, inbound_message_id
from shared.media import MediaReport
from shared.message import DeliveryRequest, FrozenModel, IncomingMessage, IncomingReceipt, StatusReport
from shared.status import Status
from shared.suppressions import SuppressionChange
from shared.webhook_attempts import WebhookAttempt

Data = TypeVar("Data", bound=BaseModel)


class EventType(StrEnum):
    MESSAGE_ACCEPTED = "messaging.message.accepted.v1"
    MESSAGE_RECEIVED = "messaging.message.received.v1"
    MESSAGE_SCHEDULED = "messaging.message.scheduled.v1"
    MESSAGE_RETRYING = "messaging.message.retrying.v1"
    MESSAGE_SENT = "messaging.message.sent.v1"
    MESSAGE_FAILED = "messaging.message.failed.v1"
    MESSAGE_EXPIRED = "messaging.message.expired.v1"
    MESSAGE_CANCELED = "messaging.message.canceled.v1"
    DELIVERY_DUE = "messaging.delivery.due.v1"
    RECEIPT_RECEIVED = "messaging.receipt.received.v1"
    DEAD_LETTER_CREATED = "messaging.dead-letter.created.v1"
    DEAD_LETTER_RESOLVED = "messaging.dead-letter.resolved.v1"
    SUPPRESSION_CHANGED = "messaging.suppression.changed.v1"
    MEDIA_REPORTED = "messaging.media.reported.v1"
    WEBHOOK_ATTEMPTED = "messaging.webhook.attempted.v1"


class Event(FrozenModel, Generic[Data]):
    """An event; the class of its `data` follows from its `type`."""

    specversion: Literal["1.0"] = "1.0"
    id: EventId
    source: str
    type: EventType
    subject: str
    time: AwareDatetime
    datacontenttype: Literal["application/json"] = "application/json"
    data: Data

    def encode(self) -> bytes:
        return self.__pydantic_serializer__.to_json(self, by_alias=True)


_STATUS_EVENTS = {
    Status.SCHEDULED: EventType.MESSAGE_SCHEDULED,
    Status.RETRYING: EventType.MESSAGE_RETRYING,
    Status.SENT: EventType.MESSAGE_SENT,
    Status.FAILED: EventType.MESSAGE_FAILED,
    Status.EXPIRED: EventType.MESSAGE_EXPIRED,
    Status.CANCELED: EventType.MESSAGE_CANCELED,
}

_MODELS: Mapping[EventType, type[Event[Any]]] = {
    EventType.MESSAGE_ACCEPTED: Event[DeliveryRequest],
    EventType.MESSAGE_RECEIVED: Event[IncomingMessage],
    **dict.fromkeys(_STATUS_EVENTS.values(), Event[StatusReport]),
    EventType.DELIVERY_DUE: Event[DeliveryRequest],
    EventType.RECEIPT_RECEIVED: Event[IncomingReceipt],
    EventType.DEAD_LETTER_CREATED: Event[DeadLetter],
    EventType.DEAD_LETTER_RESOLVED: Event[DeadLetterResolution],
    EventType.SUPPRESSION_CHANGED: Event[SuppressionChange],
    EventType.MEDIA_REPORTED: Event[MediaReport],
    EventType.WEBHOOK_ATTEMPTED: Event[WebhookAttempt],
}
_MODELS_BY_NAME = {type_.value.encode(): model for type_, model in _MODELS.items()}


def model_of(type_: EventType) -> type[Event[Any]]:
    """Return the model of the events of a type."""
    return _MODELS[type_]


_TYPE = re.compile(rb'"type":"(messaging\.[a-z.-]+\.v[0-9]+)"')


def decode(payload: bytes) -> Event[Any]:
    """Parse an event.

    Raises:
        BadMessageError: `not_json`, `unknown_type` (including a version that this release does not know), or
            `invalid_event`.
    """
    # Our own events have their type before their data, so that JSON is parsed and validated in one pass.
    found = _TYPE.search(payload)
    model = _MODELS_BY_NAME.get(found[1]) if found else None
    if model is not None:
        try:
            event = model.model_validate_json(payload)
        except ValidationError:
            return _decode_in_steps(payload)
        if _MODELS[event.type] is model:
            return event
    return _decode_in_steps(payload)


def _decode_in_steps(payload: bytes) -> Event[Any]:
    try:
        value = from_json(payload)
    except ValueError as exc:
        raise BadMessageError("not_json", str(exc)) from exc
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise BadMessageError("invalid_event", "the event has no type")
    try:
        model = _MODELS[EventType(value["type"])]
    except ValueError as exc:
        raise BadMessageError(
            "unknown_type", f"the type of the event is unknown: {value['type'][:100]!r}"
        ) from exc
    try:
        return model.model_validate(value)
    except ValidationError as exc:
        raise BadMessageError("invalid_event", _describe(exc)) from exc


def _describe(exc: ValidationError) -> str:
    """List the faults and their locations without the values, which may be private."""
    faults = exc.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'event'}: {fault['msg']}" for fault in faults[:5])


def message_accepted(request: DeliveryRequest, *, time: datetime) -> Event[DeliveryRequest]:
    """Create the event of a request that the gateway has accepted, or of a replay."""
    message_id = request.message.id
    return Event[DeliveryRequest](
        id=event_id(message_id, "accepted", request.generation),
        source="/gateway",
        type=EventType.MESSAGE_ACCEPTED,
        subject=str(message_id),
        time=time,
        data=request,
    )


def accepted_status(event: Event[DeliveryRequest]) -> Status:
    """Return the status of a message that was accepted, until the sender reports on it."""
    send_at = event.data.message.send_at
    return Status.SCHEDULED if send_at and send_at > event.time else Status.ACCEPTED


def delivery_due(request: DeliveryRequest, *, time: datetime) -> Event[DeliveryRequest]:
    """Create the event by which a scheduled attempt reaches the sender when it is due."""
    message_id = request.message.id
    return Event[DeliveryRequest](
        id=event_id(message_id, "due", *request.step),
        source="/sender",
        type=EventType.DELIVERY_DUE,
        subject=str(message_id),
        time=time,
        data=request,
    )


def message_received(incoming: IncomingMessage) -> Event[IncomingMessage]:
    """Create the event of a message that a provider delivered to us."""
    message = incoming.message
    return Event[IncomingMessage](
        id=event_id(message.id, "received"),
        source=f"/providers/{message.provider}",
        type=EventType.MESSAGE_RECEIVED,
        subject=str(message.id),
        time=message.created_at,
        data=incoming,
    )


def receipt_id(receipt: IncomingReceipt) -> EventId:
    """Return the id of a receipt's event, which is the same if the provider repeats the receipt."""
    message = inbound_message_id(receipt.provider, receipt.provider_message_id)
    return event_id(message, "receipt", receipt.key)


def receipt_received(receipt: IncomingReceipt, *, time: datetime) -> Event[IncomingReceipt]:
    return Event[IncomingReceipt](
        id=receipt_id(receipt),
        source=f"/providers/{receipt.provider}",
        type=EventType.RECEIPT_RECEIVED,
        subject=receipt.provider_message_id,
        time=time,
        data=receipt,
    )


def status_changed(
    report: StatusReport, *, time: datetime, source: Literal["/sender", "/gateway"], is_released: bool = False
) -> Event[StatusReport]:
    """Create the event of a new status of a message, from the sender or from a cancellation.

    Args:
        report: the status.
        time: when the message reached it.
        source: the service that reports it.
        is_released: whether the provider throttled the attempt, which will therefore have another status.
    """
    attempt = (report.generation, report.attempt, *(["released"] if is_released else []))
    return Event[StatusReport](
        id=event_id(report.message_id, report.status, *attempt),
        source=source,
        type=_STATUS_EVENTS[report.status],
        subject=str(report.message_id),
        time=time,
        data=report,
    )


def dead_letter_created(dead_letter: DeadLetter, *, source: str, time: datetime) -> Event[DeadLetter]:
    return Event[DeadLetter](
        id=EventId(dead_letter.id),
        source=source,
        type=EventType.DEAD_LETTER_CREATED,
        subject=str(dead_letter.message_id or dead_letter.id),
        time=time,
        data=dead_letter,
    )


def dead_letter_resolved(resolution: DeadLetterResolution, *, time: datetime) -> Event[DeadLetterResolution]:
    dead_letter = resolution.dead_letter_id
    return Event[DeadLetterResolution](
        id=event_id(dead_letter, "resolved", resolution.resolution),
        source="/gateway",
        type=EventType.DEAD_LETTER_RESOLVED,
        subject=str(dead_letter),
        time=time,
        data=resolution,
    )


def suppression_changed(change: SuppressionChange) -> Event[SuppressionChange]:
    """Create the event of a change; its id is always the same for one cause."""
    return Event[SuppressionChange](
        id=event_id(change.key, change.state, change.cause or change.occurred_at.isoformat()),
        source="/suppressions",
        type=EventType.SUPPRESSION_CHANGED,
        subject=str(change.key),
        time=change.occurred_at,
        data=change,
    )


def media_reported(report: MediaReport, *, time: datetime) -> Event[MediaReport]:
    """Create the event of a file that was stored, or that cannot be fetched; there is one for each status."""
    return Event[MediaReport](
        id=event_id(report.media.id, report.media.status),
        source="/sender",
        type=EventType.MEDIA_REPORTED,
        subject=str(report.message_id),
        time=time,
        data=report,
    )


def webhook_attempted(attempt: WebhookAttempt) -> Event[WebhookAttempt]:
    """Create the event of an attempt to deliver an event to a webhook endpoint."""
    return Event[WebhookAttempt](
        id=attempt.id,
        source="/notifier",
        type=EventType.WEBHOOK_ATTEMPTED,
        subject=str(attempt.endpoint_id),
        time=attempt.started_at,
        data=attempt,
    )
