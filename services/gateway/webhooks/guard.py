"""Verifies the signatures of webhooks."""

import asyncio
from typing import Any

import structlog
from fastapi import Request
from fastapi.openapi.models import APIKey, APIKeyIn
from fastapi.security.base import SecurityBase

from services.gateway.http.body import read_body
from services.gateway.http.errors import OverloadedError, ProblemError, UnauthorizedError
from services.gateway.webhooks.requests import webhook_request
from shared.observability.metrics import WEBHOOKS_REFUSED
from shared.providers.base import Provider
from shared.providers.webhooks import Refusal, SignatureScheme, Verifier, Webhook
from shared.validation import MAX_BODY

_log = structlog.get_logger()

_DETAILS = {
    Refusal.UNSIGNED: "The header {header} is missing",
    Refusal.EXPIRED: "The webhook was not signed within the last 5 minutes",
    Refusal.WRONG_SIGNATURE: "{header} does not match the request",
    Refusal.NO_SECRET: "This gateway is not configured to verify {header}",
}

_MAX_BODIES = 256
_MAX_LARGE_BODIES = 4  # of up to 30 MB, which take twice as much while they are parsed
"""The number of unverified bodies that a route reads at the same time."""

_BODY_TIMEOUT = 60
"""Seconds."""


class RequireSignature(SecurityBase):
    """Refuses requests to a provider's webhook that the provider has not signed.

    Args:
        provider: the provider.
        scheme: how it signs.
        verifier: verifies its signatures; None if that is not configured, and all requests are refused.
        webhook: the webhook.
    """

    def __init__(
        self,
        provider: Provider[Any],
        scheme: SignatureScheme[Any],
        verifier: Verifier | None,
        webhook: Webhook,
    ) -> None:
        location = {"in": APIKeyIn.header}
        self.model = APIKey(name=scheme.header, description=scheme.description, **location)
        self.scheme_name = scheme.name
        self._provider = provider.name
        self._scheme = scheme
        self._verify = verifier
        limit = _MAX_LARGE_BODIES if webhook.max_size > MAX_BODY else _MAX_BODIES
        self._slots = asyncio.Semaphore(limit)

    async def __call__(self, request: Request) -> None:
        refusal = await self._refusal(request)
        if refusal is None:
            return
        WEBHOOKS_REFUSED.labels(self._provider, refusal).inc()
        detail = _DETAILS[refusal].format(header=self._scheme.header)
        if self._scheme.challenge:
            raise UnauthorizedError(detail, challenge=self._scheme.challenge)
        raise ProblemError(403, "signature_refused", detail)

    async def _refusal(self, request: Request) -> Refusal | None:
        if self._verify is None:
            return Refusal.NO_SECRET
        if self._scheme.header.lower() not in request.headers:
            return Refusal.UNSIGNED
        await self._read_body(request)
        given = await webhook_request(request)
        if len(given.body) > MAX_BODY:  # may take long enough to block other requests
            return await asyncio.to_thread(self._verify, given)
        return self._verify(given)

    async def _read_body(self, request: Request) -> None:
        """Read a body that may not be signed: only a few at the same time, and each within a time limit."""
        if self._slots.locked():
            _log.warning("webhook_refused", provider=self._provider, reason="overloaded")
            raise OverloadedError("Too many webhooks are being received at the moment")
        try:
            async with self._slots, asyncio.timeout(_BODY_TIMEOUT):
                await read_body(request)
        except TimeoutError as exc:
            raise ProblemError(408, "body_timeout", "The body did not arrive in time") from exc
