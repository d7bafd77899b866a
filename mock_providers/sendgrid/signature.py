"""SendGrid's signature of its webhooks: ECDSA over the timestamp and the body."""

import time
from base64 import b64decode, b64encode

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

SIGNATURE_HEADER = "X-Twilio-Email-Event-Webhook-Signature"
TIMESTAMP_HEADER = "X-Twilio-Email-Event-Webhook-Timestamp"


def signature_headers(key: ec.EllipticCurvePrivateKey, body: bytes) -> dict[str, str]:
    """Return the headers that sign a body which is sent now."""
    timestamp = str(int(time.time()))
    signature = key.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))
    return {TIMESTAMP_HEADER: timestamp, SIGNATURE_HEADER: b64encode(signature).decode()}


def new_private_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def encode_public_key(key: ec.EllipticCurvePrivateKey) -> str:
    """Return the public key, which verifies signatures, as SPKI in base64."""
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b64encode(spki).decode()


def decode_private_key(encoded: str) -> ec.EllipticCurvePrivateKey:
    """Return the key in a setting.

    Raises:
        ValueError: The setting is not a P-256 key as DER in base64.
    """
    try:
        key = load_der_private_key(b64decode(encoded, validate=True), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("must be a P-256 private key, as DER in base64")  # noqa: TRY004 - for pydantic
    return key
