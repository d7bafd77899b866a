"""Valid messages and events for tests, in which any field can be chosen."""

from datetime import UTC, datetime, timedelta
from typing import Any

from shared.addresses import Address
from shared.channels import Direction, MessageType
from shared.events import Event, message_accepted
from shared.ids import new_message_id
from shared.message import DeliveryRequest, Message

ALICE = "+12016661234"
BOB = "+18045551234"


def now() -> datetime:
    return datetime.now(UTC)


def address(spelling: str) -> Address:
    """Return an address that is already normalised, except that its key ignores case."""
    return Address(spelling, spelling.casefold())


def message(**fields: Any) -> Message:  # noqa: ANN401 - any field of a message
    """Return an outbound message from Alice to Bob, or between `from_` and `to`."""
    defaults = {
        "from_": ALICE,
        "to": BOB,
        "type": MessageType.SMS,
        "id": new_message_id(),
        "direction": Direction.OUTBOUND,
        "body": "Hello",
        "attachments": [],
        "timestamp": now(),
        "created_at": now(),
    }
    values = {**defaults, **fields}
    return Message.between(address(values.pop("from_")), address(values.pop("to")), **values)


def email(**fields: Any) -> Message:  # noqa: ANN401 - any field of a message
    defaults = {"from_": "ann@example.com", "to": "ben@example.org", "type": MessageType.EMAIL}
    return message(**{**defaults, **fields})


def request(of: Message | None = None, **fields: Any) -> DeliveryRequest:  # noqa: ANN401 - any field of a request
    defaults = {"message": of or message(), "expires_at": now() + timedelta(hours=4)}
    return DeliveryRequest(**{**defaults, **fields})


def accepted(of: DeliveryRequest | None = None) -> Event[DeliveryRequest]:
    return message_accepted(of or request(), time=now())
