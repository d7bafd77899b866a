"""The connection to NATS, which survives any outage of the server."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, TypeVar

import nats.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext

from shared import supervision
from shared.bus.direct_get import Answer, direct_get
from shared.errors import BusUnavailableError

_log = structlog.get_logger()

_CONNECT_TIMEOUT = 2
_RECONNECT_PAUSE = 1
_PING_INTERVAL = 1
_MAX_PINGS_OUT = 3
"""The connection to a server that hangs is closed after this many unanswered pings."""

REQUEST_TIMEOUT = 4.0
"""Seconds within which JetStream has to respond to a request."""

_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC)
"""NATS counts nanoseconds in 64 bits: it takes the year 2263 for 1678."""

T = TypeVar("T")


class Bus:
    """A connection that is established in the background, and again whenever it is lost.

    A service can therefore start while NATS is down. It reports that in `/readyz`.
    """

    def __init__(self) -> None:
        self._client: Client | None = None
        self._jetstream: JetStreamContext | None = None
        self._up = asyncio.Event()
        self._up_since = monotonic()
        self._closed = asyncio.Event()
        self._down = asyncio.Event()
        self._down.set()

    @property
    def is_connected(self) -> bool:
        return self._client is not None and self._client.is_connected and self._up.is_set()

    @property
    def client(self) -> Client:
        """The current connection.

        Raises:
            BusUnavailableError: there is none.
        """
        if self._client is None or not self.is_connected:
            raise BusUnavailableError("NATS is not connected")
        return self._client

    @property
    def jetstream(self) -> JetStreamContext:
        """JetStream over the current connection; it raises the same errors as `client`."""
        if self._jetstream is None or not self.is_connected:
            raise BusUnavailableError("NATS is not connected")
        return self._jetstream

    @property
    def connected_for(self) -> timedelta:
        """The age of the current connection; meaningless if there is none."""
        return timedelta(seconds=monotonic() - self._up_since)

    async def until_connected(self) -> None:
        await self._up.wait()

    def reconnect(self) -> None:
        """Replace the connection, of which a part seems to have failed."""
        _log.warning("nats_unresponsive")
        self._closed.set()

    async def until_lost(self) -> None:
        await self._down.wait()

    async def unless_lost(self, request: Coroutine[None, None, T]) -> T:
        """Await a response, or raise as soon as it can no longer arrive because the connection was lost.

        Raises:
            BusUnavailableError: the connection was lost.
        """
        answer = asyncio.ensure_future(request)
        lost = asyncio.ensure_future(self.until_lost())
        try:
            await asyncio.wait({answer, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise BusUnavailableError("the connection to NATS was lost before it responded")
            return answer.result()
        finally:
            lost.cancel()
            answer.cancel()

    async def last_messages(self, stream: str, subjects: Sequence[str]) -> Answer:
        """Return the last message of each subject that has one; there may be up to 1,024 subjects.

        Raises:
            BusUnavailableError: NATS does not respond.
        """
        if len(subjects) == 1:
            return await self._direct_get(stream, {"last_by_subj": subjects[0]})
        return await self._direct_get(stream, {"multi_last": list(subjects)})

    async def next_messages(self, stream: str, first: int, *, count: int, subject: str) -> Answer:
        """Return up to `count` messages of a subject, which may contain wildcards, from sequence `first` on.

        Raises:
            BusUnavailableError: NATS does not respond.
        """
        return await self._direct_get(stream, {"seq": first, "batch": count, "next_by_subj": subject})

    async def messages_since(self, stream: str, since: datetime, *, count: int, subject: str) -> Answer:
        """Return up to `count` messages of a subject that were stored since a time.

        Raises:
            BusUnavailableError: NATS does not respond.
        """
        start = min(max(since, _EARLIEST), _LATEST).astimezone(UTC).isoformat().replace("+00:00", "Z")
        return await self._direct_get(stream, {"start_time": start, "batch": count, "next_by_subj": subject})

    async def _direct_get(self, stream: str, request: Mapping[str, object]) -> Answer:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                return await self.unless_lost(direct_get(self.client, stream, request))
        except (nats.errors.Error, TimeoutError, OSError) as exc:
            raise BusUnavailableError(f"{stream}: {exc!r}") from exc

    async def keep_connected(self, servers: list[str], name: str) -> None:
        """Stay connected until the task is cancelled, even if the client stops trying."""
        errors = _ErrorLog()
        try:
            while True:
                supervision.beat()
                try:
                    await self._run_client(servers, name, errors)
                except (nats.errors.Error, OSError, TimeoutError) as exc:
                    errors.report(exc)
                await asyncio.sleep(_RECONNECT_PAUSE)
        finally:
            self._mark_down()

    async def _run_client(self, servers: list[str], name: str, errors: "_ErrorLog") -> None:
        self._closed = closed = asyncio.Event()

        async def on_error(exc: Exception) -> None:
            errors.report(exc)

        async def on_disconnected() -> None:
            if self._up.is_set():  # otherwise we are closing the connection ourselves
                _log.warning("nats_disconnected")
            self._mark_down()

        async def on_reconnected() -> None:
            self._mark_up()
            errors.forget()
            _log.info("nats_reconnected")

        async def on_closed() -> None:
            closed.set()

        client = _Client()
        try:
            connecting = client.connect(
                servers,
                name=name,
                inbox_prefix=f"_INBOX_{name}".encode(),
                connect_timeout=_CONNECT_TIMEOUT,
                reconnect_time_wait=_RECONNECT_PAUSE,
                max_reconnect_attempts=-1,
                ping_interval=_PING_INTERVAL,
                max_outstanding_pings=_MAX_PINGS_OUT,
                # Without a connection nothing is buffered, so that publishing fails at once.
                pending_size=0,
                error_cb=on_error,
                disconnected_cb=on_disconnected,
                reconnected_cb=on_reconnected,
                closed_cb=on_closed,
            )
            await supervision.patiently(connecting)
            self._client = client
            self._jetstream = client.jetstream(timeout=REQUEST_TIMEOUT)
            self._mark_up()
            errors.forget()
            _log.info("nats_connected")
            await supervision.patiently(closed.wait())
        finally:
            self._mark_down()
            with suppress(nats.errors.Error, OSError, TimeoutError):
                await asyncio.wait_for(client.close(), timeout=2)

    def _mark_up(self) -> None:
        self._up_since = monotonic()
        self._down.clear()
        self._up.set()

    def _mark_down(self) -> None:
        self._up.clear()
        self._down.set()


def parse_headers(raw: bytes) -> dict[str, str]:
    """Return the headers of a message, like the library, but without looking at each character of a name."""
    headers: dict[str, str] = {}
    for line in raw.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        name = name.strip()
        if colon and name.isascii() and len(name.split(maxsplit=1)) == 1:
            headers[name.decode()] = value.strip().decode(errors="replace")
    return headers


class _Client(Client):
    """A client that never speaks to a server in the clear if its URL begins with `tls://`.

    The library encrypts a connection only if the server asks for it, so anybody who can pose as the server
    could read the password. It also takes twice as long to parse headers.
    """

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:  # noqa: FBT001, FBT002 - as in the library
        server = self._current_server
        if initial_connection and server and server.uri.scheme == "tls" and not info.get("tls_required"):
            raise nats.errors.Error(f"{server.uri.hostname} does not offer TLS")
        await super()._process_info(info, initial_connection)

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        return parse_headers(raw)


class _ErrorLog:
    """Logs an error of the connection once, and not after each attempt."""

    def __init__(self) -> None:
        self._last = ""

    def report(self, exc: Exception) -> None:
        text = str(exc) or type(exc).__name__
        if text != self._last:
            _log.warning("nats_error", error=text)
        self._last = text

    def forget(self) -> None:
        self._last = ""


@asynccontextmanager
async def connect(url: str, *, name: str) -> AsyncIterator[Bus]:
    """Connect to NATS in the background for the duration of the block.

    Args:
        url: `nats://user:password@host:port`, or `tls://…` to refuse connections that are not encrypted;
            several servers of a cluster are separated by commas.
        name: the name of the service; the server shows it, and the names of inboxes begin with it.
    """
    bus = Bus()
    servers = [server.strip() for server in url.split(",")]
    connecting = supervision.supervise("nats", bus.keep_connected(servers, name))
    try:
        yield bus
    finally:
        supervision.release(connecting)
        # More than once, since wait_for in Python 3.11, which the client uses, can swallow a cancellation.
        while not connecting.done():
            connecting.cancel()
            await asyncio.wait({connecting}, timeout=0.5)
