"""STUB until the branch w-events has it."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import AwareDatetime

from shared.channels import Channel
from shared.ids import EndpointId, EventId, event_id, new_event_id
from shared.message import FrozenModel


class NotificationType(StrEnum):
    MESSAGE_RECEIVED = "message.received"
    MESSAGE_FAILED = "message.failed"
    WEBHOOK_ENDPOINT_DISABLED = "webhook_endpoint.disabled"
    WEBHOOK_ENDPOINT_TEST = "webhook_endpoint.test"


class Notification(FrozenModel):
    id: EventId
    type: NotificationType
    occurred_at: AwareDatetime
    channel: Channel | None = None
    our_address: str | None = None
    message_id: UUID | None = None
    endpoint_id: EndpointId | None = None
    reason: str | None = None


def webhook_endpoint_disabled(endpoint: EndpointId, after: int, reason: str, at: datetime) -> Notification:
    return Notification(
        id=event_id(endpoint, "disabled", after),
        type=NotificationType.WEBHOOK_ENDPOINT_DISABLED,
        occurred_at=at,
        endpoint_id=endpoint,
        reason=reason,
    )


def webhook_endpoint_test(endpoint: EndpointId, at: datetime) -> Notification:
    return Notification(
        id=new_event_id(),
        type=NotificationType.WEBHOOK_ENDPOINT_TEST,
        occurred_at=at,
        endpoint_id=endpoint,
    )
