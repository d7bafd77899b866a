"""Signatures by Standard Webhooks 1.0."""

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Self

from standardwebhooks import Webhook, WebhookVerificationError

from shared.providers.webhooks import Refusal, WebhookRequest
from shared.settings import MIN_SECRET

HEADER = "webhook-signature"

_TIMESTAMP_HEADER = "webhook-timestamp"
_TOLERANCE = 300
"""Seconds between a signature and its verification."""

_FORM_OF_SIGNATURE = re.compile(r"(?<!\S)v1,[A-Za-z0-9+/]{43}=(?!\S)")

_SECRET_PREFIX = "whsec_"  # noqa: S105 - makes secrets recognisable and is not one


class WebhookSecrets:
    """The secrets that providers sign with. Any of several is sufficient, so that they can be rotated."""

    def __init__(self, webhooks: list[Webhook]) -> None:
        self._webhooks = webhooks

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `whsec_…`, or several secrets separated by spaces or commas.

        Raises:
            ValueError: there is none, or one is not a secret or too short; the message repeats none.
        """
        webhooks = [_webhook(secret) for secret in text.replace(",", " ").split()]
        if not webhooks:
            raise ValueError("has no entries")
        return cls(webhooks)

    def __bool__(self) -> bool:
        return bool(self._webhooks)

    def verify(self, request: WebhookRequest) -> Refusal | None:
        """Check that one of the secrets signed the body within the last 5 minutes."""
        if any(_verifies(webhook, request) for webhook in self._webhooks):
            return None
        return Refusal.WRONG_SIGNATURE


def check_headers(headers: Mapping[str, str], now: datetime) -> Refusal | None:
    """Return the reason to refuse a webhook regardless of its body, or None if there is none."""
    timestamp = headers.get(_TIMESTAMP_HEADER, "")
    is_recent = timestamp.isdecimal() and abs(now.timestamp() - float(timestamp)) <= _TOLERANCE
    has_form = _FORM_OF_SIGNATURE.search(headers.get(HEADER, ""))
    return None if is_recent and has_form else Refusal.WRONG_SIGNATURE


def _webhook(secret: str) -> Webhook:
    encoded = secret.removeprefix(_SECRET_PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except binascii.Error:
        key = b""
    if encoded == secret or not key:
        raise ValueError(f"must be {_SECRET_PREFIX} and base64")
    if len(key) < MIN_SECRET:
        raise ValueError(f"must be base64 of at least {MIN_SECRET} bytes")
    return Webhook(key)


def _verifies(webhook: Webhook, request: WebhookRequest) -> bool:
    try:
        webhook.verify(request.body, dict(request.headers), json_parse=False)
    except (WebhookVerificationError, ValueError):
        # The library raises ValueError for a malformed signature, or a body that is not UTF-8.
        return False
    return True
