"""X-Twilio-Signature: an HMAC-SHA1 of the URL that Twilio was given and of the form."""

import hmac
import re
from base64 import b64encode
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from urllib.parse import urlsplit

from shared.providers.forms import parse_urlencoded
from shared.providers.twilio.settings import TwilioSettings
from shared.providers.webhooks import Refusal, SignatureScheme, Verifier, WebhookRequest

HEADER = "X-Twilio-Signature"
FORM = "application/x-www-form-urlencoded"

_FORM_OF_SIGNATURE = re.compile(r"[A-Za-z0-9+/]{27}=")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class TwilioSignatures:
    """Verifies signatures over the URL and the form; for other bodies, the URL contains their hash.

    Args:
        token: the account's auth token.
        public_url: the base of the URLs that Twilio was given.
    """

    def __init__(self, token: str, public_url: str) -> None:
        self._token = token.encode()
        self._bases = _with_and_without_port(public_url.rstrip("/"))

    def __call__(self, request: WebhookRequest) -> Refusal | None:
        given = request.headers.get(HEADER.lower(), "").encode()
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type == FORM:
            content, is_whole = _signed_form(request.body), True
        else:
            content, is_whole = b"", _hash_matches(request)
        query = b"?" + request.query if request.query else b""
        rest = request.path.encode() + query + content
        matches = [hmac.compare_digest(self._signature(base + rest), given) for base in self._bases]
        return None if is_whole and any(matches) else Refusal.WRONG_SIGNATURE

    def _signature(self, signed: bytes) -> bytes:
        return b64encode(hmac.digest(self._token, signed, "sha1"))


def _with_and_without_port(url: str) -> list[bytes]:
    """Return both spellings of the URL: which one is signed depends on the Twilio product."""
    parts = urlsplit(url)
    host = parts.netloc if parts.port is None else parts.netloc.rpartition(":")[0]
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    return [f"{parts.scheme}://{netloc}{parts.path}".encode() for netloc in (host, f"{host}:{port}")]


def _signed_form(body: bytes) -> bytes:
    return b"".join(name + value for name, value in sorted(set(parse_urlencoded(body))))


def _hash_matches(request: WebhookRequest) -> bool:
    given = next((value for name, value in parse_urlencoded(request.query) if name == b"bodySHA256"), b"")
    return hmac.compare_digest(sha256(request.body).hexdigest().encode(), given)


def check_headers(headers: Mapping[str, str], _: datetime) -> Refusal | None:
    """Return the reason to refuse a webhook regardless of its body: a signature that is not well-formed."""
    return None if _FORM_OF_SIGNATURE.fullmatch(headers.get(HEADER.lower(), "")) else Refusal.WRONG_SIGNATURE


def _verifier(settings: TwilioSettings) -> Verifier | None:
    if settings.twilio_auth_token is None:
        return None
    if settings.public_base_url is None:
        raise ValueError("PUBLIC_BASE_URL must be set along with TWILIO_AUTH_TOKEN: Twilio signs the URL")
    return TwilioSignatures(settings.twilio_auth_token.get_secret_value(), settings.public_base_url)


SIGNATURE = SignatureScheme(
    name="TwilioSignature",
    header=HEADER,
    description="Twilio's signature of the URL and the form.",
    check_headers=check_headers,
    verifier=_verifier,
)
