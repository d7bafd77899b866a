"""What each event adds to the tables: plain functions from an event to rows, with no I/O.

The rows of an event do not depend on what came before it, so events can be stored in any order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch

from shared.events import (
    SuppressionChanged,
    DeadLettered,
    DeadLetterResolved,
    DeliveryDue,
    Event,
    Message,
    MessageAccepted,
    MessageReceived,
    ReceiptReceived,
    StatusChanged,
)
from shared.lifecycle import Status

Row = Mapping[str, object]
"""The columns of a table's row by name."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one event, at most one a table.

    Attributes:
        message: stands for itself, its conversation and its participants.
    """

    message: Message | None = None
    message_event: Row | None = None
    receipt: Row | None = None
    dead_letter: Row | None = None
    resolution: Row | None = None
    suppression_change: Row | None = None


@singledispatch
def rows_of(event: Event) -> Rows:
    """Tell what an event adds to the tables."""
    raise TypeError(f"no rows are defined for {type(event).__name__}")


@rows_of.register
def _(event: MessageAccepted) -> Rows:
    request = event.data
    return Rows(
        message=request.message,
        message_event={
            "id": event.id,
            "message_id": request.message.id,
            "status": event.status,
            "generation": request.generation,
            "precedence": event.status.precedence,
            "attempt": 0,
            "next_attempt_at": request.message.send_at if event.status is Status.SCHEDULED else None,
            "occurred_at": event.time,
        },
    )


@rows_of.register
def _(event: MessageReceived) -> Rows:
    return Rows(message=event.data.message)


@rows_of.register
def _(event: StatusChanged) -> Rows:
    report = event.data
    return Rows(
        message_event={
            "id": event.id,
            "message_id": report.message_id,
            "status": report.status,
            "generation": report.generation,
            "precedence": report.status.precedence,
            "attempt": report.attempt,
            "provider": report.provider,
            "provider_message_id": report.provider_message_id,
            "error": report.error.model_dump(mode="json") if report.error else None,
            "next_attempt_at": report.next_attempt_at,
            "occurred_at": event.time,
        }
    )


@rows_of.register
def _(event: ReceiptReceived) -> Rows:
    receipt = event.data
    return Rows(
        receipt={
            "id": event.id,
            "provider": receipt.provider,
            "provider_message_id": receipt.provider_message_id,
            "message_id": receipt.message_id,
            "status": receipt.status,
            "precedence": receipt.status.precedence,
            "error_code": receipt.error_code,
            "error_detail": receipt.error_detail,
            "occurred_at": receipt.occurred_at,
        }
    )


@rows_of.register
def _(event: DeadLettered) -> Rows:
    dead_letter = event.data
    return Rows(
        dead_letter={
            "id": dead_letter.id,
            "direction": dead_letter.direction,
            "channel": dead_letter.channel,
            "reason": dead_letter.reason,
            "message_id": dead_letter.message_id,
            "generation": dead_letter.generation,
            "content": dead_letter.model_dump(mode="json", by_alias=True),
            "created_at": event.time,
        }
    )


@rows_of.register
def _(event: DeadLetterResolved) -> Rows:
    resolution = event.data
    return Rows(
        resolution={
            "dead_letter_id": resolution.dead_letter_id,
            "resolution": resolution.resolution,
            "reason": resolution.reason,
            "resolved_by": resolution.by,
            "resolved_at": event.time,
        }
    )


@rows_of.register
def _(event: SuppressionChanged) -> Rows:
    change = event.data
    return Rows(
        suppression_change={
            "id": event.id,
            "key": change.key,
            "channel": change.channel,
            "ours": change.ours,
            "theirs": change.theirs,
            "state": change.state,
            "source": change.source,
            "detail": change.detail,
            "changed_by": change.by,
            "occurred_at": change.occurred_at,
        }
    )


@rows_of.register
def _(_: DeliveryDue) -> Rows:
    # A reminder among the senders: what comes of it, they report.
    return Rows()


def message_row(message: Message, conversation_id: int) -> Row:
    return {
        "id": message.id,
        "conversation_id": conversation_id,
        "direction": message.direction,
        "type": message.type,
        "from_address": message.from_,
        "to_address": message.to,
        "subject": message.subject,
        "body": message.body,
        "attachments": message.attachments,
        "timestamp": message.timestamp,
        "created_at": message.created_at,
        "send_at": message.send_at,
        "provider": message.provider,
        "provider_message_id": message.provider_message_id,
    }
