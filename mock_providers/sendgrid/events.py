"""Events about e-mails, as the Event Webhook sends them."""

import secrets
import time
from collections.abc import Iterator, Mapping

from mock_providers.sendgrid.mail import Mail, custom_args
from mock_providers.webhooks import Payload

_EXAMPLES: dict[str, Payload] = {
    "delivered": {"response": "250 OK", "tls": 1},
    "deferred": {"response": "400 try again later", "attempt": "1"},
    "bounce": {"type": "bounce", "status": "5.1.1", "reason": "550 5.1.1 The account does not exist"},
    "dropped": {"status": "5.0.0", "reason": "Bounced Address"},
}


def make_event(given: Mapping[str, object]) -> Payload:
    """Return an event: the given fields unchanged, and examples for the others."""
    kind = given.get("event", "delivered")
    examples: Payload = {
        "email": "customer@example.com",
        "timestamp": int(time.time()),
        "smtp-id": f"<{secrets.token_urlsafe(12)}@mock-sendgrid>",
        "event": "delivered",
        **_EXAMPLES.get(str(kind), {}),
        "sg_event_id": secrets.token_urlsafe(16),
        "sg_message_id": sg_message_id(secrets.token_urlsafe(16)),
    }
    return {**examples, **given}  # type: ignore[dict-item]  # callers give JSON values only


def events_of(mail: Mail, message_id: str, given: Mapping[str, object]) -> Iterator[Payload]:
    """Yield an event with the given fields for each recipient of an e-mail.

    Custom arguments are added to an event's own fields, and never replace them.
    """
    if given.get("event") == "dropped":
        message_id = secrets.token_urlsafe(16)  # SendGrid drops an e-mail before it gets its X-Message-Id
    for part in mail.personalizations:
        for position, address in enumerate(part.recipients):
            yield {
                **custom_args(mail, part),
                **({"category": [*mail.categories]} if mail.categories else {}),
                **make_event(
                    {"email": address, "sg_message_id": sg_message_id(message_id, position), **given}
                ),
            }


def sg_message_id(message_id: str, position: int = 0) -> str:
    """Return the id of a message in its events, which begins with the X-Message-Id of the response."""
    return f"{message_id}.recvd-mock-1-{position}.0"
