"""Fetches the attachments of a message, for providers that take files rather than URLs.

The URLs come from outside, so a request to one of them must not reach into our own network. The host is
looked up here and rejected if any of its addresses is not public, and the request goes to exactly the
addresses that were checked. The target of each redirect is checked in the same way.
"""

import asyncio
import mimetypes
import re
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message as Headers
from email.utils import collapse_rfc2231_value
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import unquote

import httpx

from shared.providers.base import File, RejectedError, TemporaryError
from shared.public_addresses import PUBLIC_PORTS, LookUp, is_public, look_up

MAX_BYTES = 10 * 1024 * 1024
"""For all attachments of a message. Base64 adds a third, which is as much as mail servers usually accept."""

TIME_LIMIT = 10.0
"""Seconds for all attachments of a message; the rest of the attempt is for the provider."""

_TIMEOUT = httpx.Timeout(TIME_LIMIT, connect=2.0)
_HEADERS = {"Accept": "*/*", "Accept-Encoding": "gzip", "User-Agent": "messaging-service"}
_MAX_REDIRECTS = 3
_MAX_NAME = 100
_MAX_HEADER = 1_000
"""Characters of a header that are parsed; Python's parser takes quadratic time for some of them."""

_TEMPORARY = {408, 425, 429}
_KNOWN_STATUSES = frozenset(HTTPStatus)
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")  # RFC 6838

TOO_LARGE = "attachment_too_large"
"""Code of the error when the files have more bytes than are allowed."""


class Fetch(Protocol):
    """A function that fetches attachments."""

    async def __call__(self, urls: Sequence[str], max_bytes: int = MAX_BYTES) -> Sequence[File]:
        """Return the files at some URLs, which have at most this many bytes together.

        Raises:
            RejectedError: they are larger, with the code `TOO_LARGE`, or cannot be used.
            TemporaryError: they are not available at the moment.
        """


@asynccontextmanager
async def fetching(*, allow_private: bool = False, look_up: LookUp = look_up) -> AsyncIterator[Fetch]:
    """Provide the function that fetches attachments.

    Args:
        allow_private: whether it may connect to any address and port, as on a developer's machine.
        look_up: resolves host names.
    """
    # TLS is verified for one host at an address, so the connection must not be used for another host there.
    limits = httpx.Limits(max_keepalive_connections=0)
    # This is a transport rather than a client, because a client keeps cookies.
    async with httpx.AsyncHTTPTransport(limits=limits, trust_env=False) as transport:
        yield _Fetcher(transport, look_up, allow_private=allow_private).fetch


class _Fetcher:
    def __init__(self, transport: httpx.AsyncBaseTransport, look_up: LookUp, *, allow_private: bool) -> None:
        self._transport = transport
        self._look_up = look_up
        self._allow_private = allow_private

    async def fetch(self, urls: Sequence[str], max_bytes: int = MAX_BYTES) -> Sequence[File]:
        files: list[File] = []
        remaining = max_bytes
        try:
            async with asyncio.timeout(TIME_LIMIT):
                for url in urls:
                    files.append(await self._fetch_one(url, remaining))
                    remaining -= len(files[-1].content)
        except (httpx.InvalidURL, ValueError) as exc:
            raise _refused("its URL is not valid") from exc
        except (TimeoutError, httpx.TimeoutException) as exc:
            raise TemporaryError("attachment_timeout", "the attachments were not fetched in time") from exc
        except (OSError, httpx.TransportError) as exc:
            raise TemporaryError("attachment_unreachable", f"an attachment: {exc}") from exc
        return files

    async def _fetch_one(self, address: str, max_bytes: int) -> File:
        url = httpx.URL(address)
        for _ in range(_MAX_REDIRECTS + 1):
            response = await self._get(url)
            try:
                if not response.has_redirect_location:
                    return await _read_file(response, url, max_bytes)
                url = url.join(response.headers["Location"])
            finally:
                await response.aclose()
        raise _refused("there are too many redirects")

    async def _get(self, url: httpx.URL) -> httpx.Response:
        """Request a URL from the first of its addresses that accepts a connection."""
        failure: Exception | None = None
        for address in await self._permitted_addresses(url):
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

    async def _permitted_addresses(self, url: httpx.URL) -> Sequence[str]:
        if url.scheme not in {"http", "https"} or not url.host or url.userinfo:
            raise _refused("its URL is not a plain http or https URL")
        port = url.port or (443 if url.scheme == "https" else 80)
        addresses = await self._look_up(url.raw_host.decode("ascii"), port)
        if not self._allow_private and not (port in PUBLIC_PORTS and all(map(is_public, addresses))):
            raise _refused("it is not on the public internet")
        return list(dict.fromkeys(addresses))


async def _read_file(response: httpx.Response, url: httpx.URL, max_bytes: int) -> File:
    status = response.status_code
    if response.is_server_error or status in _TEMPORARY:
        detail = "an attachment is temporarily unavailable"
        raise TemporaryError(_code_of(status), detail, status_code=status)
    if not response.is_success:
        raise RejectedError(_code_of(status), "an attachment is not available", status_code=status)
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and float(length) > max_bytes:
        raise _too_large()
    content = bytearray()
    decode = _decoder(response.headers.get("Content-Encoding", "identity"))
    async for chunk in response.aiter_raw():
        content += decode(chunk, max_bytes + 1 - len(content))
        if len(content) > max_bytes:
            raise _too_large()
    type_ = media_type_of(response.headers.get("Content-Type", ""))
    return File(file_name(response.headers.get("Content-Disposition", ""), url, type_), type_, bytes(content))


def _code_of(status: int) -> str:
    """Return the code of a failure. It labels a metric, so a server must not be able to invent others."""
    return f"attachment_http_{status}" if status in _KNOWN_STATUSES else "attachment_http_error"


def _decoder(encoding: str) -> Callable[[bytes, int], bytes]:
    """Return a function that decodes a chunk, up to a number of bytes."""
    match encoding.strip().lower():
        case "identity" | "":
            return lambda chunk, limit: chunk[:limit]
        case "gzip" | "x-gzip":
            return _GzipDecoder()
    raise _refused("its content encoding is not supported")


class _GzipDecoder:
    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(wbits=31)

    def __call__(self, chunk: bytes, limit: int) -> bytes:
        try:
            return self._decoder.decompress(chunk, limit)
        except zlib.error as exc:
            raise _refused("its server declares gzip, but the content is not gzip data") from exc


def media_type_of(content_type: str) -> str:
    """Return the media type of a Content-Type header, or the most general one if it is invalid."""
    essence = content_type.partition(";")[0].strip().lower()
    return essence if _MEDIA_TYPE.fullmatch(essence) else "application/octet-stream"


def file_name(content_disposition: str, url: httpx.URL, type_: str) -> str:
    """Return the name of an attachment according to its server (RFC 6266) or its URL, without any path."""
    for candidate in _names(content_disposition, url):
        name = re.split(r"[/\\]", candidate)[-1]
        clean = "".join(c for c in name if c.isprintable() and c not in '<>:"|?*').strip(" .")
        if clean:
            stem, dot, suffix = clean.rpartition(".")
            return f"{stem[:_MAX_NAME]}{dot}{suffix[:_MAX_NAME]}"
    return f"attachment{mimetypes.guess_extension(type_) or ''}"


def _names(content_disposition: str, url: httpx.URL) -> Iterator[str]:
    if len(content_disposition) <= _MAX_HEADER:
        with suppress(ValueError, TypeError):  # some of Python's character sets cannot decode at all
            yield _name_in(content_disposition)
    yield unquote(url.path)


def _name_in(content_disposition: str) -> str:
    headers = Headers()
    headers["Content-Disposition"] = content_disposition
    parameters = headers.get_params(failobj=[], header="Content-Disposition")
    values: list[Any] = [value for name, value in parameters if name.lower() == "filename"]
    # The extended notation takes precedence, in which a value is a tuple.
    extended = next((value for value in values if isinstance(value, tuple)), None)
    return collapse_rfc2231_value(extended) if extended else _decode(next(iter(values), ""))


def _decode(name: str) -> str:
    """Decode encoded words (RFC 2047) and escapes (%20), which some servers send against the standards."""
    try:
        return unquote(str(make_header(decode_header(name))), errors="strict")
    except (HeaderParseError, LookupError, TypeError, ValueError):
        return name


def _too_large() -> RejectedError:
    return RejectedError(TOO_LARGE, f"the attachments are larger than {MAX_BYTES} bytes")


def _refused(reason: str) -> RejectedError:
    return RejectedError("attachment_refused", f"an attachment was not fetched: {reason}")
