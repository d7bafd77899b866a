"""Makes the requests to webhook endpoints, whose URLs are not trusted."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import aiohttp
import certifi
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from shared.errors import ServiceError
from shared.observability import tracing
from shared.providers.http import parse_retry_after
from shared.public_addresses import PUBLIC_PORTS, LookUp, is_public, look_up
from shared.webhook_attempts import MAX_EXCERPT

_CONNECT_TIMEOUT = 5.0
_KEEP_ALIVE = 15.0
_EXCERPT_SECONDS = 2.0
_MAX_HEADER = 16 * 1024


class DeliveryError(ServiceError):
    """There was no response.

    Attributes:
        code: short and stable, for programs.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True)
class Answer:
    """The response of an endpoint, of which only the beginning of the body is read."""

    status: int
    excerpt: str
    retry_after: timedelta | None


class _RefusedError(OSError):
    """An address is not public."""


_FAILURES = (
    (aiohttp.ClientConnectorDNSError, "unresolvable", "the host name cannot be resolved"),
    (aiohttp.ClientSSLError, "tls_failed", "no secure connection could be established"),
    (aiohttp.ClientConnectorError, "unreachable", "no connection could be established"),
    (aiohttp.ConnectionTimeoutError, "unreachable", "no connection could be established in time"),
    (TimeoutError, "timeout", "there was no response in time"),
    ((aiohttp.InvalidURL, ValueError), "invalid_url", "the URL is not valid"),
)
"""The failures, the more specific ones first."""


class EndpointClient:
    """Makes requests to endpoints.

    Args:
        session: makes the requests.
        timeout: the time that an endpoint has to respond, in seconds.
        allow_private: whether endpoints may be on this machine and its network.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        timeout: float,
        allow_private: bool,
    ) -> None:
        self._session = session
        self._timeout = timeout
        self._allow_private = allow_private

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Make a request and return the response, whatever its status. Redirects are not followed.

        Raises:
            DeliveryError: there was no response in time, or the request is not allowed.
        """
        try:
            target = URL(url)
            self._check(target)
            return await self._post(target, headers, body)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as exc:
            error = _error_of(exc)
        raise error

    def _check(self, url: URL) -> None:
        """Raise if the URL alone shows that the request is not allowed."""
        if self._allow_private:
            return
        if url.scheme != "https" or url.port not in PUBLIC_PORTS:
            raise _RefusedError
        with suppress(ValueError):  # a host name is checked when it is looked up
            if not is_public(str(ip_address(url.host or ""))):
                raise _RefusedError

    async def _post(self, url: URL, headers: Mapping[str, str], body: bytes) -> Answer:
        with tracing.calling("POST", url.host or "", url.port or 0):
            async with asyncio.timeout(self._timeout):
                response = await self._session.post(url, data=body, headers=headers, allow_redirects=False)
            try:
                tracing.called(response.status)
                return Answer(response.status, await _excerpt(response.content), _retry_after(response))
            finally:
                response.release()


@asynccontextmanager
async def make_endpoint_client(
    *,
    timeout: float = 15,  # noqa: ASYNC109 - of requests
    allow_private: bool = False,
    look_up: LookUp = look_up,
) -> AsyncIterator[EndpointClient]:
    """Create the client for all endpoints.

    The number of connections is not limited here, because the requests to each endpoint are limited.
    """
    tls = ssl.create_default_context(cafile=certifi.where())
    connector = aiohttp.TCPConnector(
        ssl=tls,
        limit=0,
        keepalive_timeout=_KEEP_ALIVE,
        # It also makes concurrent requests to a host share a look-up.
        ttl_dns_cache=10,
        resolver=_GuardedResolver(look_up, allow_private=allow_private),
    )
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_TIMEOUT),
        headers={"Accept-Encoding": "identity", "User-Agent": "messaging-service"},
        max_field_size=_MAX_HEADER,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    ) as session:
        yield EndpointClient(session, timeout=timeout, allow_private=allow_private)


class _GuardedResolver(AbstractResolver):
    """Looks up hosts, and refuses those of which any address is not public."""

    def __init__(self, look_up: LookUp, *, allow_private: bool) -> None:
        self._look_up = look_up
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        del family
        addresses = list(dict.fromkeys(await self._look_up(host, port)))
        if not self._allow_private and not all(map(is_public, addresses)):
            raise _RefusedError
        return [_resolved(host, address, port) for address in addresses]

    async def close(self) -> None:
        pass


def _resolved(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=flags)


async def _excerpt(content: aiohttp.StreamReader) -> str:
    """Return the beginning of a body; the status counts even if the body does not arrive."""
    read = b""
    with suppress(aiohttp.ClientError, OSError):
        async with asyncio.timeout(_EXCERPT_SECONDS):
            while len(read) < MAX_EXCERPT and (chunk := await content.read(MAX_EXCERPT - len(read))):
                read += chunk
    return read.decode(errors="replace").replace("\0", "")


def _retry_after(response: aiohttp.ClientResponse) -> timedelta | None:
    return parse_retry_after(response.headers.get("Retry-After"), now=datetime.now(UTC))


def _error_of(exc: Exception) -> DeliveryError:
    os_error = exc.os_error if isinstance(exc, aiohttp.ClientConnectorError) else exc
    if isinstance(os_error, _RefusedError):
        return DeliveryError("not_public", "the URL does not lead to the public internet by HTTPS")
    for kinds, code, detail in _FAILURES:
        if isinstance(exc, kinds):
            return DeliveryError(code, detail)
    return DeliveryError("connection_lost", f"there was no complete response: {type(exc).__name__}")
