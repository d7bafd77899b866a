"""The limits of the HTTP server, which hold before anything is known about a client.

uvicorn limits neither the size of headers nor the time that a request takes to arrive. `HttpProtocol` adds
these limits, and answers requests that would be too many at once. It never refuses a new connection because
others hold too much: the one that has been without a complete request for the longest time has to make room.
"""

import asyncio
import json
import resource
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from time import monotonic
from typing import Any, cast

import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from shared.observability.metrics import HTTP_REFUSED

MAX_IN_PROGRESS = 256
MIN_IN_PROGRESS = 64
"""The bounds of the number of requests of a kind that are handled at the same time."""

TARGET = 0.5
"""Seconds that a request should take at most; if requests take longer, fewer are handled at the same time."""

MAX_CONNECTIONS = 8_192

MAX_HEAD = 64 * 1024
"""Bytes of the request line and the headers."""

MAX_UNFINISHED = 64 * 1024 * 1024
"""Bytes of all bodies that have begun to arrive and are not complete."""

LARGE = 256 * 1024
MAX_LARGE = 30 * 1024 * 1024
"""Bytes. While the complete bodies of more than `LARGE` bytes have `MAX_LARGE` bytes or more, no more is read
of other such bodies."""

TICK = 10.0
"""Seconds that the headers of a request may take, and between checks that a body or a response advances."""

MIN_PROGRESS = 10 * 1024
"""Bytes of a body or a response that must be transferred in each `TICK`."""

_SMALL_BODY = 16 * 1024
"""Bytes. A request with such a body is handled only once it is complete."""

_MAX_DIGITS = 9
"""Of the length of a body that is small, including leading zeros."""

_SEPARATORS = len(b": \r\n")
_MAX_PIPELINED = 16
_RETRY_AFTER = 2
_GRACE_SECONDS = 5

_RESUME_EVERY = 0.01
_RESUMED_AT_ONCE = 30
"""A connection whose request was shed is not read until its turn: so many are read again every
`_RESUME_EVERY` seconds, or less often if the event loop is busy. Clients that repeat their requests at once
would otherwise use up all CPU time."""

_POOL = "messaging.pool"
_WEBHOOKS = "/api/webhooks/"
_METRICS = "/metrics"
_OPERATIONS = {"/healthz", "/readyz", _METRICS}


class Pool:
    """The requests of a kind that are in progress, and how many there may be."""

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
    """The outermost layer of an application, and what all connections of the server have in common.

    Reads, webhooks and other requests have pools of their own: a database that does not answer must not keep
    messages from being accepted, and nobody repeats some of the webhooks.

    Args:
        app: the application.
        private_port: a port that strangers cannot reach. It alone serves the metrics, and health checks and
            scrapes there are never shed.

    Attributes:
        unfinished: the connections that have no complete request; the first has waited for the longest time.
        receiving: those of them whose body has begun to arrive.
        unfinished_bytes: the bytes of these bodies.
    """

    def __init__(self, app: ASGIApp, private_port: int | None = None) -> None:
        self._app = app
        self._private_port = private_port
        self._reads, self._webhooks, self._others = Pool(), Pool(), Pool()
        self._paused: deque[HttpProtocol] = deque()
        self._resumed: list[HttpProtocol] = []
        self.unfinished: OrderedDict[HttpProtocol, None] = OrderedDict()
        self.receiving: OrderedDict[HttpProtocol, None] = OrderedDict()
        self.unfinished_bytes = 0
        self._large_bytes = 0
        self._has_room = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        app = _NOT_FOUND if self._hides(scope) else self._app
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
        """Add to the bytes of complete large bodies that are held by requests in progress."""
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
        elif scope["method"] == "GET":
            pool = self._reads
        else:
            pool = self._others
        is_exempt = is_private and path in _OPERATIONS
        if not is_exempt and (pool.is_full or (is_stale and pool is not self._webhooks)):
            return False
        pool.in_progress += is_complete
        scope[_POOL] = pool, is_complete, monotonic()
        return True

    def pause(self, connection: "HttpProtocol") -> None:
        """Do not read a connection until it is its turn."""
        connection.flow.pause_reading()
        if not (self._paused or self._resumed):
            connection.loop.call_later(_RESUME_EVERY, self._resume, connection.loop)
        self._paused.append(connection)

    def _resume(self, loop: asyncio.AbstractEventLoop) -> None:
        # What had already arrived has been read since the last time.
        for connection in self._resumed:
            connection.is_stale = False
        self._resumed = [self._paused.popleft() for _ in range(min(_RESUMED_AT_ONCE, len(self._paused)))]
        for connection in self._resumed:
            connection.resume()
        if self._resumed:
            loop.call_later(_RESUME_EVERY, self._resume, loop)


class _Request:
    """A request that is being handled.

    While it waits for its client, which sends its body or reads the response slowly, it is not in progress.
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
        since = monotonic()
        self._pool.in_progress -= 1
        try:
            yield
        finally:
            self._pool.in_progress += 1
            self._begun_at += monotonic() - since

    def end(self) -> None:
        self._pool.in_progress -= 1
        self._pool.observe(monotonic() - self._begun_at)
        self._admission.hold(-self._held)


class HttpProtocol(HttpToolsProtocol):
    """A connection. Its application is an `Admission`.

    Attributes:
        is_stale: whether the request that is read next may have arrived long ago, while nothing was read.
    """

    _admission: Admission

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as its base
        super().connection_made(transport)
        self._admission = cast("Admission", self.app)
        self._is_private = self._admission.is_private(self.server)
        self._timer: asyncio.TimerHandle | None = None
        self._postponed: RequestResponseCycle | None = None
        self._is_in_head = True
        self._unparsed = 0
        self._body_bytes = 0
        self._progress = 0
        self._written = 0
        self.is_stale = False
        self._arm()
        if len(self.connections) > MAX_CONNECTIONS and not self._is_private:
            self._make_room()
        self._admission.unfinished[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._release_body()
        self._admission.unfinished.pop(self, None)
        self._postponed = None
        super().connection_lost(exc)

    # --- Receiving

    def data_received(self, data: bytes) -> None:
        self._unparsed += len(data)
        super().data_received(data)
        if self._timer is None and (self._unparsed > 0 or not self._is_in_head):
            self._arm()  # a request has begun, and is not complete
        # Headers, trailers and chunk extensions are collected by the parser and would be of any size.
        if self._unparsed > MAX_HEAD and self.parser is not None:
            self.refuse(431, "headers_too_large", f"The headers are larger than {MAX_HEAD} bytes")

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) + _SEPARATORS for name, value in self.headers)
        if size > MAX_HEAD:
            self.refuse(431, "headers_too_large", f"The headers are larger than {MAX_HEAD} bytes")
        if len(self.pipeline) >= _MAX_PIPELINED:
            self.refuse(503, "overloaded", "Too many requests were sent without waiting for a response")
        if self.transport.is_closing():
            raise ConnectionAbortedError  # stops the parser
        self._is_in_head = False
        self._unparsed = self._progress = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        self._progress += len(body)
        super().on_body(body)
        if self.cycle.response_complete or self.transport.is_closing():
            return
        admission = self._admission
        self._body_bytes += len(body)
        admission.unfinished_bytes += len(body)
        admission.receiving.setdefault(self, None)
        while admission.unfinished_bytes > MAX_UNFINISHED:
            oldest = next(iter(admission.receiving))
            oldest.refuse(503, "overloaded", "Too many requests are being received at the moment")

    def on_message_complete(self) -> None:
        self._is_in_head = True
        self._unparsed = 0
        self._disarm()
        self._release_body()
        self._admission.unfinished.pop(self, None)
        super().on_message_complete()
        if cycle := self._postponed:
            self._postponed = None
            self._start_asgi_task(cycle, self.app)
        elif self.cycle.response_complete:  # it was refused before its body had arrived
            self._admission.unfinished[self] = None
            self._arm()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401 - as its base
        if cycle.more_body and self._is_small(cycle):
            self._postponed = cycle
        elif self._admission.admits(
            cast("Scope", cycle.scope),
            is_complete=not cycle.more_body,
            is_private=self._is_private,
            is_stale=self.is_stale,
        ):
            super()._start_asgi_task(cycle, app)
        else:
            self._shed(cycle)

    @staticmethod
    def _is_small(cycle: RequestResponseCycle) -> bool:
        if cycle.waiting_for_100_continue:
            return False
        headers = dict(cycle.scope["headers"])
        length = headers.get(b"content-length", b"0")
        # The parser refuses a length that is not a number, and headers with both.
        return (
            b"transfer-encoding" not in headers and len(length) <= _MAX_DIGITS and int(length) <= _SMALL_BODY
        )

    # --- Refusing

    def _shed(self, cycle: RequestResponseCycle) -> None:
        """Answer a request without handling it, as cheaply as possible."""
        _SHED.inc()
        response = _OVERLOADED if cycle.keep_alive else _OVERLOADED_LAST
        if cycle.scope["method"] == "HEAD":
            response = response.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        self.transport.write(response)
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()
        if not self.pipeline and not self.transport.is_closing():
            self._admission.pause(self)

    def resume(self) -> None:
        """Read again after a request was shed."""
        if not self.transport.is_closing():
            self.is_stale = True
            self.flow.resume_reading()

    def refuse(self, status: int, code: str, detail: str) -> None:
        """Refuse what has arrived of a request, and close the connection."""
        if self.transport.is_closing():
            return
        HTTP_REFUSED.labels(code).inc()
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete or not (self._is_in_head or cycle.response_started):
            self.transport.write(_problem(status, code, detail, is_last=True))
        self._abandon()
        self.transport.close()
        self._arm()  # in case the client does not read the answer

    def send_400_response(self, msg: str) -> None:
        self.refuse(400, "malformed_request", msg)

    def _abandon(self) -> None:
        """Tell the application, if it has begun to handle the request, that there will be no more of it."""
        self._postponed = None
        self._release_body()
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()

    def _make_room(self) -> None:
        HTTP_REFUSED.labels("too_many_connections").inc()
        unfinished = self._admission.unfinished
        oldest = unfinished.popitem(last=False)[0] if unfinished else self
        oldest.transport.abort()

    def _release_body(self) -> None:
        self._admission.unfinished_bytes -= self._body_bytes
        self._body_bytes = 0
        self._admission.receiving.pop(self, None)

    # --- Time

    def on_response_complete(self) -> None:
        self._release_body()
        self._admission.unfinished[self] = None
        super().on_response_complete()
        if self.transport.is_closing():
            self._arm()  # in case the client does not read the response

    def timeout_keep_alive_handler(self) -> None:
        self.transport.abort()  # `close` would wait for a client that does not read

    def pause_writing(self) -> None:
        super().pause_writing()
        self._written = self.transport.get_write_buffer_size()
        self._arm()

    def resume_writing(self) -> None:
        self._disarm()
        if not self._is_in_head or self.transport.is_closing():
            self._arm()
        super().resume_writing()

    def _arm(self) -> None:
        self._disarm()
        self._timer = self.loop.call_later(TICK, self._on_tick)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_tick(self) -> None:
        self._timer = None
        if self.flow.write_paused:
            left = self.transport.get_write_buffer_size()
            advances = left <= self._written - MIN_PROGRESS
            self._written = left
        else:
            is_receiving = not self._is_in_head and not self.cycle.response_complete
            advances = is_receiving and (self._progress >= MIN_PROGRESS or self.flow.read_paused)
            self._progress = 0
        if advances and not self.transport.is_closing():
            self._arm()
        elif self._is_in_head or self.transport.is_closing() or self.cycle.response_started:
            HTTP_REFUSED.labels("too_slow").inc()
            self.transport.abort()
        else:
            # Not 408, because SendGrid discards an e-mail if the answer is any 4xx.
            self.refuse(503, "body_timeout", "The body did not arrive in time")


def config_of(app: Admission) -> uvicorn.Config:
    """Return the configuration of a server whose connections are limited."""
    return uvicorn.Config(
        app,
        http=HttpProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # nothing depends on the client's address
        timeout_graceful_shutdown=_GRACE_SECONDS,
        timeout_keep_alive=30,
    )


def raise_descriptor_limit() -> None:
    """Allow the process as many descriptors as the system permits, up to what `MAX_CONNECTIONS` needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _problem(status: int, code: str, detail: str, *, is_last: bool) -> bytes:
    """Return a whole response with a problem document."""
    body = _problem_body(status, code, detail)
    head = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"content-type: {_PROBLEM_TYPE}",
        f"content-length: {len(body)}",
        *([f"retry-after: {_RETRY_AFTER}"] if status == HTTPStatus.SERVICE_UNAVAILABLE else []),
        *(["connection: close"] if is_last else []),
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def _problem_body(status: int, code: str, detail: str) -> bytes:
    """Return a problem document like those of the gateway."""
    content = {
        "type": f"urn:messaging:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "errors": [],
    }
    return json.dumps(content).encode()


_SHED = HTTP_REFUSED.labels("overloaded")
_PROBLEM_TYPE = "application/problem+json"
_NOT_FOUND = Response(_problem_body(404, "not_found", "Not Found"), 404, media_type=_PROBLEM_TYPE)
_DETAIL = "Too many requests are in progress. Nothing was accepted; try again later."
_OVERLOADED = _problem(503, "overloaded", _DETAIL, is_last=False)
_OVERLOADED_LAST = _problem(503, "overloaded", _DETAIL, is_last=True)
