"""SendGrid's signature of its webhooks: ECDSA over the timestamp and the body."""

from base64 import b64decode, b64encode

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

SIGNATURE_HEADER = "X-Twilio-Email-Event-Webhook-Signature"
TIMESTAMP_HEADER = "X-Twilio-Email-Event-Webhook-Timestamp"


def sign(key: ec.EllipticCurvePrivateKey, timestamp: str, body: bytes) -> str:
    """The signature of a body that is sent at `timestamp` (seconds since 1970), DER in base64."""
    return b64encode(key.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))).decode()


def encode_public_key(key: ec.EllipticCurvePrivateKey) -> str:
    """What the receiver checks signatures with, SPKI in base64."""
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b64encode(spki).decode()


def decode_private_key(encoded: str) -> ec.EllipticCurvePrivateKey:
    """A P-256 key, from DER in base64. Raises ValueError when it is anything else."""
    try:
        key = load_der_private_key(b64decode(encoded, validate=True), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("must be a P-256 private key, as DER in base64")  # noqa: TRY004 - for pydantic
    return key
