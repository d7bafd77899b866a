"""Headers of webhooks by Standard Webhooks 1.0."""

from base64 import b64decode
from datetime import UTC, datetime
from uuid import NAMESPACE_URL, uuid5

from standardwebhooks import Webhook

_SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix of every secret, not a secret


def decode_secret(secret: str) -> bytes:
    """Return the key in a secret.

    Raises:
        ValueError: The secret is not `whsec_` followed by base64.
    """
    encoded = secret.removeprefix(_SECRET_PREFIX)
    try:
        key = b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        key = b""
    if encoded == secret or not key:
        raise ValueError(f"must be {_SECRET_PREFIX} followed by base64")
    return key


def webhook_headers(key: bytes | None, event: str, body: bytes) -> dict[str, str]:
    """Return the headers of a webhook. The same event always has the same `webhook-id`."""
    webhook_id = f"msg_{uuid5(NAMESPACE_URL, event).hex}"
    now = datetime.now(UTC)
    headers = {
        "content-type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
    }
    if key:
        headers["webhook-signature"] = Webhook(key).sign(webhook_id, now, body.decode())
    return headers
