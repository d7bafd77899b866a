"""Who may call: clients show a key of theirs, providers sign with a shared secret.

A `Security` dependency stands before the routes only where something is configured for it, so that the
OpenAPI document says what is true of this gateway.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Mapping
from typing import Self

from fastapi import Request
from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer
from fastapi.security.base import SecurityBase
from standardwebhooks import Webhook, WebhookVerificationError

from services.gateway.http.body import read_body
from services.gateway.http.errors import UnauthorizedError

ANONYMOUS = "anonymous"
"""Stands for the client's name where no keys are configured."""

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_KEY = re.compile(r"[!-~]+")
_SECRET_PREFIX = "whsec_"  # noqa: S105 - makes secrets recognisable and is none


class ApiKeys:
    """The clients' keys. A name may have several, so that a key can be changed without a gap."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._names = {key.encode(): name for key, name in keys.items()}

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `name:key,…`.

        Raises:
            ValueError: it is not that; the message repeats no key.
        """
        keys: dict[str, str] = {}
        for number, entry in enumerate(filter(None, map(str.strip, text.split(","))), start=1):
            name, _, key = entry.partition(":")
            if not _NAME.fullmatch(name) or not _KEY.fullmatch(key):
                raise ValueError(f"entry {number} is not name:key")
            if key in keys:
                raise ValueError(f"entry {number} has the key of another")
            keys[key] = name
        return cls(keys)

    def __bool__(self) -> bool:
        return bool(self._names)

    def client_of(self, token: str) -> str | None:
        """Name the client, in a time that does not depend on how much of a key was guessed."""
        found = None
        for key, name in self._names.items():
            if hmac.compare_digest(key, token.encode()):
                found = name
        return found


class WebhookSecrets:
    """What the providers sign with (Standard Webhooks 1.0). Any of several will do."""

    def __init__(self, webhooks: list[Webhook]) -> None:
        self._webhooks = webhooks

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `whsec_…`, or several with spaces or commas between.

        Raises:
            ValueError: one is no secret; the message repeats none.
        """
        return cls([_webhook(secret) for secret in text.replace(",", " ").split()])

    def __bool__(self) -> bool:
        return bool(self._webhooks)

    def signed(self, body: bytes, headers: Mapping[str, str]) -> bool:
        """Tell whether one of the secrets signed the body within the last 5 minutes."""
        return any(_verifies(webhook, body, headers) for webhook in self._webhooks)


def _webhook(secret: str) -> Webhook:
    encoded = secret.removeprefix(_SECRET_PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except binascii.Error:
        key = b""
    if encoded == secret or not key:
        raise ValueError(f"must be {_SECRET_PREFIX} and base64")
    return Webhook(key)


def _verifies(webhook: Webhook, body: bytes, headers: Mapping[str, str]) -> bool:
    try:
        webhook.verify(body, dict(headers), json_parse=False)
    except (WebhookVerificationError, ValueError):
        # ValueError is what the library lets out for a malformed signature or a body that is no UTF-8.
        return False
    return True


class RequireApiKey(SecurityBase):
    """Lets in who has a key, and leaves the client's name in `request.state.client`."""

    def __init__(self, keys: ApiKeys) -> None:
        self.model = HTTPBearer(description="A key of `API_KEYS`.")
        self.scheme_name = "ApiKey"
        self._keys = keys

    async def __call__(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        client = self._keys.client_of(token.strip()) if scheme.lower() == "bearer" else None
        if client is None:
            raise UnauthorizedError("An API key is required: Authorization: Bearer …", challenge="Bearer")
        request.state.client = client


class RequireSignature(SecurityBase):
    """Lets in who has signed the body."""

    def __init__(self, secrets: WebhookSecrets) -> None:
        self.model = APIKey(
            name="webhook-signature",
            description="Standard Webhooks 1.0, with `webhook-id` and `webhook-timestamp`.",
            **{"in": APIKeyIn.header},
        )
        self.scheme_name = "WebhookSignature"
        self._secrets = secrets

    async def __call__(self, request: Request) -> None:
        if not self._secrets.signed(await read_body(request), request.headers):
            raise UnauthorizedError(
                "A valid signature by Standard Webhooks is required", challenge="StandardWebhooks"
            )


def client_of(request: Request) -> str:
    client: str = getattr(request.state, "client", ANONYMOUS)
    return client
