"""Dead letters for the tests."""

from shared.bus.dead_letters import unreadable
from shared.channels import Channel, Direction
from shared.dead_letters import DeadLetter, Origin, PostedWebhook
from shared.errors import BadMessageError
from shared.ids import dead_letter_id
from shared.message import AttemptError, DeliveryRequest
from tests import messages
from tests.integration.gateway.rows import START

PAYLOAD = b'{"type": "messaging.message.received.v9"}'
WEBHOOK = PostedWebhook(
    path="/api/webhooks/sms", query="", content_type="application/json", received_at=START
)
SUBJECT = "inbound.message.sms.7.13db6b6e-2dbd-5c1c-b749-f90205e39fde"


def undelivered(number: int = 1, *, reason: str = "attempts_exhausted", generation: int = 0) -> DeadLetter:
    """Return the dead letter of a message that its provider did not accept."""
    request = messages.request(generation=generation, attempt=8, deferral_count=3, expires_at=START)
    error = AttemptError(attempt=8, code="http_500", detail="no", at=START)
    return DeadLetter(
        id=dead_letter_id("a test", number),
        direction=Direction.OUTBOUND,
        channel=Channel.SMS,
        reason=reason,
        detail="8 attempts failed",
        message_id=request.message.id,
        generation=generation,
        attempts=8,
        errors=[error],
        request=request.model_copy(update={"errors": [error]}),
        origin=Origin(
            stream="OUTBOUND", sequence=number, subject="outbound.sms.0.x", consumer="sender-sms-00"
        ),
    )


def unknown(
    payload: bytes = PAYLOAD, *, stream: str = "INBOUND", subject: str = SUBJECT, sequence: int = 5
) -> DeadLetter:
    """Return the dead letter of an event whose type is unknown."""
    origin = Origin(stream=stream, sequence=sequence, subject=subject, consumer="ingest-inbound")
    return unreadable(payload, BadMessageError("unknown_type", "v9"), origin)


def posted(body: str) -> DeadLetter:
    """Return the dead letter of a webhook that could not be read."""
    return DeadLetter(
        id=dead_letter_id("webhook", body),
        direction=Direction.INBOUND,
        channel=Channel.SMS,
        reason="webhook_unreadable",
        detail="The body is not JSON",
        payload=body,
        webhook=WEBHOOK,
    )


def request_of(dead_letter: DeadLetter) -> DeliveryRequest:
    assert dead_letter.request is not None
    return dead_letter.request
