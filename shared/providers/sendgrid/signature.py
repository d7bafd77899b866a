"""SendGrid's signed webhooks: ECDSA over P-256 with SHA-256, of a timestamp and the body."""

import binascii
import re
from base64 import b64decode, b64encode
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
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
        timestamp = request.headers.get(_TIMESTAMP_HEADER.lower(), "")
        now = request.received_at.timestamp()
        if not re.fullmatch(r"[0-9]{1,12}", timestamp) or abs(now - int(timestamp)) > _TOLERANCE:
            return Refusal.EXPIRED
        try:
            signature = _exact_base64(request.headers.get(HEADER.lower(), ""))
            self._key.verify(signature, timestamp.encode() + request.body, ec.ECDSA(SHA256()))
        except (InvalidSignature, ValueError):
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
