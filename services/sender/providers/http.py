"""HTTP as all adapters speak it: which answer or failure is which error is told here, once."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import cycle
from typing import Any

import httpx

from services.sender.providers.base import (
    CredentialsError,
    NotReachedError,
    RejectedError,
    TemporaryError,
    UnknownOutcomeError,
)
from shared import tracing

_MAX_DETAIL = 500
"""Characters of an answer that are kept to explain an error."""

_POOLS = 12

_TEMPORARY = {408, 425, 429}
_CREDENTIALS = {401, 403}
_LONGEST_RETRY_AFTER = timedelta(days=1)


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
    try:
        response = await client.post(url, json=payload, headers=dict(headers))
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:
        raise NotReachedError("not_reached", _describe(exc)) from exc
    except httpx.TimeoutException as exc:
        raise UnknownOutcomeError("timeout", "no answer in time") from exc
    except (httpx.TransportError, httpx.DecodingError) as exc:
        raise UnknownOutcomeError("connection_lost", _describe(exc)) from exc
    except httpx.InvalidURL as exc:
        raise CredentialsError("invalid_url", _describe(exc)) from exc
    _raise_for_status(response)
    return _object(response)


def _raise_for_status(response: httpx.Response) -> None:
    status = response.status_code
    if response.is_success:
        return
    code = f"http_{status}"
    detail = response.text[:_MAX_DETAIL].replace("\0", "") or response.reason_phrase
    if status in _TEMPORARY or response.is_server_error:
        retry_after = parse_retry_after(response.headers.get("Retry-After"), now=datetime.now(UTC))
        raise TemporaryError(code, detail, status_code=status, retry_after=retry_after)
    if status in _CREDENTIALS:
        raise CredentialsError(code, detail, status_code=status)
    raise RejectedError(code, detail, status_code=status)


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError as exc:
        raise unreadable(response) from exc
    if not isinstance(body, dict):
        raise unreadable(response)
    return body


def unreadable(response: httpx.Response) -> RejectedError:
    """Make the error of a 2xx answer that is not what the provider's contract says."""
    detail = f"unreadable answer: {response.text[:_MAX_DETAIL]}".replace("\0", "")
    return RejectedError("unreadable_answer", detail, status_code=response.status_code)


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
