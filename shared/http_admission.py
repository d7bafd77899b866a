"""Decides which requests are handled now, which are refused, and whose bodies are read."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Protocol

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.http_problems import PROBLEM_TYPE, problem_document
from shared.request_ids import HEADER, request_id_of

MAX_IN_PROGRESS = 256
MIN_IN_PROGRESS = 64
"""The bounds of the number of requests of a kind that are handled at the same time."""

TARGET = 0.5
"""Seconds that a request should take at most; if requests take longer, fewer are handled at the same time."""

LARGE = 256 * 1024
MAX_LARGE = 30 * 1024 * 1024
"""Bytes. While complete bodies that are larger than `LARGE` have `MAX_LARGE` bytes or more in total, no other
such body is read any further."""

_RESUME_EVERY = 0.01
_RESUMED_AT_ONCE = 30
"""A connection whose request was shed is not read until its turn: this many connections are read again every
`_RESUME_EVERY` seconds, or less often if the event loop is busy. Clients that repeat their requests at once
would otherwise use up all CPU time.

Turns alternate between the connection that was paused last and the one that was paused first. The request of
the former is fresh, so that free places are used at once; the latter gets at least a response."""

_STALE_AFTER = 0.1
"""Seconds. A request that may have waited unread for longer is shed again, because its client may have given
up."""

_POOL = "messaging.pool"
_WEBHOOKS = ("/api/webhooks/", "/api/v1/webhooks/")
_METRICS = "/metrics"
_OPERATIONS = {"/healthz", "/readyz", _METRICS}
_READS = {"GET", "HEAD"}


class Connection(Protocol):
    """A connection of a client.

    Attributes:
        is_stale: whether the next request may have waited unread for too long.
    """

    is_stale: bool

    def suspend(self) -> None:
        """Read no more until `resume` is called."""

    def resume(self) -> None:
        """Read again after a request was shed."""

    def refuse(self, status: int, code: str, detail: str) -> None:
        """Refuse a request that has arrived in part, and close the connection."""

    def abort(self) -> None:
        """Close the connection at once."""


class Pool:
    """The requests of one kind that are in progress, and the limit on their number."""

    def __init__(self) -> None:
        self.in_progress = 0
        self.limit = float(MAX_IN_PROGRESS)

    @property
    def is_full(self) -> bool:
        return self.in_progress >= self.limit

    def observe(self, seconds: float) -> None:
        """Adjust the limit to the time that a request took."""
        change = -1 if seconds > TARGET else 0.25
        self.limit = min(max(self.limit + change, MIN_IN_PROGRESS), MAX_IN_PROGRESS)


class Admission:
    """The outermost layer of an application, and the state that all connections of the server share.

    Reads, webhooks and other requests have pools of their own: a database that does not answer must not keep
    messages from being accepted, and some webhooks are never repeated.

    Args:
        app: the application.
        private_port: a port that strangers cannot reach. It alone serves the metrics, and health checks and
            scrapes there are never shed.

    Attributes:
        unfinished: the connections that have no complete request, starting with the one that has had none
            for the longest time.
        receiving: those of them whose body has begun to arrive.
        unfinished_bytes: the bytes of these bodies.
    """

    def __init__(self, app: ASGIApp, private_port: int | None = None) -> None:
        self._app = app
        self._private_port = private_port
        self._reads, self._webhooks, self._others = Pool(), Pool(), Pool()
        self._paused: OrderedDict[Connection, float] = OrderedDict()
        self._resumed: list[Connection] = []
        self.unfinished: OrderedDict[Connection, None] = OrderedDict()
        self.receiving: OrderedDict[Connection, None] = OrderedDict()
        self.unfinished_bytes = 0
        self._large_bytes = 0
        self._has_room = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        app = _hidden if self._hides(scope) else self._app
        request = _Request(self, receive, send, *scope[_POOL])
        try:
            await app(scope, request.receive, request.send)
        finally:
            request.end()

    async def wait_for_room(self) -> None:
        """Wait until the complete large bodies leave room for others to be read."""
        while self._large_bytes >= MAX_LARGE:
            self._has_room.clear()
            await self._has_room.wait()

    def hold(self, size: int) -> None:
        """Add a size, which may be negative, to that of the complete large bodies in progress."""
        self._large_bytes += size
        self._has_room.set()

    def _hides(self, scope: Scope) -> bool:
        return (
            self._private_port is not None
            and scope["path"] == _METRICS
            and not self.is_private(scope.get("server"))
        )

    def is_private(self, address: tuple[str, int | None] | None) -> bool:
        """Return whether an address of the server has the private port."""
        return address is not None and address[1] == self._private_port

    def admits(self, scope: Scope, *, is_complete: bool, is_private: bool, is_stale: bool) -> bool:
        """Return whether one more request can be handled now.

        It is counted at once rather than when its task begins, unless it will first wait for its body.
        """
        path = scope["path"]
        if path.startswith(_WEBHOOKS):
            pool = self._webhooks
        elif scope["method"] in _READS:
            pool = self._reads
        else:
            pool = self._others
        is_exempt = is_private and path in _OPERATIONS
        if not is_exempt and (pool.is_full or (is_stale and pool is not self._webhooks)):
            return False
        pool.in_progress += is_complete
        scope[_POOL] = pool, is_complete, monotonic()
        return True

    def pause(self, connection: Connection) -> None:
        """Stop reading a connection until its turn."""
        connection.suspend()
        if not (self._paused or self._resumed):
            self._resume_later()
        self._paused.setdefault(connection, monotonic())

    def forget_pause(self, connection: Connection) -> None:
        """Give up the turn of a connection, if it has one: it is closed, or is read for another reason."""
        self._paused.pop(connection, None)

    def _resume_later(self) -> None:
        asyncio.get_running_loop().call_later(_RESUME_EVERY, self._resume)

    def _resume(self) -> None:
        # What had already arrived has been read since the last time.
        for connection in self._resumed:
            connection.is_stale = False
        now = monotonic()
        self._resumed = []
        for turn in range(min(_RESUMED_AT_ONCE, len(self._paused))):
            connection, paused_at = self._paused.popitem(last=turn % 2 == 0)
            connection.is_stale = now - paused_at > _STALE_AFTER
            connection.resume()
            self._resumed.append(connection)
        if self._resumed:
            self._resume_later()


class _Request:
    """A request that is being handled.

    While it waits for its client, which sends its body or reads the response slowly, it is not in progress.
    This includes streams, which wait for their client to disconnect; they have a limit of their own.
    """

    def __init__(
        self,
        admission: Admission,
        receive: Receive,
        send: Send,
        pool: Pool,
        is_counted: bool,  # noqa: FBT001 - from `admits`
        begun_at: float,
    ) -> None:
        self._admission = admission
        self._receive = receive
        self._send = send
        self._pool = pool
        self._begun_at = begun_at
        self._size = 0
        self._held = 0
        self._waits = 0
        self._waiting_since = begun_at
        pool.in_progress += not is_counted

    async def receive(self) -> Message:
        with self._waiting():
            if self._size > LARGE:
                await self._admission.wait_for_room()
            message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size > LARGE and not message.get("more_body") and not self._held:
            self._held = self._size
            self._admission.hold(self._held)
        return message

    async def send(self, message: Message) -> None:
        with self._waiting():
            await self._send(message)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        # A stream waits for its client to disconnect, and sends at the same time.
        self._waits += 1
        if self._waits == 1:
            self._waiting_since = monotonic()
            self._pool.in_progress -= 1
        try:
            yield
        finally:
            self._waits -= 1
            if self._waits == 0:
                self._pool.in_progress += 1
                self._begun_at += monotonic() - self._waiting_since

    def end(self) -> None:
        self._pool.in_progress -= 1
        self._pool.observe(monotonic() - self._begun_at)
        self._admission.hold(-self._held)


async def _hidden(scope: Scope, receive: Receive, send: Send) -> None:
    request_id = request_id_of(scope["headers"])
    content = problem_document(404, "not_found", "Not Found", request_id)
    response = JSONResponse(content, 404, {HEADER: request_id}, media_type=PROBLEM_TYPE)
    await response(scope, receive, send)
