"""HTTP as all adapters speak it: which answer or failure is which error is told here, once."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import cycle
from typing import Any

import httpx

from shared.providers.base import (
    CredentialsError,
    NotReachedError,
    ProviderError,
    RejectedError,
    TemporaryError,
    UnknownOutcomeError,
)
from shared.observability import tracing

_MAX_DETAIL = 500
"""Characters of an answer that are kept to explain an error."""

_POOLS = 12

_UNAVAILABLE = 503
_TEMPORARY = {408, 425, 429}
_CREDENTIALS = {401, 403}
_LONGEST_RETRY_AFTER = timedelta(days=1)
_FIRST_EPOCH_SECOND = 1_000_000_000
"""What is less than this is no moment of our days, but a time to wait."""


def make_client(*, timeout: float) -> httpx.AsyncClient:
    """Make the client that an adapter keeps; a provider has `timeout` seconds to answer."""
    return httpx.AsyncClient(
        timeout=httpx.Timeout(timeout, connect=2.0),
        transport=_SpreadTransport(),
        follow_redirects=False,
        # The environment's proxies and .netrc are not for providers unless someone says so.
        trust_env=False,
    )


class _SpreadTransport(httpx.AsyncBaseTransport):
    """Takes several connection pools in turn, and traces what goes through them.

    A pool looks at each of its connections at every request, which at thirty of them costs more than the
    request itself.
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


async def post_json(
    client: httpx.AsyncClient, url: str, payload: Mapping[str, Any], *, headers: Mapping[str, str]
) -> dict[str, Any]:
    """POST, and return the object that a 2xx answer holds.

    Raises:
        ProviderError: any other answer, or none.
    """
    response = await post(client, url, repeatable=True, json=payload, headers=dict(headers))
    return object_of(response)


async def post(
    client: httpx.AsyncClient,
    url: str,
    *,
    repeatable: bool,
    secrets: Sequence[str] = (),
    explain: Callable[[ProviderError, httpx.Response], ProviderError] = lambda error, _: error,
    **request: Any,  # noqa: ANN401 - whatever httpx takes
) -> httpx.Response:
    """POST, and return the answer if it is a 2xx.

    Args:
        client: asks.
        url: what is asked.
        repeatable: whether the provider honours the idempotency key of the request. A failure of the server
            (5xx) leaves open whether it has the message; only of 503 one with keys is believed that it has
            not. Without keys a 2xx that breaks off tells that it has.
        secrets: what no error may repeat, even if the provider does.
        explain: may make another error of one, knowing the answer.
        request: the rest of the request.

    Raises:
        ProviderError: any other answer, or none.
    """
    response = None
    try:
        async with client.stream("POST", url, **request) as response:
            await response.aread()
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:
        raise NotReachedError("not_reached", _describe(exc)) from exc
    except (httpx.TransportError, httpx.DecodingError) as exc:
        if response is not None and response.is_success and not repeatable:
            raise RejectedError(
                "unreadable_answer", _describe(exc), status_code=response.status_code
            ) from exc
        if isinstance(exc, httpx.TimeoutException):
            raise UnknownOutcomeError("timeout", "no answer in time") from exc
        raise UnknownOutcomeError("connection_lost", _describe(exc)) from exc
    except httpx.InvalidURL as exc:
        raise CredentialsError("invalid_url", _describe(exc)) from exc
    if not response.is_success:
        raise explain(_error_of(response, repeatable=repeatable, secrets=secrets), response)
    return response


def _error_of(response: httpx.Response, *, repeatable: bool, secrets: Sequence[str]) -> ProviderError:
    status = response.status_code
    code = f"http_{status}"
    detail = _excerpt(response, secrets)
    if status in _TEMPORARY or response.is_server_error:
        retry_after = _retry_after(response)
        is_refused = status in _TEMPORARY or (repeatable and status == _UNAVAILABLE)
        kind = TemporaryError if is_refused else UnknownOutcomeError
        return kind(code, detail, status_code=status, retry_after=retry_after)
    if status in _CREDENTIALS:
        return CredentialsError(code, detail, status_code=status)
    return RejectedError(code, detail, status_code=status)


def object_of(response: httpx.Response, *, secrets: Sequence[str] = ()) -> dict[str, Any]:
    """Return the JSON object that a 2xx answer holds, or raise RejectedError."""
    try:
        body = response.json()
    except ValueError as exc:
        raise unreadable(response, secrets=secrets) from exc
    if not isinstance(body, dict):
        raise unreadable(response, secrets=secrets)
    return body


def unreadable(response: httpx.Response, *, secrets: Sequence[str] = ()) -> RejectedError:
    """Make the error of a 2xx answer that is not what the provider's contract says."""
    detail = f"unreadable answer: {_excerpt(response, secrets)}"
    return RejectedError("unreadable_answer", detail, status_code=response.status_code)


def _excerpt(response: httpx.Response, secrets: Sequence[str]) -> str:
    text = (response.text or response.reason_phrase).replace("\0", "")
    for secret in secrets:
        text = text.replace(secret, "***")
    return text[:_MAX_DETAIL]


def _retry_after(response: httpx.Response) -> timedelta | None:
    now = datetime.now(UTC)
    asked = parse_retry_after(response.headers.get("Retry-After"), now=now)
    return parse_reset(response.headers.get("X-RateLimit-Reset"), now=now) if asked is None else asked


def parse_reset(value: str | None, *, now: datetime) -> timedelta | None:
    """Read an X-RateLimit-Reset header: seconds of the epoch at some providers, from now on at others."""
    if value is None or not (value.isascii() and value.isdigit()):
        return None
    seconds = float(value[:15])
    if seconds >= _FIRST_EPOCH_SECOND:
        seconds -= now.timestamp()
    return timedelta(seconds=min(max(seconds, 0), _LONGEST_RETRY_AFTER.total_seconds()))


def parse_retry_after(value: str | None, *, now: datetime) -> timedelta | None:
    """Read a Retry-After header (RFC 9110, 10.2.3): seconds, or a date.

    The past counts as now, and more than a day as a day.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        asked = timedelta(seconds=min(int(value[:9]), _LONGEST_RETRY_AFTER.total_seconds()))
    else:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        asked = (date if date.tzinfo else date.replace(tzinfo=UTC)) - now
    return min(max(asked, timedelta(0)), _LONGEST_RETRY_AFTER)


def _describe(exc: Exception) -> str:
    return str(exc) or type(exc).__name__
