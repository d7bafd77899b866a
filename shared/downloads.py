"""Downloads the attachments of messages of either direction.

The URLs are not trusted, so a request to one of them must not reach our own network. The host is
looked up here and rejected if any of its addresses is not public, and the request goes to exactly the
addresses that were checked. The target of each redirect is checked in the same way. Credentials are sent only
to the origin that they are for.
"""

import mimetypes
import re
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message as Headers
from email.utils import collapse_rfc2231_value
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import httpx

from shared.media import media_type_of
from shared.providers.base import File, MediaCredentials, RejectedError, TemporaryError
from shared.public_addresses import PUBLIC_PORTS, LookUp, is_public, look_up

_TIMEOUT = httpx.Timeout(10.0, connect=2.0)
_HEADERS = {"Accept": "*/*", "Accept-Encoding": "gzip", "User-Agent": "messaging-service"}
_MAX_REDIRECTS = 3
_MAX_NAME = 100
_MAX_HEADER = 1_000
"""Characters of a header that are parsed; Python's parser takes quadratic time for some of them."""

_GZIP_MAGIC = b"\x1f"

_TEMPORARY = {408, 425, 429}
_KNOWN_STATUSES = frozenset(HTTPStatus)

TOO_LARGE = "attachment_too_large"
"""Code of the error when the files have more bytes than are allowed."""


@asynccontextmanager
async def downloading(
    *, allow_private: bool = False, look_up: LookUp = look_up
) -> AsyncIterator["Downloader"]:
    """Provide a downloader.

    Args:
        allow_private: whether it may connect to any address and port, as on a developer's machine.
        look_up: resolves host names.
    """
    # TLS is verified for one host at an address, so the connection must not be used for another host there.
    limits = httpx.Limits(max_keepalive_connections=0)
    # This is a transport rather than a client, because a client keeps cookies.
    async with httpx.AsyncHTTPTransport(limits=limits, trust_env=False) as transport:
        yield Downloader(transport, look_up, allow_private=allow_private)


class Downloader:
    """Downloads files; see `downloading`."""

    def __init__(self, transport: httpx.AsyncBaseTransport, look_up: LookUp, *, allow_private: bool) -> None:
        self._transport = transport
        self._look_up = look_up
        self._allow_private = allow_private

    async def download(self, url: str, max_bytes: int, credentials: MediaCredentials | None = None) -> File:
        """Return the file at a URL. The caller sets the time limit.

        Args:
            url: where the file is.
            max_bytes: the maximum size of the file.
            credentials: headers for requests to one origin, which need not be public. A redirect elsewhere is
                followed without them.

        Raises:
            RejectedError: the file is larger, with the code `TOO_LARGE`, or cannot be used.
            TemporaryError: it is not available at the moment.
        """
        try:
            return await self._download(url, max_bytes, credentials)
        except (httpx.InvalidURL, ValueError) as exc:
            raise _refused("its URL is not valid") from exc
        except (TimeoutError, httpx.TimeoutException) as exc:
            raise TemporaryError("attachment_timeout", "an attachment was not fetched in time") from exc
        except (OSError, httpx.TransportError) as exc:
            raise TemporaryError("attachment_unreachable", f"an attachment: {exc}") from exc

    async def _download(self, address: str, max_bytes: int, credentials: MediaCredentials | None) -> File:
        url = httpx.URL(address)
        for _ in range(_MAX_REDIRECTS + 1):
            response = await self._get(url, credentials if _are_for(credentials, url) else None)
            try:
                if not response.has_redirect_location:
                    return await _read_file(response, url, max_bytes)
                url = url.join(response.headers["Location"])
            finally:
                await response.aclose()
        raise _refused("there are too many redirects")

    async def _get(self, url: httpx.URL, credentials: MediaCredentials | None) -> httpx.Response:
        """Request a URL from the first of its addresses that accepts a connection."""
        failure: Exception | None = None
        headers = credentials.headers if credentials else {}
        # The operator has configured this origin as that of a provider.
        is_trusted = self._allow_private or credentials is not None
        for address in await self._permitted_addresses(url, is_trusted=is_trusted):
            request = httpx.Request(
                "GET",
                url.copy_with(host=address),
                headers={**_HEADERS, **headers, "Host": url.netloc.decode("ascii")},
                extensions={"sni_hostname": url.raw_host.decode("ascii"), "timeout": _TIMEOUT.as_dict()},
            )
            try:
                return await self._transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
                failure = exc
        raise failure or OSError("its host has no address")

    async def _permitted_addresses(self, url: httpx.URL, *, is_trusted: bool) -> Sequence[str]:
        if url.scheme not in {"http", "https"} or not url.host or url.userinfo:
            raise _refused("its URL is not a plain http or https URL")
        port = url.port or (443 if url.scheme == "https" else 80)
        addresses = await self._look_up(url.raw_host.decode("ascii"), port)
        if not is_trusted and not (port in PUBLIC_PORTS and all(map(is_public, addresses))):
            raise _refused("it is not on the public internet")
        return list(dict.fromkeys(addresses))


def _are_for(credentials: MediaCredentials | None, url: httpx.URL) -> bool:
    return credentials is not None and _origin_of(url) == _origin_of(httpx.URL(credentials.url))


def _origin_of(url: httpx.URL) -> tuple[str, str, int | None]:
    """Return the scheme, the host and the port of a URL (RFC 6454)."""
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


async def _read_file(response: httpx.Response, url: httpx.URL, max_bytes: int) -> File:
    status = response.status_code
    if response.is_server_error or status in _TEMPORARY:
        detail = "an attachment is temporarily unavailable"
        raise TemporaryError(code_of(status), detail, status_code=status)
    if not response.is_success or status == HTTPStatus.PARTIAL_CONTENT:  # no part of it was requested
        raise RejectedError(code_of(status), "an attachment is not available", status_code=status)
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and float(length) > max_bytes:
        raise _too_large(max_bytes)
    content = bytearray()
    gzip = _gzip_decoder(response.headers.get("Content-Encoding", "identity"))
    async for chunk in response.aiter_raw():
        limit = max_bytes + 1 - len(content)
        content += gzip(chunk, limit) if gzip else chunk[:limit]
        if len(content) > max_bytes:
            raise _too_large(max_bytes)
    if gzip and gzip.is_cut_off:
        raise TemporaryError("attachment_unreachable", "an attachment was cut off")
    type_ = media_type_of(response.headers.get("Content-Type", ""))
    return File(file_name(response.headers.get("Content-Disposition", ""), url, type_), type_, bytes(content))


def code_of(status: int) -> str:
    """Return the code of a failure. It labels a metric, so a server must not be able to invent others."""
    return f"attachment_http_{status}" if status in _KNOWN_STATUSES else "attachment_http_error"


def _gzip_decoder(encoding: str) -> "_GzipDecoder | None":
    match encoding.strip().lower():
        case "identity" | "":
            return None
        case "gzip" | "x-gzip":
            return _GzipDecoder()
    raise _refused("its content encoding is not supported")


class _GzipDecoder:
    """Decodes chunks, each up to a number of bytes. The content may have several members (RFC 1952)."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(wbits=31)
        self._is_empty = True

    @property
    def is_cut_off(self) -> bool:
        """Whether the content is incomplete, as if the server had stopped in the middle."""
        return not (self._decoder.eof or self._is_empty)

    def __call__(self, chunk: bytes, limit: int) -> bytes:
        self._is_empty = False
        content = b""
        try:
            while chunk and len(content) < limit:
                if self._decoder.eof:
                    chunk = chunk.lstrip(b"\0")
                    if not chunk.startswith(_GZIP_MAGIC):
                        break  # like gzip, ignore whatever follows the last member
                    self._decoder = zlib.decompressobj(wbits=31)
                content += self._decoder.decompress(chunk, limit - len(content))
                chunk = self._decoder.unused_data
        except zlib.error as exc:
            raise _refused("its server declares gzip, but the content is not gzip data") from exc
        return content


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


def _too_large(max_bytes: int) -> RejectedError:
    return RejectedError(TOO_LARGE, f"an attachment is larger than {max_bytes} bytes")


def _refused(reason: str) -> RejectedError:
    return RejectedError("attachment_refused", f"an attachment was not fetched: {reason}")
