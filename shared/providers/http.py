"""Makes the requests of all adapters, and turns error responses and failures into exceptions."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import cycle
from typing import Any

import httpx

from shared.message import Message
from shared.observability import tracing
from shared.providers.base import (
    Adapter,
    CredentialsError,
    File,
    HttpAnswer,
    HttpRequest,
    NotReachedError,
    ProviderError,
    RejectedError,
    TemporaryError,
    UnknownOutcomeError,
)

_MAX_DETAIL = 500
"""Characters of a response that are quoted in an error."""

_MAX_ID = 255

_POOLS = 12

_UNAVAILABLE = 503
_TEMPORARY = {408, 425, 429}
_CREDENTIALS = {401, 403}
_SUCCESS = range(200, 300)
_FIRST_SERVER_ERROR = 500
_MAX_RETRY_AFTER = timedelta(days=1)
_MIN_EPOCH_SECOND = 1_000_000_000
"""A smaller number is a duration, not a point in time."""


def make_client(*, timeout: float) -> httpx.AsyncClient:
    """Create the client for a provider, which has `timeout` seconds to respond."""
    return httpx.AsyncClient(
        timeout=httpx.Timeout(timeout, connect=2.0),
        transport=_SpreadTransport(),
        follow_redirects=False,
        # Proxies and .netrc files that the environment configures must not affect providers by accident.
        trust_env=False,
    )


class _SpreadTransport(httpx.AsyncBaseTransport):
    """Uses several connection pools in turn, and traces the requests.

    A pool looks at all its connections for every request, which costs more than the request itself once there
    are thirty of them.
    """

    def __init__(self) -> None:
        tls = httpx.create_ssl_context(trust_env=False)
        self._pools = [httpx.AsyncHTTPTransport(verify=tls, trust_env=False) for _ in range(_POOLS)]
        self._in_turn = cycle(self._pools)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        with tracing.calling(request.method, url.host, url.port or (443 if url.scheme == "https" else 80)):
            for name, value in tracing.headers().items():
                request.headers[name] = value
            response = await next(self._in_turn).handle_async_request(request)
            tracing.called(response.status_code)
            return response

    async def aclose(self) -> None:
        for pool in self._pools:
            await pool.aclose()


async def send(
    client: httpx.AsyncClient, adapter: Adapter[Any], message: Message, files: Sequence[File] = ()
) -> str:
    """Send a message through a provider and return the provider's message id.

    A server error (5xx) leaves open whether the provider has the message; only a 503 from a provider that
    honours idempotency keys is trusted to mean that it does not. Without keys, a truncated 2xx means that it
    does.

    Raises:
        ProviderError: there was no response, or it was not a 2xx with an id.
    """
    answer = await _post(client, adapter, adapter.request(message, files))
    if answer.status not in _SUCCESS:
        raise adapter.explain(_error_of(answer, adapter), answer)
    id_ = adapter.message_id(answer)
    if not (isinstance(id_, str) and 0 < len(id_) <= _MAX_ID and id_.isprintable()):
        detail = f"unreadable answer: {_excerpt(answer, adapter.secrets)}"
        raise RejectedError("unreadable_answer", detail, status_code=answer.status)
    return id_


async def _post(client: httpx.AsyncClient, adapter: Adapter[Any], request: HttpRequest) -> HttpAnswer:
    response = None
    try:
        async with client.stream(
            "POST", request.url, content=request.body, headers=request.headers
        ) as response:
            body = await response.aread()
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:
        raise NotReachedError("not_reached", _describe(exc)) from exc
    except (httpx.TransportError, httpx.DecodingError) as exc:
        if response is not None and response.is_success and not adapter.honours_idempotency_keys:
            raise RejectedError(
                "unreadable_answer", _describe(exc), status_code=response.status_code
            ) from exc
        if isinstance(exc, httpx.TimeoutException):
            raise UnknownOutcomeError("timeout", "no answer in time") from exc
        raise UnknownOutcomeError("connection_lost", _describe(exc)) from exc
    except httpx.InvalidURL as exc:
        raise CredentialsError("invalid_url", _describe(exc)) from exc
    return HttpAnswer(response.status_code, response.headers, body)


def _error_of(answer: HttpAnswer, adapter: Adapter[Any]) -> ProviderError:
    status = answer.status
    code = f"http_{status}"
    detail = _excerpt(answer, adapter.secrets)
    if status in _TEMPORARY or status >= _FIRST_SERVER_ERROR:
        is_refused = status in _TEMPORARY or (status == _UNAVAILABLE and adapter.honours_idempotency_keys)
        kind = TemporaryError if is_refused else UnknownOutcomeError
        return kind(code, detail, status_code=status, retry_after=_retry_after(answer.headers))
    if status in _CREDENTIALS:
        return CredentialsError(code, detail, status_code=status)
    return RejectedError(code, detail, status_code=status)


def _excerpt(answer: HttpAnswer, secrets: Sequence[str]) -> str:
    text = answer.body.decode(errors="replace").replace("\0", "") or httpx.codes.get_reason_phrase(
        answer.status
    )
    for secret in secrets:
        text = text.replace(secret, "***")
    return text[:_MAX_DETAIL]


def _retry_after(headers: Mapping[str, str]) -> timedelta | None:
    now = datetime.now(UTC)
    asked = parse_retry_after(headers.get("retry-after"), now=now)
    return parse_reset(headers.get("x-ratelimit-reset"), now=now) if asked is None else asked


def parse_reset(value: str | None, *, now: datetime) -> timedelta | None:
    """Parse an X-RateLimit-Reset header: seconds since the epoch for some providers, from now for others."""
    if value is None or not (value.isascii() and value.isdigit()):
        return None
    seconds = float(value[:15])
    if seconds >= _MIN_EPOCH_SECOND:
        seconds -= now.timestamp()
    return timedelta(seconds=min(max(seconds, 0), _MAX_RETRY_AFTER.total_seconds()))


def parse_retry_after(value: str | None, *, now: datetime) -> timedelta | None:
    """Parse a Retry-After header (RFC 9110, 10.2.3): seconds, or a date.

    A time in the past is treated as now, and more than a day as one day.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        asked = timedelta(seconds=min(int(value[:9]), _MAX_RETRY_AFTER.total_seconds()))
    else:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        asked = (date if date.tzinfo else date.replace(tzinfo=UTC)) - now
    return min(max(asked, timedelta(0)), _MAX_RETRY_AFTER)


def _describe(exc: Exception) -> str:
    return str(exc) or type(exc).__name__
