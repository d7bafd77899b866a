"""Makes the requests of all adapters, and turns error responses and failures into exceptions."""

import asyncio
import base64
import ssl
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.client import responses
from io import BytesIO
from typing import Any

import aiohttp
import certifi
from yarl import URL

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

_MAX_ANSWER = 1024 * 1024
"""The maximum number of bytes of a response that are read."""

_MAX_HEADER = 64 * 1024

_LARGE_BODY = 8 * 1024
"""Characters."""

_CONNECT_TIMEOUT = 2.0
_KEEP_ALIVE = 50.0
"""Seconds; less than the 60 after which many load balancers close a connection that is not used."""

_UNAVAILABLE = 503
_TOO_MANY = 429
_TEMPORARY = {408, 425, 429}
_CREDENTIALS = {401, 403}
_SUCCESS = range(200, 300)
_CONCLUSIVE = range(200, 500)
"""Statuses that show whether the provider has the message."""

_MAX_RETRY_AFTER = timedelta(days=1)
_MIN_EPOCH_SECOND = 1_000_000_000
"""A smaller number is a duration, not a point in time."""


class HttpClient:
    """Makes requests to one provider."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def post(self, request: HttpRequest) -> HttpAnswer:
        """Make a request and return the response, of which at most a megabyte is read.

        The body of an error response is empty if it cannot be read.

        Raises:
            NotReachedError: no connection was established.
            UnknownOutcomeError: there was no complete response; the error includes the status if it arrived.
            CredentialsError: the URL is invalid.
        """
        status: int | None = None
        answered: Mapping[str, str] = {}
        try:
            url = URL(request.url)
            # A body of bytes would be written regardless of how fast the provider reads.
            body = BytesIO(request.body)
            with tracing.calling("POST", url.host or "", url.port or 0):
                headers = {**request.headers, **tracing.headers()}
                async with self._session.post(
                    url, data=body, headers=headers, allow_redirects=False
                ) as response:
                    status, answered = response.status, response.headers
                    tracing.called(status)
                    content = await _read(response.content)
                    return HttpAnswer(status, answered, _decompress(content, answered))
        except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
            if status is not None and status not in _SUCCESS:
                return HttpAnswer(status, answered, b"")  # the status says all that matters
            error = _error_without_answer(exc, status)
        # The exception is not its cause: aiohttp's exceptions contain our headers and parts of the response.
        raise error


@asynccontextmanager
async def make_client(*, timeout: float) -> AsyncIterator[HttpClient]:  # noqa: ASYNC109 - of requests
    """Create the client for a provider that may stay silent for `timeout` seconds.

    The number of connections is not limited here, because the sender limits the requests in progress.
    """
    tls = ssl.create_default_context(cafile=certifi.where())
    tls.set_alpn_protocols(["http/1.1"])
    async with aiohttp.ClientSession(
        connector=_Connector(ssl=tls, limit=0, keepalive_timeout=_KEEP_ALIVE),
        timeout=aiohttp.ClientTimeout(connect=_CONNECT_TIMEOUT, sock_read=timeout),
        headers={"Accept-Encoding": "identity"},
        max_field_size=_MAX_HEADER,
        auto_decompress=False,  # it would have no size limit
        cookie_jar=aiohttp.DummyCookieJar(),
        # Proxies and .netrc files that the environment configures must not affect providers by accident.
        trust_env=False,
    ) as session:
        yield HttpClient(session)


class _Connector(aiohttp.TCPConnector):
    """Does not reuse a connection on which an unsolicited response has arrived.

    That response would be taken for the response to the next request.
    """

    async def _get(self, *args: Any) -> aiohttp.connector.Connection | None:  # noqa: ANN401 - as its base
        while (connection := await super()._get(*args)) and _has_unread_answer(connection):
            connection.close()
        return connection


def _has_unread_answer(connection: aiohttp.connector.Connection) -> bool:
    return connection.protocol is not None and connection.protocol.should_close


async def send(
    client: HttpClient, adapter: Adapter[Any], message: Message, files: Sequence[File] = ()
) -> str:
    """Send a message through a provider and return the provider's message id.

    A server error (5xx) leaves open whether the provider has the message; only a 503 from a provider that
    honours idempotency keys is trusted to mean that it does not. Without keys, a truncated 2xx means that it
    does.

    Raises:
        ProviderError: there was no response, or it was not a 2xx with an id.
    """
    request = await _request(adapter, message, files)
    answer = await _post(client, adapter, request)
    if answer.status not in _SUCCESS:
        raise adapter.explain(_error_of(answer, adapter, _secrets(adapter, request)), answer)
    id_ = adapter.message_id(answer)
    if not (isinstance(id_, str) and 0 < len(id_) <= _MAX_ID and id_.isprintable()):
        detail = f"unreadable answer: {_excerpt(answer, _secrets(adapter, request))}"
        raise RejectedError("unreadable_answer", detail, status_code=answer.status)
    return id_


async def _request(adapter: Adapter[Any], message: Message, files: Sequence[File]) -> HttpRequest:
    """Build the request. For a large message, this takes so long that it must not block other messages.

    Raises:
        RejectedError: the request cannot be built, so the provider certainly does not have the message.
    """
    try:
        if files or len(message.body) > _LARGE_BODY:
            return await asyncio.to_thread(adapter.request, message, files)
        return adapter.request(message, files)
    except Exception as exc:
        raise RejectedError("invalid_message", f"the request cannot be built: {exc!r}") from exc


async def _post(client: HttpClient, adapter: Adapter[Any], request: HttpRequest) -> HttpAnswer:
    try:
        return await client.post(request)
    except UnknownOutcomeError as exc:
        if exc.status_code in _SUCCESS and not adapter.honours_idempotency_keys:
            raise RejectedError("unreadable_answer", str(exc), status_code=exc.status_code) from exc
        raise


async def _read(content: aiohttp.StreamReader) -> bytes:
    read = b""
    while chunk := await content.read(_MAX_ANSWER - len(read)):
        read += chunk
    return read


def _decompress(content: bytes, headers: Mapping[str, str]) -> bytes:
    if headers.get("content-encoding", "").lower() not in {"gzip", "deflate"}:
        return content
    try:
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(content, _MAX_ANSWER)
    except zlib.error as exc:
        raise aiohttp.ClientPayloadError from exc


def _error_without_answer(exc: Exception, status: int | None) -> ProviderError:
    # Only error texts of the operating system are certain not to contain credentials.
    detail = (isinstance(exc, OSError) and exc.strerror) or type(exc).__name__
    match exc:
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            return NotReachedError("not_reached", detail)
        case TimeoutError():
            return UnknownOutcomeError("timeout", "no response in time", status_code=status)
        case ValueError() | aiohttp.NonHttpUrlClientError():
            return CredentialsError("invalid_url", detail)
    return UnknownOutcomeError("connection_lost", f"no complete response: {detail}", status_code=status)


def _error_of(answer: HttpAnswer, adapter: Adapter[Any], secrets: Sequence[str]) -> ProviderError:
    status = answer.status
    code = f"http_{status}"
    detail = _excerpt(answer, secrets)
    if status in _TEMPORARY or status not in _CONCLUSIVE:
        is_refused = status in _TEMPORARY or (status == _UNAVAILABLE and adapter.honours_idempotency_keys)
        kind = TemporaryError if is_refused else UnknownOutcomeError
        retry_after = _retry_after(answer.headers)
        is_busy = status == _UNAVAILABLE and is_refused and retry_after is not None
        return kind(
            code,
            detail,
            status_code=status,
            retry_after=retry_after,
            throttled=status == _TOO_MANY or is_busy,
        )
    if status in _CREDENTIALS:
        return CredentialsError(code, detail, status_code=status)
    return RejectedError(code, detail, status_code=status)


def _secrets(adapter: Adapter[Any], request: HttpRequest) -> Sequence[str]:
    return (*adapter.secrets, *_credentials_in(request.url))


def _credentials_in(address: str) -> Iterator[str]:
    """Yield the credentials of a URL, in every form in which a response might repeat them."""
    url = URL(address)
    if url.user is None and url.password is None:
        return
    pair = f"{url.user or ''}:{url.password or ''}"
    yield base64.b64encode(pair.encode()).decode()
    yield f"{url.raw_user or ''}:{url.raw_password or ''}@"
    yield from filter(None, (url.raw_password, url.password))
    if not url.password:  # the name itself is an API key
        yield from filter(None, (url.raw_user, url.user))


def _excerpt(answer: HttpAnswer, secrets: Sequence[str]) -> str:
    text = answer.body.decode(errors="replace").replace("\0", "") or responses.get(answer.status, "")
    for secret in secrets:
        text = text.replace(secret, "***")
    return text[:_MAX_DETAIL]


def _retry_after(headers: Mapping[str, str]) -> timedelta | None:
    now = _parse_date(headers.get("date", "")) or datetime.now(UTC)
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
    elif date := _parse_date(value):
        asked = date - now
    else:
        return None
    return min(max(asked, timedelta(0)), _MAX_RETRY_AFTER)


def _parse_date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError, TypeError, IndexError):  # for some values, such as years of ten digits
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
