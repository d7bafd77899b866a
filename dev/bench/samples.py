"""What is sent: messages of a good number of conversations."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.channels import Direction, MessageType
from shared.events import DeliveryRequest, Message, MessageAccepted
from shared.ids import conversation_key, new_message_id

CONVERSATIONS = 500

_OURS = "+12016661234"
_BODY = "Your order has been shipped and will be with you tomorrow between 9 and 12. Reply STOP to end this."


def their_number(conversation: int) -> str:
    return f"+1804555{conversation % CONVERSATIONS:04}"


def send_request(conversation: int) -> dict[str, Any]:
    """Make what a client POSTs to send an SMS; a provider is asked with the same fields."""
    return {
        "from": _OURS,
        "to": their_number(conversation),
        "type": "sms",
        "body": _BODY,
        "attachments": None,
        "timestamp": "2026-03-01T14:00:00Z",
    }


def webhook(conversation: int, provider_message_id: str) -> dict[str, Any]:
    """Make what a provider POSTs when somebody has answered."""
    return {
        **send_request(conversation),
        "from": their_number(conversation),
        "to": _OURS,
        "messaging_provider_id": provider_message_id,
    }


def accepted_events(count: int) -> Iterator[MessageAccepted]:
    """Make what the gateway would publish of `count` requests."""
    for number in range(count):
        now = datetime.now(UTC)
        message = _message(their_number(number), now)
        yield MessageAccepted.of(
            DeliveryRequest(message=message, expires_at=now + timedelta(hours=4)), time=now
        )


def _message(to: str, now: datetime) -> Message:
    participants = sorted((_OURS, to))
    return Message(
        id=new_message_id(),
        conversation_key=conversation_key(participants),
        direction=Direction.OUTBOUND,
        type=MessageType.SMS,
        from_=_OURS,
        to=to,
        participants=participants,
        body=_BODY,
        attachments=[],
        timestamp=now,
        created_at=now,
    )
