"""Signs webhooks according to Standard Webhooks 1.0."""

from collections.abc import Iterable
from datetime import datetime

from standardwebhooks import Webhook

from shared.ids import EventId


def signed_headers(event: EventId, body: bytes, secrets: Iterable[str], now: datetime) -> dict[str, str]:
    """Return the headers of a webhook, with a signature for each secret.

    Args:
        event: the id of the event, which is the same at each attempt.
        body: the body.
        secrets: the secrets as `whsec_…`.
        now: the time of the attempt.
    """
    text = body.decode()
    return {
        "content-type": "application/json",
        "webhook-id": str(event),
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(str(event), now, text) for secret in secrets),
    }
