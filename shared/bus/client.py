"""The connection to NATS, which survives any outage of the server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from time import monotonic

import nats.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext

from shared.errors import BusUnavailableError

_log = structlog.get_logger()

_CONNECT_TIMEOUT = 2
_RECONNECT_PAUSE = 1
_PING_INTERVAL = 1
_MAX_PINGS_OUT = 3
"""The connection to a server that hangs is closed after this many unanswered pings."""

REQUEST_TIMEOUT = 4.0
"""Seconds within which JetStream has to respond to a request."""


class Bus:
    """A connection that is established in the background, and again whenever it is lost.

    A service can therefore start while NATS is down. It reports that in `/readyz`.
    """

    def __init__(self) -> None:
        self._client: Client | None = None
        self._jetstream: JetStreamContext | None = None
        self._up = asyncio.Event()
        self._up_since = monotonic()
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

    async def until_lost(self) -> None:
        await self._down.wait()

    async def keep_connected(self, servers: list[str], name: str) -> None:
        """Stay connected until the task is cancelled, even if the client stops trying."""
        errors = _ErrorLog()
        try:
            while True:
                try:
                    await self._run_client(servers, name, errors)
                except (nats.errors.Error, OSError, TimeoutError) as exc:
                    errors.report(exc)
                await asyncio.sleep(_RECONNECT_PAUSE)
        finally:
            self._mark_down()

    async def _run_client(self, servers: list[str], name: str, errors: "_ErrorLog") -> None:
        closed = asyncio.Event()

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

        client = Client()
        try:
            await client.connect(
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
            self._client = client
            self._jetstream = client.jetstream(timeout=REQUEST_TIMEOUT)
            self._mark_up()
            errors.forget()
            _log.info("nats_connected")
            await closed.wait()
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
        url: `nats://user:password@host:port`, or several servers of a cluster separated by commas.
        name: the name of the service; the server shows it, and the names of inboxes begin with it.
    """
    bus = Bus()
    servers = [server.strip() for server in url.split(",")]
    connecting = asyncio.create_task(bus.keep_connected(servers, name))
    try:
        yield bus
    finally:
        # More than once, since wait_for in Python 3.11, which the client uses, can swallow a cancellation.
        while not connecting.done():
            connecting.cancel()
            await asyncio.wait({connecting}, timeout=0.5)
