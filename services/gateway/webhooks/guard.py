"""Verifies the signatures of webhooks."""

import asyncio
from typing import Any

from fastapi import Request
from fastapi.openapi.models import APIKey, APIKeyIn
from fastapi.security.base import SecurityBase

from services.gateway.dependencies import services_of
from services.gateway.http.errors import ProblemError, UnauthorizedError
from services.gateway.webhooks.requests import webhook_request
from shared.providers.webhooks import Refusal, SignatureScheme, Verifier
from shared.validation import MAX_BODY

REFUSAL_DETAILS = {
    Refusal.UNSIGNED: "The header {header} is missing",
    Refusal.EXPIRED: "The webhook was not signed within the last 5 minutes",
    Refusal.WRONG_SIGNATURE: "{header} does not match the request",
    Refusal.NO_SECRET: "This gateway is not configured to verify {header}",
}


class RequireSignature(SecurityBase):
    """Refuses requests to a provider's webhook that the provider has not signed.

    Args:
        scheme: how it signs.
        verifier: verifies its signatures; None if that is not configured, and all requests are refused.
    """

    def __init__(self, scheme: SignatureScheme[Any], verifier: Verifier | None) -> None:
        location = {"in": APIKeyIn.header}
        self.model = APIKey(name=scheme.header, description=scheme.description, **location)
        self.scheme_name = scheme.name
        self._scheme = scheme
        self._verify = verifier

    async def __call__(self, request: Request) -> None:
        refusal = await self._refusal(request)
        if refusal is None:
            return
        detail = REFUSAL_DETAILS[refusal].format(header=self._scheme.header)
        if self._scheme.challenge:
            raise UnauthorizedError(detail, challenge=self._scheme.challenge, reason=refusal)
        raise ProblemError(403, "signature_refused", detail, reason=refusal)

    async def _refusal(self, request: Request) -> Refusal | None:
        if self._verify is None:
            return Refusal.NO_SECRET
        if self._scheme.header.lower() not in request.headers:
            return Refusal.UNSIGNED
        if refusal := self._scheme.check_headers(request.headers, services_of(request).clock()):
            return refusal
        given = await webhook_request(request)
        if len(given.body) > MAX_BODY:  # may take long enough to block other requests
            return await asyncio.to_thread(self._verify, given)
        return self._verify(given)
