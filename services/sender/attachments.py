"""Fetches the attachments of a message, for providers that take files rather than URLs.

The URLs come from outside, so a request for one must not reach into the network that we run in. A host is
looked up here, refused if any of its addresses is not a public one, and then asked at just the addresses that
were checked; wherever a redirect leads is checked in the same way.
"""

import asyncio
import mimetypes
import re
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from email.message import Message as Headers
from functools import partial
from ipaddress import IPv4Address, IPv6Network, ip_address
from urllib.parse import unquote

import httpx

from shared.providers.base import File, RejectedError, TemporaryError

MAX_BYTES = 10 * 1024 * 1024
"""Of all attachments of a message, which base64 makes a third more: what mail servers commonly take."""

TIME_LIMIT = 10.0
"""Seconds for all attachments of a message; what is left of its attempt is for the provider."""

_TIMEOUT = httpx.Timeout(TIME_LIMIT, connect=2.0)
_HEADERS = {"Accept": "*/*", "Accept-Encoding": "gzip", "User-Agent": "messaging-service"}
_MAX_REDIRECTS = 3
_LONGEST_NAME = 100
_TEMPORARY = {408, 425, 429}
_PORTS = {80, 443}
_PUBLIC_IPV6 = IPv6Network("2000::/3")
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*")

LookUp = Callable[[str, int], Awaitable[Sequence[str]]]
"""Finds the IP addresses of a host; raises OSError."""

Fetch = Callable[[Sequence[str]], Awaitable[Sequence[File]]]
"""Fetches what is at URLs; raises RejectedError or TemporaryError."""


_resolvers = ThreadPoolExecutor(8, thread_name_prefix="attachments")
"""Apart from the loop's own: a name server that is silent must not keep providers from being found."""


async def look_up(host: str, port: int) -> Sequence[str]:
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_resolvers, ask)
    return [str(address[0]) for *_, address in found]


def is_public(address: str) -> bool:
    """Tell whether an IP address is one of the open internet.

    IPv6 addresses that stand for an IPv4 one (mapped, NAT64, 6to4, Teredo) are not, as a way around.
    """
    ip = ip_address(address)
    if not ip.is_global or ip.is_multicast or ip.is_reserved:
        return False
    return isinstance(ip, IPv4Address) or (ip in _PUBLIC_IPV6 and not (ip.sixtofour or ip.teredo))


@asynccontextmanager
async def fetching(*, allow_private: bool = False, look_up: LookUp = look_up) -> AsyncIterator[Fetch]:
    """Make a fetcher. With `allow_private` it goes anywhere, to any port, as on a developer's machine."""
    # A connection is made to an address and verified for one host: another of that address may not have it.
    limits = httpx.Limits(max_keepalive_connections=0)
    # No client: that would keep cookies.
    async with httpx.AsyncHTTPTransport(limits=limits, trust_env=False) as transport:
        yield _Fetcher(transport, look_up, allow_private=allow_private).fetch


class _Fetcher:
    def __init__(self, transport: httpx.AsyncBaseTransport, look_up: LookUp, *, allow_private: bool) -> None:
        self._transport = transport
        self._look_up = look_up
        self._allow_private = allow_private

    async def fetch(self, urls: Sequence[str]) -> list[File]:
        files: list[File] = []
        room = MAX_BYTES
        try:
            async with asyncio.timeout(TIME_LIMIT):
                for url in urls:
                    files.append(await self._follow(url, room))
                    room -= len(files[-1].content)
        except (httpx.InvalidURL, ValueError) as exc:
            raise _refused("it is no URL") from exc
        except (TimeoutError, httpx.TimeoutException) as exc:
            raise TemporaryError("attachment_timeout", "the attachments did not come in time") from exc
        except (OSError, httpx.TransportError) as exc:
            raise TemporaryError("attachment_unreachable", f"an attachment: {exc}") from exc
        return files

    async def _follow(self, address: str, room: int) -> File:
        url = httpx.URL(address)
        for _ in range(_MAX_REDIRECTS + 1):
            async with self._asked(url) as response:
                if not response.has_redirect_location:
                    return await _file(response, url, room)
                url = url.join(response.headers["Location"])
        raise _refused("it is redirected too often")

    def _asked(self, url: httpx.URL) -> AbstractAsyncContextManager[httpx.Response]:
        return _closing(self._ask(url))

    async def _ask(self, url: httpx.URL) -> httpx.Response:
        failure: Exception | None = None
        for address in await self._checked(url):
            request = httpx.Request(
                "GET",
                url.copy_with(host=address),
                headers={**_HEADERS, "Host": url.netloc.decode("ascii")},
                extensions={"sni_hostname": url.raw_host.decode("ascii"), "timeout": _TIMEOUT.as_dict()},
            )
            try:
                return await self._transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
                failure = exc
        raise failure or OSError("its host has no address")

    async def _checked(self, url: httpx.URL) -> Sequence[str]:
        """Return the addresses of a host that may be asked."""
        if url.scheme not in {"http", "https"} or not url.host or url.userinfo:
            raise _refused("it is no plain http or https URL")
        port = url.port or (443 if url.scheme == "https" else 80)
        found = await self._look_up(url.raw_host.decode("ascii"), port)
        if not self._allow_private and not (port in _PORTS and all(map(is_public, found))):
            raise _refused("it is not on the open internet")
        return list(dict.fromkeys(found))


@asynccontextmanager
async def _closing(asked: Awaitable[httpx.Response]) -> AsyncIterator[httpx.Response]:
    response = await asked
    try:
        yield response
    finally:
        await response.aclose()


async def _file(response: httpx.Response, url: httpx.URL, room: int) -> File:
    status = response.status_code
    if response.is_server_error or status in _TEMPORARY:
        raise TemporaryError(
            f"attachment_http_{status}", "an attachment cannot be had now", status_code=status
        )
    if not response.is_success:
        raise RejectedError(f"attachment_http_{status}", "an attachment cannot be had", status_code=status)
    content = bytearray()
    inflate = _decoder(response.headers.get("Content-Encoding", "identity"))
    async for chunk in response.aiter_raw():
        content += inflate(chunk, room + 1 - len(content))
        if len(content) > room:
            raise RejectedError("attachment_too_large", f"the attachments are more than {MAX_BYTES} bytes")
    type_ = media_type_of(response.headers.get("Content-Type", ""))
    return File(file_name(response.headers.get("Content-Disposition", ""), url, type_), type_, bytes(content))


def _decoder(encoding: str) -> Callable[[bytes, int], bytes]:
    """Return what makes content of a chunk, no more of it than it is allowed (bytes)."""
    match encoding.strip().lower():
        case "identity" | "":
            return lambda chunk, most: chunk[:most]
        case "gzip" | "x-gzip":
            return _Gzip()
    raise _refused("it is encoded in a way that nobody asked for")


class _Gzip:
    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(wbits=31)

    def __call__(self, chunk: bytes, most: int) -> bytes:
        try:
            return self._decoder.decompress(chunk, most)
        except zlib.error as exc:
            raise _refused("it is not compressed as it says") from exc


def media_type_of(content_type: str) -> str:
    """Take the media type out of a Content-Type header."""
    essence = content_type.partition(";")[0].strip().lower()
    return essence if _MEDIA_TYPE.fullmatch(essence) else "application/octet-stream"


def file_name(content_disposition: str, url: httpx.URL, type_: str) -> str:
    """Name an attachment as its server does (RFC 6266), or else as its URL does; without any path."""
    for name in _names(content_disposition, url):
        name = re.split(r"[/\\]", name)[-1]  # noqa: PLW2901 - one name after another, made clean
        clean = "".join(c for c in name if c.isprintable() and c not in '<>:"|?*').strip(" .")
        if clean:
            stem, dot, ending = clean.rpartition(".")
            return f"{stem[:_LONGEST_NAME]}{dot}{ending[:_LONGEST_NAME]}"
    return f"attachment{mimetypes.guess_extension(type_) or ''}"


def _names(content_disposition: str, url: httpx.URL) -> Iterator[str]:
    headers = Headers()
    headers["Content-Disposition"] = content_disposition
    yield headers.get_filename("")
    yield unquote(url.path)


def _refused(why: str) -> RejectedError:
    return RejectedError("attachment_refused", f"an attachment is not fetched: {why}")
