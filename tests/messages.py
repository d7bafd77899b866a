"""Messages and events for tests: valid, and of one's own choice where it matters."""

from datetime import UTC, datetime, timedelta
from typing import Any

from shared.channels import Direction, MessageType
from shared.events import DeliveryRequest, Message, MessageAccepted
from shared.ids import conversation_key, new_message_id

ALICE = "+12016661234"
BOB = "+18045551234"


def now() -> datetime:
    return datetime.now(UTC)


def message(**what: Any) -> Message:  # noqa: ANN401 - any field of a message
    """Make a message from Alice to Bob, or between `from_` and `to`."""
    from_, to = what.pop("from_", ALICE), what.pop("to", BOB)
    participants = sorted({from_.casefold(), to.casefold()})
    fields = {
        "id": new_message_id(),
        "conversation_key": conversation_key(participants),
        "direction": Direction.OUTBOUND,
        "type": MessageType.SMS,
        "from_": from_,
        "to": to,
        "participants": participants,
        "body": "Hello",
        "attachments": [],
        "timestamp": now(),
        "created_at": now(),
    }
    return Message.model_validate({**fields, **what})


def email(**what: Any) -> Message:  # noqa: ANN401 - any field of a message
    return message(**{"from_": "ann@example.com", "to": "ben@example.org", "type": MessageType.EMAIL, **what})


def request(of: Message | None = None, **what: Any) -> DeliveryRequest:  # noqa: ANN401 - any field of a request
    fields = {"message": of or message(), "expires_at": now() + timedelta(hours=4)}
    return DeliveryRequest.model_validate({**fields, **what})


def accepted(of: DeliveryRequest | None = None) -> MessageAccepted:
    return MessageAccepted.of(of or request(), time=now())
