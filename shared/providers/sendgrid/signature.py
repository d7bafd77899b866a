"""SendGrid's signed webhooks: ECDSA over P-256 with SHA-256, of a timestamp and the body."""

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import datetime
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from shared.providers.webhooks import Refusal, WebhookRequest

HEADER = "X-Twilio-Email-Event-Webhook-Signature"

_TIMESTAMP_HEADER = "X-Twilio-Email-Event-Webhook-Timestamp"
_TOLERANCE = 300
"""Seconds between a signature and its verification."""


class SendGridKey:
    """The public key of the webhooks."""

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        self._key = key

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a key as SendGrid shows it: its SubjectPublicKeyInfo in base64.

        Raises:
            ValueError: the text is not such a key; the message does not repeat it.
        """
        try:
            key = load_der_public_key(b64decode(text, validate=True))
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
            return cls(key)
        raise ValueError("must be a public key on the curve P-256, in base64")

    def verify(self, request: WebhookRequest) -> Refusal | None:
        if refusal := check_headers(request.headers, request.received_at):
            return refusal
        timestamp = request.headers[_TIMESTAMP_HEADER.lower()]
        try:
            signature = b64decode(request.headers[HEADER.lower()])
            self._key.verify(signature, timestamp.encode() + request.body, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return Refusal.WRONG_SIGNATURE
        return None


def check_headers(headers: Mapping[str, str], now: datetime) -> Refusal | None:
    """Return the reason to refuse a webhook regardless of its body, or None if there is none."""
    timestamp = headers.get(_TIMESTAMP_HEADER.lower(), "")
    if not re.fullmatch(r"[0-9]{1,12}", timestamp) or abs(now.timestamp() - int(timestamp)) > _TOLERANCE:
        return Refusal.EXPIRED
    try:
        decode_dss_signature(_exact_base64(headers.get(HEADER.lower(), "")))
    except ValueError:
        return Refusal.WRONG_SIGNATURE
    return None


def _exact_base64(text: str) -> bytes:
    """Decode base64 that is spelt as `b64encode` spells it.

    Raises:
        ValueError: it is not.
    """
    value = b64decode(text, validate=True)
    if b64encode(value).decode() != text:
        raise binascii.Error("has meaningless bits")
    return value
