"""Notifications: the events that are sent to applications.

A notification is thin. It names the objects that it is about, which never change, and carries the facts that
would change, such as the status that a message had then. The event that an application receives is rendered
from both, and is therefore the same at every attempt, except for the files of a received message: it shows
which of them are stored when it is rendered.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import structlog
from pydantic import AwareDatetime, ValidationError

from shared.channels import Channel
from shared.dead_letters import Resolution
from shared.ids import ConversationKey, DeadLetterId, EventId, MessageId
from shared.message import FrozenModel
from shared.status import Status
from shared.suppressions import SuppressionChange

_log = structlog.get_logger()


class NotificationType(StrEnum):
    MESSAGE_RECEIVED = "message.received"
    MESSAGE_ACCEPTED = "message.accepted"
    MESSAGE_SCHEDULED = "message.scheduled"
    MESSAGE_SENT = "message.sent"
    MESSAGE_DELIVERED = "message.delivered"
    MESSAGE_UNDELIVERED = "message.undelivered"
    MESSAGE_FAILED = "message.failed"
    MESSAGE_EXPIRED = "message.expired"
    MESSAGE_CANCELED = "message.canceled"
    CONVERSATION_CREATED = "conversation.created"
    RECIPIENT_OPTED_OUT = "recipient.opted_out"
    RECIPIENT_OPTED_IN = "recipient.opted_in"
    DEAD_LETTER_CREATED = "dead_letter.created"
    DEAD_LETTER_RESOLVED = "dead_letter.resolved"
    WEBHOOK_ENDPOINT_DISABLED = "webhook_endpoint.disabled"
    WEBHOOK_ENDPOINT_TEST = "webhook_endpoint.test"


MEANINGS: Mapping[NotificationType, str] = {
    NotificationType.MESSAGE_RECEIVED: "A message was received",
    NotificationType.MESSAGE_ACCEPTED: "A message was accepted, or its dead letter was replayed",
    NotificationType.MESSAGE_SCHEDULED: "A message was accepted that is to be sent later",
    NotificationType.MESSAGE_SENT: "A provider has accepted a message",
    NotificationType.MESSAGE_DELIVERED: "A message was delivered, according to the provider",
    NotificationType.MESSAGE_UNDELIVERED: "A message could not be delivered, or an e-mail was returned",
    NotificationType.MESSAGE_FAILED: "A message was not sent, and no further attempt will be made",
    NotificationType.MESSAGE_EXPIRED: "A message could not be sent in time",
    NotificationType.MESSAGE_CANCELED: "A message was cancelled before it was sent",
    NotificationType.CONVERSATION_CREATED: "The first message of a conversation was received or accepted",
    NotificationType.RECIPIENT_OPTED_OUT: "An address is no longer sent messages from one of your addresses, "
    "from an opt-out group, or from all of them",
    NotificationType.RECIPIENT_OPTED_IN: "Such a suppression ended",
    NotificationType.DEAD_LETTER_CREATED: "A message could not be processed",
    NotificationType.DEAD_LETTER_RESOLVED: "A dead letter was replayed or discarded",
    NotificationType.WEBHOOK_ENDPOINT_DISABLED: "A webhook endpoint was disabled, because it had failed for "
    "days or responded with 410",
    NotificationType.WEBHOOK_ENDPOINT_TEST: "A webhook endpoint is tested; only it is sent this event",
}
"""The description of each type, for users."""


class ReportedStatus(FrozenModel):
    """The status that a message took, from the report that decides it.

    Attributes:
        provider: the provider that has the message, if one does; `provider_message_id` is its id of it.
    """

    status: Status
    source: Literal["event", "receipt"]
    generation: int
    attempt: int
    provider: str | None = None
    provider_message_id: str | None = None
    error: dict[str, Any] | None = None


class Notification(FrozenModel):
    """A notification.

    Attributes:
        id: computed from what happened, so that it is the same if the notification is published again.
        channel: that it concerns; None if that is unknown.
        our_address: the key of our address that it concerns, or the name of an opt-out group; None for all of
            our addresses, or if that is unknown.
        message_id: of the message; for a new conversation, of the first one in it.
        report: the status that the message took.
        resolution: how the dead letter was resolved.
        is_sent: whether the message of the dead letter was sent after all.
        suppression: the opt-out or opt-in.
        webhook_endpoint: the endpoint, as the API shows it.
    """

    id: EventId
    type: NotificationType
    occurred_at: AwareDatetime
    channel: Channel | None = None
    our_address: str | None = None
    message_id: MessageId | None = None
    conversation_key: ConversationKey | None = None
    report: ReportedStatus | None = None
    dead_letter_id: DeadLetterId | None = None
    resolution: Resolution | None = None
    is_sent: bool = False
    suppression: SuppressionChange | None = None
    webhook_endpoint: dict[str, Any] | None = None

    def encode(self) -> bytes:
        return self.__pydantic_serializer__.to_json(self, by_alias=True, exclude_defaults=True)


def read_notification(sequence: int, payload: bytes) -> Notification | None:
    """Return the notification in a message, or None if it is unreadable: a later release has published it."""
    try:
        return Notification.model_validate_json(payload)
    except ValidationError:
        _log.warning("notification_unreadable", sequence=sequence)
        return None


@dataclass(frozen=True, slots=True)
class NotificationFilter:
    """Selects notifications that meet all conditions; an empty condition is always met.

    A notification without a channel or address is about all of them, or about an unknown one. It meets the
    conditions for these.

    Attributes:
        types: types of notifications; those of a later release may be among them.
        addresses: keys of our addresses.
    """

    types: Collection[str] = ()
    channels: Collection[Channel] = ()
    addresses: Collection[str] = ()

    def selects(self, notification: Notification) -> bool:
        channel, address = notification.channel, notification.our_address
        return (
            (not self.types or notification.type in self.types)
            and (not self.channels or channel is None or channel in self.channels)
            and (not self.addresses or address is None or address in self.addresses)
        )
