"""Webhooks as the providers post and sign them."""

import base64
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from standardwebhooks import Webhook
from twilio.request_validator import RequestValidator

from shared.providers.registry import PROVIDERS, create_verifier
from shared.providers.webhooks import Verifier

WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TOKEN = "0123456789abcdef0123456789abcdef"
PUBLIC_URL = "https://hooks.example.com/messaging"
KEY = ec.derive_private_key(0x5EED, ec.SECP256R1())
PUBLIC_KEY = base64.b64encode(
    KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
).decode()

PRIVATE_KEY = base64.b64encode(KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())).decode()

SIGNED: Mapping[str, Any] = {
    "webhook_secret": WEBHOOK_SECRET,
    "twilio_auth_token": TOKEN,
    "public_base_url": PUBLIC_URL,
    "sendgrid_webhook_public_key": PUBLIC_KEY,
}
"""Settings with which the signatures of all providers are verified."""

GENERIC_SMS = "/api/webhooks/sms"
GENERIC_SMS_STATUS = "/api/webhooks/sms/status"
GENERIC_EMAIL = "/api/webhooks/email"
GENERIC_EMAIL_STATUS = "/api/webhooks/email/status"
TWILIO_MESSAGES = "/api/webhooks/twilio/messages"
TWILIO_STATUS = "/api/webhooks/twilio/status"
SENDGRID_INBOUND = "/api/webhooks/sendgrid/inbound"
SENDGRID_EVENTS = "/api/webhooks/sendgrid/events"

FORM = {"content-type": "application/x-www-form-urlencoded"}
JSON = {"content-type": "application/json"}
BOUNDARY = "xYzZY"
MULTIPART = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}

SMS = {
    "MessageSid": "SM" + "1" * 32,
    "SmsSid": "SM" + "1" * 32,
    "AccountSid": "AC" + "2" * 32,
    "MessagingServiceSid": "",
    "From": "+18045551234",
    "To": "+12016661234",
    "Body": "Hello & good day, Zoë!",
    "NumMedia": "0",
    "NumSegments": "1",
}
STATUS = {
    "MessageSid": "SM" + "3" * 32,
    "MessageStatus": "delivered",
    "AccountSid": "AC" + "2" * 32,
    "From": "+12016661234",
    "To": "+18045551234",
}
MAIL = {
    "headers": "Received: by mx.example.com\nMessage-ID: <1@example.com>\nSubject: Hello\n",
    "dkim": "{@example.com : pass}",
    "from": "Ann Example <ann@example.com>",
    "to": '"Us" <us@example.org>',
    "subject": "Hello",
    "text": "Hello!\n",
    "html": "<p>Hello!</p>",
    "envelope": '{"to": ["us@example.org"], "from": "bounces@example.com"}',
    "charsets": '{"to": "UTF-8", "html": "UTF-8", "text": "UTF-8"}',
    "SPF": "pass",
    "attachments": "0",
}
DELIVERED = {
    "event": "delivered",
    "email": "ann@example.com",
    "timestamp": 1_730_469_600,
    "sg_event_id": "event-1",
    "sg_message_id": "X-1.recvd-5f-1.0",
    "message_id": "0198c0de-0000-7000-8000-000000000001",
}


def verifiers(**settings: str) -> Mapping[str, Verifier | None]:
    """Return the verifier of each provider's signatures, for some settings."""
    return {
        name: create_verifier(provider, _env_file=None, **settings) for name, provider in PROVIDERS.items()
    }


def urlencoded(form: Mapping[str, str | list[str]]) -> bytes:
    return urlencode(form, doseq=True).encode()


def multipart(
    fields: Mapping[str, str | bytes], files: Mapping[str, tuple[str, str, bytes]] | None = None
) -> bytes:
    parts = [
        f'Content-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
        + (value if isinstance(value, bytes) else value.encode())
        for name, value in fields.items()
    ]
    parts += [
        f'Content-Disposition: form-data; name="{name}"; filename="{file}"\r\n'.encode()
        + f"Content-Type: {type_}\r\n\r\n".encode()
        + content
        for name, (file, type_, content) in (files or {}).items()
    ]
    boundary = f"--{BOUNDARY}".encode()
    return b"".join(boundary + b"\r\n" + part + b"\r\n" for part in parts) + boundary + b"--\r\n"


def by_generic(
    body: bytes, *, secret: str = WEBHOOK_SECRET, age: timedelta = timedelta(0), **headers: str
) -> dict[str, Any]:
    """Return the arguments of a request that a generic provider has signed."""
    moment = datetime.now(UTC) - age
    signed = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", moment, body.decode()),
    }
    return {"content": body, "headers": {**JSON, **signed, **headers}}


def by_twilio(path: str, form: Mapping[str, str], *, token: str = TOKEN, **headers: str) -> dict[str, Any]:
    """Return the arguments of a request that Twilio has signed."""
    signature = RequestValidator(token).compute_signature(PUBLIC_URL + path, form)
    return {"content": urlencoded(form), "headers": {**FORM, "x-twilio-signature": signature, **headers}}


def by_sendgrid(
    body: bytes,
    content_type: Mapping[str, str],
    *,
    key: ec.EllipticCurvePrivateKey = KEY,
    age: float = 0,
    **headers: str,
) -> dict[str, Any]:
    """Return the arguments of a request that SendGrid has signed."""
    timestamp = str(int(time.time() - age))
    signature = base64.b64encode(key.sign(timestamp.encode() + body, ec.ECDSA(SHA256()))).decode()
    signed = {
        "x-twilio-email-event-webhook-signature": signature,
        "x-twilio-email-event-webhook-timestamp": timestamp,
    }
    return {"content": body, "headers": {**content_type, **signed, **headers}}


def events(*given: object) -> bytes:
    return json.dumps(given).encode()
