"""Sample messages, which belong to many conversations."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.addresses import Address
from shared.channels import Direction, MessageType
from shared.events import Event, message_accepted
from shared.ids import new_message_id
from shared.message import DeliveryRequest, Message

CONVERSATIONS = 10_000

_OURS = "+12016661234"
_BODY = "Your order has been shipped and will be with you tomorrow between 9 and 12. Reply STOP to end this."


def their_number(conversation: int) -> str:
    return f"+1804555{conversation % CONVERSATIONS:04}"


def send_request(conversation: int) -> dict[str, Any]:
    """Return the body of a request to send an SMS; the generic provider's API has the same fields."""
    return {
        "from": _OURS,
        "to": their_number(conversation),
        "type": "sms",
        "body": _BODY,
        "attachments": None,
        "timestamp": "2026-03-01T14:00:00Z",
    }


def webhook(conversation: int, provider_message_id: str) -> dict[str, Any]:
    """Return the body of the webhook that delivers a reply."""
    return {
        **send_request(conversation),
        "from": their_number(conversation),
        "to": _OURS,
        "messaging_provider_id": provider_message_id,
    }


def accepted_events(count: int) -> Iterator[Event[DeliveryRequest]]:
    """Yield the events that the gateway would publish for `count` requests."""
    for number in range(count):
        now = datetime.now(UTC)
        message = _message(their_number(number), now)
        request = DeliveryRequest(message=message, expires_at=now + timedelta(hours=4))
        yield message_accepted(request, time=now)


def _message(to: str, now: datetime) -> Message:
    return Message.between(
        Address(_OURS, _OURS),
        Address(to, to),
        id=new_message_id(),
        direction=Direction.OUTBOUND,
        type=MessageType.SMS,
        body=_BODY,
        attachments=[],
        timestamp=now,
        created_at=now,
    )
