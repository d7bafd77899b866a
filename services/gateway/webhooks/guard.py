"""Webhooks in a provider's own format are let in by that provider's own signature."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from fastapi import Request, Security
from fastapi.openapi.models import APIKey, APIKeyIn
from fastapi.params import Depends
from fastapi.security.base import SecurityBase

from services.gateway.http.body import MAX_BODY, read_body
from services.gateway.http.errors import ForbiddenError, ProblemError
from shared.errors import NotNowError
from shared.observability.metrics import WEBHOOKS_REFUSED


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """A webhook as it came.

    Attributes:
        path: below the public URL of the gateway.
        query: what stands behind the `?`, as it stands there.
        headers: by their names in lower case.
    """

    path: str
    query: bytes
    headers: Mapping[str, str]
    body: bytes


class Refusal(StrEnum):
    """Why a webhook is not taken for the provider's, in the words of the metrics."""

    UNSIGNED = "unsigned"
    EXPIRED = "expired"
    WRONG_SIGNATURE = "wrong_signature"
    NO_SECRET = "no_secret"  # noqa: S105 - the name of a reason


_DETAILS = {
    Refusal.UNSIGNED: "The header {header} is missing",
    Refusal.EXPIRED: "It was not signed within the last 5 minutes",
    Refusal.WRONG_SIGNATURE: "{header} does not match what was sent and where to",
    Refusal.NO_SECRET: "This gateway is not set up to check {header}",
}

_BODIES = 256
_LARGE_BODIES = 8
"""How many are read at once by a route; a large one takes up to 30 MB."""

_BODY_SECONDS = 60

Check = Callable[[StreamMessage], Refusal | None]
"""Tells why a webhook is not the provider's, or None if it is."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Stands before the webhooks of a provider.

    Attributes:
        header: carries the signature.
        check: None where nothing is configured to check signatures with.
        is_open: what is not checked is let in.
    """

    provider: str
    header: str
    check: Check | None
    is_open: bool

    def dependencies(self, *, limit: int = MAX_BODY) -> Sequence[Depends]:
        """Make what a route depends on; the webhook may have `limit` bytes."""
        if self.check is None and self.is_open:
            return []
        return [Security(_RequireSignature(self, limit))]


class _RequireSignature(SecurityBase):
    def __init__(self, guard: Guard, limit: int) -> None:
        self.model = APIKey(
            name=guard.header, description=f"As {guard.provider} signs.", **{"in": APIKeyIn.header}
        )
        self.scheme_name = f"{guard.provider.title()}Signature"
        self._guard = guard
        self._limit = limit
        self._turns = asyncio.Semaphore(_LARGE_BODIES if limit > MAX_BODY else _BODIES)

    async def __call__(self, request: Request) -> None:
        if (refusal := await self._refusal(request)) is not None:
            WEBHOOKS_REFUSED.labels(self._guard.provider, refusal).inc()
            raise ForbiddenError(_DETAILS[refusal].format(header=self._guard.header))

    async def _body(self, request: Request) -> bytes:
        """Read what nobody has vouched for yet, of not too many at once and not for ever."""
        if self._turns.locked():
            raise NotNowError("There are too many requests at the moment")
        try:
            async with self._turns, asyncio.timeout(_BODY_SECONDS):
                return await read_body(request, limit=self._limit)
        except TimeoutError as exc:
            raise ProblemError(408, "The body did not come in time") from exc

    async def _refusal(self, request: Request) -> Refusal | None:
        if self._guard.check is None:
            return Refusal.NO_SECRET
        if self._guard.header.lower() not in request.headers:
            return Refusal.UNSIGNED
        body = await self._body(request)
        return self._guard.check(
            StreamMessage(request.scope["path"], request.scope["query_string"], request.headers, body)
        )
