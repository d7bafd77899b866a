"""The connection to NATS, which outlives any outage of the server."""

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
"""A server that hangs is given up after this many unanswered pings."""

REQUEST_TIMEOUT = 4.0
"""Seconds that JetStream has to answer a request."""


class Bus:
    """A connection that is made in the background, and made again whenever it is lost.

    A service therefore starts while NATS is away and says so in `/readyz`, instead of dying.
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
        """The present connection.

        Raises:
            BusUnavailableError: there is none.
        """
        if self._client is None or not self.is_connected:
            raise BusUnavailableError("NATS is not connected")
        return self._client

    @property
    def jetstream(self) -> JetStreamContext:
        """JetStream over the present connection; raises like `client`."""
        if self._jetstream is None or not self.is_connected:
            raise BusUnavailableError("NATS is not connected")
        return self._jetstream

    @property
    def connected_for(self) -> timedelta:
        """How long the present connection has been there; meaningless without one."""
        return timedelta(seconds=monotonic() - self._up_since)

    async def until_connected(self) -> None:
        await self._up.wait()

    async def until_lost(self) -> None:
        await self._down.wait()

    async def keep_connected(self, servers: list[str], name: str) -> None:
        """Connect, and connect anew should the client ever give up; ends by cancellation only."""
        complaints = _Complaints()
        try:
            while True:
                try:
                    await self._run_client(servers, name, complaints)
                except (nats.errors.Error, OSError, TimeoutError) as exc:
                    complaints.report(exc)
                await asyncio.sleep(_RECONNECT_PAUSE)
        finally:
            self._mark_down()

    async def _run_client(self, servers: list[str], name: str, complaints: "_Complaints") -> None:
        closed = asyncio.Event()

        async def on_error(exc: Exception) -> None:
            complaints.report(exc)

        async def on_disconnected() -> None:
            if self._up.is_set():  # and not because we close it
                _log.warning("nats_disconnected")
            self._mark_down()

        async def on_reconnected() -> None:
            self._mark_up()
            complaints.forget()
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
                # Without a connection nothing is kept for later: its publisher is told that it failed.
                pending_size=0,
                error_cb=on_error,
                disconnected_cb=on_disconnected,
                reconnected_cb=on_reconnected,
                closed_cb=on_closed,
            )
            self._client = client
            self._jetstream = client.jetstream(timeout=REQUEST_TIMEOUT)
            self._mark_up()
            complaints.forget()
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


class _Complaints:
    """Logs an error of the connection once, not at every attempt."""

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
    """Connect to NATS in the background, and close when left.

    Args:
        url: one server, or several of a cluster separated by commas; `nats://user:password@host:port`.
        name: of the service; shown in the server's reports, and the prefix of its inboxes.
    """
    bus = Bus()
    servers = [server.strip() for server in url.split(",")]
    connecting = asyncio.create_task(bus.keep_connected(servers, name))
    try:
        yield bus
    finally:
        # Again, until it ends: wait_for of Python 3.11, which the client uses, can lose a cancellation.
        while not connecting.done():
            connecting.cancel()
            await asyncio.wait({connecting}, timeout=0.5)
