"""Signatures by Standard Webhooks 1.0."""

import binascii
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import datetime
from typing import Self

from shared.providers.webhooks import Refusal, WebhookRequest
from shared.settings import MIN_SECRET

HEADER = "webhook-signature"

_ID_HEADER = "webhook-id"
_TIMESTAMP_HEADER = "webhook-timestamp"
_TOLERANCE = 300
"""Seconds between a signature and its verification."""

_FORM_OF_SIGNATURE = re.compile(r"(?<!\S)v1,[A-Za-z0-9+/]{43}=(?!\S)")

_SECRET_PREFIX = "whsec_"  # noqa: S105 - makes secrets recognisable and is not one


class WebhookSecrets:
    """The secrets that providers sign with. Any of several is sufficient, so that they can be rotated."""

    def __init__(self, keys: list[bytes]) -> None:
        self._keys = keys

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `whsec_…`, or several secrets separated by spaces or commas.

        Raises:
            ValueError: there is none, or one is not a secret or too short; the message repeats none.
        """
        keys = [_key_of(secret) for secret in text.replace(",", " ").split()]
        if not keys:
            raise ValueError("has no entries")
        return cls(keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def verify(self, request: WebhookRequest) -> Refusal | None:
        """Check that one of the secrets signed the body within the last 5 minutes."""
        if refusal := check_headers(request.headers, request.received_at):
            return refusal
        # The library for Standard Webhooks refuses a body that is not UTF-8, even if it is signed.
        id_, timestamp = (request.headers.get(name, "") for name in (_ID_HEADER, _TIMESTAMP_HEADER))
        signed = f"{id_}.{timestamp}.".encode() + request.body
        expected = [b"v1," + b64encode(hmac.digest(key, signed, "sha256")) for key in self._keys]
        given = request.headers[HEADER].encode().split()
        matches = [hmac.compare_digest(one, other) for one in expected for other in given]
        return None if id_ and any(matches) else Refusal.WRONG_SIGNATURE


def check_headers(headers: Mapping[str, str], now: datetime) -> Refusal | None:
    """Return the reason to refuse a webhook regardless of its body, or None if there is none."""
    timestamp = headers.get(_TIMESTAMP_HEADER, "")
    is_recent = timestamp.isdecimal() and abs(now.timestamp() - float(timestamp)) <= _TOLERANCE
    has_form = _FORM_OF_SIGNATURE.search(headers.get(HEADER, ""))
    return None if is_recent and has_form else Refusal.WRONG_SIGNATURE


def _key_of(secret: str) -> bytes:
    encoded = secret.removeprefix(_SECRET_PREFIX)
    try:
        key = b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except binascii.Error:
        key = b""
    if encoded == secret or not key:
        raise ValueError(f"must be {_SECRET_PREFIX} and base64")
    if len(key) < MIN_SECRET:
        raise ValueError(f"must be base64 of at least {MIN_SECRET} bytes")
    return key
