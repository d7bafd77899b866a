"""Twilio's signature of its webhooks: HMAC-SHA1 over the URL and the fields of the form."""

import hmac
from base64 import b64encode
from collections.abc import Iterable

SIGNATURE_HEADER = "X-Twilio-Signature"


def sign(auth_token: str, url: str, params: Iterable[tuple[str, str]]) -> str:
    """Return the signature of a form that is posted to a URL."""
    signed = url + "".join(name + value for name, value in sorted(set(params)))
    return b64encode(hmac.digest(auth_token.encode(), signed.encode(), "sha1")).decode()
